# SPDX-License-Identifier: GPL-3.0-or-later
"""The picture: for each row, the ratio to C libxc of every pair, and their median. Needs matplotlib."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from table import size

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

__all__ = ["draw"]

#: One colour for each kind of row, told apart by those who see few colours as well.
_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#5d5d5d", "#8c510a")


def draw(rows: Sequence[dict[str, Any]], machine: dict[str, Any], path: Path) -> bool:
    """Draws the picture without a display.

    Args:
        rows: Rows as they are kept in JSON.
        machine: Where they were measured.
        path: Of the file to be written; its suffix says of which kind.

    Returns:
        Whether there is matplotlib.
    """
    try:
        from matplotlib import rc_context  # noqa: PLC0415 - an optional package
        from matplotlib.backends.backend_agg import FigureCanvasAgg  # noqa: PLC0415 - optional
        from matplotlib.figure import Figure  # noqa: PLC0415 - optional
        from matplotlib.ticker import LogLocator, NullFormatter, ScalarFormatter  # noqa: PLC0415 - optional
    except ImportError:
        return False
    figure = Figure(figsize=(9, 1.6 + 0.24 * len(rows)), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    kinds = list(dict.fromkeys(row["what"] for row in rows))
    for at, row in enumerate(rows):
        colour = _COLOURS[kinds.index(row["what"]) % len(_COLOURS)]
        ratios = row["ratios_to_libxc"]
        axes.plot(ratios, [at] * len(ratios), "o", color=colour, alpha=0.35, markersize=4)
        axes.plot(row["ratio_to_libxc"], at, "|", color=colour, markersize=13, markeredgewidth=2.5)
        axes.annotate(
            f"{row['ratio_to_libxc']:.2f}",
            (1.01, at),
            xycoords=("axes fraction", "data"),
            va="center",
            fontsize=8,
        )
    axes.axvline(1, color="black", linewidth=0.8)
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter(ScalarFormatter())
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.set_yticks(range(len(rows)), [_label(row) for row in rows], fontsize=8)
    axes.invert_yaxis()
    axes.set_xlabel(
        "time of C libxc 4.17 / time of xenmig: above 1, xenmig is faster\n(dots: pairs, bars: medians)",
        fontsize=9,
    )
    axes.margins(y=0.02)
    axes.set_title(
        f"xenmig {machine['xenmig']} and C libxc over fakexen, which has no hypervisor cost\n"
        f"{machine['date']}, {machine['cores']} x {machine['cpu']}",
        fontsize=9,
    )
    axes.grid(axis="x", which="both", linewidth=0.3)
    # The same results give the same file, and text stays text.
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": "xenmig"}):
        figure.savefig(path, dpi=120, metadata={"Date": None} if path.suffix == ".svg" else None)
    return True


def _label(row: dict[str, Any]) -> str:
    return f"{row['what']}, {size(row['memory_mib'])}, {row['through']}"
