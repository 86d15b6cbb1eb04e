# SPDX-License-Identifier: GPL-3.0-or-later
"""``make bench``: measures what README claims, prints it, and keeps it in ``bench/results``.

Against C libxc: speed, CPU time and memory of saves, restores and migrations. On the simulated host: what a
policy in Python costs, and the memory of a save.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import build
import libxc
import machine
import memory
import plot
import policy_cost
import table
from rich.console import Console

if TYPE_CHECKING:
    from collections.abc import Sequence

_RESULTS = Path(__file__).parent / "results"


def _arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=5, help="pairs of runs of C and xenmig for each row")
    parser.add_argument(
        "--policy-pairs", type=int, default=41, help="pairs of saves with and without a policy"
    )
    parser.add_argument("--results", type=Path, default=_RESULTS, help="folder for JSON and the picture")
    parser.add_argument(
        "--only", action="append", choices=libxc.KINDS, help="measure only this against C, and keep nothing"
    )
    parser.add_argument(
        "--quick", action="store_true", help="small guests, one pair: to see that it works, not how fast"
    )
    given = parser.parse_args(arguments)
    given.only = given.only or []
    if given.quick:
        given.pairs, given.policy_pairs = 1, 1
    return given


def _against_libxc(given: argparse.Namespace, console: Console) -> dict[str, Any]:
    if (why := libxc.missing()) is not None:
        return {"missing": why, "rows": []}
    library = build.fakexen(release=not given.quick)
    with console.status("measuring") as status:

        def say(what: str) -> None:
            status.update(what)
            if not console.is_terminal:
                console.print(what)

        rows = libxc.measure(library, given.pairs, say, quick=given.quick, only=given.only)
    return {"missing": None, "rows": [row.as_json() for row in rows]}


def _with_policies(given: argparse.Namespace) -> dict[str, Any]:
    if given.only:
        return {"policy_cost": None, "memory": []}
    sizes = ("64M",) if given.quick else ("1G", "4G", "8G")
    cost = policy_cost.measure(sizes[0], given.policy_pairs)
    return {"policy_cost": cost, "memory": [memory.measure(size) for size in sizes]}


def _keep(results: dict[str, Any], folder: Path, console: Console) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "libxc.json").write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
    rows = results["libxc"]["rows"]
    if rows and not plot.draw(rows, results["machine"], folder / "libxc.svg"):
        console.print("no picture: matplotlib is not installed (it is in the dependency group bench)")


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the benchmarks.

    Args:
        arguments: Of the command line.
    """
    given = _arguments(arguments)
    console = Console()
    console.width = max(console.width, table.WIDTH)
    try:
        if not given.quick:
            build.check_extension()
        against_libxc = _against_libxc(given, console)
    except build.DebugBuildError as error:
        console.print(str(error))
        return 1
    results = {
        "machine": machine.describe(),
        "quick": given.quick,
        "libxc": against_libxc,
        **_with_policies(given),
    }
    if not given.only:
        _keep(results, given.results, console)
    console.print(table.draw(results))
    return 0


if __name__ == "__main__":
    sys.exit(main())
