# SPDX-License-Identifier: GPL-3.0-or-later
"""Decisions, verdicts and policies are values: shown by arguments, compared, hashed, copied, pickled."""

from __future__ import annotations

import copy
import functools
import inspect
import pickle
import weakref
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest

from xenmig import AllOf, AnyOf, BasePolicy, Decision, PrecopyStats, Verdict, policies
from xenmig.policies import AbortAfter, DowntimeTarget, LibxcPolicy, StopAfter

if TYPE_CHECKING:
    from collections.abc import Callable

PROTOCOLS = range(pickle.HIGHEST_PROTOCOL + 1)


class Patient(BasePolicy):
    """As a user writes one: with state, and without a thought of any of this."""

    def __init__(
        self, pages: int, /, rounds: int = 3, *names: str, mood: str = "calm", **more: object
    ) -> None:
        self.pages = pages
        self.limits = {"rounds": rounds, "names": names, "mood": mood, **more}
        self.asked = 0

    def __call__(self, _stats: PrecopyStats, /) -> Decision | Verdict:
        self.asked += 1
        return Decision.CONTINUE


class MorePatient(Patient):
    """Has arguments of its own."""

    def __init__(self, factor: float) -> None:
        super().__init__(100, int(10 * factor))


class AsPatient(Patient):
    """Inherits its arguments."""


class Slotted(BasePolicy):
    __slots__ = ("limit",)

    def __init__(self, limit: int) -> None:
        self.limit = limit

    def __call__(self, _stats: PrecopyStats, /) -> Decision | Verdict:
        return Decision.CONTINUE


@dataclass
class AsDataclass(BasePolicy):
    rounds: int
    seen: list[int] = field(default_factory=list)

    def __call__(self, _stats: PrecopyStats, /) -> Decision | Verdict:
        return Decision.CONTINUE


def patient(_stats: PrecopyStats, /) -> Decision:
    return Decision.CONTINUE


def impatient(_stats: PrecopyStats, /) -> Decision:
    return Decision.STOP_AND_COPY


CASES: list[tuple[str, Callable[[], object]]] = [
    ("Decision.ABORT", lambda: Decision.ABORT),
    ("Decision.CONTINUE", lambda: Decision.CONTINUE),
    ("Verdict(decision=Decision.STOP_AND_COPY, reason='why')", lambda: Decision.STOP_AND_COPY.because("why")),
    ("LibxcPolicy()", LibxcPolicy),
    ("StopAfter(rounds=3)", lambda: StopAfter(rounds=3)),
    ("StopAfter(seconds=2.5, factor_of_ram=3)", lambda: StopAfter(factor_of_ram=3, seconds=2.5)),
    ("AbortAfter(seconds=60)", lambda: AbortAfter(seconds=60)),
    ("DowntimeTarget(ms=100)", lambda: DowntimeTarget(ms=100)),
    ("DowntimeTarget(ms=100, speedup=1.5)", lambda: DowntimeTarget(ms=100, overhead_ms=20, speedup=1.5)),
    (
        "(DowntimeTarget(ms=100) | StopAfter(rounds=3))",
        lambda: DowntimeTarget(ms=100) | StopAfter(rounds=3),
    ),
    ("(LibxcPolicy() & patient)", lambda: LibxcPolicy() & patient),
    (
        "((patient & LibxcPolicy()) | AbortAfter(seconds=60) | impatient)",
        lambda: patient & LibxcPolicy() | AbortAfter(seconds=60) | impatient,
    ),
    ("AnyOf(patient, impatient)", lambda: AnyOf(patient, impatient)),
    ("AllOf(LibxcPolicy())", lambda: AllOf(LibxcPolicy())),
    ("Patient(1)", lambda: Patient(1)),
    ("Patient(1, rounds=4, mood='grim', zeal=3)", lambda: Patient(1, 4, mood="grim", zeal=3)),
    ("Patient(1, 3, 'a', 'b', a=1, b=2)", lambda: Patient(1, 3, "a", "b", b=2, a=1)),
    ("MorePatient(factor=1.5)", lambda: MorePatient(1.5)),
    ("AsPatient(7)", lambda: AsPatient(7)),
    ("Slotted(limit=4)", lambda: Slotted(4)),
    ("AsDataclass(rounds=4, seen=[])", lambda: AsDataclass(4)),
]


