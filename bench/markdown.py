# SPDX-License-Identifier: GPL-3.0-or-later
"""README's tables, from what ``make bench`` has kept: ``python bench/markdown.py``.

README has them word for word; a test sees to it.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

__all__ = ["RESULTS", "tables"]

RESULTS = Path(__file__).parent / "results" / "libxc.json"
_MIDDLE_MIB = 1024
_OTHERS_MIB = (256, 4096)
_ROUND = "a round with one dirty page"


def tables(results: dict[str, Any]) -> str:
    """Returns the two tables and the line on a nearly clean bitmap, as Markdown."""
    rows = results["libxc"]["rows"]
    saves = [row for row in rows if row["what"] != _ROUND]
    (dirty_round,) = [row for row in rows if row["what"] == _ROUND]
    return "\n".join([*_middle(saves), "", *_other_sizes(saves), "", _nearly_clean(dirty_round)])


def _middle(rows: Sequence[dict[str, Any]]) -> Iterator[str]:
    heads = (
        "1 GiB guest, one thread",
        "C, ns/page",
        "xenmig, ns/page",
        "CPU, C / xenmig",
        "x C",
        "x plain write",
    )
    yield _line(heads)
    yield _line(["---"] * len(heads))
    for row in rows:
        if row["memory_mib"] == _MIDDLE_MIB:
            libxc, ours, plain = row["libxc"], row["xenmig"], row["ratio_to_plain"]
            cells = [
                f"{row['what']}, {row['through']}",
                f"{libxc['ns_per_page']:,.0f}",
                f"{ours['ns_per_page']:,.0f}",
                f"{libxc['cpu_ns_per_page']:,.0f} / {ours['cpu_ns_per_page']:,.0f}",
                f"{row['ratio_to_libxc']:.2f}",
                "-" if plain is None else f"{plain:.2f}",
            ]
            yield _line(cells)


def _other_sizes(rows: Sequence[dict[str, Any]]) -> Iterator[str]:
    ratios = {(row["what"], row["through"], row["memory_mib"]): row["ratio_to_libxc"] for row in rows}
    yield _line(["other sizes, x C", "256 MiB", "4 GiB"])
    yield _line(["---"] * 3)
    for what, through in dict.fromkeys((row["what"], row["through"]) for row in rows):
        found = [ratios.get((what, through, size)) for size in _OTHERS_MIB]
        if None not in found:
            yield _line([f"{what}, {through}", *(f"{ratio:.2f}" for ratio in found)])


def _nearly_clean(row: dict[str, Any]) -> str:
    libxc, ours = (row[engine]["ns_per_page"] / 1000 for engine in ("libxc", "xenmig"))
    times = f"{libxc:.0f} us in C, {ours:.0f} us here"
    return f"A round with one dirty page, of a 4 GiB guest: {times}, **{row['ratio_to_libxc']:.1f} x**."


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    print(tables(json.loads(RESULTS.read_text(encoding="utf-8"))))
