# SPDX-License-Identifier: GPL-3.0-or-later
"""Policies for the save helper to load, in its own process: they import nothing of the tests."""

from __future__ import annotations

import os
from pathlib import Path

from xenmig import Decision, PrecopyStats, Verdict

Answer = Decision | Verdict


class AbortAt:
    """Aborts at one consult, counted from 1."""

    def __init__(self, consult: int) -> None:
        self.consult = consult
        self.consults = 0

    def __call__(self, stats: PrecopyStats, /) -> Answer:
        """Aborts, or goes on."""
        del stats
        self.consults += 1
        if self.consults < self.consult:
            return Decision.CONTINUE
        return Decision.ABORT.because(f"the window closed at consult {self.consults}")


class AbortInRound:
    """Aborts after a batch of one iteration, counted from 0, or of a later one."""

    def __init__(self, iteration: int) -> None:
        self.iteration = iteration

    def __call__(self, stats: PrecopyStats, /) -> Answer:
        """Aborts, or goes on."""
        if stats.phase == "batch" and stats.iteration >= self.iteration:
            return Decision.ABORT.because(f"round {stats.iteration} is too late")
        return Decision.CONTINUE


class StopInMidRound:
    """Ends the precopy after a batch of a round that has more pages to send."""

    def __init__(self, iteration: int) -> None:
        self.iteration = iteration

    def __call__(self, stats: PrecopyStats, /) -> Answer:
        """Goes on up to that round."""
        if stats.phase == "batch" and stats.iteration >= self.iteration and stats.pages_remaining > 0:
            return Decision.STOP_AND_COPY.because(f"{stats.pages_remaining} pages are left of this round")
        return Decision.CONTINUE


class Endless:
    """Never ends the precopy, and says when it has been asked so many times that a migration is under way."""

    def __init__(self, mark: str, consults: int = 40) -> None:
        self.mark = Path(mark)
        self.consults = consults

    def __call__(self, stats: PrecopyStats, /) -> Answer:
        """Goes on."""
        del stats
        self.consults -= 1
        if self.consults == 0:
            self.mark.touch()
        return Decision.CONTINUE


def raises(stats: PrecopyStats, /) -> Answer:
    """Has a bug, met after the first round has begun."""
    if stats.phase == "batch":
        raise LookupError("the operator's table has no such entry")
    return Decision.CONTINUE


def prints(stats: PrecopyStats, /) -> Answer:
    """Writes to standard output by every way there is: it must not get into libxl's protocol."""
    print("printed by the policy")  # noqa: T201 - that is what is tested
    os.write(1, b"written by the policy\n")
    os.system("echo echoed by the policy")  # noqa: S605
    return Decision.STOP_AND_COPY if stats.iteration >= 1 else Decision.CONTINUE
