# SPDX-License-Identifier: GPL-3.0-or-later
"""``XENMIG_LOG``: one line of JSON for each save, and no save fails because of it."""

from __future__ import annotations

import json
import os
import stat
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

import pytest
from tests.helper.stream_end import to_file
from tests.helper.test_against_stock import IDLE
from tests.helper.toolstack import LIVE

import xenmig
from xenmig.helper import run_log

if TYPE_CHECKING:
    from pathlib import Path

    from tests.helper.toolstack import Starter, Toolstack


def save(starter: Starter, helper: Path, log: str, flags: int = LIVE) -> Toolstack:
    """Has a domain saved with a run log."""
    with to_file(starter.directory / "stream") as fd:
        return starter.save(helper, IDLE, fd, flags=flags, environment={"XENMIG_LOG": log}).run()


def test_what_is_in_it(starter: Starter, helper: Path) -> None:
    began = datetime.now(timezone.utc)
    for flags in (LIVE, 0):
        assert save(starter, helper, "log", flags).completed == (0, 0)
    ended = datetime.now(timezone.utc)
    log = starter.directory / "log"
    assert stat.S_IMODE(log.stat().st_mode) == 0o600
    live, still = (json.loads(line) for line in log.read_text().splitlines())
    for entry in (live, still):
        times = [datetime.fromisoformat(entry[key]) for key in ("started", "ended")]
        # They are cut to milliseconds.
        assert began.timestamp() - 0.001 <= times[0].timestamp() <= times[1].timestamp() <= ended.timestamp()
        assert entry["xenmig"] == xenmig.__version__
        assert (entry["domid"], entry["outcome"], entry["warnings"]) == (5, "saved", [])
        assert entry["result"]["pages_sent"] >= 1500
    assert still["result"]["bytes_sent"] == (starter.directory / "stream").stat().st_size
    assert (live["live"], live["policy"], live["consult"]) == (True, None, "round")
    assert live["result"]["reason"] == "0 dirty pages, fewer than 50"
    assert still["live"] is False


@pytest.mark.parametrize("kind", ["directory", "missing directory", "pipe", "full"])
def test_one_that_cannot_be_written_is_a_warning(starter: Starter, helper: Path, kind: str) -> None:
    log = starter.directory / "log"
    match kind:
        case "directory":
            log.mkdir()
        case "missing directory":
            log /= "log"
        case "pipe":
            os.mkfifo(log)
        case "full":
            log.symlink_to("/dev/full")
    saved = save(starter, helper, str(log))
    assert saved.completed == (0, 0)
    [warning] = saved.logged("warning")
    assert warning.startswith(f"the run log {log} cannot be written: ")


def test_lines_of_saves_that_end_together_stay_apart(tmp_path: Path) -> None:
    entries: list[dict[str, Any]] = [{"number": n, "text": "x" * 20_000} for n in range(64)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda entry: run_log.append(tmp_path / "log", entry), entries))
    lines = [json.loads(line) for line in (tmp_path / "log").read_text().splitlines()]
    assert sorted(lines, key=lambda line: line["number"]) == entries
