# SPDX-License-Identifier: GPL-3.0-or-later
"""The environment and the file: what wins over what, and what is refused."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from tests.helper.stream_end import to_file
from tests.helper.test_against_stock import IDLE

from xenmig.helper import configuration
from xenmig.helper.configuration import Configuration, ConfigurationError, load
from xenmig.helper.trust import UntrustedFileError, check_file

if TYPE_CHECKING:
    from tests.helper.toolstack import Starter

FILE = """
policy = "mine:Policy"
policy_args = { ms = 300, mood = "calm", nested = [1, 2] }
consult = "round"
log = "/var/log/xenmig.jsonl"
stock_helper = "/opt/libxl-save-helper"
"""
ARGUMENTS = {"ms": 300, "mood": "calm", "nested": [1, 2]}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A configuration file."""
    file = tmp_path / "xenmig.toml"
    file.write_text(FILE)
    return file


@pytest.fixture(autouse=True)
def no_default_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Where the default file would be; there is none."""
    path = tmp_path / "etc.toml"
    monkeypatch.setattr(configuration, "DEFAULT_FILE", path)
    return path


def test_nothing_need_be_said(no_default_file: Path) -> None:
    assert load({}) == Configuration()
    assert load({"XENMIG_POLICY": "", "XENMIG_POLICY_ARGS": ""}) == Configuration()
    no_default_file.write_text('policy = "libxc"\n')
    assert load({}).policy == "libxc"
    assert load({"XENMIG_CONFIG": ""}) == Configuration()


def test_the_file_says_everything(file: Path) -> None:
    assert load({"XENMIG_CONFIG": str(file)}) == Configuration(
        policy="mine:Policy",
        policy_args=ARGUMENTS,
        policy_from="file",
        consult="round",
        log=Path("/var/log/xenmig.jsonl"),
        stock_helper=Path("/opt/libxl-save-helper"),
    )


@pytest.mark.parametrize(
    ("environment", "wanted"),
    [
        ({"XENMIG_LOG": "other"}, {"log": Path("other"), "policy": "mine:Policy"}),
        ({"XENMIG_LOG": ""}, {"log": None}),
        ({"XENMIG_STOCK_HELPER": "/x"}, {"stock_helper": Path("/x")}),
        ({}, {"stall_timeout_s": 60.0}),
        ({"XENMIG_STALL_TIMEOUT": ""}, {"stall_timeout_s": 60.0}),
        ({"XENMIG_STALL_TIMEOUT": "1.5"}, {"stall_timeout_s": 1.5}),
        ({"XENMIG_STALL_TIMEOUT": "0"}, {"stall_timeout_s": 0.0}),
        (
            {"XENMIG_POLICY": "libxc"},
            {"policy": "libxc", "policy_args": {}, "policy_from": "environment", "consult": "round"},
        ),
        ({"XENMIG_POLICY": ""}, {"policy": None, "policy_args": {}, "policy_from": None}),
        (
            {"XENMIG_POLICY_ARGS": "a=1"},
            {"policy": "mine:Policy", "policy_args": {"a": 1}, "policy_from": "file"},
        ),
        (
            {"XENMIG_POLICY": "x:Y", "XENMIG_POLICY_ARGS": "a=1, b='two words'\tc=1e3,,d=#x"},
            {"policy_args": {"a": 1, "b": "two words", "c": 1000.0, "d": "#x"}},
        ),
    ],
)
def test_the_environment_wins(file: Path, environment: dict[str, str], wanted: dict[str, object]) -> None:
    loaded = load({"XENMIG_CONFIG": str(file)} | environment)
    assert {key: getattr(loaded, key) for key in wanted} == wanted


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("polcy = 1\nconsul = 2\n", "unknown keys: consul, polcy. Known are: policy, policy_args, consult"),
        ("policy = 1\n", "policy is 1: give a text"),
        ('policy_args = "a=1"\n', "policy_args is 'a=1': give a table"),
        ('consult = "page"\n', 'consult is \'page\': give "round" or "batch"'),
        ("skip_redirtied = 1\n", "skip_redirtied is 1: give true or false"),
        ('log = "xenmig.jsonl"\n', "log is 'xenmig.jsonl': give the full path of a file"),
        ('stock_helper = ""\n', "stock_helper is '': give the full path"),
        ("stall_timeout_s = -1\n", "stall_timeout_s is -1: give a number of seconds, or 0 for no limit"),
        ("stall_timeout_s = true\n", "stall_timeout_s is True: give a number"),
        ('stall_timeout_s = "1"\n', "stall_timeout_s is '1': give a number"),
        ("stall_timeout_s = inf\n", "stall_timeout_s is inf: give a number"),
        ("policy = \n", "cannot be used: Invalid value"),
        ("\x00", "cannot be used"),
        ("skip_redirtied = true\n", 'skip_redirtied needs consult = "batch"'),
        ("policy_args = { a = 1 }\n", "arguments for a policy, and no policy"),
    ],
)
def test_a_file_that_makes_no_sense(file: Path, text: str, message: str) -> None:
    file.write_text(text)
    with pytest.raises(ConfigurationError) as raised:
        load({"XENMIG_CONFIG": str(file)})
    assert message in str(raised.value)


@pytest.mark.parametrize(
    ("environment", "message"),
    [
        ({"XENMIG_CONFIG": "/nothing/here.toml"}, "/nothing/here.toml cannot be used: .*No such file"),
        ({"XENMIG_CONFIG": "/"}, "/ cannot be used"),
        ({"XENMIG_POLICY_ARGS": "a=1"}, "arguments for a policy, and no policy"),
        (
            {"XENMIG_POLICY": "libxc", "XENMIG_POLICY_ARGS": "rounds"},
            "XENMIG_POLICY_ARGS: 'rounds' is no policy",
        ),
        ({"XENMIG_POLICY": "libxc", "XENMIG_POLICY_ARGS": "a='"}, "XENMIG_POLICY_ARGS: No closing quotation"),
        ({"XENMIG_STALL_TIMEOUT": "soon"}, "XENMIG_STALL_TIMEOUT is 'soon': give a number of seconds"),
        ({"XENMIG_STALL_TIMEOUT": "nan"}, "XENMIG_STALL_TIMEOUT is 'nan': give a number of seconds"),
        ({"XENMIG_STALL_TIMEOUT": "-1"}, "XENMIG_STALL_TIMEOUT is '-1': give a number of seconds"),
    ],
)
def test_an_environment_that_makes_no_sense(environment: dict[str, str], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        load(environment)


def test_libxl_hears_of_it_before_anything_is_touched(starter: Starter, helper: Path) -> None:
    (starter.directory / "bad.toml").write_text("polcy = 1\n")
    environment = {"XENMIG_CONFIG": "bad.toml", "XENMIG_LOG": "log"}
    with to_file(starter.directory / "stream") as fd:
        saved = starter.save(helper, IDLE, fd, environment=environment).run()
    assert [call.name for call in saved.calls] == ["complete"]
    assert saved.completed == (-1, errno.EINVAL)
    assert "bad.toml has unknown keys: polcy" in saved.logged("error")[0]
    assert "bad.toml has unknown keys: polcy" in (starter.directory / "log").read_text()


@pytest.fixture
def as_root(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if root ran this."""
    monkeypatch.setattr(os, "geteuid", lambda: 0)


