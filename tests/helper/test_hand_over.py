# SPDX-License-Identifier: GPL-3.0-or-later
"""What xenmig does not do is done by libxl's own helper, in the same process and with the same pipes."""

from __future__ import annotations

import errno
import json
import os
from typing import TYPE_CHECKING

import pytest
from tests.helper.test_against_stock import IDLE
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
#: Lets every domain look like a PV guest: there are none on the simulated host.
PV = """
import xenmig.xen
domain_info = xenmig.xen.Xen.domain_info
xenmig.xen.Xen.domain_info = lambda self, domid: domain_info(self, domid) | {"kind": "pv"}
"""
RESTORE = restore_arguments(9, 3)
POLICY = {"XENMIG_POLICY": "stop-after:rounds=2"}
SIGPIPE_BIT = 1 << 12


def save_arguments(flags: int = LIVE, cbflags: int = CBFLAGS, stream_type: int = 0) -> list[str]:
    """A save to descriptor 9, which is not open: nobody may write to it."""
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
        restore_arguments(9, 3, stream_type=1),
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


def test_a_restore_needs_no_policy(bare_starter: Starter, helper: Path, fake_stock: Path) -> None:
    started = start(bare_starter, helper, fake_stock, RESTORE, POLICY)
    assert_handed_over(started, fake_stock, RESTORE)
    assert not (bare_starter.directory / "log").exists()


def test_a_restore_where_there_is_no_xen_for_it(
    bare_starter: Starter, helper: Path, fake_stock: Path
) -> None:
    started = start(bare_starter, helper, fake_stock, RESTORE, {})
    assert_handed_over(started, fake_stock, RESTORE)
    [warning] = started.logged("warning")
    assert warning.endswith("libxl's own helper does it")


def test_a_restore_does_without_a_file_that_makes_no_sense(
    bare_starter: Starter, helper: Path, fake_stock: Path
) -> None:
    (bare_starter.directory / "bad.toml").write_text("polcy = 1\n")
    started = start(bare_starter, helper, fake_stock, RESTORE, {"XENMIG_CONFIG": "bad.toml"})
    assert_handed_over(started, fake_stock, RESTORE)
    assert "bad.toml has unknown keys: polcy" in started.logged("warning")[0]


def test_where_there_is_no_xen_for_it(bare_starter: Starter, helper: Path, fake_stock: Path) -> None:
    fd = os.open("/dev/null", os.O_WRONLY)
    arguments = [*save_arguments()[:1], str(fd), *save_arguments()[2:]]
    started = bare_starter.start(
        helper,
        arguments,
        environment={"XENMIG_STOCK_HELPER": str(fake_stock), "XENMIG_LOG": "log"},
        pass_fds=[fd],
    ).run()
    os.close(fd)
    assert_handed_over(started, fake_stock, arguments)
    assert (fake_stock.parent / "stream").exists()
    [warning] = started.logged("warning")
    assert warning.endswith("libxl's own helper does it")
    entry = json.loads((bare_starter.directory / "log").read_text())
    assert entry["outcome"] == "handed_over"
    assert entry["reason"] in warning


def test_a_policy_is_not_dropped_where_there_is_no_xen(
    bare_starter: Starter, helper: Path, fake_stock: Path
) -> None:
    fd = os.open("/dev/null", os.O_WRONLY)
    arguments = [*save_arguments()[:1], str(fd), *save_arguments()[2:]]
    (bare_starter.directory / "xenmig.toml").write_text('policy = "libxc"\n')
    for environment in (POLICY, {"XENMIG_CONFIG": "xenmig.toml"}):
        started = bare_starter.start(
            helper,
            arguments,
            environment={"XENMIG_STOCK_HELPER": str(fake_stock), **environment},
            pass_fds=[fd],
        ).run()
        assert started.completed is not None
        assert started.completed[0] == -1
        assert started.logged("error")[0].startswith("XenUnavailable: ")
    os.close(fd)
    assert not (fake_stock.parent / "arguments").exists()


