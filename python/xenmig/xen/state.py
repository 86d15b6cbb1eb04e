# SPDX-License-Identifier: GPL-3.0-or-later
"""What a domain does, in a word and in a sentence, and how it ended if it has."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING, Any

from xenmig.errors import HypercallError

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["describe_state", "state_now", "state_of"]

_WORDS = {
    "poweroff": "has powered off",
    "reboot": "has shut down to reboot",
    "crash": "has crashed",
    "watchdog": "was stopped by its watchdog",
    "soft_reset": "has shut down for a soft reset",
}


def state_of(info: dict[str, Any]) -> str:
    """Returns what a domain does.

    Args:
        info: What :meth:`xenmig.Xen.domain_info` has returned.

    Returns:
        ``"running"``, ``"paused"``, ``"suspended"`` or ``"dying"``. If it has shut down for another reason
        than to be saved: that reason, or ``"shutdown"``.

    Example:
        >>> state_of({"state": "running", "shutdown_reason": None})
        'running'
        >>> state_of({"state": "shutdown", "shutdown_reason": "crash"})
        'crash'
    """
    return str(info.get("shutdown_reason") or info["state"])


def state_now(domain_info: Callable[[], dict[str, Any]]) -> str:
    """Asks what a domain does.

    Args:
        domain_info: Asks the hypervisor, as :meth:`xenmig.Xen.domain_info`.

    Returns:
        As :func:`state_of`; ``"gone"`` if there is no such domain.

    Raises:
        HypercallError: The hypervisor refuses to say.
    """
    try:
        return state_of(domain_info())
    except HypercallError as error:
        if error.errno == errno.ESRCH:
            return "gone"
        raise


def describe_state(state: str) -> str:
    """Returns the rest of a sentence about a domain.

    Example:
        >>> describe_state("running"), describe_state("crash")
        ('is running', 'has crashed')
    """
    return _WORDS.get(state, f"is {state}")
