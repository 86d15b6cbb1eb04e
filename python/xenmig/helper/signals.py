# SPDX-License-Identifier: GPL-3.0-or-later
"""SIGTERM, with which libxl ends a save or a restore, and SIGINT and SIGHUP, which come from a terminal.

A signal ends the work where that does no harm: in the engine, which listens every 100 ms, and in a policy.
It does not tear a message in two, leave a reply unread, or disturb the clean-up: a function that is marked as
:func:`uninterrupted`, and whatever it calls, only takes note of a signal.

::

    signal ──> Signals ──┬── engine or policy runs: raises Interrupted there
                         └── an uninterrupted function runs: noted; Signals.check() raises it later
"""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING, TypeVar

from xenmig.errors import XenmigError

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import CodeType, FrameType

__all__ = ["Interrupted", "Signals", "uninterrupted"]

_Function = TypeVar("_Function", bound="Callable[..., object]")
_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
_UNINTERRUPTED: set[CodeType] = set()


class Interrupted(XenmigError):  # noqa: N818 - it names what happened
    """A signal ended the save or the restore."""

    def __init__(self, number: int) -> None:
        super().__init__(f"{signal.Signals(number).name} came: the work was to end")


def uninterrupted(function: _Function) -> _Function:
    """Marks a function in which a signal raises nothing."""
    _UNINTERRUPTED.add(function.__code__)
    return function


class Signals:
    """The signals that came, and what they do."""

    def __init__(self) -> None:
        self._received: int | None = None
        self._raised = False

    def install(self) -> None:
        """Takes the signals over. One that is ignored, as by ``nohup``, stays so; SIGTERM is never."""
        for number in _SIGNALS:
            if number == signal.SIGTERM or signal.getsignal(number) is not signal.SIG_IGN:
                signal.signal(number, self._handle)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})

    def check(self) -> None:
        """Raises what an uninterrupted function has noted, or a policy has swallowed.

        Raises:
            Interrupted: A signal has come.
        """
        if self._received is not None:
            self._raised = True
            raise Interrupted(self._received)

    def give_back(self) -> None:
        """Lets signals do what they do in a new program. None is lost: one that comes now ends this one.

        Raises:
            Interrupted: One came before.
        """
        before = signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
        try:
            # What came before they were blocked has been handled when this line runs.
            self.check()
            for number in _SIGNALS:
                if signal.getsignal(number) == self._handle:
                    signal.signal(number, signal.SIG_DFL)
            # Python ignores it; libxl starts its helper with the default.
            signal.signal(signal.SIGPIPE, signal.SIG_DFL)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self._received is None:
            self._received = number
        while frame is not None:
            if frame.f_code in _UNINTERRUPTED:
                return
            frame = frame.f_back
        # Once: a second one must not disturb what the first has set going.
        if not self._raised:
            self._raised = True
            raise Interrupted(number)
