# SPDX-License-Identifier: GPL-3.0-or-later
"""Comparing things on a noisy machine: they take turns, and the median of the ratios is what counts."""

from __future__ import annotations

import math
import statistics
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

__all__ = ["Comparison", "compare", "interval", "median_ratio", "take_turns"]

T = TypeVar("T")


def take_turns(jobs: Sequence[Callable[[], T]], turns: int) -> list[list[T]]:
    """Does jobs in turn, after a run of each that does not count. Which one begins changes from turn to turn.

    Args:
        jobs: What is done.
        turns: How often each is done.

    Returns:
        What each job returned, turn by turn.
    """
    for job in jobs:
        job()
    results: list[list[T]] = [[] for _ in jobs]
    order = list(range(len(jobs)))
    for _ in range(turns):
        for which in order:
            results[which].append(jobs[which]())
        order.append(order.pop(0))
    return results


def median_ratio(above: Sequence[float], below: Sequence[float]) -> float:
    """Returns the median of the ratios of numbers that were taken in the same turn."""
    return statistics.median(a / b for a, b in zip(above, below, strict=True))


def interval(values: Sequence[float]) -> tuple[float, float]:
    """Returns a 95 % confidence interval of the median, from the order statistics of independent samples.

    Of fewer than six values the interval is their range, which is less certain.
    """
    ordered = sorted(values)
    n = len(ordered)
    # The chance that at most k of n samples are below the median.
    below, rank = 0.0, 0
    for k in range(n // 2):
        below += math.comb(n, k) / 2**n
        if below > 0.025:
            break
        rank = k
    return ordered[rank], ordered[n - 1 - rank]


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
        return median_ratio(self.other_s, self.base_s)

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
    """Times two things that take turns.

    Args:
        base: The first thing.
        other: The second.
        pairs: How often each is run.
        clock: What is read before and after each run, in seconds.

    Returns:
        The times.
    """

    def timed(job: Callable[[], object]) -> Callable[[], float]:
        def run() -> float:
            began = clock()
            job()
            return clock() - began

        return run

    return Comparison(*take_turns([timed(base), timed(other)], pairs))
