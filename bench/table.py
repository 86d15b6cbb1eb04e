# SPDX-License-Identifier: GPL-3.0-or-later
"""The table on the terminal."""

from __future__ import annotations

from itertools import groupby
from typing import TYPE_CHECKING, Any

from rich import box
from rich.console import Group
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import RenderableType

__all__ = ["WIDTH", "draw", "size"]

#: Heads of the columns, and their widths.
_COLUMNS = (
    ("", 24),
    *((f"{figure}\n{engine}", 7) for figure in ("GiB/s", "ns/page") for engine in ("C", "xenmig")),
    *((f"{figure}\n{engine}", 7) for figure in ("CPU\nns/page", "peak\nMiB") for engine in ("C", "xenmig")),
    ("x C", 5),
    ("x plain", 7),
    ("pairs", 5),
)
#: The table is not readable in fewer characters.
WIDTH = sum(width + 3 for _, width in _COLUMNS)

_CAPTION = (
    "C is Debian's libxenguest 4.17. Figures are medians; ratios are medians of the pairs, a pair being two "
    "runs that followed each other. x C: time of C / time of xenmig: above 1, xenmig is faster. x plain: "
    "time of a loop of plain 4 MiB writes or reads of as many bytes / time of xenmig. CPU: of the process "
    "that saves or restores, of both in a migration. Peak: memory beside the domain's. A round is timed by "
    "the policy, from the consult before its CLEAN to the one after its last page. Where no holes are sent, "
    "xenmig is given a policy, and writes other bytes than C. Both run over fakexen, which has no "
    "hypervisor cost: mapping a page costs what mmap costs here, hypercalls cost next to nothing."
)


def draw(results: dict[str, Any]) -> RenderableType:
    """Draws everything that was measured.

    Args:
        results: As it is kept in JSON: ``machine``, ``libxc`` (rows, or why there are none), ``policy_cost``,
            ``memory``.
    """
    rows = results["libxc"]["rows"]
    parts: list[RenderableType] = [_title(results["machine"], quick=results["quick"])]
    if rows:
        parts += _libxc(rows)
    else:
        parts.append(f"Nothing was measured against C libxc: {results['libxc']['missing']}")
    if results["policy_cost"]:
        parts.append(_policy(results["policy_cost"], results["memory"]))
    return Group(*parts)


def _title(machine: dict[str, Any], *, quick: bool) -> str:
    packages = ", ".join(f"{name} {version}" for name, version in machine["xen_packages"].items())
    cores, cpu, kernel = machine["cores"], machine["cpu"], machine["kernel"]
    lines = [
        f"xenmig {machine['xenmig']}, {machine['date']}, {machine['command']}",
        f"{cores} x {cpu}, {machine['memory_gib']} GiB, Linux {kernel}, Python {machine['python']}",
        packages or "no Xen packages",
    ]
    if quick:
        lines.insert(0, "A quick run, to see that it works: its figures mean nothing.")
    return "\n".join(lines)


def _libxc(rows: Sequence[dict[str, Any]]) -> list[RenderableType]:
    """Draws the heads, then each kind of row under its name, all in the same columns, then the caption."""
    heads = Table(box=box.SIMPLE_HEAD, padding=(0, 1), pad_edge=False)
    for head, width in _COLUMNS:
        heads.add_column(head, width=width, justify="right" if head else "left", vertical="bottom")
    parts: list[RenderableType] = [heads]
    for what, group in groupby(rows, key=lambda row: str(row["what"])):
        table = Table(box=box.SIMPLE_HEAD, padding=(0, 1), pad_edge=False, show_header=False, show_edge=False)
        for head, width in _COLUMNS:
            table.add_column(width=width, justify="right" if head else "left", no_wrap=True)
        for row in group:
            table.add_row(f"  {size(row['memory_mib'])}, {row['through']}", *_cells(row))
        parts += [Text(what, style="bold"), table]
    return [*parts, Padding(_CAPTION, (1, 0))]


def _cells(row: dict[str, Any]) -> list[str]:
    def pair(figure: str, form: str) -> list[str]:
        values = (row[engine][figure] for engine in ("libxc", "xenmig"))
        return ["-" if value is None else format(value, form) for value in values]

    return [
        *pair("gib_per_s", ".2f"),
        *pair("ns_per_page", ",.0f"),
        *pair("cpu_ns_per_page", ",.0f"),
        *pair("peak_mib", ".1f"),
        format(row["ratio_to_libxc"], ".2f"),
        "-" if row["ratio_to_plain"] is None else format(row["ratio_to_plain"], ".2f"),
        str(row["pairs"]),
    ]


def size(mib: int) -> str:
    """Writes a size as people do."""
    return f"{mib // 1024} GiB" if mib % 1024 == 0 else f"{mib} MiB"


def _policy(cost: dict[str, Any], peaks: Sequence[dict[str, Any]]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for column in ("what, on the simulated host", "measured", "limit"):
        table.add_column(column)
    table.add_row("a consult in Python, beyond the policy's body", f"{cost['consult_us']:.2f} us", "2 us")
    table.add_row(
        f"live save of {cost['memory']} to /dev/null, trivial policy / none",
        f"{cost['save_ratio']:.3f} ({cost['save_with_ms']:.2f} / {cost['save_without_ms']:.2f} ms)",
        "1.03",
    )
    for peak in peaks:
        measured, allowed = (f"{peak[which]:.1f} MiB" for which in ("peak_mib", "allowed_mib"))
        table.add_row(f"peak memory of a live save of {peak['memory']}", measured, allowed)
    return table
