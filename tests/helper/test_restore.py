# SPDX-License-Identifier: GPL-3.0-or-later
"""Restores: libxl cannot tell xenmig's helper from libxl's own, but by what is logged; and how they fail."""

from __future__ import annotations

import errno
import os
import re
import signal
import time
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from tests.helper.messages import Message
from tests.helper.stream_end import to_file
from tests.helper.test_against_stock import SPECS, refuse, save
from tests.helper.toolstack import (
    CONSOLE_DOMID,
    CONSOLE_EVTCHN,
    STORE_DOMID,
    STORE_EVTCHN,
    TIMEOUT_S,
    Toolstack,
    restore_arguments,
)
from tests.parity.compare import records

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from tests.helper.toolstack import Starter
    from tests.parity.protocol import DomainSpec

DOMID = 7
STORE_PFN, CONSOLE_PFN = 0xFEFFC, 0xFEFFB
CPUID_POLICY, MSR_POLICY = 0x11, 0x12
#: What both say if all goes well.
RESTORED = [
    Message("static_data_done", (0,)),
    Message("restore_results", (STORE_PFN, CONSOLE_PFN)),
    Message("complete", (0, 0)),
]
SOON_S = 2.0


def empty(spec: DomainSpec) -> DomainSpec:
    """Returns the domain to restore one of this description into."""
    return replace(spec, populated=False, steps=[], domid=DOMID)


@pytest.fixture
def image(starter: Starter, helper: Path, tmp_path: Path) -> Path:
    """A stream of a PVH guest."""
    path = tmp_path / "image"
    saved = save(starter, helper, SPECS["PVH"], path)
    assert saved.completed == (0, 0)
    return path


