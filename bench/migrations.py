# SPDX-License-Identifier: GPL-3.0-or-later
"""Whole migrations: a process saves while another restores, over a unix socket, both with the same engine.

Timed from the start of the save to the end of the restore. The CPU time is that of both processes.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from ends import SocketSink, connection
from pairs import take_turns
from result import PAGE_BYTES, Row, Runs
from stage import guest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from channel import Remote
    from stage import Stage
    from worker import Timing

__all__ = ["measure", "migrate"]

_MIB = 1 << 20


def measure(stage: Stage) -> Iterator[Row]:
    """Measures migrations of guests of each size."""
    for memory_mib in stage.sizes_mib:
        if stage.fits(memory_mib, 3):
            stage.say(f"migration, {memory_mib} MiB, unix socket")
            with stage.worker() as here, stage.worker() as there:
                yield _Migrations(stage, here, there, memory_mib).row()


def migrate(here: Remote, there: Remote, domid: int, memory_mib: int, *, engine: str) -> Timing:
    """Migrates a domain into a new one in another process, lets it run again, and destroys the copy."""
    target = there.call("create", **guest(memory_mib, populated=False))
    with connection("unix socket") as (ours, theirs):
        there.begin("restore", [theirs.fileno()], engine=engine, domid=target)
        here.begin("save", [ours.fileno()], engine=engine, domid=domid, live=True)
        ours.close()
        theirs.close()
        saved: Timing = here.finish()
        restored: Timing = there.finish()
    here.call("resume", domid=domid)
    there.call("destroy", domid=target)
    return {
        "began": saved["began"],
        "seconds": restored["began"] + restored["seconds"] - saved["began"],
        "cpu_seconds": saved["cpu_seconds"] + restored["cpu_seconds"],
        "wrote": 0,
    }


class _Migrations:
    """Migrations of one guest from a process to another."""

    def __init__(self, stage: Stage, here: Remote, there: Remote, memory_mib: int) -> None:
        self._stage = stage
        self._here = here
        self._there = there
        self._memory_mib = memory_mib
        self._domid = here.call("create", **guest(memory_mib))

    def row(self) -> Row:
        """Measures both engines, and a loop of plain writes to a process that reads."""
        stream_bytes = self._count()
        sink = SocketSink("unix socket", self._stage.peer)

        def write() -> Timing:
            return sink.run(lambda fd: self._here.call("write", [fd], count=stream_bytes))[0]

        jobs: list[Callable[[], Timing]] = [
            partial(migrate, self._here, self._there, self._domid, self._memory_mib, engine=engine)
            for engine in ("libxc", "xenmig")
        ]
        jobs.append(write)
        libxc, ours, plain = take_turns(jobs, self._stage.pairs)
        return Row(
            what="migration, save to restore",
            memory_mib=self._memory_mib,
            through="unix socket",
            pages=self._memory_mib * _MIB // PAGE_BYTES,
            stream_bytes=stream_bytes,
            libxc=Runs.of(libxc),
            xenmig=Runs.of(ours),
            plain=Runs.of(plain),
        )

    def _count(self) -> int:
        """Returns the length of the stream, which is the same for both engines."""
        sink = SocketSink("unix socket", self._stage.peer)
        counts = []
        for engine in ("libxc", "xenmig"):
            arguments = {"engine": engine, "domid": self._domid, "live": True}
            counts.append(sink.run(lambda fd: self._here.call("save", [fd], **arguments))[1])  # noqa: B023 - it is called before the loop goes on
            self._here.call("resume", domid=self._domid)
        if counts[0] != counts[1]:
            raise RuntimeError(f"migration: streams of {counts} bytes, which should be equal")
        return counts[0]
