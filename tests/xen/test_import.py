# SPDX-License-Identifier: GPL-3.0-or-later
"""``xenmig.save`` called by a Python program in dom0, which suspends the guest itself."""

from __future__ import annotations

import subprocess
import time
from typing import TYPE_CHECKING

import pytest
from tests.xen import logdirty
from tests.xen.device_model import switch_logdirty
from tests.xen.frame import Frame

import xenmig
from xenmig.policies import StopAfter
from xenmig.stream import check_stream

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path
    from typing import Any

    from tests.xen.guest import Guest
    from tests.xen.toolstack import Toolstack

SUSPEND_S = 60.0


def suspender(host: xenmig.Xen, domid: int) -> Callable[[], None]:
    """Returns what suspends a guest by its node in xenstore, and waits until it is suspended."""

    def suspend() -> None:
        node = f"/local/domain/{domid}/control/shutdown"
        subprocess.run(["xenstore-write", node, "suspend"], check=True, timeout=SUSPEND_S)
        until_s = time.monotonic() + SUSPEND_S
        while host.domain_info(domid)["state"] != "suspended":
            assert time.monotonic() < until_s, f"the guest is {host.domain_info(domid)}"
            time.sleep(0.001)

    return suspend


def device_model(guest: Guest, domid: int) -> Callable[[bool], None] | None:
    """Returns what switches a guest's device model, if it has one."""
    return (lambda on: switch_logdirty(domid, on=on)) if guest.kind == "hvm" else None


def test_save(guest: Guest, toolstack: Toolstack, tmp_path: Path) -> None:
    result = save_and_restore(guest, toolstack, tmp_path)
    assert result.live
    assert result.rounds >= 2


@pytest.mark.parametrize(
    "options",
    [{"policy": StopAfter(rounds=3), "skip_redirtied": True}, {"live": False}],
    ids=["policy", "not-live"],
)
def test_options(pvh_guest: Guest, toolstack: Toolstack, tmp_path: Path, options: dict[str, Any]) -> None:
    save_and_restore(pvh_guest, toolstack, tmp_path, **options)


def save_and_restore(
    guest: Guest,
    toolstack: Toolstack,
    tmp_path: Path,
    **options: Any,  # noqa: ANN401 - those of xenmig.save
) -> xenmig.SaveResult:
    """Saves a guest; has libxl's own helper restore it, and the guest go on."""
    checkpoint, stream, image = tmp_path / "checkpoint", tmp_path / "stream", tmp_path / "image"
    toolstack.xl("save", "-c", guest.name, checkpoint, helper="stock").ok()
    frame = Frame.of(checkpoint)
    checkpoint.unlink()
    before = guest.check_goes_on()[-1]

    host, domid = xenmig.Xen(), guest.domid
    with stream.open("wb") as file:
        result = xenmig.save(
            domid,
            file,
            host=host,
            suspend=suspender(host, domid),
            device_model_logdirty=device_model(guest, domid),
            **options,
        )
    assert result.guest_state == guest.state == "suspended"
    assert not result.warnings
    assert not logdirty.is_on(domid)
    check_stream(stream)

    guest.destroy()
    frame.around(stream, image)
    stream.unlink()
    toolstack.xl("restore", image, helper="stock").ok()
    assert guest.check_goes_on()[0].n > before.n
    return result


def test_an_exception_of_ones_own_suspend_comes_out(pvh_guest: Guest, tmp_path: Path) -> None:
    def refuse() -> None:
        raise ConnectionError("the other host has gone")

    domid = pvh_guest.domid
    with (tmp_path / "stream").open("wb") as file, pytest.raises(ConnectionError, match="has gone"):
        xenmig.save(domid, file, host=xenmig.Xen(), suspend=refuse)
    assert pvh_guest.state == "running"
    assert not logdirty.is_on(domid)
    pvh_guest.check_goes_on()


def test_a_policy_in_this_process_aborts(pvh_guest: Guest, tmp_path: Path) -> None:
    rounds: list[int] = []

    def policy(stats: xenmig.PrecopyStats, /) -> xenmig.Decision | xenmig.Verdict:
        rounds.append(stats.iteration)
        if stats.iteration == 2:
            return xenmig.Decision.ABORT.because("that was enough")
        return xenmig.Decision.CONTINUE

    domid = pvh_guest.domid
    with (tmp_path / "stream").open("wb") as file, pytest.raises(xenmig.PolicyAbort) as aborted:
        xenmig.save(domid, file, host=xenmig.Xen(), policy=policy, suspend=lambda: pytest.fail("suspended"))
    assert aborted.value.reason == "that was enough"
    assert aborted.value.guest_state == "running"
    assert not aborted.value.warnings
    assert rounds[-1] == 2
    assert pvh_guest.state == "running"
    assert not logdirty.is_on(domid)
    pvh_guest.check_goes_on()


def test_a_suspend_that_does_not(pvh_guest: Guest, tmp_path: Path) -> None:
    domid = pvh_guest.domid
    with (tmp_path / "stream").open("wb") as file, pytest.raises(xenmig.GuestNotSuspended):
        xenmig.save(domid, file, host=xenmig.Xen(), suspend=lambda: None)
    assert not logdirty.is_on(domid)
    pvh_guest.check_goes_on()
