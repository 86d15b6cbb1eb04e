# SPDX-License-Identifier: GPL-3.0-or-later
"""What two builds are compared in: the rows that are measured against C, and saves of a simulated domain.

Only what every build has is used, so that an old one can be the base.
"""

from __future__ import annotations

import statistics
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ends import FileSink, FileSource, Null, SocketSink, SocketSource
from migrations import migrate
from result import PAGE_BYTES
from saves import DEAR, MAP_COST, NO_HOLES
from stage import guest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import ExitStack

    from ends import End
    from stage import Stage
    from worker import Timing

    Job = Callable[[], Timing]
    Prepare = Callable[[Stage, ExitStack, Path | None], Job]

__all__ = ["Contest", "all_of"]

_MIB = 1 << 20


@dataclass(frozen=True)
class Contest:
    """A row.

    Attributes:
        what: What is done.
        memory_mib: RAM of the guest.
        through: What the stream goes to, or comes from.
        prepare: Sets it up for the build in a folder, or the installed one, and returns what is timed.
        copies: How often the guest's memory must fit into the machine's.
        pages: Pages with contents that one run moves.
        most_pairs: It takes too long for more pairs.
    """

    what: str
    memory_mib: int
    through: str
    prepare: Prepare
    copies: int
    pages: int
    most_pairs: int = 1000

    @property
    def name(self) -> str:
        """What `--rows` selects by."""
        return f"{self.what}, {self.memory_mib} MiB, {self.through}"


def all_of(stage: Stage) -> Iterator[Contest]:
    """Returns every row."""
    middle = stage.middle_mib
    for size in stage.sizes_mib:
        for what, live in (("live save", True), ("save, not live", False)):
            for through in ("/dev/null", "unix socket", "TCP", "tmpfs file"):
                yield _contest(what, size, through, partial(_save, size, through, {}, live=live), 4)
        for through in ("tmpfs file", "unix socket"):
            yield _contest("restore", size, through, partial(_restore, size, through), 4)
        yield _contest("migration, save to restore", size, "unix socket", partial(_migrate, size), 3)
    for through in ("/dev/null", "unix socket"):
        yield _contest(DEAR, middle, through, partial(_save, middle, through, {}, cost=MAP_COST), 2)
    shapes: list[tuple[str, dict[str, Any], int]] = [
        ("live save, PVH", {"special_pages": True}, 1000),
        ("live save, a page near 1 TiB", {"highest_pfn": stage.far_pfn}, 3),
    ]
    for what, shape, most_pairs in shapes:
        for suffix, engine in (("", "xenmig"), (", no holes sent", NO_HOLES)):
            job = partial(_save, middle, "/dev/null", shape, engine=engine)
            yield _contest(f"{what}{suffix}", middle, "/dev/null", job, 2, most_pairs=most_pairs)
    largest = stage.sizes_mib[-1]
    yield _contest("a round with one dirty page", largest, "/dev/null", partial(_rounds, largest), 2, pages=1)
    for what, policy in (("no policy", False), ("trivial policy", True)):
        # Smaller ones are not simulated.
        simulated = max(middle, 64)
        job = partial(_simulated, simulated, policy=policy)
        yield _contest(f"live save, simulated host, {what}", simulated, "/dev/null", job, 2)


def _contest(  # noqa: PLR0913, PLR0917 - the fields in order
    what: str,
    memory_mib: int,
    through: str,
    prepare: Prepare,
    copies: int,
    pages: int | None = None,
    most_pairs: int = 1000,
) -> Contest:
    moved = memory_mib * _MIB // PAGE_BYTES if pages is None else pages
    return Contest(what, memory_mib, through, prepare, copies, moved, most_pairs)


def _sink(stage: Stage, stack: ExitStack, through: str) -> End:
    if through == "/dev/null":
        return Null()
    if through == "tmpfs file":
        return FileSink(stack.enter_context(stage.stream_file()))
    return SocketSink(through, stage.peer)


def _save(  # noqa: PLR0913, PLR0917 - the first are the row's, the last three the build's
    memory_mib: int,
    through: str,
    shape: dict[str, Any],
    stage: Stage,
    stack: ExitStack,
    package: Path | None,
    *,
    live: bool = True,
    engine: str = "xenmig",
    cost: dict[str, int] | None = None,
) -> Job:
    worker = stack.enter_context(stage.worker(package))
    domid = worker.call("create", **guest(memory_mib, **shape))
    if cost:
        worker.call("cost", costs=cost)
    sink = _sink(stage, stack, through)

    def job() -> Timing:
        timing, _ = sink.run(lambda fd: worker.call("save", [fd], engine=engine, domid=domid, live=live))
        worker.call("resume", domid=domid)
        return timing

    return job


def _restore(memory_mib: int, through: str, stage: Stage, stack: ExitStack, package: Path | None) -> Job:
    worker = stack.enter_context(stage.worker(package))
    path = stack.enter_context(stage.stream_file())
    source = worker.call("create", **guest(memory_mib, fill=True, hvm_params={}))
    with path.open("wb") as file:
        worker.call("save", [file.fileno()], engine="libxc", domid=source, live=True)
    worker.call("destroy", domid=source)
    end = FileSource(path) if through == "tmpfs file" else SocketSource(through, stage.peer, path)

    def job() -> Timing:
        target = worker.call("create", **guest(memory_mib, populated=False))
        timing, _ = end.run(lambda fd: worker.call("restore", [fd], engine="xenmig", domid=target))
        worker.call("destroy", domid=target)
        return timing

    return job


def _migrate(memory_mib: int, stage: Stage, stack: ExitStack, package: Path | None) -> Job:
    here, there = (stack.enter_context(stage.worker(package)) for _ in range(2))
    domid = here.call("create", **guest(memory_mib))

    return partial(migrate, here, there, domid, memory_mib, engine="xenmig")


def _rounds(memory_mib: int, stage: Stage, stack: ExitStack, package: Path | None) -> Job:
    worker = stack.enter_context(stage.worker(package))
    rounds = stage.dirty_rounds
    page = memory_mib * 256 // 2
    # Each run has a CLEAN for each round, the first and the final one; a run more does not count.
    cleans = (stage.pairs + 1) * (rounds + 2)
    steps = [{"when": "before_clean", "n": n, "write": [page]} for n in range(cleans)]
    domid = worker.call("create", **guest(memory_mib, workload={"kind": "scripted", "steps": steps}))

    def job() -> Timing:
        with Path("/dev/null").open("wb") as null:
            times = worker.call("rounds", [null.fileno()], engine="xenmig", domid=domid, rounds=rounds)
        worker.call("resume", domid=domid)
        seconds = statistics.median(times)
        return {"began": 0.0, "seconds": seconds, "cpu_seconds": seconds, "wrote": 0}

    return job


def _simulated(memory_mib: int, stage: Stage, stack: ExitStack, package: Path | None, *, policy: bool) -> Job:
    worker = stack.enter_context(stage.worker(package))
    worker.call("simulate", memory_mib=memory_mib)

    def job() -> Timing:
        return Null().run(lambda fd: worker.call("save_simulated", [fd], policy=policy))[0]

    return job
