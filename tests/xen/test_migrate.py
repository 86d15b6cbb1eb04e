# SPDX-License-Identifier: GPL-3.0-or-later
"""``xl migrate`` to this same host with our helper, while the guest writes its memory."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.xen.guest import Guest
    from tests.xen.toolstack import HelperName, Toolstack


def test_live(guest: Guest, toolstack: Toolstack) -> None:
    domid = guest.domid
    migrated = toolstack.migrate(guest.name)
    result = migrated.saved()
    assert guest.domid != domid
    assert guest.names == [guest.name]
    guest.check_goes_on()

    assert result["live"]
    assert result["rounds"] >= 2
    # It was written to meanwhile, and what was written has been sent again, while it ran.
    assert sum(sent["pages_sent"] for sent in result["passes"][1:-1]) > 0
    assert f"xenmig: info: domain {guest.domid} is restored: " in migrated.output


@pytest.mark.parametrize("sender", ["xenmig", "stock"])
def test_with_the_stock_helper_at_the_other_end(
    guest: Guest, toolstack: Toolstack, sender: HelperName
) -> None:
    # -s '' runs the receiver by a shell that has xl's environment: this sets it apart.
    receiver = "xenmig" if sender == "stock" else "stock"
    setting = f"LIBXL_SAVE_HELPER={toolstack.helper}" if receiver == "xenmig" else "-u LIBXL_SAVE_HELPER"
    migrated = toolstack.migrate(guest.name, f"env {setting} xl migrate-receive", helper=sender).ok()
    guest.check_goes_on()
    ours = f"xenmig: info: domain {guest.domid} is restored: "
    assert (ours in migrated.output) == (receiver == "xenmig")


def test_what_is_dirty_again_may_be_skipped(pvh_guest: Guest, toolstack: Toolstack) -> None:
    config = toolstack.directory / "xenmig.toml"
    config.write_text('policy = "stop-after:rounds=4"\nskip_redirtied = true\n')
    config.chmod(0o600)
    result = toolstack.migrate(pvh_guest.name, environment={"XENMIG_CONFIG": str(config)}).saved()
    pvh_guest.check_goes_on()
    assert result["pages_skipped"] > 0


def test_again_and_again(guest: Guest, toolstack: Toolstack) -> None:
    image = toolstack.directory / "image"
    toolstack.migrate(guest.name).saved()
    guest.check_goes_on()
    toolstack.xl("save", guest.name, image).saved()
    toolstack.xl("restore", image).ok()
    guest.check_goes_on()
    toolstack.migrate(guest.name).saved()
    guest.check_goes_on()
