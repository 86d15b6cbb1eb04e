# SPDX-License-Identifier: GPL-3.0-or-later
"""``make bench``: measures what README and the manual claim, and prints it.

Against C libxc: speed, CPU time and memory of saves, restores and migrations. On the simulated host: what a
policy in Python costs, and the memory of a save. With ``--base``: this build against another one instead.

Results go to ``target/bench``; with ``--keep`` also to ``bench/results`` and into the documents' tables.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import build
import compare
import libxc
import machine
import markdown
import memory
import plot
import policy_cost
import table
import verdict
from rich.console import Console
from stage import set_up

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from stage import Stage

_ROOT = Path(__file__).parents[1]


def _arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=5, help="pairs of runs of C and xenmig for each row")
    parser.add_argument(
        "--policy-pairs", type=int, default=41, help="pairs of saves with and without a policy"
    )
    parser.add_argument("--results", type=Path, default=_ROOT / "target" / "bench", help="folder for JSON")
    parser.add_argument("--keep", action="store_true", help="update bench/results and the documents, too")
    parser.add_argument("--base", type=Path, metavar="WHEEL", help="compare with this build, and not with C")
    parser.add_argument(
        "--rows",
        action="append",
        default=[],
        metavar="TEXT",
        help="with --base: only rows with this in the name",
    )
    parser.add_argument("--only", action="append", choices=libxc.KINDS, help="measure only this against C")
    parser.add_argument(
        "--quick", action="store_true", help="small guests, one pair: to see that it works, not how fast"
    )
    given = parser.parse_args(arguments)
    given.only = given.only or []
    if given.quick:
        given.pairs, given.policy_pairs = 1, 1
    if given.keep and (given.quick or given.only or given.base):
        parser.error("--keep is for whole runs: not with --quick, --only or --base")
    return given


@contextmanager
def _stage(given: argparse.Namespace, console: Console) -> Iterator[Stage]:
    library = build.fakexen(release=not given.quick)
    with console.status("measuring") as status:

        def say(what: str) -> None:
            status.update(what)
            if not console.is_terminal:
                console.print(what)

        with set_up(library, given.pairs, say, quick=given.quick) as stage:
            yield stage


def _against_libxc(given: argparse.Namespace, console: Console) -> dict[str, Any]:
    if (why := libxc.missing()) is not None:
        return {"missing": why, "rows": []}
    with _stage(given, console) as stage:
        rows = libxc.measure(stage, given.only)
    return {"missing": None, "rows": [row.as_json() for row in rows]}


def _against_base(given: argparse.Namespace, console: Console) -> None:
    described = machine.describe()
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder, _stage(given, console) as stage:
        for duel in compare.measure(stage, compare.unpack(given.base, Path(folder)), given.rows):
            rows.append(duel.as_json())
            # What was measured until now is there if the run is interrupted.
            _write(given.results / "compare.json", {"machine": described, "rows": rows})
    console.print(verdict.draw(rows, f"{given.base.name} and the installed build, {described['date']}"))


def _write(path: Path, results: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")


def _with_policies(given: argparse.Namespace) -> dict[str, Any]:
    if given.only:
        return {"policy_cost": None, "memory": []}
    sizes = ("64M",) if given.quick else ("1G", "4G", "8G")
    cost = policy_cost.measure(sizes[0], given.policy_pairs)
    return {"policy_cost": cost, "memory": [memory.measure(size) for size in sizes]}


def _keep(results: dict[str, Any], console: Console) -> None:
    _write(markdown.RESULTS, results)
    markdown.update(results)
    if not plot.draw(results["libxc"]["rows"], results["machine"], markdown.PICTURE):
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
        if given.base:
            _against_base(given, console)
            return 0
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
    _write(given.results / "libxc.json", results)
    if given.keep:
        if against_libxc["missing"]:
            console.print(f"nothing was kept: {against_libxc['missing']}")
            return 1
        _keep(results, console)
    console.print(table.draw(results))
    return 0


if __name__ == "__main__":
    sys.exit(main())
