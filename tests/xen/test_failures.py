# SPDX-License-Identifier: GPL-3.0-or-later
"""Migrations and saves that are ended from outside: the guest goes on, and Xen no longer logs its writes.

That a second migration works would not show that log-dirty mode is off, for it is turned off and on again
where it was left on. So Xen is asked (``logdirty``), before and after.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import signal
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from tests.xen import logdirty
from tests.xen.toolstack import RECEIVE

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.xen.guest import Guest
    from tests.xen.toolstack import Running, Toolstack

STEERING = Path(__file__).with_name("steering.py")
END_S = 30.0
"""How long our helper may take to end, once it is told to or sees that it must, in seconds."""


class Migration:
    """A migration that a policy keeps going for ever, after its first batches."""

    def __init__(self, toolstack: Toolstack, guest: Guest, receive: str = RECEIVE) -> None:
        """Starts it, and waits until Xen logs the guest's writes and pages are under way."""
        self.guest = guest
        self.toolstack = toolstack
        self.domid = guest.domid
        guest.check_goes_on(reports=1)
        mark = toolstack.directory / "mark"
        policy = f"{toolstack.policy_file(STEERING)}:Endless"
        self.run: Running = toolstack.start(
            "migrate", "-s", "", guest.name, receive, policy=policy, policy_args=f"mark={mark} consults=10"
        )
        self.helper_pid = self.run.helper_pid("save")
        self.run.until(mark.exists, "a migration under way")
        assert logdirty.is_on(self.domid)

    def wait_for_helper(self) -> None:
        """Waits until our helper is gone."""
        until_s = time.monotonic() + END_S
        while _runs(self.helper_pid):
            assert time.monotonic() < until_s, f"the helper goes on:\n{self.run.output}"
            time.sleep(0.02)

    def wait_for_receiver(self) -> None:
        """Waits until the receiver has destroyed the domain that was coming in."""
        until_s = time.monotonic() + END_S
        while self.guest.names != [self.guest.name]:
            assert time.monotonic() < until_s, f"there are {self.guest.names}"
            time.sleep(0.2)

    @property
    def entry(self) -> dict[str, Any]:
        """What our helper has left in the run log."""
        entry: dict[str, Any] = json.loads(self.toolstack.log.read_text())
        return entry

    def assert_no_trace(self) -> None:
        """Checks that the guest goes on as the same domain, and that nothing else is left."""
        assert self.guest.domid == self.domid
        assert self.guest.state == "running"
        assert not logdirty.is_on(self.domid)
        assert self.guest.names == [self.guest.name]
        self.guest.check_goes_on()

    def assert_can_be_repeated(self) -> None:
        """Checks that the guest can be migrated after all."""
        self.toolstack.migrate(self.guest.name).saved()
        assert self.guest.domid != self.domid
        self.guest.check_goes_on()

    def close(self) -> None:
        """Ends all processes of it."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.run.process.pid, signal.SIGKILL)


@pytest.fixture
def migration(guest: Guest, toolstack: Toolstack) -> Iterator[Migration]:
    """A migration under way, of each kind of guest."""
    migration = Migration(toolstack, guest)
    yield migration
    migration.close()


@pytest.fixture
def pvh_migration(pvh_guest: Guest, toolstack: Toolstack) -> Iterator[Migration]:
    """A migration under way, of a PVH guest."""
    migration = Migration(toolstack, pvh_guest)
    yield migration
    migration.close()


def test_sigterm_ends_the_helper_and_leaves_no_trace(migration: Migration) -> None:
    os.kill(migration.helper_pid, signal.SIGTERM)
    finished = migration.run.wait().failed()
    assert "SIGTERM came" in finished.output
    assert finished.entry["error"]["class"] == "Interrupted"
    assert finished.entry["error"]["errno"] == errno.EINTR
    assert finished.entry["error"]["guest_state"] == "running"
    assert finished.entry["warnings"] == []
    migration.assert_no_trace()
    migration.assert_can_be_repeated()


def test_sigkill_leaves_a_guest_that_can_be_migrated(migration: Migration) -> None:
    guest, toolstack = migration.guest, migration.toolstack
    os.kill(migration.helper_pid, signal.SIGKILL)
    finished = migration.run.wait().failed()
    assert finished.log == []
    assert guest.state == "running"
    guest.check_goes_on()
    # Who was killed cannot clean up. The next one does, also if it does not get far.
    assert logdirty.is_on(migration.domid)
    policy = f"{toolstack.policy_file(STEERING)}:AbortAt"
    aborted = toolstack.migrate(guest.name, policy=policy, policy_args="consult=2").failed()
    assert aborted.entry["error"]["class"] == "PolicyAbort", aborted.output
    migration.assert_no_trace()
    migration.assert_can_be_repeated()


def test_a_receiver_that_takes_only_a_part(guest: Guest, toolstack: Toolstack) -> None:
    domid = guest.domid
    guest.check_goes_on(reports=1)
    finished = toolstack.migrate(guest.name, f"head -c 20000000 | {RECEIVE}").failed()
    error = finished.entry["error"]
    assert (error["class"], error["errno"], error["guest_state"]) == (
        "TransportError",
        errno.EPIPE,
        "running",
    )
    assert error["message"] in finished.output
    assert guest.domid == domid
    assert not logdirty.is_on(domid)
    assert guest.names == [guest.name]
    guest.check_goes_on()


def test_a_receiving_helper_that_dies(pvh_migration: Migration) -> None:
    os.kill(pvh_migration.run.helper_pid("restore"), signal.SIGKILL)
    finished = pvh_migration.run.wait().failed()
    assert finished.entry["error"]["class"] == "TransportError"
    assert finished.entry["error"]["errno"] == errno.EPIPE
    pvh_migration.assert_no_trace()


def test_sigterm_while_the_receiver_hangs(pvh_migration: Migration) -> None:
    receiving_pid = pvh_migration.run.helper_pid("restore")
    os.kill(receiving_pid, signal.SIGSTOP)
    try:
        # The pipe fills up, and our helper waits for room in it.
        pvh_migration.run.until(lambda: _is_idle(pvh_migration.helper_pid), "a helper that waits")
        os.kill(pvh_migration.helper_pid, signal.SIGTERM)
        pvh_migration.wait_for_helper()
    finally:
        os.kill(receiving_pid, signal.SIGKILL)
    finished = pvh_migration.run.wait().failed()
    assert finished.entry["error"]["class"] == "Interrupted"
    # The sender has not waited for the receiver, which now ends by itself.
    pvh_migration.wait_for_receiver()
    pvh_migration.assert_no_trace()


def test_ctrl_c(pvh_migration: Migration) -> None:
    pvh_migration.run.interrupt()
    finished = pvh_migration.run.wait()
    assert finished.status == -signal.SIGINT
    pvh_migration.wait_for_helper()
    # What it hears of first is a matter of chance: the signal, or that its receiver or xl has died of one.
    error = pvh_migration.entry["error"]
    assert error["class"] in {"Interrupted", "TransportError", "LibxlGone"}
    assert error["guest_state"] == "running"
    # xl has no time to end what it was receiving.
    _destroy_incoming(pvh_migration.guest)
    pvh_migration.assert_no_trace()


def test_ctrl_c_of_a_save_leaves_no_guest_suspended(
    guest_alone: Guest, toolstack: Toolstack, tmp_path: Path
) -> None:
    guest_alone.check_goes_on(reports=1)
    run = toolstack.start("save", guest_alone.name, tmp_path / "image")
    helper_pid = run.helper_pid("save")
    run.until(lambda: guest_alone.state == "suspended", "a suspended guest", 60)
    # xl dies of the signal, and our helper hears of it when nothing is left that would resume the guest.
    os.kill(helper_pid, signal.SIGSTOP)
    run.interrupt()
    assert run.process.wait(60) == -signal.SIGINT
    assert guest_alone.state == "suspended"
    os.kill(helper_pid, signal.SIGCONT)
    until_s = time.monotonic() + END_S
    while _runs(helper_pid):
        assert time.monotonic() < until_s, "the helper does not end"
        time.sleep(0.05)
    assert "it was resumed" in run.wait().output
    assert guest_alone.state == "running"
    guest_alone.check_goes_on()


def test_a_killed_xl_does_not_leave_a_helper_behind(pvh_migration: Migration) -> None:
    pvh_migration.run.process.kill()
    pvh_migration.run.wait()
    pvh_migration.wait_for_helper()
    assert pvh_migration.entry["error"]["class"] == "LibxlGone"
    _destroy_incoming(pvh_migration.guest)
    pvh_migration.assert_no_trace()


@pytest.fixture
def full_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system that has no room for a guest."""
    directory = tmp_path / "small"
    directory.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=40m", "tmpfs", directory], check=True)
    yield directory
    subprocess.run(["umount", directory], check=True)


