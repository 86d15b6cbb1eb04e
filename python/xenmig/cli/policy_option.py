# SPDX-License-Identifier: GPL-3.0-or-later
"""``--policy``: from a name, a module or a file to a policy.

::

    libxc                            a built-in one downtime:ms=300                  a built-in one with its
    arguments module:Class   file.py:name      anybody's: a class is called with the --policy-arg, an instance
    or a plain
                                     function is taken as it is
    downtime:ms=300 | stop-after:rounds=30      combined, as in Python: & binds more tightly than |
"""

from __future__ import annotations

import ast
import functools
import importlib
import importlib.util
import inspect
import operator
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from xenmig.errors import PolicyError
from xenmig.policies import AbortAfter, DowntimeTarget, LibxcPolicy, StopAfter
from xenmig.policy import AllOf, AnyOf, check_policy

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from types import ModuleType

    from xenmig.policy import Policy

__all__ = ["BUILT_IN", "PolicyOptionError", "load_policy"]

BUILT_IN: dict[str, Callable[..., Policy]] = {
    "libxc": LibxcPolicy,
    "downtime": DowntimeTarget,
    "stop-after": StopAfter,
    "abort-after": AbortAfter,
}


class PolicyOptionError(ValueError):
    """``--policy`` or ``--policy-arg`` cannot be understood; the message says why."""


def load_policy(text: str, arguments: Sequence[str] = ()) -> Policy:
    """Returns the policy that `text` describes.

    Args:
        text: The value of ``--policy``.
        arguments: The values of ``--policy-arg``, each ``key=value``.

    Raises:
        PolicyOptionError: It describes no policy.
    """
    keywords = _keywords(arguments)
    if keywords and ("|" in text or "&" in text):
        raise PolicyOptionError("--policy-arg is for a single policy: write name:key=value in a combination")
    alternatives = []
    for alternative in text.split("|"):
        together = [_load_one(single.strip(), keywords) for single in alternative.split("&")]
        alternatives.append(together[0] if len(together) == 1 else AllOf(*together))
    return alternatives[0] if len(alternatives) == 1 else AnyOf(*alternatives)


def _load_one(text: str, keywords: dict[str, Any]) -> Policy:
    name, _, rest = text.partition(":")
    if name in BUILT_IN:
        return _call(name, BUILT_IN[name], _keywords(rest.split(",") if rest else ()) | keywords)
    where, _, attribute = text.rpartition(":")
    if not where or not attribute:
        known = ", ".join(BUILT_IN)
        raise PolicyOptionError(f"no policy {text!r}: give one of {known}, or module:Class, or file.py:name")
    found = _attribute(_load_module(where), where, attribute)
    if inspect.isclass(found):
        return _call(text, cast("Callable[..., object]", found), keywords)
    try:
        policy = check_policy(found)
    except PolicyError as error:
        raise PolicyOptionError(f"{text}: {error}") from None
    return cast("Policy", functools.partial(policy, **keywords)) if keywords else policy


def _call(name: str, make: Callable[..., object], keywords: dict[str, Any]) -> Policy:
    try:
        return check_policy(make(**keywords))
    except Exception as error:
        raise PolicyOptionError(f"{name}: {error}") from error


def _load_module(where: str) -> ModuleType:
    try:
        if where.endswith(".py"):
            return _load_file(Path(where).resolve())
        # As for python -m: modules of the working directory can be named.
        if "" not in sys.path and str(Path.cwd()) not in sys.path:
            sys.path.insert(0, str(Path.cwd()))
        return importlib.import_module(where)
    except Exception as error:
        raise PolicyOptionError(f"cannot load {where}: {type(error).__name__}: {error}") from error


def _load_file(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    if spec is None or spec.loader is None:
        raise ImportError(f"{path} is no Python file")
    module = importlib.util.module_from_spec(spec)
    # Dataclasses and pickle look a class's module up here.
    sys.modules.setdefault(path.stem, module)
    spec.loader.exec_module(module)
    return module


def _attribute(module: ModuleType, where: str, attribute: str) -> object:
    try:
        return operator.attrgetter(attribute)(module)
    except AttributeError:
        raise PolicyOptionError(f"{where} has no {attribute}") from None


def _keywords(arguments: Sequence[str]) -> dict[str, Any]:
    keywords: dict[str, Any] = {}
    for argument in arguments:
        key, equals, value = argument.partition("=")
        if not equals or not key.strip().isidentifier():
            raise PolicyOptionError(f"{argument!r} is no policy argument: write it as key=value")
        keywords[key.strip()] = _value(value.strip())
    return keywords


def _value(text: str) -> object:
    """Returns a Python literal's value, and any other text as it is."""
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text
