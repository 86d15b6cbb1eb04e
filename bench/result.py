# SPDX-License-Identifier: GPL-3.0-or-later
"""What was measured: a row of the table for each thing, with every run of both engines behind it."""

from __future__ import annotations

import statistics
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pairs import median_ratio

if TYPE_CHECKING:
    from collections.abc import Sequence

    from worker import Timing

__all__ = ["PAGE_BYTES", "Row", "Runs"]

PAGE_BYTES = 4096
_GIB = 1 << 30
_MIB = 1 << 20


@dataclass(frozen=True)
class Runs:
    """The runs of one engine, or of a plain loop.

    Attributes:
        seconds: What each took.
        cpu_seconds: CPU time of the process, or processes, that did it; ``None`` if it was not measured.
    """

    seconds: list[float]
    cpu_seconds: list[float] | None = None

    @classmethod
    def of(cls, timings: Sequence[Timing]) -> Runs:
        """Takes what the worker returned."""
        return cls([run["seconds"] for run in timings], [run["cpu_seconds"] for run in timings])

    def as_json(self, pages: int, stream_bytes: int) -> dict[str, Any]:
        """Returns the runs and their medians."""
        seconds = statistics.median(self.seconds)
        cpu = None if self.cpu_seconds is None else statistics.median(self.cpu_seconds) / pages * 1e9
        return {
            "seconds": self.seconds,
            "cpu_seconds": self.cpu_seconds,
            "gib_per_s": stream_bytes / _GIB / seconds if stream_bytes else None,
            "ns_per_page": seconds / pages * 1e9,
            "cpu_ns_per_page": cpu,
        }


@dataclass(frozen=True)
class Row:
    """One thing that both engines did, in turn.

    Attributes:
        what: Which thing.
        memory_mib: RAM of the guest.
        through: What the stream goes to, or comes from.
        pages: Pages with contents that one run moves.
        stream_bytes: Bytes of the stream, the same for both engines; 0 where there is no whole stream.
        libxc: The C library's runs.
        xenmig: This package's, in the same turns.
        plain: The same number of bytes in a loop of plain writes, or reads, of 4 MiB; ``None`` without sense.
        libxc_peak_bytes: The most memory that it took beside the domain's; ``None`` if it was not measured.
        xenmig_peak_bytes: As above.
        same_bytes: Whether both engines wrote the same number of bytes, in every pair.
    """

    what: str
    memory_mib: int
    through: str
    pages: int
    stream_bytes: int
    libxc: Runs
    xenmig: Runs
    plain: Runs | None = None
    libxc_peak_bytes: int | None = None
    xenmig_peak_bytes: int | None = None
    same_bytes: bool = True

    @property
    def ratios(self) -> list[float]:
        """The C library's time over ours, pair by pair: above 1 this package is faster."""
        return [c / ours for c, ours in zip(self.libxc.seconds, self.xenmig.seconds, strict=True)]

    @property
    def ratio(self) -> float:
        """The median of the pairs."""
        return statistics.median(self.ratios)

    @property
    def ratio_to_plain(self) -> float | None:
        """The plain loop's time over ours, the median of the turns: 1 is as fast as a plain loop."""
        return None if self.plain is None else median_ratio(self.plain.seconds, self.xenmig.seconds)

    def as_json(self) -> dict[str, Any]:
        """Returns everything, and the figures that follow from it."""

        def engine(runs: Runs, peak_bytes: int | None) -> dict[str, Any]:
            peak = None if peak_bytes is None else peak_bytes / _MIB
            return {**runs.as_json(self.pages, self.stream_bytes), "peak_mib": peak}

        return {
            "what": self.what,
            "memory_mib": self.memory_mib,
            "through": self.through,
            "pages": self.pages,
            "stream_bytes": self.stream_bytes,
            "same_bytes": self.same_bytes,
            "pairs": len(self.libxc.seconds),
            "ratio_to_libxc": self.ratio,
            "ratios_to_libxc": self.ratios,
            "ratio_to_plain": self.ratio_to_plain,
            "libxc": engine(self.libxc, self.libxc_peak_bytes),
            "xenmig": engine(self.xenmig, self.xenmig_peak_bytes),
            "plain": None if self.plain is None else self.plain.as_json(self.pages, self.stream_bytes),
        }
