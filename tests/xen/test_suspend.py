# SPDX-License-Identifier: GPL-3.0-or-later
"""``Xen.suspend`` and ``Xen.resume``, which a save uses that is given none."""

from __future__ import annotations

import errno
import os
import subprocess
import threading
from typing import TYPE_CHECKING

import pytest
from tests.xen import logdirty

import xenmig
from xenmig._native import XenHost

if TYPE_CHECKING:
    from pathlib import Path

    from tests.xen.guest import Guest


def request_of(domid: int) -> str:
    """Returns what the guest is asked for in xenstore."""
    node = f"/local/domain/{domid}/control/shutdown"
    return subprocess.run(["xenstore-read", node], check=True, capture_output=True, text=True).stdout.strip()


def test_a_guest_goes_on_after_each_suspension(guest_alone: Guest) -> None:
    host, domid = xenmig.Xen(), guest_alone.domid
    for _ in range(3):
        host.suspend(domid)
        assert guest_alone.state == "suspended"
        host.suspend(domid)
        host.resume(domid)
        assert guest_alone.state == "running"
        guest_alone.check_goes_on()
    assert request_of(domid) == ""


def test_a_save_suspends_the_guest_itself(guest_alone: Guest, tmp_path: Path) -> None:
    host, domid = xenmig.Xen(), guest_alone.domid
    with (tmp_path / "stream").open("wb") as file:
        result = xenmig.save(domid, file, host=host)
    assert result.guest_state == guest_alone.state == "suspended"
    host.resume(domid)
    guest_alone.check_goes_on()


def test_a_save_that_fails_after_the_suspension_lets_the_guest_go_on(guest_alone: Guest) -> None:
    host, domid = xenmig.Xen(), guest_alone.domid
    reading, writing = os.pipe()

    def read_until_suspended() -> None:
        while host.domain_info(domid)["state"] != "suspended":
            os.read(reading, 1 << 20)
        os.close(reading)

    reader = threading.Thread(target=read_until_suspended)
    reader.start()
    # What is dirty after a single round is more than the pipe holds.
    policy = xenmig.policies.StopAfter(rounds=1)
    with pytest.raises(xenmig.TransportError) as failed:
        xenmig.save(domid, writing, host=host, policy=policy)
    reader.join()
    os.close(writing)
    assert failed.value.errno == errno.EPIPE
    assert failed.value.guest_state == "resumed"
    assert not failed.value.warnings
    assert not logdirty.is_on(domid)
    guest_alone.check_goes_on()


def test_a_paused_guest_is_not_waited_for(pvh_guest: Guest) -> None:
    host, domid = xenmig.Xen(), pvh_guest.domid
    pvh_guest.pause()
    with pytest.raises(xenmig.GuestNotSuspended, match="unpause it first"):
        host.suspend(domid)
    assert request_of(domid) == ""
    pvh_guest.ready()
    pvh_guest.check_goes_on()


def test_what_runs_cannot_be_resumed(pvh_guest: Guest) -> None:
    with pytest.raises(xenmig.HypercallError) as failed:
        xenmig.Xen().resume(pvh_guest.domid)
    assert failed.value.errno == errno.EINVAL
    pvh_guest.check_goes_on()


def test_a_pv_guest_is_not_suspended_over_its_head(pv_guest: Guest) -> None:
    host, domid = XenHost(), pv_guest.domid
    assert host.has_pv_drivers(domid)
    with pytest.raises(xenmig.HypercallError) as failed:
        host.suspend(domid)
    assert failed.value.errno == errno.EOPNOTSUPP
    assert pv_guest.state == "running"
    pv_guest.check_goes_on()


def test_the_control_domain_is_left_alone() -> None:
    with pytest.raises(xenmig.DomainRefused, match="whole machine"):
        xenmig.Xen().suspend(0)
