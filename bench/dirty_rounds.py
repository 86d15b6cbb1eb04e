# SPDX-License-Identifier: GPL-3.0-or-later
"""How long a round takes, measured from within: the policy looks at the clock when it is asked.

A round begins with a CLEAN; then it is asked about twice, before it is sent and after. What lies between an
answer and the next question is the engine's time, and the fake kernel's; the policy's own is not in it. The
policy goes on for a number of rounds, then stops.
"""

from __future__ import annotations

import ctypes
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from tests.parity.libxc import (
    PRECOPY_POLICY,
    SONAMES,
    SUSPEND,
    SWITCH_QEMU_LOGDIRTY,
    VMESSAGE,
    XC_STREAM_PLAIN,
    XCFLAGS_LIVE,
    Logger,
    PrecopyStats,
    SaveCallbacks,
)

import xenmig

if TYPE_CHECKING:
    from tests.parity.fakexen import Fakexen

__all__ = ["libxc_rounds", "xenmig_rounds"]


@dataclass
class _Stopwatch:
    """A policy that goes on for a number of rounds, and notes when it was asked and when it had answered."""

    rounds: int
    asked: list[float] = field(default_factory=list)
    answered: list[float] = field(default_factory=list)

    def go_on(self, iteration: int) -> bool:
        """Answers a consult."""
        self.asked.append(time.perf_counter())
        self.answered.append(time.perf_counter())
        return iteration <= self.rounds

    def times(self) -> list[float]:
        """Returns the time of each round but the first, which sends all memory, in seconds.

        Consults 0 and 1 are before and after the first round, which has number 0. Between consults `2n - 1`
        and `2n` is the CLEAN of round `n`, from there to the next it is sent.
        """
        between = [asked - answered for asked, answered in zip(self.asked[1:], self.answered, strict=False)]
        return [sum(between[2 * n - 1 : 2 * n + 1]) for n in range(1, self.rounds + 1)]


def libxc_rounds(fakexen: Fakexen, domid: int, fd: int, rounds: int) -> list[float]:
    """Measures ``xc_domain_save``."""
    _, control, guest = (ctypes.CDLL(name, mode=ctypes.RTLD_GLOBAL, use_errno=True) for name in SONAMES)
    control.xc_interface_open.restype = ctypes.c_void_p
    stopwatch = _Stopwatch(rounds)

    def policy(stats: PrecopyStats, _data: object) -> int:
        return 0 if stopwatch.go_on(stats.iteration) else 1

    def suspend(_data: object) -> int:
        fakexen.suspend(domid)
        return 1

    callbacks = SaveCallbacks(
        suspend=SUSPEND(suspend),
        precopy_policy=PRECOPY_POLICY(policy),
        switch_qemu_logdirty=SWITCH_QEMU_LOGDIRTY(lambda *_: 0),
    )
    quiet = Logger(vmessage=VMESSAGE(lambda *_: None))
    interface = ctypes.c_void_p(control.xc_interface_open(ctypes.byref(quiet), ctypes.byref(quiet), 0))
    try:
        failed = guest.xc_domain_save(
            interface, fd, domid, XCFLAGS_LIVE, ctypes.byref(callbacks), XC_STREAM_PLAIN, -1
        )
    finally:
        control.xc_interface_close(interface)
    if failed:
        raise RuntimeError(f"xc_domain_save: errno {ctypes.get_errno()}")
    return stopwatch.times()


def xenmig_rounds(fakexen: Fakexen, domid: int, fd: int, rounds: int) -> list[float]:
    """Measures ``xenmig.save``, asked as often as libxc asks."""
    stopwatch = _Stopwatch(rounds)

    def policy(stats: xenmig.PrecopyStats) -> xenmig.Decision:
        return xenmig.Decision.CONTINUE if stopwatch.go_on(stats.iteration) else xenmig.Decision.STOP_AND_COPY

    xenmig.save(
        domid,
        fd,
        host=xenmig.Xen(),
        policy=policy,
        consult="round",
        suspend=lambda: fakexen.suspend(domid),
    )
    return stopwatch.times()
