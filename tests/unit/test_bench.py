# SPDX-License-Identifier: GPL-3.0-or-later
"""The benchmark runs from end to end with small guests, and refuses what would be measured in vain."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import xenmig

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import ModuleType

BENCH = Path(__file__).parents[2] / "bench"

SINKS = {"/dev/null", "unix socket", "TCP", "tmpfs file"}
KINDS = {
    "live save": SINKS,
    "save, not live": SINKS,
    "live save, map +270, unmap +90 ns a page": {"/dev/null", "unix socket"},
    "live save, PVH": {"/dev/null"},
    "live save, PVH, no holes sent": {"/dev/null"},
    "live save, a page near 1 TiB": {"/dev/null"},
    "live save, a page near 1 TiB, no holes sent": {"/dev/null"},
    "restore": {"tmpfs file", "unix socket"},
    "migration, save to restore": {"unix socket"},
    "a round with one dirty page": {"/dev/null"},
}


def module(name: str) -> ModuleType:
    """Loads a module of the benchmark, which is no package."""
    spec = importlib.util.spec_from_file_location(f"bench_{name}", BENCH / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    loaded = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = loaded
    spec.loader.exec_module(loaded)
    return loaded


@pytest.fixture(scope="module")
def quick(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], str]:
    """Results and output of a quick run."""
    results = tmp_path_factory.mktemp("bench")
    command = [sys.executable, str(BENCH / "run.py"), "--quick", "--results", str(results)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=110, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads((results / "libxc.json").read_text()), done.stdout


@pytest.fixture
def rows(quick: tuple[dict[str, Any], str]) -> list[dict[str, Any]]:
    """Rows of a quick run; tests are skipped where there is no C libxc."""
    libxc = quick[0]["libxc"]
    if libxc["missing"]:
        pytest.skip(libxc["missing"])
    found: list[dict[str, Any]] = libxc["rows"]
    return found


def test_everything_is_measured(rows: list[dict[str, Any]]) -> None:
    found: dict[str, set[str]] = {}
    for row in rows:
        found.setdefault(row["what"], set()).add(row["through"])
    assert found == KINDS


def test_rows_have_figures_that_fit_together(rows: list[dict[str, Any]]) -> None:
    for row in rows:
        c, ours = row["libxc"], row["xenmig"]
        assert row["ratio_to_libxc"] == pytest.approx(c["ns_per_page"] / ours["ns_per_page"]), row["what"]
        assert len(c["seconds"]) == len(ours["seconds"]) == row["pairs"] == 1
        if row["what"].startswith("a round"):
            assert row["stream_bytes"] == 0
            continue
        # Each page is sent once at least, with its word, and little else.
        page_bytes = row["pages"] * (4096 + 8)
        assert page_bytes < row["stream_bytes"] < page_bytes + (10 << 20)
        assert c["cpu_ns_per_page"] > 0 < ours["cpu_ns_per_page"]
        assert row["same_bytes"] == ("no holes" not in row["what"])
        assert (row["ratio_to_plain"] is None) == (row["through"] == "/dev/null")
        assert (ours["peak_mib"] is None) == (row["what"].startswith("migration"))


def test_the_output_says_what_it_is(quick: tuple[dict[str, Any], str]) -> None:
    results, output = quick
    words = " ".join(output.split())
    assert "its figures mean nothing" in words
    assert results["machine"]["date"] in words
    assert results["machine"]["command"] in words
    if results["libxc"]["missing"]:
        assert results["libxc"]["missing"] in words
    else:
        assert "fakexen, which has no hypervisor cost" in words
        assert all(f"libxenmisc4.17 {version}" in words for version in [_version(results)])


def _version(results: dict[str, Any]) -> str:
    return str(results["machine"]["xen_packages"]["libxenmisc4.17"])


def artifact(opt_level: str, *, debug_assertions: bool) -> dict[str, Any]:
    return {
        "target": {"name": "fakexen"},
        "profile": {"opt_level": opt_level, "debug_assertions": debug_assertions},
    }


def test_debug_builds_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    build = module("build")
    build.check_profile(artifact("3", debug_assertions=False))
    for debug in (artifact("1", debug_assertions=True), artifact("3", debug_assertions=True)):
        with pytest.raises(build.DebugBuildError, match="fakexen"):
            build.check_profile(debug)
    monkeypatch.setattr(build._native, "DEBUG_BUILD", True)
    with pytest.raises(build.DebugBuildError, match="extension"):
        build.check_extension()


def test_the_quick_build_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    link = tmp_path / "__init__.py"
    link.symlink_to(Path(__file__))
    build = module("build")
    monkeypatch.setattr(build.xenmig, "__file__", str(link))
    with pytest.raises(build.DebugBuildError, match="make dev"):
        build.check_extension()


def test_jobs_take_turns_and_another_begins_each_time() -> None:
    calls: list[str] = []

    def job(name: str) -> Callable[[], int]:
        def run() -> int:
            calls.append(name)
            return len(calls)

        return run

    results = module("pairs").take_turns([job("a"), job("b")], 3)
    assert "".join(calls) == "ab" + "ab" + "ba" + "ab"
    assert results == [[3, 6, 7], [4, 5, 8]]


def test_the_ratio_is_the_median_of_the_pairs() -> None:
    # The ratios of the pairs are 2, 1 and 3; the ratio of the medians would be 1.
    assert module("pairs").median_ratio([2, 10, 30], [1, 10, 10]) == 2


def test_documents_have_the_figures_that_were_kept() -> None:
    markdown = module("markdown")
    blocks = markdown.blocks(json.loads(markdown.RESULTS.read_text(encoding="utf-8")))
    assert {path.name for path in blocks} == {"README.md", "measured.md"}
    for path, block in blocks.items():
        assert block.count("\n|") > 5
        assert block in path.read_text(encoding="utf-8")


def test_only_a_whole_run_can_be_kept() -> None:
    command = [sys.executable, str(BENCH / "run.py"), "--quick", "--keep"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2
    assert "--keep is for whole runs" in done.stderr


def test_the_interval_of_a_median() -> None:
    interval = module("pairs").interval
    assert interval([3.0]) == (3.0, 3.0)
    # Of ten values the second and the ninth: the chance that the median is outside is 2.1 %.
    assert interval([float(n) for n in range(10, 0, -1)]) == (2.0, 9.0)


@pytest.fixture
def wheel(tmp_path: Path) -> Path:
    """The package that is installed, as a wheel."""
    package = Path(xenmig.__file__).parent
    path = tmp_path / "base.whl"
    with zipfile.ZipFile(path, "w") as archive:
        # Also what make dev has linked.
        for folder, _, names in os.walk(package, followlinks=True):
            for name in names:
                file = Path(folder) / name
                archive.write(file.resolve(), Path("xenmig") / file.relative_to(package))
    return path


@pytest.mark.usefixtures("rows")
def test_two_builds_are_compared(wheel: Path, tmp_path: Path) -> None:
    command = [sys.executable, str(BENCH / "run.py"), "--quick", "--base", str(wheel)]
    command += ["--rows", "live save, 4 MiB, /dev/null", "--rows", "restore, 4 MiB, tmpfs file"]
    command += ["--results", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=110, check=False)
    assert done.returncode == 0, done.stderr
    assert "rows are slower by more than 3%" in " ".join(done.stdout.split())
    rows = json.loads((tmp_path / "compare.json").read_text())["rows"]
    assert [(row["what"], row["through"]) for row in rows] == [
        ("live save", "/dev/null"),
        ("restore", "tmpfs file"),
    ]
    for row in rows:
        ratios = [now / base for now, base in zip(row["head_seconds"], row["base_seconds"], strict=True)]
        assert row["pairs"] == len(ratios) == 2
        assert row["ratio"] == pytest.approx(sum(ratios) / 2)
        assert row["low"] <= row["ratio"] <= row["high"]