def test_a_full_disk(guest: Guest, toolstack: Toolstack, full_disk: Path) -> None:
    domid = guest.domid
    guest.check_goes_on(reports=1)
    finished = toolstack.xl("save", guest.name, full_disk / "image").failed()
    error = finished.entry["error"]
    assert (error["class"], error["errno"]) == ("TransportError", errno.ENOSPC)
    assert error["guest_state"] == "suspended"
    assert error["message"] in finished.output
    assert guest.domid == domid
    assert guest.state == "running"
    guest.check_goes_on()


def _destroy_incoming(guest: Guest) -> None:
    """Destroys the domain that was coming in: nothing else will do that now. It may be going already."""
    until_s = time.monotonic() + END_S
    while (incoming := f"{guest.name}--incoming") in guest.names:
        assert time.monotonic() < until_s, f"there are {guest.names}"
        subprocess.run(["xl", "destroy", incoming], check=False, timeout=60)
        time.sleep(0.2)


def _runs(pid: int) -> bool:
    """Says whether a process is there, and no zombie: its parent may have died before it."""
    return _stat(pid)[:1] not in ([], ["Z"])


def _is_idle(pid: int) -> bool:
    """Says whether a process uses no processor time for half a second."""
    before = _stat(pid)[11:13]
    time.sleep(0.5)
    return before == _stat(pid)[11:13]


def _stat(pid: int) -> list[str]:
    """Returns what the kernel says of a process, from its state on (proc(5)); nothing if it is gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    except OSError:
        return []
