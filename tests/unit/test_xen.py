# SPDX-License-Identifier: GPL-3.0-or-later
"""The real Xen on a machine that does not run under it."""

from __future__ import annotations

from pathlib import Path

import pytest

import xenmig

without_xen = pytest.mark.skipif(Path("/dev/xen/privcmd").exists(), reason="this machine runs under Xen")


@without_xen
def test_opening_it_is_one_clear_error() -> None:
    with pytest.raises(xenmig.XenUnavailable, match=r"Xen") as caught:
        xenmig.Xen()
    message = str(caught.value)
    assert "\n" not in message
    # Either the build or the machine lacks something, and the message says what to do about it.
    assert any(advice in message for advice in ("install", "control domain", "rebuild"))
    assert caught.value.guest_state is None


def test_a_host_of_the_wrong_kind_is_a_type_error() -> None:
    for host in (None, 1, "xen", object()):
        with pytest.raises(TypeError, match="give a host"):
            xenmig.save(1, 1, host=host)  # type: ignore[arg-type]
        with pytest.raises(TypeError, match="give a host"):
            xenmig.restore(1, 1, host=host)  # type: ignore[arg-type]