@pytest.mark.parametrize(("text", "make"), CASES, ids=[text for text, _ in CASES])
def test_each_shows_its_arguments_and_is_a_value(text: str, make: Callable[[], Any]) -> None:
    value = make()
    assert repr(value) == text
    assert eval(text) == value == make()  # noqa: S307 - the texts above
    others = [other() for other_text, other in CASES if other_text != text]
    assert value not in others
    if not isinstance(value, AsDataclass):
        assert hash(value) == hash(make())
        assert len({value, make()}) == 1
    for copied in (copy.copy(value), copy.deepcopy(value)):
        assert (type(copied), copied, repr(copied)) == (type(value), value, text)


@pytest.mark.parametrize(("text", "make"), CASES, ids=[text for text, _ in CASES])
@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_each_can_be_pickled(text: str, make: Callable[[], Any], protocol: int) -> None:
    value = make()
    if isinstance(value, Slotted) and protocol < 2:
        with pytest.raises(TypeError, match="__slots__"):
            pickle.dumps(value, protocol)
        return
    loaded = pickle.loads(pickle.dumps(value, protocol))  # noqa: S301 - our own
    assert (type(loaded), loaded, repr(loaded)) == (type(value), value, text)
    if isinstance(value, Decision):
        assert loaded is value
    if isinstance(value, BasePolicy):
        assert weakref.ref(loaded)() is loaded


def test_equality_is_about_arguments_and_copies_keep_state() -> None:
    asked, fresh = Patient(5), Patient(5)
    asked(PrecopyStats.example())
    assert asked == fresh
    assert hash(asked) == hash(fresh)
    for copied in (copy.copy(asked), copy.deepcopy(asked), pickle.loads(pickle.dumps(asked))):  # noqa: S301
        assert copied.asked == 1
    assert Patient(5) == Patient(5, 3, mood="calm")
    assert Patient(5) != Patient(5, 4)
    assert Patient(5) != AsPatient(5)
    assert StopAfter(seconds=1) == StopAfter(seconds=1.0)
    assert StopAfter(seconds=1) != AbortAfter(seconds=1)


def test_the_members_of_a_combination_are_its_arguments() -> None:
    a, b, c = LibxcPolicy(), StopAfter(rounds=1), AbortAfter(seconds=1)
    assert (a | b) | c == a | (b | c) == AnyOf(a, b, c)
    assert hash((a | b) | c) == hash(AnyOf(a, b, c))
    assert AnyOf(a, b) != AllOf(a, b)
    assert a | b != b | a


def test_an_argument_that_cannot_be_hashed_is_pythons_error() -> None:
    unhashable = Patient(1, more=[1])
    assert unhashable == Patient(1, more=[1])
    with pytest.raises(TypeError, match="unhashable type: 'list'"):
        hash(unhashable)


def test_the_constructor_is_as_its_author_wrote_it() -> None:
    assert list(inspect.signature(MorePatient).parameters) == ["factor"]
    with pytest.raises(TypeError, match=r"missing 1 required keyword-only argument: 'ms'"):
        DowntimeTarget()  # type: ignore[call-arg]
    with pytest.raises(TypeError, match="takes no arguments"):
        LibxcPolicy(3)  # type: ignore[call-arg]
    assert set(vars(Patient(1))) == {"pages", "limits", "asked", "_policy_arguments"}


def test_a_constructor_that_hides_its_signature_leaves_an_object() -> None:
    def hidden(init: Callable[..., None]) -> Callable[..., None]:
        @functools.wraps(init)
        def with_one_more(self: object, _more: int, *args: object) -> None:
            init(self, *args)

        return with_one_more

    class Hidden(BasePolicy):
        @hidden
        def __init__(self, limit: int) -> None:
            self.limit = limit

        def __call__(self, _stats: PrecopyStats, /) -> Decision | Verdict:
            return Decision.CONTINUE

    one, other = Hidden(1, 2), Hidden(1, 2)
    assert one == one  # noqa: PLR0124 - the operator is what is tested
    assert one != other
    assert len({one, other}) == 2
    assert "Hidden object at" in repr(one)


def test_every_ready_made_policy_is_tried_here() -> None:
    ready_made = {name for name in policies.__all__ if isinstance(getattr(policies, name), type)}
    assert {type(make()).__name__ for _, make in CASES} >= ready_made >= {"LibxcPolicy", "StopAfter"}
