# SPDX-License-Identifier: GPL-3.0-or-later
"""The live view of a save: from the engine's statistics to two lines on a terminal."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from rich.console import Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from xenmig import PAGE_SIZE, PrecopyStats

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rich.console import Console, RenderableType

__all__ = ["ProgressView", "describe", "eta_s", "format_bytes", "progress_view"]

_PASSES = {"stop_and_copy": "stop-and-copy", "verify": "verify"}
_BAR_COLUMNS = 40


class ProgressView:
    """Shows what it is called with, if the console is a terminal, and leaves nothing behind."""

    def __init__(self, live: Live | None) -> None:
        self._live = live

    def say(self, what: str) -> None:
        """Shows one line, for what is not a save."""
        if self._live is not None:
            self._live.update(Text(what), refresh=True)

    def __call__(self, stats: PrecopyStats) -> None:
        """Shows the statistics."""
        if self._live is not None:
            self._live.update(_render(stats))


@contextmanager
def progress_view(console: Console) -> Iterator[ProgressView]:
    """Opens a view on a console; it is gone when the block is left."""
    if console.is_terminal:
        with Live(console=console, transient=True, refresh_per_second=10) as live:
            yield ProgressView(live)
    else:
        yield ProgressView(None)


def _render(stats: PrecopyStats) -> RenderableType:
    first, second = describe(stats)
    bar = Table.grid(padding=(0, 1))
    done = max(stats.ram_pages - stats.pages_owed, 0)
    bar.add_row(first, ProgressBar(total=max(stats.ram_pages, 1), completed=done, width=_BAR_COLUMNS))
    return Group(bar, Text(second))


def describe(stats: PrecopyStats) -> tuple[str, str]:
    """Returns where the save is, and how it goes.

    Example:
        >>> stats = PrecopyStats.example(
        ...     iteration=2, phase="batch", ram_pages=65536, pages_sent=70000, pages_remaining=2000,
        ...     pages_redirtied=500, send_rate_bytes_per_s=2**30, dirty_rate_pages_per_s=20000.0,
        ... )
        >>> for line in describe(stats):
        ...     print(line)
        iteration 2, 70,000 pages
        1.0 GiB/s, guest dirties 20,000 pages/s, expected downtime 10 ms, ETA 0.0 s
    """
    where = _PASSES.get(stats.phase, f"iteration {stats.iteration}")
    rate, dirty, copy = (
        stats.send_rate_bytes_per_s,
        stats.dirty_rate_pages_per_s,
        stats.expected_copy_s,
    )
    how = [
        "no rate yet" if rate is None else f"{format_bytes(rate)}/s",
        "guest dirties ? pages/s" if dirty is None else f"guest dirties {dirty:,.0f} pages/s",
        "expected downtime ?" if copy is None else f"expected downtime {copy * 1000:,.0f} ms",
        _format_eta(stats),
    ]
    return f"{where}, {stats.pages_sent:,} pages", ", ".join(how)


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
