# SPDX-License-Identifier: GPL-3.0-or-later
"""Saves: live and not, of guests of several sizes, to each kind of sink; and live ones of unusual guests.

No policy is given, so both engines go by libxc's default and write the same bytes. That they write as many is
checked in each pair; that they are the same is what ``tests/parity`` is for.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

from ends import FileSink, Null, SocketSink
from pairs import take_turns
from result import PAGE_BYTES, Row, Runs
from stage import guest

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from channel import Remote
    from ends import End
    from peaks import Peaks
    from stage import Stage
    from worker import Timing

__all__ = ["DEAR", "MAP_COST", "NO_HOLES", "measure"]

_MIB = 1 << 20
#: Added to what the fake kernel's own mapping costs, which is about as much: under Xen it costs more.
MAP_COST = {"map_ns_per_page": 270, "unmap_ns_per_page": 90}
DEAR = "live save, map +{map_ns_per_page}, unmap +{unmap_ns_per_page} ns a page".format(**MAP_COST)
NO_HOLES = "xenmig, no holes sent"


def measure(stage: Stage, peaks: Peaks) -> Iterator[Row]:
    """Measures all saves."""
    for memory_mib in stage.sizes_mib:
        if stage.fits(memory_mib, 2):
            with stage.worker() as worker, stage.stream_file() as path:
                domid = worker.call("create", **guest(memory_mib))
                saves = _Saves(stage, worker, domid, memory_mib, peaks)
                yield from _usual(saves, path)
                if memory_mib == stage.middle_mib:
                    yield from _dear(saves)
    yield from _with_holes(stage, peaks)


def _usual(saves: _Saves, path: Path) -> Iterator[Row]:
    peer = saves.stage.peer
    sinks = [Null(), SocketSink("unix socket", peer), SocketSink("TCP", peer), FileSink(path)]
    for what, live in (("live save", True), ("save, not live", False)):
        for sink in sinks:
            yield saves.row(what, sink, live=live)


def _dear(saves: _Saves) -> Iterator[Row]:
    """Lets mapping cost more."""
    saves.worker.call("cost", costs=MAP_COST)
    for sink in (Null(), SocketSink("unix socket", saves.stage.peer)):
        yield saves.row(DEAR, sink, live=True)
    saves.worker.call("cost", costs={})


def _with_holes(stage: Stage, peaks: Peaks) -> Iterator[Row]:
    """Saves guests whose p2m is mostly holes, as libxc does, and with a policy, which leaves the holes out.

    The second sends less, so its bytes are other ones. It is held against the same runs of libxc.
    """
    memory_mib = stage.middle_mib
    # PVH has special pages just below 4 GiB. libxc takes seconds for the other.
    shapes: list[tuple[str, int, dict[str, Any]]] = [
        ("live save, PVH", stage.pairs, {"special_pages": True}),
        ("live save, a page near 1 TiB", min(stage.pairs, 2), {"highest_pfn": stage.far_pfn}),
    ]
    for what, pairs, shape in shapes:
        with stage.worker() as worker:
            domid = worker.call("create", **guest(memory_mib, **shape))
            saves = _Saves(stage, worker, domid, memory_mib, peaks, shape)
            yield from saves.rows_with_holes(what, pairs)


class _Saves:
    """Saves of one guest, in one process."""

    def __init__(  # noqa: PLR0913, PLR0917 - the guest and who it is measured by
        self,
        stage: Stage,
        worker: Remote,
        domid: int,
        memory_mib: int,
        peaks: Peaks,
        shape: dict[str, Any] | None = None,
    ) -> None:
        self.stage = stage
        self.worker = worker
        self._domid = domid
        self._memory_mib = memory_mib
        self._pages = memory_mib * _MIB // PAGE_BYTES
        self._peaks = peaks
        self._shape = shape or {}
        self._stream_bytes: dict[bool, int] = {}

    def row(self, what: str, sink: End, *, live: bool) -> Row:
        """Measures both engines, and the plain loop."""
        self.stage.say(f"{what}, {self._memory_mib} MiB, {sink.name}")
        if live not in self._stream_bytes:
            _, self._stream_bytes[live] = self._save("libxc", Null(), live=live)
        stream_bytes = self._stream_bytes[live]
        jobs = [partial(self._save, engine, sink, live=live) for engine in ("libxc", "xenmig")]
        plain = None if isinstance(sink, Null) else partial(self._write, sink, stream_bytes)
        libxc, ours, *rest = take_turns(jobs if plain is None else [*jobs, plain], self.stage.pairs)
        _check_bytes(what, stream_bytes, libxc, ours, *rest)
        row = self._row(what, sink, stream_bytes, libxc, ours, live=live)
        return replace(row, plain=Runs.of([timing for timing, _ in rest[0]])) if rest else row

    def rows_with_holes(self, what: str, pairs: int) -> list[Row]:
        """Measures libxc, xenmig as libxc does it, and xenmig in its own way; to the null device."""
        self.stage.say(f"{what}, {self._memory_mib} MiB")
        sink = Null()
        jobs = [partial(self._save, engine, sink, live=True) for engine in ("libxc", "xenmig", NO_HOLES)]
        libxc, alike, ours = take_turns(jobs, pairs)
        stream_bytes = libxc[0][1]
        _check_bytes(what, stream_bytes, libxc, alike)
        row = self._row(what, sink, stream_bytes, libxc, alike, live=True)
        peak = self._peaks.of_save(NO_HOLES, self._memory_mib, **self._shape)
        own = replace(
            row,
            what=f"{what}, no holes sent",
            xenmig=Runs.of([timing for timing, _ in ours]),
            xenmig_peak_bytes=peak,
            same_bytes=False,
        )
        return [row, own]

    def _row(  # noqa: PLR0913 - it is what a row needs
        self,
        what: str,
        sink: End,
        stream_bytes: int,
        libxc: list[tuple[Timing, int]],
        ours: list[tuple[Timing, int]],
        *,
        live: bool,
    ) -> Row:
        def peak(engine: str) -> int:
            return self._peaks.of_save(engine, self._memory_mib, live=live, **self._shape)

        return Row(
            what=what,
            memory_mib=self._memory_mib,
            through=sink.name,
            pages=self._pages,
            stream_bytes=stream_bytes,
            libxc=Runs.of([timing for timing, _ in libxc]),
            xenmig=Runs.of([timing for timing, _ in ours]),
            libxc_peak_bytes=peak("libxc"),
            xenmig_peak_bytes=peak("xenmig"),
        )

    def _save(self, engine: str, sink: End, *, live: bool) -> tuple[Timing, int]:
        def job(fd: int) -> Timing:
            arguments = {"engine": engine, "domid": self._domid, "live": live}
            timing: Timing = self.worker.call("save", [fd], **arguments)
            return timing

        result = sink.run(job)
        self.worker.call("resume", domid=self._domid)
        return result

    def _write(self, sink: End, count: int) -> tuple[Timing, int]:
        return sink.run(lambda fd: self.worker.call("write", [fd], count=count))


def _check_bytes(what: str, stream_bytes: int, *runs: list[tuple[Timing, int]]) -> None:
    """Sees to it that every run wrote as many bytes."""
    found = {count for turns in runs for _, count in turns}
    if found != {stream_bytes}:
        raise RuntimeError(
            f"{what}: streams of {sorted(found | {stream_bytes})} bytes, which should be equal"
        )
