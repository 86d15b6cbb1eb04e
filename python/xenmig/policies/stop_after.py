# SPDX-License-Identifier: GPL-3.0-or-later
"""A limit on what a precopy may cost: rounds, time, or data sent."""

from __future__ import annotations

from typing import TYPE_CHECKING

from xenmig.policies._limits import at_least, positive, whole_number
from xenmig.policy import BasePolicy, Decision, Verdict

if TYPE_CHECKING:
    from xenmig._native import PrecopyStats

__all__ = ["StopAfter"]


class StopAfter(BasePolicy):
    """Stops when a limit is reached: rounds, seconds, or a multiple of the guest's RAM.

    Why: a guest that dirties its memory faster than the link carries it never converges. Each further round
    costs time and bandwidth and gains nothing, and only a limit ends it. Alone, this policy gives a migration
    of known length and unknown downtime; ``DowntimeTarget(...) | StopAfter(...)`` tries the target first.

    RAM means the pages that the guest had when the save began (``ram_pages``), not its p2m, which for a small
    PVH guest is almost 4 GiB long and mostly holes.

    What it does not see: whether the limit comes just before the precopy would have converged.

    Args:
        rounds: Stop after this number of rounds; at least 1. To send all memory with the guest suspended,
            save with ``live=False``.
        seconds: Stop when the save has taken this long. It is checked after each batch, so with
            ``consult="batch"`` it takes effect in the middle of a round, too.
        factor_of_ram: Stop when the pages sent reach this multiple of the guest's RAM; at least 1. libxc up
            to 4.5 stopped beyond 3.

    Raises:
        ValueError: No limit is given, or one is out of range.
        TypeError: A limit is not a number.

    Example:
        >>> from xenmig import PrecopyStats
        >>> policy = StopAfter(rounds=3, seconds=60)
        >>> policy(PrecopyStats.example(iteration=2, elapsed_s=59.9))
        Decision.CONTINUE
        >>> policy(PrecopyStats.example(iteration=3, elapsed_s=59.9))
        Verdict(decision=Decision.STOP_AND_COPY, reason='3 rounds sent, the limit')
        >>> stats = PrecopyStats.example(iteration=4, phase="batch", ram_pages=1000, pages_sent=3000)
        >>> StopAfter(factor_of_ram=3)(stats)
        Verdict(decision=Decision.STOP_AND_COPY, reason='3000 pages sent, 3 x the RAM of 1000 pages')
    """

    def __init__(
        self,
        *,
        rounds: int | None = None,
        seconds: float | None = None,
        factor_of_ram: float | None = None,
    ) -> None:
        if rounds is None and seconds is None and factor_of_ram is None:
            raise ValueError("StopAfter needs a limit: rounds, seconds or factor_of_ram")
        self.rounds = None if rounds is None else whole_number(1, "rounds", rounds)
        self.seconds = None if seconds is None else positive("seconds", seconds)
        self.factor_of_ram = None if factor_of_ram is None else at_least(1, "factor_of_ram", factor_of_ram)

    def __call__(self, stats: PrecopyStats, /) -> Decision | Verdict:
        """Answers one consult."""
        if self.rounds is not None and stats.iteration >= self.rounds:
            return Decision.STOP_AND_COPY.because(f"{stats.iteration} rounds sent, the limit")
        if self.seconds is not None and stats.elapsed_s >= self.seconds:
            return Decision.STOP_AND_COPY.because(f"{stats.elapsed_s:.1f} s, the limit is {self.seconds:g} s")
        if self.factor_of_ram is not None and stats.pages_sent >= self.factor_of_ram * stats.ram_pages:
            return Decision.STOP_AND_COPY.because(
                f"{stats.pages_sent} pages sent, {self.factor_of_ram:g} x the RAM of {stats.ram_pages} pages"
            )
        return Decision.CONTINUE
