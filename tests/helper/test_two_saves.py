# SPDX-License-Identifier: GPL-3.0-or-later
"""Two helpers that are to save one domain: the second is refused, and the first does not notice."""

from __future__ import annotations

import errno
import signal
from typing import TYPE_CHECKING

import pytest
from tests.helper.stream_end import is_whole, to_file
from tests.helper.test_against_stock import IDLE, assert_untouched, save
from tests.helper.toolstack import LIVE, TIMEOUT_S

if TYPE_CHECKING:
    from pathlib import Path

    from tests.helper.toolstack import Starter


@pytest.mark.parametrize("flags", [LIVE, 0])
@pytest.mark.parametrize("first", ["xenmig", "stock"])
def test_the_second_is_refused(
    starter: Starter, helper: Path, stock_helper: Path, tmp_path: Path, *, first: str, flags: int
) -> None:
    program = helper if first == "xenmig" else stock_helper
    name = "xenmig" if first == "xenmig" else "libxl-save-helper"
    with to_file(tmp_path / "first") as fd:
        one = starter.save(program, IDLE, fd)
    suspend = one.until("suspend")
    two = save(starter, helper, IDLE, tmp_path / "second", flags=flags)
    assert [call.name for call in two.calls] == ["complete"]
    assert two.completed == (-1, errno.EBUSY)
    [error] = two.logged("error")
    assert f"domain d5 is already being saved by {name}, process {one.process.pid}" in error
    assert (tmp_path / "second").stat().st_size == 0
    assert_untouched(two)
    one.answer(suspend)
    assert one.run().completed == (0, 0)
    assert is_whole(tmp_path / "first")
    assert save(starter, helper, IDLE, tmp_path / "third").completed == (0, 0)


def test_a_helper_that_was_killed_holds_nothing(starter: Starter, helper: Path, tmp_path: Path) -> None:
    with to_file(tmp_path / "first") as fd:
        one = starter.save(helper, IDLE, fd)
    one.until("suspend")
    one.signal(signal.SIGKILL)
    one.process.wait(TIMEOUT_S)
    assert save(starter, helper, IDLE, tmp_path / "second").completed == (0, 0)


def test_without_a_place_for_the_lock_it_says_so(starter: Starter, helper: Path, tmp_path: Path) -> None:
    (tmp_path / "run").symlink_to("/tmp")  # noqa: S108 - where an attacker would lead it
    saved = save(starter, helper, IDLE, tmp_path / "stream")
    assert saved.completed is not None
    assert saved.completed[0] == -1
    assert f"domain d5 cannot be claimed for a save: {tmp_path / 'run'}: " in saved.logged("error")[0]
    assert_untouched(saved)
