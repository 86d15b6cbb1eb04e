# SPDX-License-Identifier: GPL-3.0-or-later
"""The arguments that a policy was made with: kept when it is made, shown by its ``repr``, compared by ``==``.

:class:`~xenmig.BasePolicy` wraps the constructor of each class that derives from it, so a policy's author has
nothing to do for this. What a policy remembers between consults is not an argument and plays no part here.
"""

from __future__ import annotations

import functools
import inspect
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["arguments_of", "call_of", "keeping_arguments"]

_KEPT = "_policy_arguments"
"""Where an instance keeps them: in its ``__dict__``, so they are pickled and copied with it."""


def keeping_arguments(constructor: Callable[..., None]) -> Callable[..., None]:
    """Returns an ``__init__`` that does the same and keeps its arguments."""
    signature = inspect.signature(constructor)

    @functools.wraps(constructor)
    def __init__(self: object, /, *args: object, **kwargs: object) -> None:  # noqa: N807 - it becomes one
        constructor(self, *args, **kwargs)
        # A derived class that calls super().__init__() keeps its own arguments.
        most_derived: object = type(self).__init__
        if most_derived is __init__:
            vars(self)[_KEPT] = _bound(signature, self, args, kwargs)

    return __init__


def arguments_of(policy: object) -> dict[str, Any] | None:
    """Returns the arguments that a policy was made with, defaults included, by parameter.

    Further keyword arguments (``**kwargs``) are a sorted tuple of pairs. ``None`` means that they are not
    known: the class makes its own ``__init__`` by other means, as dataclasses do.
    """
    kept: dict[str, Any] | None = vars(policy).get(_KEPT)
    if kept is None and type(policy).__init__ is object.__init__:
        return {}
    return kept


def call_of(policy: object, arguments: dict[str, Any]) -> str:
    """Returns the call that makes a policy: ``Class(argument=value, ...)``. Defaults are left out."""
    name = type(policy).__qualname__.rpartition("<locals>.")[2]
    if not arguments:
        return f"{name}()"
    parameters = _parameters(inspect.signature(type(policy).__init__))
    has_rest = any(one.kind is one.VAR_POSITIONAL and arguments[one.name] for one in parameters)
    shown: list[str] = []
    for one in parameters:
        value = arguments[one.name]
        if one.kind is one.VAR_POSITIONAL:
            shown += map(repr, value)
        elif one.kind is one.VAR_KEYWORD:
            shown += (f"{key}={each!r}" for key, each in value)
        elif one.kind is one.POSITIONAL_ONLY or (has_rest and one.kind is one.POSITIONAL_OR_KEYWORD):
            shown.append(repr(value))
        elif one.default is one.empty or value != one.default:
            shown.append(f"{one.name}={value!r}")
    return f"{name}({', '.join(shown)})"


def _bound(
    signature: inspect.Signature, policy: object, args: tuple[object, ...], kwargs: dict[str, object]
) -> dict[str, Any] | None:
    try:
        bound = signature.bind(policy, *args, **kwargs)
    except TypeError:
        # A decorator of the constructor shows another signature than it takes.
        return None
    bound.apply_defaults()
    kept = {one.name: bound.arguments[one.name] for one in _parameters(signature)}
    for one in _parameters(signature):
        if one.kind is one.VAR_KEYWORD:
            kept[one.name] = tuple(sorted(kept[one.name].items()))
    return kept


def _parameters(signature: inspect.Signature) -> list[inspect.Parameter]:
    """Returns a constructor's parameters after ``self``."""
    return list(signature.parameters.values())[1:]
