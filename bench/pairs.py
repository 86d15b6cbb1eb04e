# SPDX-License-Identifier: GPL-3.0-or-later
"""Comparing two things on a noisy machine: they take turns, and the median of the ratios is what counts."""

from __future__ import annotations

import statistics
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Comparison", "compare"]


@dataclass(frozen=True)
class Comparison:
    """The times of two things that took turns, in seconds.

    Attributes:
        base_s: What each run of the first took.
        other_s: What each run of the second took.
    """

    base_s: list[float]
    other_s: list[float]

    @property
    def ratio(self) -> float:
        """The second's time over the first's: the median of the pairs."""
        return statistics.median(other / base for base, other in zip(self.base_s, self.other_s, strict=True))

    @property
    def difference_s(self) -> float:
        """The second's time less the first's, in seconds: the median of the pairs."""
        return statistics.median(other - base for base, other in zip(self.base_s, self.other_s, strict=True))


def compare(
    base: Callable[[], object],
    other: Callable[[], object],
    *,
    pairs: int,
    clock: Callable[[], float] = time.perf_counter,
) -> Comparison:
    """Runs two things in turn, after one run of each that does not count. Which one begins changes each time.

    Args:
        base: The first thing.
        other: The second.
        pairs: How often each is run.
        clock: What is read before and after each run, in seconds.

    Returns:
        The times.
    """
    base()
    other()
    times: tuple[list[float], list[float]] = ([], [])
    for pair in range(pairs):
        for which in (0, 1) if pair % 2 == 0 else (1, 0):
            began = clock()
            (base, other)[which]()
            times[which].append(clock() - began)
    return Comparison(*times)
