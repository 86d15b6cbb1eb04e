# SPDX-License-Identifier: GPL-3.0-or-later
"""``--workload`` and ``--rate``: from a name and a number to what the simulated guest writes."""

from __future__ import annotations

from enum import Enum

from xenmig.sim import HotCold, Idle, Phase, Phased, Uniform, Workload

__all__ = ["DEFAULT_RATE", "WorkloadName", "make_workload"]

DEFAULT_RATE = 40_000.0
"""Pages per second."""

_HOT_PART = 16
_COLD_PART = 100
_PHASE_S = 0.5


class WorkloadName(str, Enum):
    """The workloads that the demo knows."""

    IDLE = "idle"
    UNIFORM = "uniform"
    HOTCOLD = "hotcold"
    PHASED = "phased"


def make_workload(name: WorkloadName, rate: float, ram_pages: int) -> Workload:
    """Returns a workload for a guest of `ram_pages` pages.

    Hot is a sixteenth of RAM, written at `rate` pages per second; the rest is written at a hundredth of it.
    The phased one is busy for half a second and idle for as long.
    """
    hotcold = HotCold(ram_pages // _HOT_PART, rate, rate / _COLD_PART)
    match name:
        case WorkloadName.IDLE:
            return Idle()
        case WorkloadName.UNIFORM:
            return Uniform(rate)
        case WorkloadName.HOTCOLD:
            return hotcold
        case WorkloadName.PHASED:
            return Phased([Phase(_PHASE_S, hotcold), Phase(_PHASE_S, Idle())])