def start_pv(
    *,
    starter: Starter,
    helper: Path,
    fake: Path,
    environment: Mapping[str, str],
    tmp_path: Path,
    arguments: Sequence[str] | None = None,
    fd: int | None = None,
) -> Toolstack:
    """Starts a save of what looks like a PV guest, or whatever the arguments say, with a descriptor."""
    (tmp_path / "patch").mkdir(exist_ok=True)
    (tmp_path / "patch" / "sitecustomize.py").write_text(PV)
    # Programs that the fake starts are not to wait at the door.
    fake.write_text(STOCK.replace("\n", "\nunset LD_PRELOAD\n", 1))
    fd = os.open("/dev/null", os.O_WRONLY) if fd is None else fd
    arguments = arguments or [*save_arguments()[:1], str(fd), *save_arguments()[2:]]
    started = starter.start(
        helper,
        arguments,
        spec=IDLE,
        environment={
            "XENMIG_STOCK_HELPER": str(fake),
            "XENMIG_LOG": "log",
            "PYTHONPATH": str(tmp_path / "patch"),
            **environment,
        },
        pass_fds=[fd],
    )
    os.close(fd)
    if "XENMIG_POLICY" not in environment:
        assert started.door is not None
        assert started.door.wait_for_program() == started.process.pid
        started.door.create(IDLE)
        started.door.go()
    return started.run()


def test_a_restore_into_a_pv_domain(starter: Starter, helper: Path, fake_stock: Path, tmp_path: Path) -> None:
    ours, theirs = os.pipe()
    kept = os.dup(ours)
    os.write(theirs, b"the stream")
    arguments = restore_arguments(ours, 5)
    started = start_pv(
        starter=starter,
        helper=helper,
        fake=fake_stock,
        environment={},
        tmp_path=tmp_path,
        arguments=arguments,
        fd=ours,
    )
    assert_handed_over(started, fake_stock, arguments)
    assert (fake_stock.parent / "stream").exists()
    assert [message.name for message in started.messages] == ["complete"]
    assert not (tmp_path / "log").exists()
    assert os.read(kept, 100) == b"the stream", "nobody has read of it"
    os.close(kept)
    os.close(theirs)


def test_a_pv_guest(starter: Starter, helper: Path, fake_stock: Path, tmp_path: Path) -> None:
    started = start_pv(starter=starter, helper=helper, fake=fake_stock, environment={}, tmp_path=tmp_path)
    assert (fake_stock.parent / "stream").exists()
    assert [message.name for message in started.messages] == ["complete"]
    assert started.status == 0
    assert json.loads((tmp_path / "log").read_text())["outcome"] == "handed_over"


def test_a_pv_guest_on_a_host_with_a_policy(
    starter: Starter, helper: Path, fake_stock: Path, tmp_path: Path
) -> None:
    (tmp_path / "xenmig.toml").write_text('policy = "libxc"\n')
    started = start_pv(
        starter=starter,
        helper=helper,
        fake=fake_stock,
        environment={"XENMIG_CONFIG": "xenmig.toml"},
        tmp_path=tmp_path,
    )
    assert (fake_stock.parent / "stream").exists()
    assert started.logged("warning") == [
        "PV guests are not saved by xenmig yet; libxl's own helper does it, without the policy libxc"
    ]


def test_a_pv_guest_whose_migration_was_to_have_a_policy(
    starter: Starter, helper: Path, fake_stock: Path, tmp_path: Path
) -> None:
    started = start_pv(starter=starter, helper=helper, fake=fake_stock, environment=POLICY, tmp_path=tmp_path)
    assert started.completed == (-1, errno.EINVAL)
    assert "XENMIG_POLICY is set, but PV guests are not saved by xenmig" in started.logged("error")[0]
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
    assert stock.find(None, (4, 20)) == other
    assert stock.find(None, (4, 18)) == first
    version.mkdir()
    (version / "major").write_text("4\n")
    (version / "minor").write_text("17\n")
    assert stock.find(None) == one
    assert stock.find(second) == second
