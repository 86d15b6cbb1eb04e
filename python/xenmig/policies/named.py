# SPDX-License-Identifier: GPL-3.0-or-later
"""From a text to a policy: what ``xenmig demo --policy`` and the save helper's ``XENMIG_POLICY`` take.

::

    libxc                                      a built-in policy
    downtime:ms=300                            a built-in policy with its arguments
    module:Class   file.py:name                your own: a class is called with the arguments, an instance
                                               or a plain function is taken as it is
    "/srv/a|b.py":name                         a file whose name contains | or &
    downtime:ms=300 | stop-after:rounds=30     combined, as in Python: & binds more tightly than |
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
from xenmig.policies._expression import PolicyNameError, Term, split
from xenmig.policy import AllOf, AnyOf, check_policy

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from types import ModuleType

    from xenmig.policy import Policy

__all__ = ["BUILT_IN", "PolicyNameError", "keywords_of", "load_policy"]

BUILT_IN: dict[str, Callable[..., Policy]] = {
    "libxc": LibxcPolicy,
    "downtime": DowntimeTarget,
    "stop-after": StopAfter,
    "abort-after": AbortAfter,
}


def load_policy(
    text: str,
    arguments: Sequence[str] = (),
    *,
    keywords: Mapping[str, object] | None = None,
    working_directory: bool = True,
    check_file: Callable[[Path], object] | None = None,
) -> Policy:
    """Returns the policy that `text` describes.

    Args:
        text: The policy's name, or several of them combined.
        arguments: Arguments for it, each ``key=value``. A value is a Python literal, or a text.
        keywords: More arguments, whose values are taken as they are.
        working_directory: Whether modules of the working directory can be named, as for ``python -m``.
        check_file: Called with the file of a policy before its code runs; raises to prevent that. Files that
            such a file imports are not checked.

    Raises:
        PolicyNameError: It describes no policy. The message says where the mistake is.

    Example:
        >>> load_policy("downtime:ms=300 | stop-after:rounds=30")
        (DowntimeTarget(ms=300) | StopAfter(rounds=30))
    """
    given = keywords_of(arguments) | dict(keywords or {})
    expression = split(text)
    if given and (len(expression) > 1 or len(expression[0]) > 1):
        raise PolicyNameError("arguments are for a single policy: write name:key=value in a combination")
    source = _Source(working_directory=working_directory, check_file=check_file)
    alternatives = []
    for terms in expression:
        together = [_load_one(term, given, source) for term in terms]
        alternatives.append(together[0] if len(together) == 1 else AllOf(*together))
    return alternatives[0] if len(alternatives) == 1 else AnyOf(*alternatives)


def keywords_of(arguments: Sequence[str]) -> dict[str, Any]:
    """Returns the arguments of a list of ``key=value``.

    Raises:
        PolicyNameError: An item is not of that form.
    """
    keywords: dict[str, Any] = {}
    for argument in arguments:
        key, equals, value = argument.partition("=")
        if not equals or not key.strip().isidentifier():
            raise PolicyNameError(f"{argument!r} is no policy argument: write it as key=value")
        keywords[key.strip()] = _value(value.strip())
    return keywords


def _load_one(term: Term, keywords: dict[str, Any], source: _Source) -> Policy:
    try:
        return _load(term, keywords, source)
    except PolicyNameError as error:
        raise PolicyNameError(f"{error}{term.place}") from error.__cause__


def _load(term: Term, keywords: dict[str, Any], source: _Source) -> Policy:
    text, where, attribute = term.text, term.source, term.rest
    if where is None:
        name, _, rest = text.partition(":")
        if name in BUILT_IN:
            return _call(name, BUILT_IN[name], keywords_of(rest.split(",") if rest else ()) | keywords)
        where, _, attribute = text.rpartition(":")
    if not where or not attribute:
        known = ", ".join(BUILT_IN)
        raise PolicyNameError(f"no policy {text!r}: give one of {known}, or module:Class, or file.py:name")
    found = _attribute(source.load(where), where, attribute)
    if inspect.isclass(found):
        return _call(text, cast("Callable[..., object]", found), keywords)
    try:
        policy = check_policy(found)
    except PolicyError as error:
        raise PolicyNameError(f"{text}: {error}") from None
    return cast("Policy", functools.partial(policy, **keywords)) if keywords else policy


def _call(name: str, make: Callable[..., object], keywords: dict[str, Any]) -> Policy:
    try:
        return check_policy(make(**keywords))
    except Exception as error:
        raise PolicyNameError(f"{name}: {error}") from error


class _Source:
    """Loads modules by name or by file."""

    def __init__(self, *, working_directory: bool, check_file: Callable[[Path], object] | None) -> None:
        self._working_directory = working_directory
        self._check_file = check_file

    def load(self, where: str) -> ModuleType:
        """Returns a module by its name or its file's name."""
        try:
            if where.endswith(".py"):
                return self._load_file(Path(where).resolve())
            if self._working_directory and "" not in sys.path and str(Path.cwd()) not in sys.path:
                sys.path.insert(0, str(Path.cwd()))
            if self._check_file is not None:
                self._check_module(where.partition(".")[0], self._check_file)
            return importlib.import_module(where)
        except Exception as error:
            raise PolicyNameError(f"cannot load {where}: {type(error).__name__}: {error}") from error

    def _load_file(self, path: Path) -> ModuleType:
        if self._check_file is not None:
            self._check_file(path)
        spec = importlib.util.spec_from_file_location(path.stem, path)
        if spec is None or spec.loader is None:
            raise ImportError(f"{path} is not a Python file")
        module = importlib.util.module_from_spec(spec)
        # Dataclasses and pickle look a class's module up here.
        sys.modules.setdefault(path.stem, module)
        spec.loader.exec_module(module)
        return module

    @staticmethod
    def _check_module(package: str, check_file: Callable[[Path], object]) -> None:
        spec = importlib.util.find_spec(package)
        if spec is not None and spec.has_location and spec.origin is not None:
            check_file(Path(spec.origin).resolve())


def _attribute(module: ModuleType, where: str, attribute: str) -> object:
    try:
        return operator.attrgetter(attribute)(module)
    except AttributeError:
        raise PolicyNameError(f"{where} has no {attribute}") from None


def _value(text: str) -> object:
    """Returns a Python literal's value, and any other text as it is."""
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text
