# SPDX-License-Identifier: GPL-3.0-or-later
"""``xenmig demo`` as its users run it: a program, its output, its exit status, and what it leaves behind."""

from __future__ import annotations

import json
import os
import pty
import select
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from typer.testing import CliRunner

from xenmig.cli import app
from xenmig.sim import Host

if TYPE_CHECKING:
    from collections.abc import Iterator

# Small and without the cost of a slow host: these runs are about behaviour.
QUICK = ["--memory", "64M", "--map-cost-us", "0"]
# A guest that no precopy gets done with: something can happen to it meanwhile.
ENDLESS = ["--memory", "64M", "--policy", "abort-after:seconds=60"]

POLICY_FILE = """
import xenmig

class Waits(xenmig.BasePolicy):
    def __init__(self, rounds=1):
        self.rounds = rounds

    def __call__(self, stats, /):
        if stats.iteration < self.rounds:
            return xenmig.Decision.CONTINUE
        return xenmig.Decision.STOP_AND_COPY.because(f"waited for {self.rounds} rounds")

def aborts(stats):
    return xenmig.Decision.ABORT.because("the window has closed")

def raises(stats):
    raise RuntimeError("out of patience")

def forgets(stats):
    pass
"""

CHATTY_FILE = """
import os, subprocess, sys
import xenmig

print("imported")
before = sys.stdout

def chatty(stats):
    print("printed")
    before.write("buffered\\n")
    os.write(1, b"written\\n")
    subprocess.run(["echo", "echoed"], check=True)
    return xenmig.Decision.STOP_AND_COPY

def rude(stats):
    chatty(stats)
    raise RuntimeError("enough")
"""


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "xenmig", *arguments]


def demo(*arguments: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command("demo", *arguments), capture_output=True, text=True, timeout=60, check=False, cwd=cwd
    )


def demo_json(*arguments: str, cwd: Path | None = None) -> dict[str, Any]:
    result = demo("--json", *arguments, cwd=cwd)
    assert result.stderr == ""
    assert result.returncode == 0
    answer: dict[str, Any] = json.loads(result.stdout)
    return answer


@pytest.fixture
def policy_file(tmp_path: Path) -> Path:
    path = tmp_path / "mine.py"
    path.write_text(POLICY_FILE)
    return path


@pytest.fixture(autouse=True)
def nothing_left_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No process, and no file in the directory for temporary files."""
    directory = tmp_path / "tmp"
    directory.mkdir()
    monkeypatch.setenv("TMPDIR", str(directory))
    monkeypatch.setenv("XENMIG_TEST_RUN", str(tmp_path))
    yield
    # A receiver whose connection was cut needs a moment to notice.
    deadline = time.monotonic() + 5
    while (left := processes_of(tmp_path)) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert left == []
    assert list(directory.iterdir()) == []


def processes_of(run: Path) -> list[str]:
    """The command lines of processes that were started by a test's run."""
    mark = f"XENMIG_TEST_RUN={run}".encode()
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        # It may be gone by now, or belong to another process.
        with suppress(OSError):
            if mark in (process / "environ").read_bytes().split(b"\0"):
                found.append((process / "cmdline").read_text().replace("\0", " "))
    return found


@pytest.mark.parametrize("transport", ["unix", "tcp"])
def test_the_table_ends_with_identical(transport: str) -> None:
    result = demo(*QUICK, "--transport", transport)
    assert (result.returncode, result.stderr) == (0, "")
    lines = result.stdout.splitlines()
    assert f"over {transport} to a second process" in lines[0]
    headings = [line.split()[0] for line in lines if line.strip()]
    assert headings[1:3] == ["round", "0"]
    assert headings[-6:] == ["final", "total", "downtime", "policy", "decision", "memory"]
    assert "identical" in lines[-1]


def test_json_is_one_object_with_the_promised_fields() -> None:
    answer = demo_json(*QUICK, "--workload", "phased", "--rate", "2000", "--vcpus", "1")
    assert answer["memory_identical"] is True
    assert answer["fingerprint"] == answer["received"]["fingerprint"]
    assert answer["rounds"] >= 1
    assert answer["pages_sent"] >= (64 << 20) // 4096
    assert answer["bytes_sent"] == answer["received"]["bytes_received"] > 64 << 20
    assert 0 < answer["downtime_ms"] < 1000 * answer["elapsed_s"]
    assert answer["consults"] > answer["rounds"]
    assert answer["decision"] == "stop_and_copy"
    assert answer["reason"].startswith("DowntimeTarget: ")
    assert [one["phase"] for one in answer["passes"]][-1] == "stop_and_copy"
    assert sum(one["pages_sent"] for one in answer["passes"]) == answer["pages_sent"]
    assert (answer["workload"], answer["transport"], answer["consult"]) == ("phased", "unix", "batch")
    assert (answer["memory_bytes"], answer["vcpus"], answer["image"]) == (64 << 20, 1, None)


