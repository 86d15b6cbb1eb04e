# SPDX-License-Identifier: GPL-3.0-or-later
"""The stream, the hypervisor or libxl fails: the guest is left alone, and the reason is in libxl's log."""

from __future__ import annotations

import errno
import os
import signal
import time
from typing import TYPE_CHECKING

import pytest
from tests.helper.messages import EndOfMessages, Message
from tests.helper.stream_end import is_whole, to_file
from tests.helper.test_against_stock import IDLE, assert_untouched
from tests.helper.toolstack import CBFLAGS, LIVE, TIMEOUT_S, Toolstack

if TYPE_CHECKING:
    from pathlib import Path

    from tests.helper.door import Door
    from tests.helper.toolstack import Starter

DOMID = IDLE.domid


def arguments(io_fd: int, domid: int | None = DOMID, flags: int = LIVE) -> list[str]:
    """What libxl starts a helper with."""
    return ["--save-domain", str(io_fd), "-1", str(domid), str(flags), str(CBFLAGS), "0"]


def test_a_receiver_that_goes_away(starter: Starter, helper: Path) -> None:
    ours, theirs = os.pipe()
    saved = starter.save(helper, IDLE, theirs)
    os.close(theirs)
    switch = saved.until("switch_qemu_logdirty")
    os.close(ours)
    saved.answer(switch)
    saved.run()
    assert saved.completed == (-1, errno.EPIPE)
    assert "TransportError: writing the stream failed" in saved.logged("error")[0]
    assert_untouched(saved)


def test_a_full_disk(starter: Starter, helper: Path) -> None:
    fd = os.open("/dev/full", os.O_WRONLY | os.O_CLOEXEC)
    saved = starter.save(helper, IDLE, fd).run()
    os.close(fd)
    assert saved.completed == (-1, errno.ENOSPC)
    assert_untouched(saved)


@pytest.mark.parametrize("by", ["environment", "file"])
def test_a_receiver_that_stalls_while_the_guest_is_suspended(
    starter: Starter, helper: Path, tmp_path: Path, by: str
) -> None:
    ours, theirs = os.pipe()
    (tmp_path / "xenmig.toml").write_text("stall_timeout_s = 0.3\n")
    settings = {
        "environment": {"XENMIG_STALL_TIMEOUT": "0.3"},
        "file": {"XENMIG_CONFIG": str(tmp_path / "xenmig.toml")},
    }
    saved = starter.save(helper, IDLE, theirs, flags=0, environment=settings[by])
    os.close(theirs)
    saved.run()
    os.close(ours)
    assert saved.completed == (-1, errno.ETIMEDOUT)
    [error] = saved.logged("error")
    assert "the other end has taken nothing for" in error
    assert error.endswith("the guest is suspended, and the toolstack is to resume it")


@pytest.mark.parametrize("flags", [LIVE, 0])
def test_a_host_that_cannot_log(starter: Starter, helper: Path, tmp_path: Path, flags: int) -> None:
    def no_logdirty(door: Door) -> None:
        door.inject(fault="errno", kind="shadow_enable_logdirty", errno=errno.EOPNOTSUPP, times=9)

    with to_file(tmp_path / "stream") as fd:
        saved = starter.save(helper, IDLE, fd, flags=flags, before=no_logdirty).run()
    if not flags & LIVE:
        # The fault is where it should be, and only there.
        assert saved.completed == (0, 0)
        return
    assert [call.arguments for call in saved.calls] == [(5, 1), (5, 0), (-1, errno.EOPNOTSUPP)]
    assert "ENABLE_LOGDIRTY" in saved.logged("error")[0]
    assert_untouched(saved)


def test_log_dirty_mode_that_stays_on_is_said(starter: Starter, helper: Path, tmp_path: Path) -> None:
    with to_file(tmp_path / "stream") as fd:
        saved = starter.save(
            helper,
            IDLE,
            fd,
            before=lambda door: door.inject(fault="errno", kind="shadow_off", errno=errno.EPERM, times=9),
        ).run()
    assert saved.completed == (0, 0)
    assert any("log-dirty mode is still on" in warning for warning in saved.logged("warning"))


