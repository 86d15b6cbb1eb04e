# SPDX-License-Identifier: GPL-3.0-or-later
"""Without a policy: libxl and the receiver cannot tell xenmig's helper from libxl's own."""

from __future__ import annotations

import os
import socket
from typing import TYPE_CHECKING

import pytest
from tests.helper.messages import Message
from tests.helper.stream_end import Reader, is_whole, to_file
from tests.helper.toolstack import DEBUG, LIVE, TIMEOUT_S, Toolstack
from tests.parity.compare import explain
from tests.parity.protocol import DomainSpec
from tests.parity.shapes import BUSY

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from tests.helper.toolstack import Starter

DOMID = 5
SPECS = {
    "busy": DomainSpec(memory_pages=1500, steps=BUSY, domid=DOMID),
    "PVH": DomainSpec(memory_pages=600, special_pages=True, domid=DOMID),
    "holes": DomainSpec(memory_pages=3000, holes=[0, (1000, 2100)], steps=BUSY, domid=DOMID),
}
FLAGS = {"live": LIVE, "not live": 0, "live, debug": LIVE | DEBUG, "not live, debug": DEBUG}
#: Where both helpers end up if all goes well.
SAVED = [
    Message("switch_qemu_logdirty", (DOMID, 1)),
    Message("suspend"),
    Message("switch_qemu_logdirty", (DOMID, 0)),
    Message("complete", (0, 0)),
]
IDLE = DomainSpec(memory_pages=1500, domid=DOMID)


def save(
    starter: Starter,
    program: Path,
    spec: DomainSpec,
    path: Path,
    *,
    flags: int = LIVE,
    answers: Mapping[str, Callable[[Toolstack, Message], object]] | None = None,
) -> Toolstack:
    """Has a helper save a domain to a file."""
    with to_file(path) as fd:
        return starter.save(program, spec, fd, flags=flags).run(answers)


def refuse(number: int) -> Callable[[Toolstack, Message], object]:
    """Answers with a number, and does nothing."""
    return lambda toolstack, _message: toolstack.reply(number)


@pytest.mark.parametrize("flags", FLAGS.values(), ids=FLAGS)
@pytest.mark.parametrize("spec", SPECS.values(), ids=SPECS)
def test_the_same_stream_by_the_same_messages(
    starter: Starter, helper: Path, stock_helper: Path, tmp_path: Path, *, spec: DomainSpec, flags: int
) -> None:
    stock = save(starter, stock_helper, spec, tmp_path / "stock", flags=flags)
    ours = save(starter, helper, spec, tmp_path / "ours", flags=flags)
    assert explain(tmp_path / "stock", tmp_path / "ours") is None
    assert is_whole(tmp_path / "ours")
    assert stock.calls == SAVED
    # For a save that is not live the device model need not log: the log would not be read.
    wanted = [call for call in SAVED if flags & LIVE or call.name != "switch_qemu_logdirty"]
    assert ours.calls == wanted
    assert (stock.status, ours.status) == (0, 0)
    for helper_ in (stock, ours):
        assert helper_.at_complete is not None
        domain, counters = helper_.at_complete
        assert not domain["logdirty_on"]
        assert (domain["state"], domain["shutdown_reason"]) == ("shutdown", 2)
        assert counters["mappings_now"] == 0


@pytest.mark.parametrize("kind", ["pipe", "socket"])
def test_pipes_and_sockets_carry_the_same_bytes(
    starter: Starter, helper: Path, stock_helper: Path, tmp_path: Path, kind: str
) -> None:
    save(starter, stock_helper, SPECS["busy"], tmp_path / "stock")
    ends = [end.detach() for end in socket.socketpair()] if kind == "socket" else os.pipe()
    reader = Reader(ends[0])
    ours = starter.save(helper, SPECS["busy"], ends[1])
    os.close(ends[1])
    assert ours.run().completed == (0, 0)
    assert reader.read(TIMEOUT_S) == (tmp_path / "stock").read_bytes()
    os.close(ends[0])


@pytest.mark.parametrize("flags", [LIVE, 0])
def test_a_refused_suspend_fails_in_the_same_way(
    starter: Starter, helper: Path, stock_helper: Path, tmp_path: Path, flags: int
) -> None:
    answers = {"suspend": refuse(0)}
    stock = save(starter, stock_helper, IDLE, tmp_path / "stock", flags=flags, answers=answers)
    ours = save(starter, helper, IDLE, tmp_path / "ours", flags=flags, answers=answers)
    if flags & LIVE:
        assert [call.name for call in ours.calls] == [call.name for call in stock.calls]
    for helper_ in (stock, ours):
        assert helper_.completed is not None
        assert helper_.completed[0] == -1
        assert helper_.status == 0
    assert ours.completed != (-1, 0)
    assert not is_whole(tmp_path / "ours")
    assert_untouched(ours)
    [error] = ours.logged("error")
    assert error.startswith("LibxlRefused: libxl could not suspend the guest")
    assert "runs on" in error


def test_a_device_model_that_does_not_log_ends_the_save(
    starter: Starter, helper: Path, stock_helper: Path, tmp_path: Path
) -> None:
    answers = {"switch_qemu_logdirty": refuse(-1)}
    stock = save(starter, stock_helper, IDLE, tmp_path / "stock", answers=answers)
    ours = save(starter, helper, IDLE, tmp_path / "ours", answers=answers)
    assert [call.name for call in ours.calls] == [call.name for call in stock.calls]
    assert ours.completed is not None
    assert ours.completed[0] == -1
    assert (tmp_path / "ours").stat().st_size == 0
    assert_untouched(ours)
    assert "log-dirty mode on" in ours.logged("error")[0]


def test_a_device_model_that_logs_on_is_a_warning(starter: Starter, helper: Path, tmp_path: Path) -> None:
    def only_on(toolstack: Toolstack, message: Message) -> None:
        toolstack.reply(0 if message.arguments[1] else -1)

    ours = save(starter, helper, IDLE, tmp_path / "ours", answers={"switch_qemu_logdirty": only_on})
    assert ours.completed == (0, 0)
    assert is_whole(tmp_path / "ours")
    [warning] = ours.logged("warning")
    assert "the device model's log-dirty mode is still on" in warning


def assert_untouched(toolstack: Toolstack) -> None:
    """Asserts that the guest runs on, and is not watched any more."""
    assert toolstack.at_complete is not None
    domain, counters = toolstack.at_complete
    assert domain["state"] == "running"
    assert not domain["logdirty_on"]
    assert counters["mappings_now"] == 0
