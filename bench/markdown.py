# SPDX-License-Identifier: GPL-3.0-or-later
"""The figures in README and in the manual, written from the results that were kept.

``make bench KEEP=1`` updates them; ``python bench/markdown.py`` writes them again. A test compares them with
the results.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

__all__ = ["PICTURE", "RESULTS", "blocks", "update"]

_ROOT = Path(__file__).parents[1]
RESULTS = _ROOT / "bench" / "results" / "libxc.json"
PICTURE = _ROOT / "docs" / "measured.svg"
#: What a document has before and after its figures.
_BEGIN, _END = "<!-- figures: make bench KEEP=1 -->\n", "<!-- end of figures -->\n"
_MIDDLE_MIB = 1024
_OTHERS_MIB = (256, 4096)
_ROUND = "a round with one dirty page"
#: What README shows of a 1 GiB guest.
_SUMMARY = (
    ("live save", "/dev/null"),
    ("live save", "unix socket"),
    ("restore", "tmpfs file"),
    ("migration, save to restore", "unix socket"),
)


def blocks(results: dict[str, Any]) -> dict[Path, str]:
    """Returns the figures of each document, as Markdown."""
    rows = results["libxc"]["rows"]
    rounds = [row for row in rows if row["what"] == _ROUND]
    moves = [row for row in rows if row["what"] != _ROUND]
    machine = [_machine(results["machine"]), ""]
    measured = [
        *machine,
        *_middle(moves),
        "",
        *_other_sizes(moves),
        "",
        *_others(moves, rounds),
        "",
        *_policies(results["policy_cost"], results["memory"]),
    ]
    summary = [*machine, *_summary(moves, rounds)]
    return {_ROOT / "docs" / "measured.md": _lines(measured), _ROOT / "README.md": _lines(summary)}


def update(results: dict[str, Any]) -> None:
    """Replaces the figures in the documents."""
    for path, block in blocks(results).items():
        before, begin, rest = path.read_text(encoding="utf-8").partition(_BEGIN)
        _, end, after = rest.partition(_END)
        if not end:
            raise ValueError(f"{path} has no place for figures")
        path.write_text(f"{before}{begin}{block}{end}{after}", encoding="utf-8")


def _machine(machine: dict[str, Any]) -> str:
    xen = machine["xen_packages"]["libxenmisc4.17"].partition("+")[0]
    return (
        f"`make bench` on {machine['date']}: {machine['cores']} cores of an {machine['cpu']}, "
        f"{machine['memory_gib']} GiB, Linux {machine['kernel']}, Python {machine['python']}. "
        f"C is Debian's libxenguest {xen}."
    )


def _summary(moves: Sequence[dict[str, Any]], rounds: Sequence[dict[str, Any]]) -> Iterator[str]:
    yield _line(["1 GiB guest, over fakexen", "C", "xenmig", "x C"])
    yield _line(["---", "---:", "---:", "---:"])
    for what, through in _SUMMARY:
        for row in moves:
            if (row["what"], row["through"], row["memory_mib"]) == (what, through, _MIDDLE_MIB):
                times = [f"{row[engine]['ns_per_page']:,.0f} ns/page" for engine in ("libxc", "xenmig")]
                yield _line([f"{what}, {through}", *times, f"{row['ratio_to_libxc']:.2f}"])
    for row in rounds:
        times = [f"{row[engine]['ns_per_page'] / 1000:,.0f} us" for engine in ("libxc", "xenmig")]
        yield _line([f"{_ROUND}, {_size(row)}", *times, f"{row['ratio_to_libxc']:.1f}"])


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
    yield _line(["---", *["---:"] * (len(heads) - 1)])
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
    yield _line(["---", "---:", "---:"])
    for what, through in dict.fromkeys((row["what"], row["through"]) for row in rows):
        found = [ratios.get((what, through, size)) for size in _OTHERS_MIB]
        if None not in found:
            yield _line([f"{what}, {through}", *(f"{ratio:.2f}" for ratio in found)])


def _others(moves: Sequence[dict[str, Any]], rounds: Sequence[dict[str, Any]]) -> Iterator[str]:
    yield _line(["", "C", "xenmig", "x C"])
    yield _line(["---", "---:", "---:", "---:"])
    for row in rounds:
        times = [f"{row[engine]['ns_per_page'] / 1000:,.0f} us" for engine in ("libxc", "xenmig")]
        yield _line([f"{_ROUND}, {_size(row)} guest", *times, f"{row['ratio_to_libxc']:.1f}"])
    for what in ("live save", "restore"):
        # A peak does not depend on where the stream goes.
        found = [row for row in moves if (row["what"], row["memory_mib"]) == (what, _MIDDLE_MIB)]
        for row in found[:1]:
            mib = [f"{row[engine]['peak_mib']:.1f} MiB" for engine in ("libxc", "xenmig")]
            yield _line([f"peak memory of a {what}, {_size(row)} guest", *mib, "-"])


def _policies(cost: dict[str, Any], peaks: Sequence[dict[str, Any]]) -> Iterator[str]:
    yield _line(["on the simulated host", "measured"])
    yield _line(["---", "---:"])
    yield _line(
        ["a consult of a Python policy, beyond the policy's own body", f"{cost['consult_us']:.2f} us"]
    )
    without, trivial = f"{cost['save_without_ms']:.1f} ms", f"{cost['save_with_ms']:.1f} ms"
    yield _line([f"live save of {cost['memory']}iB to /dev/null, without a policy", without])
    yield _line(["the same with a trivial policy, which sends no holes", trivial])
    for peak in peaks:
        what = f"memory that a save adds to that of a busy {peak['memory']}iB domain"
        yield _line([what, f"{peak['peak_mib']:.1f} MiB"])


def _size(row: dict[str, Any]) -> str:
    return f"{row['memory_mib'] // 1024} GiB"


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _lines(lines: Iterable[str]) -> str:
    return "".join(f"{line}\n" for line in lines)


if __name__ == "__main__":
    update(json.loads(RESULTS.read_text(encoding="utf-8")))
