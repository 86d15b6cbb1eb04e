# SPDX-License-Identifier: GPL-3.0-or-later
"""What xenmig does not do is done by libxl's own helper, in the same process and with the same pipes."""

from __future__ import annotations

import errno
import json
import os
from typing import TYPE_CHECKING

import pytest
from tests.helper.toolstack import CBFLAGS, LIVE, restore_arguments

from xenmig.helper import stock
from xenmig.helper.stock import StockHelperError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from tests.helper.toolstack import Starter, Toolstack

#: Plays libxl's own helper: writes down how it was started, says "complete" by descriptor 1, reads the reply.
STOCK = r"""#!/bin/sh
directory=$(dirname "$0")
printf '%s\n' "$@" > "$directory/arguments"
while read -r line; do echo "$line"; done < /proc/self/status > "$directory/status"
echo $$ > "$directory/pid"
test -e "/proc/self/fd/$2" && echo open > "$directory/stream"
printf '\012\000\012\000\000\000\000\000\000\000\000\000' >&1
dd bs=1 count=4 of="$directory/reply" 2>/dev/null
"""
RESTORE = restore_arguments(9, 3, stream_type=1)
POLICY = {"XENMIG_POLICY": "stop-after:rounds=2"}
SIGPIPE_BIT = 1 << 12


def save_arguments(flags: int = LIVE, cbflags: int = CBFLAGS, stream_type: int = 0) -> list[str]:
    """A save to descriptor 9, which is not open and must not be written to."""
    return ["--save-domain", "9", "-1", "5", str(flags), str(cbflags), str(stream_type)]


@pytest.fixture
def fake_stock(tmp_path: Path) -> Path:
    """A program that plays libxl's own helper."""
    directory = tmp_path / "stock"
    directory.mkdir()
    program = directory / "libxl-save-helper"
    program.write_text(STOCK)
    program.chmod(0o755)
    return program


def start(
    starter: Starter, helper: Path, fake: Path, arguments: Sequence[str], environment: Mapping[str, str]
) -> Toolstack:
    """Starts a helper, with the fake as libxl's own and a run log, and answers it until it has ended."""
    environment = {"XENMIG_STOCK_HELPER": str(fake), "XENMIG_LOG": "log"} | dict(environment)
    return starter.start(helper, arguments, environment=environment).run()


def assert_handed_over(started: Toolstack, fake: Path, arguments: Sequence[str]) -> None:
    """Asserts that the fake was started as libxl starts it, and talked to libxl."""
    assert (fake.parent / "arguments").read_text() == "".join(f"{argument}\n" for argument in arguments)
    assert int((fake.parent / "pid").read_text()) == started.process.pid
    assert started.completed == (0, 0)
    assert (fake.parent / "reply").read_bytes() == bytes(4)
    assert started.status == 0
    sets = dict(
        line.split(":") for line in (fake.parent / "status").read_text().splitlines() if line[:3] == "Sig"
    )
    assert int(sets["SigBlk"], 16) == 0
    # Python ignores SIGPIPE; a helper of libxl's relies on its default.
    assert not int(sets["SigIgn"], 16) & SIGPIPE_BIT


@pytest.mark.parametrize(
    "arguments",
    [
        RESTORE,
        restore_arguments(9, 3, stream_type=2),
        restore_arguments(9, 3, stream_type=3),
        [*RESTORE, "0"],
        RESTORE[:-1],
        ["--restore-domain"],
        save_arguments(stream_type=1),
        save_arguments(stream_type=2),
        save_arguments(flags=4),
        save_arguments(cbflags=0),
        [*save_arguments(), "0"],
        save_arguments()[:-1],
        ["--save-domain"],
        ["--save-domain", "x", "", "-", "--", "\u0663", "9" * 30],
        [*save_arguments()[:1], "-2", *save_arguments()[2:]],
        ["--save-domain", "9", "-1", "5", "1", "136", "0x0"],
        ["--something-new", "a b", "*"],
        [""],
    ],
)
def test_what_is_no_plain_stream(
    bare_starter: Starter, helper: Path, fake_stock: Path, arguments: list[str]
) -> None:
    started = start(bare_starter, helper, fake_stock, arguments, {})
    assert_handed_over(started, fake_stock, arguments)
    assert len(started.messages) == 1


def test_a_stream_is_handed_over_as_it_came(bare_starter: Starter, helper: Path, fake_stock: Path) -> None:
    ours, theirs = os.pipe()
    os.write(theirs, b"the stream")
    arguments = restore_arguments(ours, 3, stream_type=1)
    environment = {"XENMIG_STOCK_HELPER": str(fake_stock)}
    started = bare_starter.start(helper, arguments, environment=environment, pass_fds=[ours]).run()
    assert_handed_over(started, fake_stock, arguments)
    assert (fake_stock.parent / "stream").exists()
    assert os.read(ours, 100) == b"the stream", "something has been read from it"
    os.close(ours)
    os.close(theirs)


def test_a_restore_needs_no_policy(bare_starter: Starter, helper: Path, fake_stock: Path) -> None:
    started = start(bare_starter, helper, fake_stock, RESTORE, POLICY)
    assert_handed_over(started, fake_stock, RESTORE)
    assert not (bare_starter.directory / "log").exists()