def restore(
    starter: Starter,
    program: Path,
    spec: DomainSpec,
    path: Path,
    answers: Mapping[str, Callable[[Toolstack, Message], object]] | None = None,
) -> Toolstack:
    """Has a helper restore a domain from a file."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return starter.restore(program, empty(spec), fd).run(answers)
    finally:
        os.close(fd)


@pytest.mark.parametrize("spec", SPECS.values(), ids=SPECS)
def test_the_same_domain_by_the_same_messages(
    starter: Starter, helper: Path, stock_helper: Path, tmp_path: Path, spec: DomainSpec
) -> None:
    saved = save(starter, stock_helper, spec, tmp_path / "image")
    assert saved.at_complete is not None
    stock = restore(starter, stock_helper, spec, tmp_path / "image")
    ours = restore(starter, helper, spec, tmp_path / "image")
    assert ours.calls == stock.calls == RESTORED
    assert (stock.status, ours.status) == (0, 0)
    assert stock.at_complete is not None
    assert ours.at_complete is not None
    assert ours.at_complete[0] == stock.at_complete[0], "the domains, whole"
    assert ours.at_complete[0]["memory"] == saved.at_complete[0]["memory"]
    for domain, counters in (stock.at_complete, ours.at_complete):
        assert domain["state"] == "paused"
        params = domain["hvm_params"]
        assert (params["2"], params["18"]) == (STORE_EVTCHN, CONSOLE_EVTCHN)
        assert domain["grants"] == [[1, CONSOLE_DOMID, CONSOLE_PFN], [1, STORE_DOMID, STORE_PFN]]
        assert counters["mappings_now"] == 0
    begun, ended = ours.logged("info")
    assert re.fullmatch(r"xenmig \S+", begun)
    assert ended.startswith("restored: ")
    assert ours.logged("warning") == ours.logged("error") == []


def test_what_follows_the_stream_is_left_there(starter: Starter, helper: Path, image: Path) -> None:
    with image.open("ab") as file:
        file.write(b"libxl's own records")
    for kind in ("file", "pipe"):
        if kind == "file":
            fd = os.open(image, os.O_RDONLY)
            restored = starter.restore(helper, empty(SPECS["PVH"]), fd).run()
        else:
            fd, theirs = os.pipe()
            started = starter.restore(helper, empty(SPECS["PVH"]), fd)
            if os.fork() == 0:
                os.close(fd)
                rest = memoryview(image.read_bytes())
                while rest:
                    rest = rest[os.write(theirs, rest) :]
                os._exit(0)
            os.close(theirs)
            restored = started.run()
            os.wait()
        assert restored.completed == (0, 0)
        assert os.read(fd, 100) == b"libxl's own records", kind
        os.close(fd)


@pytest.mark.parametrize(
    ("kinds", "missing"), [({CPUID_POLICY}, 1), ({MSR_POLICY}, 2), ({CPUID_POLICY, MSR_POLICY}, 3)], ids=str
)
def test_what_the_static_data_lacks(
    *, starter: Starter, helper: Path, stock_helper: Path, image: Path, kinds: set[int], missing: int
) -> None:
    contents = image.read_bytes()
    for record in reversed([record for record in records(contents) if record.kind in kinds]):
        contents = contents[: record.start] + contents[record.end :]
    image.write_bytes(contents)
    for program in (stock_helper, helper):
        restored = restore(starter, program, SPECS["PVH"], image)
        assert restored.calls == [Message("static_data_done", (missing,)), *RESTORED[1:]]


def test_a_toolstack_that_cannot_complete_it(
    starter: Starter, helper: Path, stock_helper: Path, image: Path
) -> None:
    for program in (stock_helper, helper):
        restored = restore(starter, program, SPECS["PVH"], image, {"static_data_done": refuse(-1)})
        assert restored.completed is not None
        assert restored.completed[0] != 0
        assert restored.at_complete is not None
        assert restored.at_complete[0]["populated_pages"] == 0
    assert restored.completed == (-1, errno.EIO)
    [error] = restored.logged("error")
    assert error.startswith("LibxlRefused: libxl could not complete the CPU policy")
    assert error.endswith(f"domain {DOMID} is not whole, and the toolstack is to destroy it")


def test_one_that_does_not_want_to_hear_of_it(starter: Starter, helper: Path, image: Path) -> None:
    fd = os.open(image, os.O_RDONLY)
    arguments = restore_arguments(fd, DOMID, cbflags=1 << 9)
    restored = starter.start(helper, arguments, spec=empty(SPECS["PVH"]), pass_fds=[fd]).run()
    os.close(fd)
    assert restored.calls == RESTORED[1:]


@pytest.mark.parametrize("size", [0, 20, 44, 5000, 1 << 20, -9, -8, -1])
def test_a_truncated_stream(
    *, starter: Starter, helper: Path, stock_helper: Path, image: Path, size: int
) -> None:
    """``size``: what is left of it; negative: how much is cut off. END has 8 bytes."""
    whole = image.read_bytes()
    image.write_bytes(whole[:size])
    assert len(image.read_bytes()) < len(whole)
    calls = []
    for program in (stock_helper, helper):
        restored = restore(starter, program, SPECS["PVH"], image)
        assert restored.completed is not None
        assert restored.completed[0] == -1
        calls.append([call for call in restored.calls if call.name != "complete"])
    # Without results libxl says "helper exited without providing results" and leaves the reason out.
    assert calls[0] == calls[1]
    assert calls[1][-1] == Message("restore_results", (0, 0))
    [error] = restored.logged("error")
    assert error.startswith("StreamError: ")
    assert restored.completed == (-1, errno.EIO)
    assert restored.status == 0
    assert restored.at_complete is not None
    assert restored.at_complete[1]["mappings_now"] == 0


@pytest.mark.parametrize(
    ("kind", "reason"),
    [("populate_physmap", "populate_physmap"), ("mmap_resource", "seeding the grant table")],
)
def test_a_host_that_fails(starter: Starter, helper: Path, image: Path, kind: str, reason: str) -> None:
    fd = os.open(image, os.O_RDONLY)
    restored = starter.restore(
        helper,
        empty(SPECS["PVH"]),
        fd,
        before=lambda door: door.inject(fault="errno", kind=kind, errno=errno.ENOMEM, times=9),
    ).run()
    os.close(fd)
    assert restored.completed == (-1, errno.ENOMEM)
    assert reason in restored.logged("error")[0]


def test_a_domain_that_is_not_there(starter: Starter, helper: Path, image: Path) -> None:
    fd = os.open(image, os.O_RDONLY)
    arguments = restore_arguments(fd, DOMID + 1)
    restored = starter.start(helper, arguments, spec=empty(SPECS["PVH"]), pass_fds=[fd]).run()
    os.close(fd)
    assert restored.completed == (-1, errno.ESRCH)


def torn(starter: Starter, helper: Path, image: Path) -> tuple[Toolstack, int]:
    """Starts a restore whose stream stops in the middle, and waits until it has got so far."""
    ours, theirs = os.pipe()
    restored = starter.restore(helper, empty(SPECS["PVH"]), ours)
    os.close(ours)
    os.write(theirs, image.read_bytes()[:60_000])
    restored.answer(restored.until("static_data_done"))
    assert restored.door is not None
    until_s = time.monotonic() + TIMEOUT_S
    while not restored.door.state(DOMID)["populated_pages"]:
        assert time.monotonic() < until_s
    return restored, theirs


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_while_nothing_comes(starter: Starter, helper: Path, image: Path, number: int) -> None:
    """libxl's own helper dies of it; that a domain is not whole is the same. But this one says why."""
    restored, theirs = torn(starter, helper, image)
    began_s = time.monotonic()
    restored.signal(number)
    restored.run()
    os.close(theirs)
    assert time.monotonic() - began_s < SOON_S
    assert (restored.completed, restored.status) == ((-1, errno.EINTR), 0)
    assert restored.logged("error")[0].startswith(f"Interrupted: {signal.Signals(number).name} came")
    assert restored.at_complete is not None
    assert restored.at_complete[1]["mappings_now"] == 0


def test_libxl_is_gone(starter: Starter, helper: Path, image: Path) -> None:
    restored, theirs = torn(starter, helper, image)
    restored.hang_up()
    os.close(theirs)
    assert restored.process.wait(TIMEOUT_S) == 1
    assert f"has ended: xl destroy {DOMID}" in restored.stderr


def test_no_run_log_and_no_policy(starter: Starter, helper: Path, image: Path, tmp_path: Path) -> None:
    """A restore has no policy, and one that is wrong does not stop it."""
    fd = os.open(image, os.O_RDONLY)
    environment = {"XENMIG_POLICY": "nonsense:", "XENMIG_LOG": str(tmp_path / "log")}
    restored = starter.restore(helper, empty(SPECS["PVH"]), fd, environment=environment).run()
    os.close(fd)
    assert restored.completed == (0, 0)
    assert not (tmp_path / "log").exists()


def test_a_stream_that_is_no_stream(starter: Starter, helper: Path, tmp_path: Path) -> None:
    with to_file(tmp_path / "noise") as fd:
        os.write(fd, os.urandom(1 << 16))
    restored = restore(starter, helper, SPECS["PVH"], tmp_path / "noise")
    assert restored.completed == (-1, errno.EIO)
    assert restored.logged("error")[0].startswith("StreamError: ")
