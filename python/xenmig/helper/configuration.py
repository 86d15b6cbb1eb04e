# SPDX-License-Identifier: GPL-3.0-or-later
"""What the operator wants: environment variables, and a file for what holds for all migrations of a host.

::

    XENMIG_POLICY, XENMIG_POLICY_ARGS, XENMIG_LOG, XENMIG_STOCK_HELPER,
    XENMIG_STALL_TIMEOUT                                                    win over
    /etc/xenmig.toml, or the file that XENMIG_CONFIG names                  which wins over the defaults

The file's keys are the attributes of :class:`Configuration`. An unknown key is an error: a policy that is not
used because of a slip of the pen would be found out when it is missed.
"""

from __future__ import annotations

import importlib
import sys
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from xenmig.helper.trust import check_file

if TYPE_CHECKING:
    from collections.abc import Mapping

    from xenmig.save import Consult

__all__ = ["DEFAULT_FILE", "Configuration", "ConfigurationError", "load", "paths_only"]

#: What xenmig.save takes at most.
_MAX_SECONDS = 1e9
_SECONDS = "a number of seconds, or 0 for no limit"

DEFAULT_FILE = Path("/etc/xenmig.toml")
"""The file that is read if ``XENMIG_CONFIG`` names no other. It need not exist."""


class ConfigurationError(ValueError):
    """The environment or the file says something that makes no sense; the message says where."""


@dataclass(frozen=True)
class Configuration:
    """What the operator wants.

    Attributes:
        policy: The policy, as :func:`xenmig.policies.named.load_policy` takes it; ``None`` is libxc's own.
        policy_args: Arguments for it.
        policy_from: Who named it: the environment, for this migration, or the file, for all of them.
        consult: How often it is asked; ``None`` is the default of :func:`xenmig.save`.
        skip_redirtied: Whether pages that are dirty again are left out of a round.
        log: A file to which each save appends a line of JSON.
        stock_helper: libxl's own helper, for what is not done here; ``None`` looks for it.
        stall_timeout_s: How many seconds the other end may take nothing while the guest is suspended; 0 is no
            limit.
    """

    policy: str | None = None
    policy_args: dict[str, object] = field(default_factory=dict)
    policy_from: Literal["environment", "file"] | None = None
    consult: Consult | None = None
    skip_redirtied: bool = False
    log: Path | None = None
    stock_helper: Path | None = None
    stall_timeout_s: float = 60.0


def load(environment: Mapping[str, str]) -> Configuration:
    """Returns what the environment and the file say.

    Raises:
        ConfigurationError: One of them makes no sense, or the file cannot be read or not be trusted.
    """
    configuration = _read_file(environment.get("XENMIG_CONFIG"))
    changes: dict[str, Any] = _paths(environment)
    if (policy := environment.get("XENMIG_POLICY")) is not None:
        # The file's arguments are for the file's policy.
        named_by = "environment" if policy else None
        changes |= {"policy": policy or None, "policy_args": {}, "policy_from": named_by}
    if arguments := environment.get("XENMIG_POLICY_ARGS"):
        changes["policy_args"] = _policy_args(arguments)
    if timeout := environment.get("XENMIG_STALL_TIMEOUT"):
        changes["stall_timeout_s"] = _stall_timeout(timeout)
    configuration = replace(configuration, **changes)
    if configuration.policy_args and configuration.policy is None:
        raise ConfigurationError("there are arguments for a policy, and no policy: set XENMIG_POLICY")
    consult = configuration.consult or ("round" if configuration.policy is None else "batch")
    if configuration.skip_redirtied and consult != "batch":
        raise ConfigurationError('skip_redirtied needs consult = "batch"')
    return configuration


def paths_only(environment: Mapping[str, str]) -> Configuration:
    """Returns the files that the environment names, which make sense whatever else is said."""
    return Configuration(**_paths(environment))


def _paths(environment: Mapping[str, str]) -> dict[str, Any]:
    named = {"log": environment.get("XENMIG_LOG"), "stock_helper": environment.get("XENMIG_STOCK_HELPER")}
    return {key: Path(value) if value else None for key, value in named.items() if value is not None}


def _policy_args(text: str) -> dict[str, object]:
    """Reads ``key=value`` pairs with spaces or commas between them; a value may be quoted."""
    import shlex  # noqa: PLC0415 - time counts at the start, and this is rarely needed

    from xenmig.policies.named import keywords_of  # noqa: PLC0415 - as above

    lexer = shlex.shlex(text, posix=True)
    lexer.whitespace += ","
    lexer.whitespace_split = True
    lexer.commenters = ""
    try:
        return keywords_of(list(lexer))
    except ValueError as error:
        raise ConfigurationError(f"XENMIG_POLICY_ARGS: {error}") from None


def _stall_timeout(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1
    if not 0 <= seconds <= _MAX_SECONDS:
        raise ConfigurationError(f"XENMIG_STALL_TIMEOUT is {text!r}: give {_SECONDS}")
    return seconds


def _read_file(named: str | None) -> Configuration:
    path = DEFAULT_FILE if named is None else Path(named)
    if named == "" or (named is None and not path.exists()):
        return Configuration()
    # Time counts at the start, and most hosts have no file.
    toml = importlib.import_module("tomllib" if sys.version_info >= (3, 11) else "tomli")
    try:
        check_file(path)
        table = toml.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigurationError(f"{path} cannot be used: {error}") from None
    return _from_table(table, path)


def _from_table(table: dict[str, Any], path: Path) -> Configuration:
    expected: dict[str, tuple[type | tuple[type, ...], str]] = {
        "policy": (str, "a text"),
        "policy_args": (dict, "a table"),
        "consult": (str, '"round" or "batch"'),
        "skip_redirtied": (bool, "true or false"),
        "log": (str, "the full path of a file"),
        "stock_helper": (str, "the full path of a file"),
        "stall_timeout_s": ((int, float), _SECONDS),
    }
    if unknown := sorted(set(table) - set(expected)):
        known = ", ".join(expected)
        raise ConfigurationError(f"{path} has unknown keys: {', '.join(unknown)}. Known are: {known}")
    values: dict[str, Any] = {}
    for key, value in table.items():
        kind, words = expected[key]
        wrong = not isinstance(value, kind) or (key == "consult" and value not in {"round", "batch"})
        if key == "stall_timeout_s" and not wrong:
            wrong = isinstance(value, bool) or not 0 <= value <= _MAX_SECONDS
        if key in {"log", "stock_helper"} and not wrong:
            # There is no telling which directory a toolstack works in.
            values[key] = Path(value)
            wrong = not values[key].is_absolute()
        if wrong:
            raise ConfigurationError(f"{path}: {key} is {value!r}: give {words}")
        values.setdefault(key, value)
    return Configuration(**values, policy_from="file" if values.get("policy") else None)
