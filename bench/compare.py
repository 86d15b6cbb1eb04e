# SPDX-License-Identifier: GPL-3.0-or-later
"""Two builds of xenmig side by side, row by row: another wheel, the base, and the installed one.

Each build runs in a process of its own over the same fake kernel, and the two take turns. Where a process's
memory lies changes its speed, so a row is measured in several pairs of processes, and the first to start
changes. To see how much of a difference is noise, compare a build with itself.
"""

from __future__ import annotations

import statistics
import zipfile
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import build
import contests
from pairs import interval, take_turns

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from contests import Contest
    from stage import Stage
    from worker import Timing

__all__ = ["Duel", "measure", "unpack"]

#: Pairs of processes for a row.
_PROCESSES = 2


@dataclass(frozen=True)
class Duel:
    """One row: the runs of both builds, turn by turn.

    Attributes:
        contest: What they did.
        base: The base's runs.
        head: The installed build's.
    """

    contest: Contest
    base: list[Timing]
    head: list[Timing]

    @property
    def ratios(self) -> list[float]:
        """Time of the installed build over that of the base, pair by pair: above 1 it has become slower."""
        return [h["seconds"] / b["seconds"] for h, b in zip(self.head, self.base, strict=True)]

    @property
    def cpu_ratio(self) -> float:
        """The same for the CPU time, the median of the pairs: steadier where the machine is shared."""
        pairs = zip(self.head, self.base, strict=True)
        return statistics.median(h["cpu_seconds"] / b["cpu_seconds"] for h, b in pairs)

    def as_json(self) -> dict[str, Any]:
        """Returns all runs, and what follows from them."""

        def ns_per_page(seconds: list[float]) -> float:
            return statistics.median(seconds) / self.contest.pages * 1e9

        low, high = interval(self.ratios)
        figures: dict[str, Any] = {"ratio": statistics.median(self.ratios), "low": low, "high": high}
        figures["cpu_ratio"] = self.cpu_ratio
        for name, runs in (("base", self.base), ("head", self.head)):
            seconds = [run["seconds"] for run in runs]
            figures[f"{name}_seconds"] = seconds
            figures[f"{name}_ns_per_page"] = ns_per_page(seconds)
            figures[f"{name}_cpu_ns_per_page"] = ns_per_page([run["cpu_seconds"] for run in runs])
        return {
            "what": self.contest.what,
            "memory_mib": self.contest.memory_mib,
            "through": self.contest.through,
            "pairs": len(self.ratios),
            **figures,
        }


def unpack(wheel: Path, folder: Path) -> Path:
    """Unpacks a wheel into a folder, from which it can be imported, and returns the folder."""
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder)
    return folder


def measure(stage: Stage, base: Path, rows: Sequence[str]) -> Iterator[Duel]:
    """Measures every row.

    Args:
        stage: How.
        base: The folder of the other xenmig.
        rows: Texts; a row is measured if its name has one of them. Without any, all rows are.
    """
    _check(stage, base)
    for contest in contests.all_of(stage):
        wanted = not rows or any(text in contest.name for text in rows)
        if wanted and stage.fits(contest.memory_mib, contest.copies):
            stage.say(contest.name)
            yield _duel(stage, contest, base)


def _check(stage: Stage, base: Path) -> None:
    """Checks that each process imports the build that it stands for, and that the base may be measured."""
    with stage.worker(base) as worker:
        package = worker.call("package")
    if package["debug"]:
        raise build.DebugBuildError("the base is a debug build: its times mean nothing")
    if not package["file"].startswith(str(base)):
        raise RuntimeError(f"{package['file']} was imported instead of the base")


def _duel(stage: Stage, contest: Contest, base: Path) -> Duel:
    runs: dict[Path | None, list[Timing]] = {base: [], None: []}
    order: list[Path | None] = [base, None]
    for _ in range(_PROCESSES):
        with ExitStack() as stack:
            jobs = [contest.prepare(stage, stack, package) for package in order]
            for package, timings in zip(
                order, take_turns(jobs, min(stage.pairs, contest.most_pairs)), strict=True
            ):
                runs[package] += timings
        order.reverse()
    return Duel(contest, runs[base], runs[None])
