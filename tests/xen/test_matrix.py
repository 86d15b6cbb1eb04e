# SPDX-License-Identifier: GPL-3.0-or-later
"""Each helper at each end, for each kind of guest, saved and migrated live: 24 cases.

The guest itself compares what it holds, all the time. Who did an end is read from what xl printed and from
the run log: libxl's own helper has a part in neither.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pathlib import Path

    from tests.xen.guest import Guest
    from tests.xen.toolstack import Finished, HelperName, Toolstack

NAMES: tuple[HelperName, ...] = ("stock", "xenmig")
each_pair = pytest.mark.parametrize(
    ("saver", "restorer"),
    [pytest.param(saver, restorer, id=f"{saver}-to-{restorer}") for saver in NAMES for restorer in NAMES],
)


@each_pair
def test_saved_and_restored(
    guest: Guest, toolstack: Toolstack, tmp_path: Path, saver: HelperName, restorer: HelperName
) -> None:
    image = tmp_path / "image"
    domid = guest.domid
    saved = toolstack.xl("save", guest.name, image, helper=saver).ok()
    assert guest.names == []
    restored = toolstack.xl("restore", image, helper=restorer).ok()
    assert guest.names == [guest.name]
    guest.check_goes_on()
    assert_saved_by(saver, saved, guest, domid, live=False)
    assert_restored_by(restorer, restored, guest)
    if saver == restorer == "xenmig":
        assert f"{saved.entry['result']['pages_sent']:,} pages" in restored.output


@each_pair
def test_migrated_live(guest: Guest, toolstack: Toolstack, saver: HelperName, restorer: HelperName) -> None:
    domid = guest.domid
    migrated = toolstack.migrate(guest.name, toolstack.receiver(restorer), helper=saver).ok()
    assert guest.domid != domid
    assert guest.names == [guest.name]
    guest.check_goes_on()
    assert_saved_by(saver, migrated, guest, domid, live=True)
    assert_restored_by(restorer, migrated, guest)


def assert_saved_by(helper: HelperName, run: Finished, guest: Guest, domid: int, *, live: bool) -> None:
    """Asserts that a helper, and no other, has saved a guest, and all of it."""
    assert (f"xenmig: info: save: Domain {domid}: " in run.output) == (helper == "xenmig"), run.output
    if helper == "stock":
        assert run.log == []
        return
    result = run.saved()
    assert result["live"] == live
    # A few pages of a guest's memory are not there: the video memory that it has not got, and such.
    assert result["pages_sent"] >= guest.memory_pages * 9 // 10
    if live:
        assert result["rounds"] >= 2
        # It was written to meanwhile, and what was written has been sent again, while it ran.
        assert sum(sent["pages_sent"] for sent in result["passes"][1:-1]) > 0


def assert_restored_by(helper: HelperName, run: Finished, guest: Guest) -> None:
    """Asserts that a helper, and no other, has restored a guest, and found nothing to warn of."""
    for text in (
        f"restore: Domain {guest.domid}: xenmig ",
        f"xenmig: info: restore: Domain {guest.domid}: restored: ",
    ):
        assert (text in run.output) == (helper == "xenmig"), run.output
    assert "xenmig: warning" not in run.output
    assert "xenmig: error" not in run.output
