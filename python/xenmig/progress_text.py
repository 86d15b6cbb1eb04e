# SPDX-License-Identifier: GPL-3.0-or-later
"""How far a save is, in words: from the engine's statistics to the texts of progress displays.

It needs neither a terminal nor the libraries of the command line, so that the save helper can use it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from xenmig._native import PAGE_SIZE

if TYPE_CHECKING:
    from xenmig._native import PrecopyStats

__all__ = ["describe", "describe_briefly", "eta_s", "format_bytes"]

_PASSES = {"stop_and_copy": "stop-and-copy", "verify": "verify"}


def describe(stats: PrecopyStats) -> tuple[str, str]:
    """Returns where the save is, and how it goes.

    Example:
        >>> from xenmig import PrecopyStats
        >>> stats = PrecopyStats.example(
        ...     iteration=2, phase="batch", ram_pages=65536, pages_sent=70000, pages_remaining=2000,
        ...     pages_redirtied=500, send_rate_bytes_per_s=2**30, dirty_rate_pages_per_s=20000.0,
        ... )
        >>> for line in describe(stats):
        ...     print(line)
        iteration 2, 70,000 pages
        1.0 GiB/s, guest dirties 20,000 pages/s, expected downtime 10 ms, ETA 0.0 s
    """
    dirty, copy = stats.dirty_rate_pages_per_s, stats.expected_copy_s
    how = [
        _format_rate(stats),
        "guest dirties ? pages/s" if dirty is None else f"guest dirties {dirty:,.0f} pages/s",
        "expected downtime ?" if copy is None else f"expected downtime {copy * 1000:,.0f} ms",
        _format_eta(stats),
    ]
    return f"{_place(stats)}, {stats.pages_sent:,} pages", ", ".join(how)


def describe_briefly(stats: PrecopyStats) -> str:
    """Returns where the save is, its rate, and when it is done: what matters once the guest does not run.

    Example:
        >>> from xenmig import PrecopyStats
        >>> describe_briefly(PrecopyStats.example(
        ...     phase="stop_and_copy", ram_pages=2**18, pages_remaining=2**18, send_rate_bytes_per_s=2**30
        ... ))
        'stop-and-copy, 1.0 GiB/s, ETA 1.0 s'
    """
    return f"{_place(stats)}, {_format_rate(stats)}, {_format_eta(stats)}"


def eta_s(stats: PrecopyStats) -> float | None:
    """Returns when nothing would be left to send at the present rates, in seconds.

    ``None`` if there is no rate yet; infinity if the guest dirties its memory as fast as it is sent, so that
    only a policy's limit ends the precopy.
    """
    rate = stats.send_rate_bytes_per_s
    if not rate:
        return None
    if stats.phase in _PASSES:
        return stats.expected_copy_s
    gained_pages_per_s = rate / PAGE_SIZE - (stats.dirty_rate_pages_per_s or 0.0)
    return stats.pages_owed / gained_pages_per_s if gained_pages_per_s > 0 else float("inf")


def _place(stats: PrecopyStats) -> str:
    waiting = " (waiting for the other end)" if stats.phase == "waiting" else ""
    return _PASSES.get(stats.phase, f"iteration {stats.iteration}{waiting}")


def _format_rate(stats: PrecopyStats) -> str:
    rate = stats.send_rate_bytes_per_s
    return "no rate yet" if rate is None else f"{format_bytes(rate)}/s"


def _format_eta(stats: PrecopyStats) -> str:
    seconds = eta_s(stats)
    if seconds is None:
        return "ETA ?"
    return "no convergence" if seconds == float("inf") else f"ETA {seconds:,.1f} s"


def format_bytes(size: float) -> str:
    """Returns a size with a binary unit.

    Example:
        >>> format_bytes(300), format_bytes(1536), format_bytes(3 << 30)
        ('300 B', '1.5 KiB', '3.0 GiB')
    """
    unit = "B"
    for larger in ("KiB", "MiB", "GiB"):
        if size < 1024:
            break
        size, unit = size / 1024, larger
    return f"{size:.0f} B" if unit == "B" else f"{size:,.1f} {unit}"