def test_a_busy_guest_takes_several_rounds() -> None:
    answer = demo_json("--memory", "64M", "--policy", "stop-after:rounds=4")
    assert answer["rounds"] == 4
    rounds = answer["passes"][:4]
    assert all(one["pages_sent"] > 0 for one in rounds)
    assert rounds[1]["pages_sent"] < rounds[0]["pages_sent"]


def test_without_a_policy_it_is_libxc_call_for_call() -> None:
    answer = demo_json(*QUICK, "--policy", "none")
    assert answer["consult"] == "round"
    # Twice a round. A stop before a round still sends it, if there is anything; there is no consult after it.
    stopped_before = "dirty pages" in answer["reason"]
    nothing_dirty = answer["reason"].startswith("0 dirty pages")
    assert answer["consults"] == 2 * answer["rounds"] - stopped_before + 2 * nothing_dirty


def test_a_policy_of_the_working_directory_decides(policy_file: Path) -> None:
    policy = "mine:Waits & stop-after:rounds=2 | abort-after:seconds=50"
    answer = demo_json(*QUICK, "--policy", policy, cwd=policy_file.parent)
    assert answer["policy"] == policy
    assert answer["rounds"] == 2
    assert answer["reason"] == (
        "(Waits & StopAfter): Waits: waited for 1 rounds; StopAfter: 2 rounds sent, the limit"
    )


@pytest.mark.parametrize("errors", [subprocess.PIPE, "closed"])
def test_what_a_policy_prints_is_not_in_the_json(tmp_path: Path, errors: int | str) -> None:
    (tmp_path / "chatty.py").write_text(CHATTY_FILE)
    arguments = command("demo", *QUICK, "--json", "--policy", f"{tmp_path}/chatty.py:chatty")
    if errors == "closed":
        arguments = ["sh", "-c", 'exec "$@" 2>&-', "sh", *arguments]
    result = subprocess.run(arguments, capture_output=True, text=True, timeout=60, check=True)
    assert json.loads(result.stdout)["memory_identical"] is True
    if errors != "closed":
        assert sorted(result.stderr.split()) == ["buffered", "echoed", "imported", "printed", "written"]


def test_what_a_policy_prints_is_in_the_output_without_json(tmp_path: Path) -> None:
    (tmp_path / "chatty.py").write_text(CHATTY_FILE)
    result = demo(*QUICK, "--policy", f"{tmp_path}/chatty.py:chatty")
    assert result.returncode == 0
    assert {"buffered", "echoed", "imported", "printed", "written"} <= set(result.stdout.split())


def test_a_policy_that_prints_and_raises_leaves_one_json_object(tmp_path: Path) -> None:
    (tmp_path / "chatty.py").write_text(CHATTY_FILE)
    result = demo(*QUICK, "--json", "--policy", f"{tmp_path}/chatty.py:rude")
    assert result.returncode == 1
    assert "RuntimeError: enough" in json.loads(result.stdout)["error"]
    # Called within another program, where standard output is not a file.
    invoked = CliRunner().invoke(app, ["demo", *QUICK, "--json", "--policy", f"{tmp_path}/chatty.py:rude"])
    assert "RuntimeError: enough" in json.loads(invoked.stdout)["error"]
    assert "printed" in invoked.stderr


def test_an_image_fills_the_memory_that_it_needs(tmp_path: Path) -> None:
    image = tmp_path / "image"
    image.write_bytes(os.urandom(1 << 20) * 65 + b"and a bit")
    answer = demo_json("--image", str(image), "--map-cost-us", "0", "--workload", "idle")
    assert answer["memory_identical"] is True
    assert answer["memory_bytes"] == 66 << 20
    assert answer["image"] == str(image)
    # What arrived is a guest with these bytes in its memory.
    guest = Host().create(memory="66M")
    with image.open("rb") as file:
        guest.load_image(file.fileno())
    guest.suspend()
    assert answer["received"]["fingerprint"] == guest.fingerprint()


