# SPDX-License-Identifier: GPL-3.0-or-later
"""xenmig over the real Xen libraries, as an engine: ``xenmig.save`` and ``xenmig.restore``.

Runs in the worker process. Every save and restore opens Xen anew and lets go of it again, so that nothing of
it (mappings, hypercall buffers, descriptors) may be left when it returns. An exception becomes an outcome.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.parity.protocol import RestoreOutcome, SaveOutcome
from tests.parity.recorder import Clock, Recorder

import xenmig
from xenmig.errors import XenmigError

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import TypeAlias

    from tests.parity.engine import Engine
    from tests.parity.fakexen import Fakexen
    from tests.parity.protocol import RestoreOptions, SaveOptions

    #: Part of an outcome: ``failed``, ``errno``, the exception's class, the guest's state, the messages.
    Ending: TypeAlias = tuple[bool, int, str, str | None, list[str]]


class CallbackError(RuntimeError):
    """A callback of the job failed, as the job says. xenmig is to pass it through."""


class Xenmig:
    """This package, as an engine."""

    def __init__(self, fakexen: Fakexen) -> None:
        """Makes sure that there is a Xen to open.

        Raises:
            XenUnavailable: There is none, or this is a build without it.
        """
        self._fakexen = fakexen
        xenmig.Xen()

    def save(self, domid: int, fd: int, options: SaveOptions) -> SaveOutcome:
        """Saves a domain to a file descriptor by ``xenmig.save``."""
        recorder = Recorder(self._fakexen, domid, options)

        def policy(stats: xenmig.PrecopyStats) -> xenmig.Decision:
            dirty_count = -1 if stats.dirty_count is None else stats.dirty_count
            return xenmig.Decision(recorder.consult(stats.iteration, stats.total_written, dirty_count))

        def suspend() -> None:
            if not recorder.suspend():
                raise CallbackError("the guest does not suspend")

        def device_model_logdirty(on: bool) -> None:  # noqa: FBT001 - it is called so
            if recorder.qemu_logdirty(int(on)):
                raise CallbackError("the device model does not answer")

        def save() -> list[str]:
            result = xenmig.save(
                domid,
                fd,
                host=xenmig.Xen(),
                policy=None if options.policy == "none" else policy,
                consult="round",
                live=options.live,
                verify=options.debug,
                suspend=suspend,
                resume=recorder.resume if options.resume else None,
                device_model_logdirty=device_model_logdirty,
                # libxc does not wait either, and a script's guest does nothing meanwhile.
                min_round_s=0,
            )
            return result.warnings

        clock = Clock()
        failed, errno, error, guest_state, messages = _run(save)
        seconds, cpu_seconds = clock.read()
        return SaveOutcome(
            failed,
            errno,
            recorder.consults,
            recorder.events,
            messages,
            seconds,
            cpu_seconds,
            error,
            guest_state,
        )

    def restore(self, domid: int, fd: int, options: RestoreOptions) -> RestoreOutcome:
        """Restores from a file descriptor into an empty domain by ``xenmig.restore``."""
        missing: list[int] = []
        gfns = [0, 0]

        def static_data_done(flags: int) -> None:
            missing.append(flags)
            if options.static_data:
                raise CallbackError("the toolstack cannot complete the static data")

        def restore() -> list[str]:
            result = xenmig.restore(
                domid,
                fd,
                host=xenmig.Xen(),
                store_evtchn=options.store_evtchn,
                store_domid=options.store_domid,
                console_evtchn=options.console_evtchn,
                console_domid=options.console_domid,
                static_data_done=static_data_done,
            )
            gfns[:] = result.store_gfn or 0, result.console_gfn or 0
            return []

        clock = Clock()
        failed, errno, error, _, messages = _run(restore)
        seconds, cpu_seconds = clock.read()
        return RestoreOutcome(
            failed,
            errno,
            gfns[0],
            gfns[1],
            missing[0] if missing else None,
            messages,
            seconds,
            cpu_seconds,
            error,
        )


def _run(job: Callable[[], list[str]]) -> Ending:
    """Does a job that returns its warnings."""
    try:
        return False, 0, "", None, job()
    except Exception as error:  # noqa: BLE001 - whatever it is, the test is told
        errno = getattr(error, "errno", None) or 0
        state = error.guest_state if isinstance(error, XenmigError) else None
        notes = error.warnings if isinstance(error, XenmigError) else getattr(error, "__notes__", [])
        return True, errno, type(error).__name__, state, [str(error), *notes]


def engine(fakexen: Fakexen) -> Engine:
    """Returns the engine."""
    return Xenmig(fakexen)
