# SPDX-License-Identifier: GPL-3.0-or-later
"""``--policy`` and ``--policy-arg``: what a user writes, and the policy that it makes."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import pytest

from xenmig import AllOf, AnyOf, Decision, PrecopyStats
from xenmig.policies import AbortAfter, DowntimeTarget, LibxcPolicy, StopAfter
from xenmig.policies.named import BUILT_IN, PolicyNameError, load_policy

if TYPE_CHECKING:
    from pathlib import Path

SOURCE = """
from xenmig import Decision
from xenmig.policies import StopAfter

class Waits:
    def __init__(self, rounds=1, mood="calm"):
        self.rounds, self.mood = rounds, mood

    def __call__(self, stats, /):
        return Decision.CONTINUE

class Outer:
    Inner = Waits

def impatient(stats, *, after=2):
    return Decision.STOP_AND_COPY if stats.iteration >= after else Decision.CONTINUE

async def eventually(stats):
    return Decision.STOP_AND_COPY

ready = StopAfter(rounds=7)
number = 7
"""


@pytest.fixture(autouse=True)
def working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A directory with a module of policies, and with one that cannot be imported."""
    (tmp_path / "mine.py").write_text(SOURCE)
    (tmp_path / "broken.py").write_text("import nothing_of_this_name\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.delitem(sys.modules, "mine", raising=False)


def test_built_in_ones_have_a_name_and_take_arguments() -> None:
    assert isinstance(load_policy("libxc"), LibxcPolicy)
    target = load_policy("downtime:ms=300,overhead_ms=5")
    assert isinstance(target, DowntimeTarget)
    assert (target.ms, target.overhead_ms) == (300, 5)
    limit = load_policy("stop-after", ["rounds=3", "seconds=2.5"])
    assert isinstance(limit, StopAfter)
    assert (limit.rounds, limit.seconds) == (3, 2.5)
    assert isinstance(load_policy("abort-after:seconds=1"), AbortAfter)
    assert set(BUILT_IN) == {"libxc", "downtime", "stop-after", "abort-after"}


@pytest.mark.parametrize("where", ["mine", "mine.py", "./mine.py"])
def test_anybodys_class_function_or_instance(where: str) -> None:
    waits = load_policy(f"{where}:Waits", ["rounds=3", "mood=cheerful"])
    assert type(waits).__name__ == "Waits"
    assert vars(waits) == {"rounds": 3, "mood": "cheerful"}
    assert type(load_policy(f"{where}:Outer.Inner")).__name__ == "Waits"
    impatient = load_policy(f"{where}:impatient")
    assert impatient(PrecopyStats.example(iteration=2)) is Decision.STOP_AND_COPY
    patient = load_policy(f"{where}:impatient", ["after=3"])
    assert patient(PrecopyStats.example(iteration=2)) is Decision.CONTINUE
    ready = load_policy(f"{where}:ready")
    assert isinstance(ready, StopAfter)
    assert ready.rounds == 7


@pytest.mark.parametrize(
    "file", ["a|b.py", "a&b.py", "a:b.py", "a b.py", "it's.py", 'say "a|b".py', "a|b'c.py"]
)
def test_any_file_can_be_named_in_quotes(tmp_path: Path, file: str) -> None:
    (tmp_path / file).write_text(SOURCE)
    for path in (file, str(tmp_path / file)):
        policy = load_policy(f"{path!r}:Waits", ["rounds=3"])
        assert vars(policy)["rounds"] == 3
        double = '"' + path.replace('"', r"\"") + '"'
        alternatives = load_policy(f" {double}:impatient&libxc|{path!r}:Outer.Inner ")
        assert isinstance(alternatives, AnyOf)
        together, waits = alternatives.members
        assert isinstance(together, AllOf)
        assert repr(together) == "(impatient & LibxcPolicy())"
        assert type(waits).__name__ == "Waits"


def test_quotes_within_a_name_are_part_of_it(tmp_path: Path) -> None:
    (tmp_path / "it's.py").write_text(SOURCE)
    assert isinstance(load_policy("it's.py:ready | it's.py:ready"), AnyOf)


def test_combinations_bind_as_in_python() -> None:
    policy = load_policy("libxc|mine:impatient & downtime:ms=300 |abort-after:seconds=9")
    assert isinstance(policy, AnyOf)
    libxc, both, abort = policy.members
    assert isinstance(libxc, LibxcPolicy)
    assert isinstance(both, AllOf)
    assert repr(both) == "(impatient & DowntimeTarget(ms=300))"
    assert isinstance(abort, AbortAfter)


@pytest.mark.parametrize(
    ("text", "arguments", "message"),
    [
        (
            "nonsense",
            [],
            "no policy 'nonsense': give one of libxc, downtime, stop-after, abort-after, or module",
        ),
        ("", [], "no policy ''"),
        ("libxc |", [], "no policy ''"),
        (":Waits", [], "no policy ':Waits'"),
        ("stop-after", [], "stop-after: StopAfter needs a limit"),
        ("stop-after:rounds", [], "'rounds' is no policy argument: write it as key=value"),
        ("libxc", ["rounds"], "'rounds' is no policy argument"),
        ("downtime:ms=5", [], "leaves nothing of the 5 ms"),
        ("downtime:seconds=5", [], "unexpected keyword argument 'seconds'"),
        ("libxc:rounds=3", [], r"libxc: .*takes no arguments"),
        ("nowhere:Class", [], "cannot load nowhere: ModuleNotFoundError"),
        ("nowhere.py:Class", [], "cannot load nowhere.py: FileNotFoundError"),
        (
            "broken:Class",
            [],
            "cannot load broken: ModuleNotFoundError: No module named 'nothing_of_this_name'",
        ),
        ("mine:Missing", [], "mine has no Missing"),
        ("mine:number", [], "mine:number: .*int objects cannot be called"),
        ("mine:eventually", [], "mine:eventually: .*coroutine function"),
        ("libxc | mine:Waits", ["rounds=1"], "arguments are for a single policy"),
        ("libxc |", [], r"no policy '': .* \(character 8 of 'libxc \|'\)$"),
        ("libxc | & libxc", [], r"no policy '': .* \(character 9 of"),
        ("libxc | mine:Missing", [], r"mine has no Missing \(character 9 of 'libxc \| mine:Missing'\)$"),
        ("libxc |  stop-after", [], r"StopAfter needs a limit: .* \(character 10 of"),
        ('"mine.py:Waits', [], "the quotes that open at character 1 of .* are not closed"),
        ("libxc | 'mine.py:Waits", [], "the quotes that open at character 9 of .* are not closed"),
        ("'mine.py'", [], "a colon and a name must follow the quotes at character 10 of"),
        ("'mine.py':", [], "a colon and a name must follow"),
        ("'mine.py'Waits", [], "a colon and a name must follow"),
        ("'':Waits", [], "no policy"),
        (r"'\N{x}':Waits", [], "is not a Python string"),
        ("'nowhere|x.py':Class", [], r"cannot load nowhere\|x.py: FileNotFoundError"),
    ],
)
def test_what_cannot_be_understood_is_explained(text: str, arguments: list[str], message: str) -> None:
    with pytest.raises(PolicyNameError, match=message):
        load_policy(text, arguments)