def test_a_guest_that_is_not_suspended_after_all(starter: Starter, helper: Path, tmp_path: Path) -> None:
    with to_file(tmp_path / "stream") as fd:
        saved = starter.save(helper, IDLE, fd).run({"suspend": lambda toolstack, _: toolstack.reply(1)})
    assert saved.completed == (-1, errno.EIO)
    assert saved.logged("error")[0].startswith("GuestNotSuspended: ")
    assert not is_whole(tmp_path / "stream")
    assert_untouched(saved)


def test_a_domain_that_is_not_there(starter: Starter, helper: Path, tmp_path: Path) -> None:
    with to_file(tmp_path / "stream") as fd:
        saved = starter.start(helper, arguments(fd, 77), spec=IDLE, pass_fds=[fd]).run()
    assert [call.name for call in saved.calls] == ["complete"]
    assert saved.completed == (-1, errno.ESRCH)
    assert saved.logged("error")[0].startswith("HypercallError: getdomaininfo of ")


@pytest.mark.parametrize("domid", [0x7FF0, 65536, 0xFFFF_FFFF])
def test_a_number_that_is_no_domains(starter: Starter, helper: Path, tmp_path: Path, domid: int) -> None:
    with to_file(tmp_path / "stream") as fd:
        saved = starter.start(helper, arguments(fd, domid), spec=IDLE, pass_fds=[fd]).run()
    assert [call.name for call in saved.calls] == ["complete"]
    assert saved.completed is not None
    assert saved.completed[0] == -1
    assert str(domid) in saved.logged("error")[0]


@pytest.mark.parametrize(
    ("io_fd", "number", "message"),
    [
        (99, errno.EBADF, "descriptor 99 is not open"),
        (-1, errno.EINVAL, "the stream cannot be descriptor -1"),
        (1, errno.EINVAL, "the stream cannot be descriptor 1"),
        (2, errno.EINVAL, "the stream cannot be descriptor 2"),
    ],
)
def test_a_stream_that_can_go_nowhere(
    starter: Starter, helper: Path, io_fd: int, number: int, message: str
) -> None:
    saved = starter.start(helper, arguments(io_fd), spec=IDLE).run()
    assert [call.name for call in saved.calls] == ["complete"]
    assert saved.completed == (-1, number)
    assert message in saved.logged("error")[0]


def test_a_stream_that_cannot_be_written(starter: Starter, helper: Path, tmp_path: Path) -> None:
    (tmp_path / "stream").touch()
    fd = os.open(tmp_path / "stream", os.O_RDONLY)
    saved = starter.save(helper, IDLE, fd).run()
    os.close(fd)
    assert saved.completed == (-1, errno.EBADF)
    assert_untouched(saved)


TRACE = {"FAKEXEN_TRACE": "1"}


def assert_cleaned_up(saved: Toolstack) -> None:
    """Asserts that a helper without a listener has ended by itself, and switched log-dirty mode off."""
    assert saved.process.wait(TIMEOUT_S) == 1
    calls = [line for line in saved.stderr.splitlines() if line.startswith("fakexen: ")]
    on = max((n for n, line in enumerate(calls) if "shadow_enable_logdirty" in line), default=None)
    assert on is not None, "log-dirty mode was not even on"
    assert any("shadow_off" in line for line in calls[on:])
    assert "xenmig-save-helper: libxl " in saved.stderr


def test_libxl_is_gone_instead_of_suspending(starter: Starter, helper: Path, tmp_path: Path) -> None:
    with to_file(tmp_path / "stream") as fd:
        saved = starter.save(helper, IDLE, fd, environment=TRACE)
    saved.until("suspend")
    saved.hang_up()
    assert_cleaned_up(saved)
    # It has not been suspended, so it need not be resumed.
    assert "resume" not in saved.stderr
    assert not is_whole(tmp_path / "stream")


