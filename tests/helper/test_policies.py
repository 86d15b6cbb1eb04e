# SPDX-License-Identifier: GPL-3.0-or-later
"""A policy from the environment or the file decides; one that fails ends the save, and libxl hears why."""

from __future__ import annotations

import errno
import json
import os
from typing import TYPE_CHECKING

import pytest
from tests.helper.stream_end import Reader, is_whole, to_file
from tests.helper.test_against_stock import IDLE, assert_untouched
from tests.helper.toolstack import TIMEOUT_S
from tests.parity.protocol import DomainSpec, Step

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from tests.helper.toolstack import Starter, Toolstack

SOURCE = """
import os, sys
from xenmig import Decision
from xenmig.policies import StopAfter

class Patient:
    def __init__(self, rounds=1, mood="calm"):
        self.rounds, self.mood = rounds, mood

    def __call__(self, stats, /):
        if stats.iteration >= self.rounds:
            return Decision.STOP_AND_COPY.because(f"{self.mood!r} after {self.rounds!r}")
        return Decision.CONTINUE

def function(stats, rounds=2):
    return Decision.STOP_AND_COPY.because("of a function") if stats.iteration >= rounds else Decision.CONTINUE

class AbortAt:
    def __init__(self, n):
        self.n, self.consults = n, 0

    def __call__(self, stats, /):
        self.consults += 1
        if self.consults <= self.n:
            return Decision.CONTINUE
        return Decision.ABORT.because("the window has closed")

def raises(stats):
    return 1 / 0

def exits(stats):
    sys.exit(3)

def misuses(stats):
    return StopAfter()

def silent(stats):
    pass

def prints(stats):
    print("printed by the policy")
    os.write(1, b"written by the policy")
    assert os.read(0, 1) == b""
    return Decision.STOP_AND_COPY

def wordy(stats):
    text = "first line\\n\\0second line, \\N{SNOWMAN}\\udc80 "
    return Decision.ABORT.because(text + "\\N{SNOWMAN}" * 100_000)

def spawns(stats):
    import subprocess
    # It needs no simulated host.
    child = subprocess.Popen(["sleep", "60"], close_fds=False, env={"PATH": os.environ["PATH"]})
    print("child", child.pid, file=sys.stderr)
    return Decision.STOP_AND_COPY
"""
#: It dirties so many pages that the precopy has five rounds and many batches.
SPEC = DomainSpec(
    memory_pages=3000, domid=5, steps=[Step("before_clean", n, write=[(0, 1200)]) for n in range(6)]
)


@pytest.fixture(autouse=True)
def _module(tmp_path: Path) -> None:
    (tmp_path / "modules").mkdir()
    (tmp_path / "modules" / "mine.py").write_text(SOURCE)
    # The helper's working directory: nothing of it is imported by its name.
    (tmp_path / "here.py").write_text(SOURCE)


def save(
    starter: Starter, helper: Path, environment: Mapping[str, str], spec: DomainSpec = SPEC
) -> Toolstack:
    """Has a domain saved live, to the file ``stream``, with a run log."""
    directory = starter.directory
    environment = {"XENMIG_LOG": "log", "PYTHONPATH": str(directory / "modules")} | dict(environment)
    with to_file(directory / "stream") as fd:
        return starter.save(helper, spec, fd, environment=environment).run()


def reason(starter: Starter) -> object:
    """What the run log says why the precopy ended."""
    return json.loads((starter.directory / "log").read_text())["result"]["reason"]


@pytest.mark.parametrize(
    ("policy", "arguments", "wanted"),
    [
        ("stop-after:rounds=2", "", "2 rounds"),
        ("stop-after", "rounds=3", "3 rounds"),
        ("libxc", "", "rounds"),
        ("abort-after:seconds=3600 | stop-after:rounds=1", "", "1 round"),
        ("mine:Patient", "rounds=2, mood='quite calm'", "'quite calm' after 2"),
        ("mine:Patient", "mood=True rounds=1.5", "True after 1.5"),
        ("mine:function", "", "of a function"),
        ("modules/mine.py:Patient", "rounds=1", "'calm' after 1"),
        ("{directory}/here.py:function", "rounds=1", "of a function"),
    ],
)
def test_every_way_of_naming_one(
    starter: Starter, helper: Path, policy: str, arguments: str, wanted: str
) -> None:
    policy = policy.format(directory=starter.directory)
    saved = save(starter, helper, {"XENMIG_POLICY": policy, "XENMIG_POLICY_ARGS": arguments})
    assert saved.completed == (0, 0), saved.logged("error")
    assert wanted in str(reason(starter))
    assert f"policy {policy}, consult batch" in saved.logged("info")[0]
    assert wanted in saved.logged("info")[-1]


