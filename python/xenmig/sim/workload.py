# SPDX-License-Identifier: GPL-3.0-or-later
"""What a simulated domain does with its memory. Users get these classes from :mod:`xenmig.sim`.

Rates are sums over all vCPUs, in pages per second. Which page is written next depends on chance and the
domain's seed; each write puts a value into the page that this domain never wrote before.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["HotCold", "Idle", "Phase", "Phased", "Scripted", "Step", "Uniform", "Workload", "native_workload"]


@dataclass(frozen=True)
class Idle:
    """Nothing is written."""


@dataclass(frozen=True)
class Uniform:
    """Every page is as likely to be written as any other.

    Attributes:
        pages_per_s: Pages written per second.
    """

    pages_per_s: float


@dataclass(frozen=True)
class HotCold:
    """A small set of pages is written often, the rest seldom: like most real guests.

    Attributes:
        hot_pages: Size of the hot set: the first pages of RAM.
        hot_pages_per_s: Hot pages written per second.
        cold_pages_per_s: Pages of the rest written per second.
    """

    hot_pages: int
    hot_pages_per_s: float
    cold_pages_per_s: float = 0.0


@dataclass(frozen=True)
class Phase:
    """One phase of :class:`Phased`.

    Attributes:
        seconds: How long it lasts, in seconds of running.
        workload: What is written meanwhile.
    """

    seconds: float
    workload: Idle | Uniform | HotCold


@dataclass(frozen=True)
class Phased:
    """One workload after the other, then again from the first.

    Attributes:
        phases: The phases, at least one; kept as a tuple.
    """

    phases: Sequence[Phase]

    def __post_init__(self) -> None:
        # A list would be neither hashable nor equal to the same tuple.
        object.__setattr__(self, "phases", tuple(self.phases))


class Step(NamedTuple):
    """One deed of :class:`Scripted`.

    Attributes:
        when: Before which call of the engine it happens: a ``clean`` or ``peek`` of the log-dirty bitmap, the
            ``types`` query of a batch, the ``map`` of its pages; or ``after_map``, before they are read; or
            at the ``suspend``, as the guest's last deed.
        nth: Which call of that kind, counted from 0 from the domain's creation; 0 for ``suspend``.
        action: The guest writes the page, gives it back to Xen, or gets one where it has none.
        pfn: The page.
    """

    when: Literal["clean", "peek", "types", "map", "after_map", "suspend"]
    nth: int
    action: Literal["write", "balloon_out", "balloon_in"]
    pfn: int


@dataclass(frozen=True)
class Scripted:
    """The guest acts exactly at certain calls of the engine, so that a test is the same every time.

    What is not possible at that moment (a write to a hole, a page ballooned out twice) does nothing.

    Attributes:
        script: The steps, in any order; those of one moment happen in the order given. Kept as a
            tuple.
    """

    script: Sequence[Step]

    def __post_init__(self) -> None:
        # A list would be neither hashable nor equal to the same tuple.
        object.__setattr__(self, "script", tuple(self.script))


Workload: TypeAlias = Idle | Uniform | HotCold | Phased | Scripted
"""Any of them."""


def native_workload(workload: Workload) -> tuple[str, dict[str, Any]]:
    """Returns a workload as the extension takes it: its name and its parameters.

    Raises:
        TypeError: It is no workload.
    """
    match workload:
        case Idle():
            return "idle", {}
        case Uniform():
            return "uniform", vars(workload)
        case HotCold():
            return "hotcold", vars(workload)
        case Phased():
            return "phased", {"phases": [_native_phase(phase) for phase in workload.phases]}
        case Scripted():
            return "scripted", vars(workload)
    raise TypeError(f"workload is of type {type(workload).__name__}: give one of xenmig.sim, such as Idle()")


def _native_phase(phase: Phase) -> dict[str, Any]:
    name, params = native_workload(phase.workload)
    return {"seconds": phase.seconds, "workload": name, "params": params}
