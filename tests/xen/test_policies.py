# SPDX-License-Identifier: GPL-3.0-or-later
"""Policies steer ``xl migrate``. Whatever they do, the guest goes on, and nothing is left behind."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from tests.xen import logdirty

if TYPE_CHECKING:
    from tests.xen.guest import Guest
    from tests.xen.toolstack import Finished, Toolstack

STEERING = Path(__file__).with_name("steering.py")


def migrate(guest: Guest, toolstack: Toolstack, policy: str, arguments: str = "") -> Finished:
    """Migrates a guest under one of the policies of ``steering.py``."""
    named = f"{toolstack.policy_file(STEERING)}:{policy}"
    return toolstack.migrate(guest.name, policy=named, policy_args=arguments)


def assert_goes_on(guest: Guest, domid: int) -> None:
    """The guest runs where it was, and nothing of the migration is left."""
    assert guest.domid == domid
    assert guest.state == "running"
    assert guest.names == [guest.name]
    assert not logdirty.is_on(domid)
    guest.check_goes_on()


def test_abort(guest: Guest, toolstack: Toolstack) -> None:
    domid = guest.domid
    # A guest of this size has many more consults in its first round.
    for consult in (1, 2, 20):
        failed = migrate(guest, toolstack, "AbortAt", f"consult={consult}").failed()
        reason = f"the window closed at consult {consult}"
        assert re.search(f"xenmig: error: .*{reason}.*the guest was not suspended and runs on", failed.output)
        error = failed.entry["error"]
        assert (error["class"], error["reason"]) == ("PolicyAbort", reason)
        assert failed.entry["warnings"] == []
        assert_goes_on(guest, domid)
    toolstack.migrate(guest.name).saved()
    guest.check_goes_on()


def test_abort_in_a_later_round(pvh_guest: Guest, toolstack: Toolstack) -> None:
    domid = pvh_guest.domid
    failed = migrate(pvh_guest, toolstack, "AbortInRound", "iteration=3").failed()
    assert "round 3 is too late" in failed.output
    assert_goes_on(pvh_guest, domid)


def test_a_policy_that_raises(guest: Guest, toolstack: Toolstack) -> None:
    domid = guest.domid
    failed = migrate(guest, toolstack, "raises").failed()
    lines = enumerate(STEERING.read_text().splitlines(), 1)
    line = next(number for number, text in lines if "raise LookupError" in text)
    where = f"(policy, {toolstack.directory}/steering.py:{line})"
    assert f"LookupError: the operator's table has no such entry {where}" in failed.output
    assert failed.entry["error"]["class"] == "LookupError"
    assert_goes_on(guest, domid)
    toolstack.migrate(guest.name).saved()
    guest.check_goes_on()


@pytest.mark.parametrize("iteration", [0, 1])
def test_stop_in_mid_round(guest: Guest, toolstack: Toolstack, iteration: int) -> None:
    result = migrate(guest, toolstack, "StopInMidRound", f"iteration={iteration}").saved()
    guest.check_goes_on()
    assert result["decision"] == "stop_and_copy"
    assert "are left of this round" in result["reason"]
    assert result["rounds"] == iteration + 1
    # What the round had left is sent while the guest is suspended.
    assert result["passes"][-1]["pages_sent"] > 0
    if iteration == 0:
        assert sum(sent["pages_sent"] for sent in result["passes"][:-1]) < guest.memory_pages // 2


def test_what_a_policy_prints(pvh_guest: Guest, toolstack: Toolstack) -> None:
    migrated = migrate(pvh_guest, toolstack, "prints")
    migrated.saved()
    for text in ("printed by the policy", "written by the policy", "echoed by the policy"):
        assert text in migrated.output
    pvh_guest.check_goes_on()


def test_the_policy_of_the_file(pvh_guest: Guest, toolstack: Toolstack) -> None:
    config = toolstack.directory / "xenmig.toml"
    config.write_text('policy = "stop-after"\npolicy_args = { rounds = 2 }\n')
    config.chmod(0o600)
    environment = {"XENMIG_CONFIG": str(config)}
    result = toolstack.migrate(pvh_guest.name, environment=environment).saved()
    assert result["rounds"] == 2
    assert "2 rounds" in result["reason"]
    pvh_guest.check_goes_on()

    # The environment wins over the file.
    result = toolstack.migrate(pvh_guest.name, policy="stop-after:rounds=1", environment=environment).saved()
    assert result["rounds"] == 1
    pvh_guest.check_goes_on()


def test_a_policy_that_is_not_there(pvh_guest: Guest, toolstack: Toolstack) -> None:
    domid = pvh_guest.domid
    missing = toolstack.directory / "nowhere.py"
    failed = toolstack.migrate(pvh_guest.name, policy=f"{missing}:Policy").failed()
    assert "nowhere.py" in failed.output
    assert_goes_on(pvh_guest, domid)


def test_what_is_dirty_again_may_be_skipped(pvh_guest: Guest, toolstack: Toolstack) -> None:
    config = toolstack.directory / "xenmig.toml"
    config.write_text('policy = "stop-after:rounds=4"\nskip_redirtied = true\n')
    config.chmod(0o600)
    result = toolstack.migrate(pvh_guest.name, environment={"XENMIG_CONFIG": str(config)}).saved()
    pvh_guest.check_goes_on()
    assert result["pages_skipped"] > 0


def test_the_downtime_policy(pvh_guest: Guest, toolstack: Toolstack) -> None:
    result = toolstack.migrate(pvh_guest.name, policy="downtime:ms=2000 | stop-after:rounds=20").saved()
    pvh_guest.check_goes_on()
    assert result["decision"] == "stop_and_copy"
    assert result["downtime_ms"] > 0