def test_libxl_is_gone_during_the_precopy(starter: Starter, helper: Path, tmp_path: Path) -> None:
    (tmp_path / "slow.py").write_text(
        "import time\nfrom xenmig import Decision\n"
        "def forever(stats):\n    time.sleep(0.2)\n    return Decision.CONTINUE\n"
    )
    with to_file(tmp_path / "stream") as fd:
        saved = starter.save(helper, IDLE, fd, environment=TRACE | {"XENMIG_POLICY": "slow.py:forever"})
    saved.answer(saved.until("switch_qemu_logdirty"))
    saved.until("progress")
    time.sleep(0.3)
    saved.hang_up()
    assert_cleaned_up(saved)


def test_libxl_closes_its_pipe_in_the_middle_of_a_reply(
    starter: Starter, helper: Path, tmp_path: Path
) -> None:
    with to_file(tmp_path / "stream") as fd:
        saved = starter.save(helper, IDLE, fd, environment=TRACE)
    saved.until("suspend")
    os.write(saved.replies, b"\1\0")
    saved.hang_up()
    assert_cleaned_up(saved)


def test_libxl_is_gone_before_complete_is_read(starter: Starter, helper: Path, tmp_path: Path) -> None:
    with to_file(tmp_path / "stream") as fd:
        saved = starter.save(helper, IDLE, fd)
    saved.until("complete")
    saved.hang_up()
    assert saved.process.wait(TIMEOUT_S) == 1
    # The stream is whole nevertheless, and so it is said where it can be.
    assert is_whole(tmp_path / "stream")
    assert "save: Domain 5: saved: " in saved.stderr
    assert "domain 5 is suspended, and libxl, which was to resume it, has ended" in saved.stderr


def test_ctrl_c_ends_xl_as_well(starter: Starter, helper: Path, tmp_path: Path) -> None:
    with to_file(tmp_path / "stream") as fd:
        saved = starter.save(helper, IDLE, fd, environment=TRACE)
    saved.until("suspend")
    assert saved.door is not None
    saved.door.suspend(saved.domid)
    saved.signal(signal.SIGINT)
    saved.reply(1)
    saved.hang_up()
    assert_cleaned_up(saved)
    assert "Interrupted: SIGINT came" in saved.stderr
    assert "xenmig.Xen().resume(5)" in saved.stderr


def test_libxl_is_gone_from_the_start(starter: Starter, helper: Path, tmp_path: Path) -> None:
    with to_file(tmp_path / "stream") as fd:
        saved = starter.save(helper, IDLE, fd, go=False)
    saved.hang_up()
    assert saved.door is not None
    saved.door.go()
    assert saved.process.wait(TIMEOUT_S) == 1
    assert (tmp_path / "stream").stat().st_size == 0


def test_a_domain_that_vanishes(starter: Starter, helper: Path, tmp_path: Path) -> None:
    """One sentence says so, and nothing else is said of the guest."""

    def destroy(toolstack: Toolstack, _message: Message) -> None:
        assert toolstack.door is not None
        for kind in ("getdomaininfo", "shadow_off"):
            toolstack.door.inject(fault="errno", kind=kind, errno=errno.ESRCH, times=99)
        toolstack.reply(1)

    with to_file(tmp_path / "stream") as fd:
        saved = starter.save(helper, IDLE, fd).run({"suspend": destroy})
    assert saved.completed == (-1, errno.ESRCH)
    assert saved.logged("warning") == []
    assert saved.logged("error") == [
        "HypercallError: getdomaininfo of domain d5 failed: No such process; the guest is gone"
    ]


def test_messages_are_read_whole(starter: Starter, helper: Path, tmp_path: Path) -> None:
    """libxl stops to listen at ``complete``."""
    with to_file(tmp_path / "stream") as fd:
        saved = starter.save(helper, IDLE, fd).run()
    assert saved.messages[-1] == Message("complete", (0, 0))
    with pytest.raises(EndOfMessages):
        saved.next()
