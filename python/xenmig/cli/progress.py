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

from xenmig.progress_text import describe

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rich.console import Console, RenderableType

    from xenmig import PrecopyStats

__all__ = ["ProgressView", "progress_view"]

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