@pytest.mark.usefixtures("as_root")
@pytest.mark.parametrize("mode", [0o664, 0o646, 0o666])
def test_root_takes_no_orders_from_a_file_that_others_can_write(file: Path, mode: int) -> None:
    check_file(file)
    file.chmod(mode)
    with pytest.raises(UntrustedFileError, match=f"chmod go-w {file}"):
        check_file(file)
    with pytest.raises(ConfigurationError, match="can be written by others"):
        load({"XENMIG_CONFIG": str(file)})


@pytest.mark.usefixtures("as_root")
def test_nor_from_one_that_others_can_replace(tmp_path: Path) -> None:
    directory = tmp_path / "open"
    (directory / "deeper").mkdir(parents=True)
    file = directory / "deeper" / "policy.py"
    file.touch(0o600)
    directory.chmod(0o777)
    with pytest.raises(UntrustedFileError, match=f"replaced by others .*chmod go-w {directory}$"):
        check_file(file)
    # As in /tmp, where each can only remove what is his own.
    directory.chmod(0o1777)
    check_file(file)
    link = tmp_path / "link"
    link.symlink_to(file)
    directory.chmod(0o777)
    with pytest.raises(UntrustedFileError):
        check_file(link)


def test_anybody_else_may_do_with_his_files_what_he_likes(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    file.chmod(0o666)
    check_file(file)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root is that careful")
@pytest.mark.parametrize("policy", ["{directory}/mine.py:policy", "mine:policy"])
def test_a_policy_that_others_can_write_does_not_run_as_root(
    starter: Starter, helper: Path, policy: str
) -> None:
    source = starter.directory / "mine.py"
    source.write_text("print('it ran')\npolicy = 1\n")
    source.chmod(0o666)
    environment = {
        "XENMIG_POLICY": policy.format(directory=starter.directory),
        "PYTHONPATH": str(starter.directory),
    }
    with to_file(starter.directory / "stream") as fd:
        saved = starter.save(helper, IDLE, fd, environment=environment).run()
    assert saved.completed == (-1, errno.EINVAL)
    assert "UntrustedFileError" in saved.logged("error")[0]
    assert "it ran" not in saved.stderr
