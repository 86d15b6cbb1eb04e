# SPDX-License-Identifier: GPL-3.0-or-later
"""What a save and a migration cost with libxl's own helper and with ours: the same guest, taking turns.

The figures are printed, and in the testbed left in ``/out/xen-figures.json``. They say how the two compare on
this machine. In the testbed, which emulates its processors, seconds mean nothing, and ratios not much: what a
hypercall, a page fault and a copied page cost has other proportions there. So nothing is asserted of them.
"""

from __future__ import annotations

import json
import os
import platform
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest
from tests.xen.measured_helper import MeasuredHelper

import xenmig
from xenmig.helper import stock

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.xen.guest import Guest
    from tests.xen.toolstack import Finished, Toolstack

PAIRS = 3
OUT = Path("/out/xen-figures.json")
EMULATED = "Xen runs on emulated processors here: seconds mean nothing, and a real machine has other ratios."


class Figure(NamedTuple):
    """One run.

    Attributes:
        wall_s: From the start of ``xl`` to its end, in seconds.
        cpu_s: Processor time of the helper that saved, in seconds, in dom0.
        written_bytes: What this helper wrote.
        silence_s: The guest's longest time between two reports, by its own wall clock, in seconds: how long
            it did not run, and at most the time between two reports more.
    """

    wall_s: float
    cpu_s: float
    written_bytes: int
    silence_s: float


@pytest.fixture(scope="module")
def figures(request: pytest.FixtureRequest) -> Iterator[dict[str, Any]]:
    """Takes what was measured, by its name; shows it at the end."""
    rows: dict[str, Any] = {}
    yield rows
    emulated = bool(os.environ.get("XENMIG_TESTBED"))
    document = {
        "machine": platform.processor() or platform.machine(),
        "kernel": platform.release(),
        "xen": ".".join(map(str, xenmig.Xen().version)),
        "xenmig": xenmig.__version__,
        "emulated": emulated,
        "ratio": "stock / xenmig, median of the pairs: above 1, xenmig is faster",
        "rows": rows,
    }
    if emulated:
        OUT.parent.mkdir(exist_ok=True)
        OUT.write_text(json.dumps(document, indent=2) + "\n")
    capture = request.config.pluginmanager.getplugin("capturemanager")
    with capture.global_and_fixture_disabled():
        print("\n" + table(rows) + (f"\n{EMULATED}" if emulated else ""))  # noqa: T201 - that is what is wanted


@pytest.fixture
def helpers(toolstack: Toolstack, tmp_path: Path) -> dict[str, MeasuredHelper]:
    """Both helpers, measured."""
    return {
        "stock": MeasuredHelper(stock.find(None), tmp_path),
        "xenmig": MeasuredHelper(toolstack.helper, tmp_path),
    }


def test_xl_save(
    pvh_guest: Guest,
    toolstack: Toolstack,
    helpers: dict[str, MeasuredHelper],
    figures: dict[str, Any],
    tmp_path: Path,
) -> None:
    image = tmp_path / "image"

    def save(helper: Path) -> Finished:
        finished = toolstack.xl("save", "-c", pvh_guest.name, image, helper=helper)
        image.unlink(missing_ok=True)
        return finished

    figures["xl save -c, PVH, to tmpfs"] = measured(pvh_guest, helpers, save)


def test_xl_migrate(
    pvh_guest: Guest, toolstack: Toolstack, helpers: dict[str, MeasuredHelper], figures: dict[str, Any]
) -> None:
    def migrate(helper: Path) -> Finished:
        return toolstack.migrate(pvh_guest.name, helper=helper)

    figures["xl migrate, PVH, live, to this host"] = measured(pvh_guest, helpers, migrate)


def measured(
    guest: Guest, helpers: dict[str, MeasuredHelper], run: Callable[[Path], Finished]
) -> dict[str, Any]:
    """Runs it with both helpers in turns, and returns the figures of all pairs and the ratios."""
    pairs: list[dict[str, Figure]] = []
    own: list[dict[str, float]] = []
    guest.check_goes_on(reports=1)
    for number in range(PAIRS):
        pair: dict[str, Figure] = {}
        # The second of a pair may find things in caches that the first has not.
        for name, helper in sorted(helpers.items(), reverse=bool(number % 2)):
            finished = run(helper.script).ok()
            reports = guest.check_goes_on(reports=2)
            silence_s = max(after.clock_ms - before.clock_ms for before, after in pairwise(reports)) / 1000
            pair[name] = Figure(finished.elapsed_s, *helper.cost(), silence_s)
            assert pair[name].written_bytes > 0.99 * guest.memory_pages * 4096, finished.output
            # libxl's own helper keeps no run log.
            if name == "xenmig":
                result = finished.saved()
                own.append({key: result[key] for key in ("elapsed_s", "downtime_ms", "rounds")})
            else:
                assert finished.log == []
        pairs.append(pair)
    ratios = {
        field: median(getattr(pair["stock"], field) / getattr(pair["xenmig"], field) for pair in pairs)
        for field in Figure._fields
    }
    runs = [{name: figure._asdict() for name, figure in pair.items()} for pair in pairs]
    return {"pairs": runs, "ratios": ratios, "xenmig.save": own}


def table(rows: dict[str, Any]) -> str:
    """Returns the figures as text: medians, and the medians of the pairs' ratios."""
    columns = {"wall_s": "wall, s", "cpu_s": "helper CPU, s", "written_bytes": "written, MB"}
    columns |= {"silence_s": "guest silent, s"}
    lines = [f"{'stock | xenmig | ratio':36}" + "".join(f"{title:^24}" for title in columns.values())]
    for name, row in rows.items():
        cells = ""
        for field in columns:
            unit = 1e6 if field == "written_bytes" else 1
            stocks, ours = (
                median(pair[helper][field] for pair in row["pairs"]) / unit for helper in ("stock", "xenmig")
            )
            cells += f"{stocks:8.2f}{ours:8.2f}{row['ratios'][field]:7.2f} "
        lines.append(f"{name:36}{cells}")
        own_s = median(run["elapsed_s"] for run in row["xenmig.save"])
        downtime_ms = median(run["downtime_ms"] for run in row["xenmig.save"])
        lines.append(
            f"  with our helper, xenmig.save() took {own_s:.2f} s, the downtime {downtime_ms:.0f} ms of it"
        )
    return "\n".join(lines)
