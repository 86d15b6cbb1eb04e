# SPDX-License-Identifier: GPL-3.0-or-later
"""``make bench``: measures what README claims, prints it, and keeps it in ``bench/results``."""

from __future__ import annotations

import argparse
import datetime as dt
import json
import os
import platform
import sys
from pathlib import Path
from typing import Any

import memory
import policy_cost
from rich.console import Console
from rich.table import Table

from xenmig import _native

_RESULTS = Path(__file__).parent / "results"


def _machine() -> dict[str, Any]:
    cpu = next(
        (
            line.split(":", 1)[1].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if "model name" in line
        ),
        platform.machine(),
    )
    return {
        "cpu": cpu,
        "cores": os.cpu_count(),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "date": dt.datetime.now(tz=dt.timezone.utc).date().isoformat(),
    }


def main() -> int:
    """Runs the benchmarks."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=41, help="pairs of saves per figure")
    arguments = parser.parse_args()
    console = Console()
    if _native.DEBUG_BUILD:
        console.print("this is a debug build of the extension: its times mean nothing; build it with make")
        return 1

    machine = _machine()
    cost = policy_cost.measure("1G", arguments.pairs)
    peaks = [memory.measure(size) for size in ("1G", "4G", "8G")]

    table = Table(
        title=f"xenmig {_native.__version__}, {machine['date']}, {machine['cores']} x {machine['cpu']}"
    )
    for column in ("what", "measured", "limit"):
        table.add_column(column)
    table.add_row("a consult in Python, beyond the policy's body", f"{cost['consult_us']:.2f} us", "2 us")
    table.add_row(
        "live save of 1 GiB to /dev/null, trivial policy / none",
        f"{cost['save_ratio']:.3f} ({cost['save_with_ms']:.2f} / {cost['save_without_ms']:.2f} ms)",
        "1.03",
    )
    for peak in peaks:
        table.add_row(
            f"peak memory of a save of {peak['memory']}",
            f"{peak['peak_mib']:.1f} MiB",
            f"{peak['allowed_mib']:.1f} MiB",
        )
    console.print(table)

    _RESULTS.mkdir(exist_ok=True)
    result = {"machine": machine, "policy_cost": cost, "memory": peaks}
    (_RESULTS / "policy.json").write_text(json.dumps(result, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