def test_one_from_the_file(starter: Starter, helper: Path) -> None:
    (starter.directory / "xenmig.toml").write_text(
        'policy = "mine:Patient"\npolicy_args = { rounds = 1, mood = "from the file" }\nconsult = "round"\n'
    )
    saved = save(starter, helper, {"XENMIG_CONFIG": "xenmig.toml"})
    assert saved.completed == (0, 0), saved.logged("error")
    assert reason(starter) == "'from the file' after 1"
    assert "consult round" in saved.logged("info")[0]
    entry = json.loads((starter.directory / "log").read_text())
    assert (entry["policy"], entry["consult"]) == ("mine:Patient", "round")


@pytest.mark.parametrize(
    ("policy", "message"),
    [
        ("nonsense", "no policy 'nonsense'"),
        ("here:function", "cannot load here: ModuleNotFoundError"),
        ("mine:Missing", "mine has no Missing"),
        ("mine:Patient | libxc", "arguments are for a single policy"),
        ("nowhere.py:name", "cannot load nowhere.py: FileNotFoundError"),
    ],
)
def test_one_that_cannot_be_loaded_ends_it_before_the_guest_is_touched(
    starter: Starter, helper: Path, policy: str, message: str
) -> None:
    saved = save(starter, helper, {"XENMIG_POLICY": policy, "XENMIG_POLICY_ARGS": "rounds=1"})
    assert [call.name for call in saved.calls] == ["complete"]
    assert saved.completed == (-1, errno.EINVAL)
    assert message in saved.logged("error")[0]
    assert "the guest was not touched" in saved.logged("error")[0]
    assert (starter.directory / "stream").stat().st_size == 0


@pytest.mark.parametrize("n", [0, 1, 2, 7])
def test_an_abort_never_suspends_the_guest(starter: Starter, helper: Path, n: int) -> None:
    saved = save(starter, helper, {"XENMIG_POLICY": "mine:AbortAt", "XENMIG_POLICY_ARGS": f"n={n}"})
    assert [call.name for call in saved.calls] == ["switch_qemu_logdirty", "switch_qemu_logdirty", "complete"]
    assert saved.completed == (-1, errno.ECANCELED)
    assert saved.status == 0
    [error] = saved.logged("error")
    assert error.startswith("PolicyAbort: ")
    assert error.endswith("the window has closed; the guest was not suspended and runs on")
    assert not is_whole(starter.directory / "stream")
    assert_untouched(saved)
    entry = json.loads((starter.directory / "log").read_text())
    assert entry["outcome"] == "failed"
    assert entry["error"]["reason"] == "the window has closed"
    assert entry["error"]["guest_state"] == "running"


@pytest.mark.parametrize(
    ("policy", "error"),
    [
        ("mine:raises", "ZeroDivisionError: division by zero (policy, {file}:29); the guest"),
        ("mine:exits", "SystemExit: 3 (policy, {file}:32); the guest"),
        (
            "mine:misuses",
            "ValueError: StopAfter needs a limit: rounds, seconds or factor_of_ram (policy, {file}:35)",
        ),
        ("mine:silent", "PolicyError: the policy <function silent at "),
    ],
)
def test_one_that_fails_is_an_abort_and_says_where(
    starter: Starter, helper: Path, policy: str, error: str
) -> None:
    saved = save(starter, helper, {"XENMIG_POLICY": policy})
    file = starter.directory / "modules" / "mine.py"
    assert saved.logged("error")[0].startswith(error.format(file=file))
    assert saved.completed == (-1, errno.ECANCELED)
    assert not is_whole(starter.directory / "stream")
    assert_untouched(saved)


def test_what_one_prints_does_not_reach_libxl(starter: Starter, helper: Path) -> None:
    saved = save(starter, helper, {"XENMIG_POLICY": "mine:prints"})
    assert saved.completed == (0, 0), saved.logged("error")
    assert is_whole(starter.directory / "stream")
    assert "written by the policy" in saved.stderr
    assert "printed by the policy" in saved.stderr


def test_a_long_reason_is_one_line_of_bounded_length(starter: Starter, helper: Path) -> None:
    saved = save(starter, helper, {"XENMIG_POLICY": "mine:wordy"})
    assert saved.completed == (-1, errno.ECANCELED)
    [error] = saved.logged("error")
    assert "first line | second line, \N{SNOWMAN}" in error
    assert error.endswith("(cut)")
    assert len(error.encode()) < 9000
    logged = json.loads((starter.directory / "log").read_text())["error"]["reason"]
    assert logged.count("\N{SNOWMAN}") == 100_001


def test_a_program_that_one_starts_holds_nothing_open(starter: Starter, helper: Path) -> None:
    ours, theirs = os.pipe()
    reader = Reader(ours)
    environment = {"XENMIG_POLICY": "mine:spawns", "PYTHONPATH": str(starter.directory / "modules")}
    saved = starter.save(helper, IDLE, theirs, environment=environment)
    os.close(theirs)
    saved.run()
    assert saved.completed == (0, 0), saved.logged("error")
    try:
        assert reader.read(TIMEOUT_S / 4)
    finally:
        os.kill(int(saved.stderr.split("child ")[1].split()[0]), 9)
        os.close(ours)
