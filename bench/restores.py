# SPDX-License-Identifier: GPL-3.0-or-later
"""Restores of a stream that libxc wrote, from a file and from a socket, each into a new domain.

The new domain's memory is backed from the start, so that no run pays for the kernel clearing pages. After the
last pair its contents are compared with the saved domain's.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from ends import FileSource, SocketSource
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

__all__ = ["measure"]

_MIB = 1 << 20
#: Without parameters there are no pages of the device model and the store that a restore clears.
_NO_PARAMETERS: dict[str, Any] = {"hvm_params": {}}


def measure(stage: Stage, peaks: Peaks) -> Iterator[Row]:
    """Measures all restores."""
    for memory_mib in stage.sizes_mib:
        if stage.fits(memory_mib, 4):
            with stage.worker() as worker, stage.stream_file() as path:
                source = worker.call("create", **guest(memory_mib, fill=True, **_NO_PARAMETERS))
                with path.open("wb") as file:
                    worker.call("save", [file.fileno()], engine="libxc", domid=source, live=True)
                restores = _Restores(stage, worker, source, memory_mib)
                peaks_bytes = [peaks.of_restore(engine, memory_mib, path) for engine in ("libxc", "xenmig")]
                for end in (FileSource(path), SocketSource("unix socket", stage.peer, path)):
                    yield restores.row(end, path, *peaks_bytes)


class _Restores:
    """Restores of one stream, in one process."""

    def __init__(self, stage: Stage, worker: Remote, source: int, memory_mib: int) -> None:
        self._stage = stage
        self._worker = worker
        self._source = source
        self._memory_mib = memory_mib

    def row(self, end: End, path: Path, libxc_peak_bytes: int, xenmig_peak_bytes: int) -> Row:
        """Measures both engines, and a loop of plain reads."""
        self._stage.say(f"restore, {self._memory_mib} MiB, {end.name}")
        stream_bytes = path.stat().st_size
        engines = [partial(self._restore, engine, end) for engine in ("libxc", "xenmig")]
        libxc, ours, plain = take_turns([*engines, partial(self._read, end)], self._stage.pairs)
        for engine in ("libxc", "xenmig"):
            self._restore(engine, end, compare=True)
        return Row(
            what="restore",
            memory_mib=self._memory_mib,
            through=end.name,
            pages=self._memory_mib * _MIB // PAGE_BYTES,
            stream_bytes=stream_bytes,
            libxc=Runs.of(libxc),
            xenmig=Runs.of(ours),
            plain=Runs.of(plain),
            libxc_peak_bytes=libxc_peak_bytes,
            xenmig_peak_bytes=xenmig_peak_bytes,
        )

    def _restore(self, engine: str, end: End, *, compare: bool = False) -> Timing:
        target = self._worker.call("create", **guest(self._memory_mib, populated=False))
        try:
            timing, _ = end.run(
                lambda fd: self._worker.call("restore", [fd], engine=engine, domid=target),
            )
            if compare and (differing := self._worker.call("differing", one=self._source, other=target)):
                raise RuntimeError(f"{engine} restored other contents at pfns {differing}")
        finally:
            self._worker.call("destroy", domid=target)
        return timing

    def _read(self, end: End) -> Timing:
        return end.run(lambda fd: self._worker.call("read", [fd]))[0]
