# SPDX-License-Identifier: GPL-3.0-or-later
"""The table of two builds side by side."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rich import box
from rich.table import Table
from table import size

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["LIMIT", "draw"]

#: A row is marked if it has become slower by more than this.
LIMIT = 1.03

_CAPTION = (
    "Medians. x base: time of this build / time of the base, the median of the pairs, a pair being two runs "
    "that followed each other; in brackets the 95 % confidence interval of that median. x CPU: the same of "
    "CPU time, which is steadier where the machine is shared. Above 1, this build is slower. "
    f"Rows with x base above {LIMIT} are marked with *, and with ** if the whole interval is."
)


def draw(rows: Sequence[dict[str, Any]], title: str) -> Table:
    """Draws the rows.

    Args:
        rows: As :meth:`compare.Duel.as_json` returns them.
        title: What was compared.
    """
    slower = [row for row in rows if row["ratio"] > LIMIT]
    summary = f"{len(slower)} of {len(rows)} rows are slower by more than {LIMIT - 1:.0%}."
    table = Table(title=title, title_justify="left", caption=f"{_CAPTION}\n{summary}", caption_justify="left")
    table.box = box.SIMPLE_HEAD
    table.add_column("", overflow="fold")
    for head in (
        "base\nns/page",
        "now\nns/page",
        "base\nCPU",
        "now\nCPU",
        "x CPU",
        "x base",
        "",
        "",
        "pairs",
    ):
        table.add_column(head, justify="right", no_wrap=True)
    for row in rows:
        table.add_row(
            f"{row['what']}, {size(row['memory_mib'])}, {row['through']}",
            *(f"{row[key]:,.0f}" for key in ("base_ns_per_page", "head_ns_per_page")),
            *(f"{row[key]:,.0f}" for key in ("base_cpu_ns_per_page", "head_cpu_ns_per_page")),
            f"{row['cpu_ratio']:.3f}",
            f"{row['ratio']:.3f}",
            f"[{row['low']:.3f}, {row['high']:.3f}]".replace("[", "\\["),
            "**" if row["low"] > LIMIT else "*" if row["ratio"] > LIMIT else "",
            str(row["pairs"]),
        )
    return table
