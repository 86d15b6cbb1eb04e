# SPDX-License-Identifier: GPL-3.0-or-later
"""How a save or restore ended, in words and numbers for libxl's log, for ``complete`` and for the run log."""

from __future__ import annotations

import errno
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from xenmig.errors import DomainRefused, PolicyAbort, PolicyError, SaveInProgress, XenmigError
from xenmig.helper.channel import LibxlGone
from xenmig.helper.signals import Interrupted
from xenmig.progress_text import format_bytes
from xenmig.xen.state import describe_state

if TYPE_CHECKING:
    from xenmig._native import RestoreResult, SaveResult
    from xenmig.errors import GuestState

__all__ = ["Failure", "restored", "saved"]

_GUEST = {
    "running": "the guest was not suspended and runs on",
    "suspended": "the guest is suspended, and the toolstack is to resume it",
    "resumed": "the guest runs again",
    "unknown": "what the guest does is not known: look at it with xl list",
    None: "the guest was not touched",
}
_PACKAGE = f"{Path(__file__).parents[1]}/"


def saved(result: SaveResult) -> str:
    """Returns what a save did, in a line.

    Args:
        result: What :func:`xenmig.save` has returned.
    """
    rate = result.bytes_sent / result.elapsed_s if result.elapsed_s > 0 else 0.0
    rounds = f"{result.rounds} round{'s' if result.rounds != 1 else ''}" if result.live else "not live"
    text = (
        f"saved: {rounds}, {result.pages_sent:,} pages, "
        f"{format_bytes(result.bytes_sent)} in {result.elapsed_s:.2f} s ({format_bytes(rate)}/s), "
        f"suspended for {result.downtime_ms:,.0f} ms up to the last byte"
    )
    return f"{text}; the precopy ended because {result.reason}" if result.reason else text


def restored(result: RestoreResult) -> str:
    """Returns what a restore did, in a line.

    Args:
        result: What :func:`xenmig.restore` has returned.
    """
    rate = result.bytes_received / result.elapsed_s if result.elapsed_s > 0 else 0.0
    text = (
        f"restored: {result.pages_received:,} pages, "
        f"{format_bytes(result.bytes_received)} in {result.elapsed_s:.2f} s ({format_bytes(rate)}/s), "
        f"{result.superpages:,} superpages"
    )
    return f"{text}, {result.pages_verified:,} pages verified" if result.pages_verified else text


@dataclass(frozen=True)
class Failure:
    """A save or a restore that failed.

    Attributes:
        error: Why.
        guest_state: What the guest does, ``None`` if it was not even looked at.
        of_policy: Whether it is the policy's own exception.
        restoring: The domain that was to be restored, if one was.
        ended: How the domain has ended, if it has, as :func:`xenmig.xen.state.state_now` puts it.
    """

    error: BaseException
    guest_state: GuestState | None = None
    of_policy: bool = False
    restoring: int | None = None
    ended: str | None = None

    @property
    def errno(self) -> int:
        """The errno for libxl, never 0. libxl logs its text."""
        error = self.error
        if self.of_policy or isinstance(error, (PolicyAbort, PolicyError)):
            return errno.ECANCELED
        number = getattr(error, "errno", None)
        if isinstance(number, int) and 0 < number < 1 << 31:
            return number
        for kind, meaning in (
            (Interrupted, errno.EINTR),
            (LibxlGone, errno.EPIPE),
            (SaveInProgress, errno.EBUSY),
            (DomainRefused, errno.EOPNOTSUPP),
            ((ValueError, TypeError), errno.EINVAL),
        ):
            if isinstance(error, kind):
                return meaning
        return errno.EIO

    @property
    def warnings(self) -> list[str]:
        """What else went wrong while cleaning up."""
        if isinstance(self.error, XenmigError):
            # How the guest ended is said with the reason.
            told = ("the domain is gone", "the guest is gone") if self.ended else ()
            return [warning for warning in self.error.warnings if not warning.startswith(told)]
        return [note.removeprefix("xenmig: ") for note in getattr(self.error, "__notes__", ())]

    @property
    def where(self) -> str | None:
        """The line of the policy that raised it."""
        found = None
        trace = self.error.__traceback__ if self.of_policy else None
        while trace is not None:
            file = trace.tb_frame.f_code.co_filename
            if not file.startswith(_PACKAGE):
                found = f"{file}:{trace.tb_lineno}"
            trace = trace.tb_next
        return found

    def __str__(self) -> str:
        """Returns the reason, and what the guest does, or what is to become of the new domain."""
        where = f" (policy, {self.where})" if self.where else ""
        text = str(self.error)
        reason = f"{type(self.error).__name__}: {text}" if text else type(self.error).__name__
        if self.restoring is not None:
            return f"{reason}; domain {self.restoring} is not whole, and the toolstack is to destroy it"
        guest = f"the guest {describe_state(self.ended)}" if self.ended else _GUEST[self.guest_state]
        return f"{reason}{where}; {guest}"

    def to_dict(self) -> dict[str, Any]:
        """Returns it for the run log."""
        return {
            "class": type(self.error).__name__,
            "message": str(self.error),
            "errno": self.errno,
            "guest_state": self.guest_state,
            "reason": getattr(self.error, "reason", None),
            "where": self.where,
        }