def test_a_restore_does_without_a_file_that_makes_no_sense(
    bare_starter: Starter, helper: Path, fake_stock: Path
) -> None:
    (bare_starter.directory / "bad.toml").write_text("polcy = 1\n")
    started = start(bare_starter, helper, fake_stock, RESTORE, {"XENMIG_CONFIG": "bad.toml"})
    assert_handed_over(started, fake_stock, RESTORE)
    assert "bad.toml has unknown keys: polcy" in started.logged("warning")[0]


def test_a_save_on_a_host_with_a_policy(bare_starter: Starter, helper: Path, fake_stock: Path) -> None:
    (bare_starter.directory / "xenmig.toml").write_text('policy = "libxc"\n')
    arguments = save_arguments(stream_type=1)
    started = start(bare_starter, helper, fake_stock, arguments, {"XENMIG_CONFIG": "xenmig.toml"})
    assert_handed_over(started, fake_stock, arguments)
    [warning] = started.logged("warning")
    assert warning.endswith("libxl's own helper does it, without the policy libxc")
    entry = json.loads((bare_starter.directory / "log").read_text())
    assert entry["outcome"] == "handed_over"
    assert entry["reason"] in warning


@pytest.mark.parametrize("arguments", [restore_arguments(9, 3), save_arguments()])
def test_a_plain_stream_stays_here_where_there_is_no_xen(
    bare_starter: Starter, helper: Path, fake_stock: Path, arguments: list[str]
) -> None:
    started = start(bare_starter, helper, fake_stock, arguments, {})
    assert started.completed is not None
    assert started.completed[0] == -1
    assert started.logged("error")[0].startswith("XenUnavailable: ")
    assert started.status == 0
    assert not (fake_stock.parent / "arguments").exists()


def test_a_checkpointed_stream_whose_policy_cannot_be_asked(
    bare_starter: Starter, helper: Path, fake_stock: Path
) -> None:
    started = start(bare_starter, helper, fake_stock, save_arguments(stream_type=1), POLICY)
    assert started.completed == (-1, errno.EINVAL)
    assert "XENMIG_POLICY is set, but Remus and COLO" in started.logged("error")[0]
    assert json.loads((bare_starter.directory / "log").read_text())["outcome"] == "failed"


@pytest.mark.parametrize("arguments", [RESTORE, save_arguments(stream_type=1)])
def test_a_stock_helper_that_is_none(
    bare_starter: Starter, helper: Path, fake_stock: Path, arguments: list[str]
) -> None:
    fake_stock.chmod(0o644)
    started = start(bare_starter, helper, fake_stock, arguments, {})
    assert started.completed is not None
    assert started.completed[0] == -1
    assert "is no program: correct XENMIG_STOCK_HELPER" in started.logged("error")[0]
    fake_stock.write_text("#!/nothing/of/this/name\n")
    fake_stock.chmod(0o755)
    started = start(bare_starter, helper, fake_stock, arguments, {})
    assert "cannot be started: No such file" in started.logged("error")[0]
    assert started.status == 0


def test_one_that_leads_back_here(bare_starter: Starter, helper: Path, fake_stock: Path) -> None:
    started = start(bare_starter, helper, helper, RESTORE, {})
    assert "is xenmig itself" in started.logged("error")[0]
    fake_stock.write_text(f'#!/bin/sh\nexec {helper} "$@"\n')
    started = start(bare_starter, helper, fake_stock, RESTORE, {})
    assert "leads back to xenmig" in started.logged("error")[0]
    assert started.completed is not None
    assert started.completed[0] == -1


def make_program(path: Path) -> Path:
    """Makes an empty program."""
    path.parent.mkdir(parents=True)
    path.touch()
    path.chmod(0o755)
    return path


def test_where_libxls_own_is_looked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    version = tmp_path / "version"
    monkeypatch.setattr(stock, "_LIBRARY_DIRECTORY", tmp_path / "lib")
    monkeypatch.setattr(stock, "_DIRECTORIES", (tmp_path / "first", tmp_path / "second"))
    monkeypatch.setattr(stock, "_HYPERVISOR_VERSION", version)
    with pytest.raises(StockHelperError, match="in none of the usual places: install it"):
        stock.find(None)
    second = make_program(tmp_path / "second" / "libxl-save-helper")
    assert stock.find(None) == second
    first = make_program(tmp_path / "first" / "libxl-save-helper")
    assert stock.find(None) == first
    one = make_program(tmp_path / "lib" / "xen-4.17" / "bin" / "libxl-save-helper")
    assert stock.find(None) == one
    other = make_program(tmp_path / "lib" / "xen-4.20" / "bin" / "libxl-save-helper")
    with pytest.raises(StockHelperError, match=r"of several Xens .*xen-4\.17.*xen-4\.20"):
        stock.find(None)
    version.mkdir()
    (version / "major").write_text("4\n")
    for minor, found in ((17, one), (20, other), (18, first)):
        (version / "minor").write_text(f"{minor}\n")
        assert stock.find(None) == found
    assert stock.find(second) == second
