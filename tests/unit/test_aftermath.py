# SPDX-License-Identifier: GPL-3.0-or-later
"""What a save leaves behind when something fails at its very end, or while the guest is resumed."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

import pytest

from xenmig import HypercallError, save

if TYPE_CHECKING:
    from pathlib import Path

    from xenmig import SaveEvent
    from xenmig.sim import Domain, Host


def test_an_observer_that_fails_after_end_leaves_the_guest_suspended(
    host: Host, domain: Domain, tmp_path: Path
) -> None:
    """The stream is whole: a receiver may have started the guest."""

    def observe(event: SaveEvent) -> None:
        if event.stage == "complete":
            raise RuntimeError("too late")

    with (tmp_path / "stream").open("wb") as file:
        result = save(domain.domid, file, host=host, on_event=observe)
    assert domain.state == "suspended"
    assert ["too late" in warning for warning in result.warnings] == [True]


def test_a_resume_that_does_nothing_is_found_out(host: Host, domain: Domain, tmp_path: Path) -> None:
    domain.inject("errno", verb="tsc_info", nth=0, errno=errno.EIO)
    with (tmp_path / "stream").open("wb") as file, pytest.raises(HypercallError) as caught:
        save(domain.domid, file, host=host, resume=lambda: None)
    assert (caught.value.guest_state, domain.state) == ("suspended", "suspended")
