# SPDX-License-Identifier: GPL-3.0-or-later
"""A round with one dirty page: the search of a bitmap that is clean but for one bit. Some of it is downtime.

The guest writes one page, in the middle of its memory, before each CLEAN. A run is a live save with many such
rounds; its figure is their median. How a round is timed is in ``dirty_rounds.py``.
"""

from __future__ import annotations

import statistics
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from pairs import take_turns
from result import Row, Runs
from stage import guest

if TYPE_CHECKING:
    from collections.abc import Iterator

    from channel import Remote
    from stage import Stage

__all__ = ["measure"]


def measure(stage: Stage) -> Iterator[Row]:
    """Measures it with the largest guest that fits."""
    for memory_mib in reversed(stage.sizes_mib):
        if stage.fits(memory_mib, 1):
            stage.say(f"rounds with one dirty page, {memory_mib} MiB")
            with stage.worker() as worker:
                yield _row(stage, worker, memory_mib)
            return


def _row(stage: Stage, worker: Remote, memory_mib: int) -> Row:
    # CLEANs are counted from the guest's creation: two engines, a run that does not count, and FINAL ones.
    cleans = 2 * (stage.pairs + 1) * (stage.dirty_rounds + 2)
    page = memory_mib * 256 // 2
    steps = [{"when": "before_clean", "n": n, "write": [page]} for n in range(cleans)]
    domid = worker.call("create", **guest(memory_mib, workload={"kind": "scripted", "steps": steps}))
    jobs = [partial(_round_s, worker, domid, engine, stage.dirty_rounds) for engine in ("libxc", "xenmig")]
    libxc, ours = take_turns(jobs, stage.pairs)
    return Row(
        what="a round with one dirty page",
        memory_mib=memory_mib,
        through="/dev/null",
        pages=1,
        stream_bytes=0,
        libxc=Runs(libxc),
        xenmig=Runs(ours),
    )


def _round_s(worker: Remote, domid: int, engine: str, rounds: int) -> float:
    with Path("/dev/null").open("wb") as null:
        times: list[float] = worker.call("rounds", [null.fileno()], engine=engine, domid=domid, rounds=rounds)
    worker.call("resume", domid=domid)
    return statistics.median(times)