@pytest.mark.parametrize(
    ("policy", "status", "message"),
    [
        ("aborts", 3, "the policy aborted the migration: the window has closed; the guest is running"),
        ("raises", 1, "RuntimeError: out of patience (mine.py:17); the guest is running"),
        ("forgets", 1, "answered None"),
    ],
)
def test_a_policy_that_ends_the_migration(policy: str, status: int, message: str, policy_file: Path) -> None:
    result = demo(*QUICK, "--json", "--policy", f"{policy_file}:{policy}")
    assert result.returncode == status
    assert result.stderr.count("\n") == 1
    assert message in result.stderr
    answer = json.loads(result.stdout)
    assert message in answer["error"]
    assert answer["guest_state"] == "running"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--memory", "8M"], "--memory: '8M' of memory: a simulated domain has 64 MiB to 64 GiB"),
        (["--memory", "65G"], "64 MiB to 64 GiB"),
        (["--memory", "256"], "is no size of memory: write it as 256M, 1G or 512MiB"),
        (["--image", "/dev/zero"], "--image: /dev/zero is not an ordinary file"),
        (["--policy", "nonsense"], "--policy: no policy 'nonsense': give one of libxc, downtime"),
        (["--policy", "stop-after"], "--policy: stop-after: StopAfter needs a limit"),
    ],
)
def test_wrong_options_are_explained_in_one_line(arguments: list[str], message: str) -> None:
    result = CliRunner().invoke(app, ["demo", "--json", *arguments])
    assert result.exit_code == 2
    assert result.stderr.count("\n") == 1
    assert message in result.stderr
    assert message in json.loads(result.stdout)["error"]


@pytest.mark.parametrize(
    "option",
    [
        "--workload=sleepy",
        "--transport=pigeon",
        "--image=/nowhere",
        "--vcpus=0",
        "--rate=-1",
        "--consult=daily",
    ],
)
def test_options_of_a_list_or_a_range(option: str) -> None:
    result = CliRunner().invoke(app, ["demo", option])
    assert result.exit_code == 2
    assert result.stdout == ""
    assert option.partition("=")[0] in result.stderr


def test_an_image_that_does_not_fit_is_refused(tmp_path: Path) -> None:
    image = tmp_path / "image"
    with image.open("wb") as file:
        file.truncate(65 << 20)
    result = demo(*QUICK, "--image", str(image))
    assert result.returncode == 1
    assert "give the domain at least 65 MiB" in result.stderr


def wait_for_receiver(run: Path) -> None:
    deadline = time.monotonic() + 20
    while not any(" receive " in line for line in processes_of(run)):
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_ctrl_c_leaves_the_guest_running(tmp_path: Path) -> None:
    with subprocess.Popen(
        command("demo", *ENDLESS, "--json"),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        wait_for_receiver(tmp_path)
        time.sleep(1)
        # A terminal tells the whole group.
        os.killpg(process.pid, signal.SIGINT)
        out, errors = process.communicate(timeout=10)
    assert process.returncode == 130
    assert errors == "xenmig: interrupted; the guest is running\n"
    assert json.loads(out) == {"error": "interrupted; the guest is running", "guest_state": "running"}


@pytest.mark.parametrize("transport", ["unix", "tcp"])
def test_a_receiver_that_is_killed_is_reported(tmp_path: Path, transport: str) -> None:
    with subprocess.Popen(
        command("demo", *ENDLESS, "--transport", transport),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        wait_for_receiver(tmp_path)
        time.sleep(1)
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        os.kill(int(children[0]), signal.SIGKILL)
        _, errors = process.communicate(timeout=10)
    assert process.returncode == 1
    assert errors.count("\n") == 1
    assert "the receiver failed: ended with status -9" in errors
    assert "the guest is running" in errors


def test_a_demo_that_is_killed_takes_its_receiver_with_it(tmp_path: Path) -> None:
    with subprocess.Popen(command("demo", *ENDLESS), stdout=subprocess.DEVNULL) as process:
        wait_for_receiver(tmp_path)
        process.kill()
    # That it ends is seen by the fixture.


def test_progress_is_shown_on_a_terminal_only() -> None:
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        command("demo", "--memory", "64M", "--json"), stdout=subprocess.PIPE, stderr=theirs, text=True
    )
    os.close(theirs)
    shown = b""
    # The other end is closed when the program has ended.
    with suppress(OSError):
        while select.select([ours], [], [], 30)[0]:
            shown += os.read(ours, 65536)
    os.close(ours)
    out, _ = process.communicate(timeout=10)
    assert process.returncode == 0
    assert json.loads(out)["memory_identical"] is True
    for word in (b"iteration", b"guest dirties", b"expected downtime", b"ETA"):
        assert word in shown


def test_the_commands_are_listed_and_the_second_process_is_not() -> None:
    result = subprocess.run(command("--help"), capture_output=True, text=True, timeout=30, check=True)
    for name in ("demo", "inspect", "verify"):
        assert name in result.stdout
    assert "receive" not in result.stdout
    version = subprocess.run(command("--version"), capture_output=True, text=True, timeout=30, check=True)
    assert version.stdout.startswith("xenmig 0.")
