# SPDX-License-Identifier: GPL-3.0-or-later
"""The toolstack of one save, whatever the engine: does what the job says, and writes down what it was asked.

An engine's callbacks, each in its own form, call a :class:`Recorder`; the record becomes a part of the
outcome.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from tests.parity.protocol import CONTINUE, STOP_AND_COPY, Consult

if TYPE_CHECKING:
    from tests.parity.fakexen import Fakexen
    from tests.parity.protocol import Policy, SaveOptions

#: libxc's default policy stops below this number of dirty pages, or after this number of rounds.
TARGET_DIRTY_PAGES, MAX_ROUNDS = 50, 5


def answer(policy: Policy, number: int, iteration: int, dirty_count: int) -> int:
    """Returns the answer of a policy to its ``number``-th consult.

    Args:
        policy: A list of answers, or the name of libxc's default.
        number: How many consults there were before.
        iteration: Rounds that were sent.
        dirty_count: Dirty pages; -1 if unknown.
    """
    if isinstance(policy, list):
        return policy[min(number, len(policy) - 1)]
    converged = 0 <= dirty_count < TARGET_DIRTY_PAGES
    return STOP_AND_COPY if converged or iteration >= MAX_ROUNDS else CONTINUE


@dataclass
class Recorder:
    """Callbacks of one save, which record that they were called."""

    fakexen: Fakexen
    domid: int
    options: SaveOptions
    consults: list[Consult] = field(default_factory=list)
    events: list[str] = field(default_factory=list)

    def suspend(self) -> bool:
        """Does what the job says about it. Returns whether it says that the guest is suspended."""
        self.events.append("suspend")
        if self.options.suspend == "works":
            self.fakexen.suspend(self.domid)
        return self.options.suspend != "fails"

    def resume(self) -> None:
        """Lets the guest run again."""
        self.events.append("resume")
        self.fakexen.resume(self.domid)

    def consult(self, iteration: int, total_written: int, dirty_count: int) -> int:
        """Answers a consult: ``XGS_POLICY_*``."""
        self.events.append("consult")
        given = answer(self.options.policy, len(self.consults), iteration, dirty_count)
        self.consults.append(Consult(iteration, total_written, dirty_count, given))
        return given

    def qemu_logdirty(self, enable: int) -> int:
        """Switches the device model's log-dirty mode. Returns 0 for success."""
        self.events.append(f"qemu_logdirty {enable}")
        return self.options.qemu


class Clock:
    """Measures time and CPU time from its creation on."""

    def __init__(self) -> None:
        self._cpu_start = time.process_time()
        self._start = time.perf_counter()

    def read(self) -> tuple[float, float]:
        """Returns seconds and CPU seconds."""
        return time.perf_counter() - self._start, time.process_time() - self._cpu_start
