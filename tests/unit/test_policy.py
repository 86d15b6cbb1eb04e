# SPDX-License-Identifier: GPL-3.0-or-later
"""Decisions, verdicts, what counts as a policy, and the laws of combining policies."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xenmig import (
    AllOf,
    AnyOf,
    BasePolicy,
    Decision,
    PolicyAbort,
    PolicyError,
    PrecopyStats,
    Verdict,
    save,
)
from xenmig.policies import LibxcPolicy, StopAfter
from xenmig.policy import check_policy

if TYPE_CHECKING:
    from xenmig import SaveResult
    from xenmig.policy import Policy
    from xenmig.sim import Domain, Host

ABORT, CONTINUE, STOP = Decision.ABORT, Decision.CONTINUE, Decision.STOP_AND_COPY
STATS = PrecopyStats.example()


class Fixed(BasePolicy):
    """Always answers the same, and counts how often it was asked."""

    def __init__(self, answer: Decision | Verdict) -> None:
        self.answer = answer
        self.asked = 0

    def __call__(self, _stats: PrecopyStats, /) -> Decision | Verdict:
        self.asked += 1
        return self.answer


def patient(stats: PrecopyStats, /) -> Decision | Verdict:
    return STOP.because("seen enough") if stats.iteration >= 2 else CONTINUE


def decision_of(answer: Decision | Verdict) -> Decision:
    return answer if isinstance(answer, Decision) else answer.decision


def reason_of(answer: Decision | Verdict) -> str:
    assert isinstance(answer, Verdict)
    return answer.reason


def either(*decisions: Decision) -> Decision:
    """The decision of ``|``, written as the contract says it."""
    return ABORT if ABORT in decisions else STOP if STOP in decisions else CONTINUE


def both(*decisions: Decision) -> Decision:
    """The decision of ``&``, written as the contract says it."""
    if ABORT in decisions:
        return ABORT
    return STOP if all(decision is STOP for decision in decisions) else CONTINUE


def test_numbers_are_those_of_xenguest_h() -> None:
    assert {decision.name: decision.value for decision in Decision} == {
        "ABORT": -1,
        "CONTINUE": 0,
        "STOP_AND_COPY": 1,
    }


def test_because_adds_a_reason() -> None:
    verdict = STOP.because("the rest fits")
    assert verdict == (STOP, "the rest fits")
    assert verdict.decision is STOP


answers = st.sampled_from(Decision).flatmap(
    lambda decision: st.one_of(st.just(decision), st.text(max_size=5).map(decision.because))
)


@given(st.lists(answers, min_size=1, max_size=4))
def test_combinations_decide_as_the_contract_says(given_answers: list[Decision | Verdict]) -> None:
    decisions = [decision_of(answer) for answer in given_answers]
    members = [Fixed(answer) for answer in given_answers]
    assert decision_of(AnyOf(*members)(STATS)) is either(*decisions)
    assert decision_of(AllOf(*members)(STATS)) is both(*decisions)


@given(answers, answers)
def test_the_order_does_not_matter_for_the_decision(a: Decision | Verdict, b: Decision | Verdict) -> None:
    assert decision_of((Fixed(a) | Fixed(b))(STATS)) is decision_of((Fixed(b) | Fixed(a))(STATS))
    assert decision_of((Fixed(a) & Fixed(b))(STATS)) is decision_of((Fixed(b) & Fixed(a))(STATS))


@given(answers, answers, answers)
def test_brackets_do_not_matter(a: Decision | Verdict, b: Decision | Verdict, c: Decision | Verdict) -> None:
    x, y, z = Fixed(a), Fixed(b), Fixed(c)
    assert ((x | y) | z)(STATS) == (x | (y | z))(STATS)
    assert ((x & y) & z)(STATS) == (x & (y & z))(STATS)


@given(answers, answers, answers)
def test_an_abort_within_a_combination_wins_over_everything(
    a: Decision | Verdict, b: Decision | Verdict, c: Decision | Verdict
) -> None:
    decision = decision_of((Fixed(a) & Fixed(b) | Fixed(c))(STATS))
    if ABORT in map(decision_of, (a, b, c)):
        assert decision is ABORT
    else:
        assert decision is either(both(decision_of(a), decision_of(b)), decision_of(c))


@given(st.lists(answers, min_size=2, max_size=4))
def test_every_member_is_asked_at_every_consult(given_answers: list[Decision | Verdict]) -> None:
    members = [Fixed(answer) for answer in given_answers]
    for combination in (AnyOf(*members), AllOf(*members)):
        before = [member.asked for member in members]
        combination(STATS)
        assert [member.asked for member in members] == [asked + 1 for asked in before]


def test_reasons_name_the_members_that_decided_and_no_others() -> None:
    stats = PrecopyStats.example(iteration=5, dirty_count=100)
    assert (LibxcPolicy() | StopAfter(rounds=9))(stats) == STOP.because("LibxcPolicy: 5 rounds sent")
    together = StopAfter(rounds=5) & patient
    assert reason_of(together(stats)) == "StopAfter: 5 rounds sent, the limit; patient: seen enough"
    assert reason_of((patient | Fixed(ABORT))(stats)) == "Fixed"
    nested = LibxcPolicy() & patient | StopAfter(rounds=9)
    assert reason_of(nested(stats)) == (
        "(LibxcPolicy & patient): LibxcPolicy: 5 rounds sent; patient: seen enough"
    )


def test_plain_functions_may_stand_on_either_side() -> None:
    for combination in (patient | LibxcPolicy(), LibxcPolicy() | patient):
        assert isinstance(combination, AnyOf)
        assert set(map(type, combination.members)) == {type(patient), LibxcPolicy}
    for together in (patient & LibxcPolicy(), LibxcPolicy() & patient):
        assert isinstance(together, AllOf)
    assert (patient | LibxcPolicy()).members[0] is patient
    assert AnyOf(patient, patient)(PrecopyStats.example(iteration=2)) == STOP.because(
        "patient: seen enough; patient: seen enough"
    )


def test_what_is_no_policy_cannot_be_combined() -> None:
    with pytest.raises(TypeError, match="unsupported operand"):
        LibxcPolicy() | 5  # type: ignore[operator]
    with pytest.raises(PolicyError, match=r"StopAfter\(\.\.\.\)"):
        LibxcPolicy() | StopAfter
    with pytest.raises(PolicyError, match=r"StopAfter\(\.\.\.\)"):
        StopAfter | LibxcPolicy()
    with pytest.raises(PolicyError, match="at least one"):
        AnyOf()


@pytest.mark.parametrize(
    "answer", [None, True, 1, 0, -1, "stop", (STOP, "why"), Verdict(cast("Decision", 1), "why")]
)
def test_a_member_that_answers_no_decision_is_named(answer: object) -> None:
    def forgetful(_stats: PrecopyStats) -> Decision:
        return cast("Decision", answer)

    with pytest.raises(PolicyError, match=r"forgetful answered"):
        (forgetful | LibxcPolicy())(STATS)


async def eventually(_stats: PrecopyStats) -> Decision:
    return STOP


class Eventually:
    async def __call__(self, _stats: PrecopyStats) -> Decision:
        return STOP


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (StopAfter, r"the class StopAfter: give an instance, StopAfter\(\.\.\.\)"),
        (5, "int objects cannot be called"),
        ("libxc", "str objects cannot be called"),
        (eventually, "eventually is a coroutine function"),
        (Eventually(), "Eventually is a coroutine function"),
    ],
)
def test_what_is_no_policy_is_refused_before_anything_is_done(
    host: Host, domain: Domain, wrong: Policy, message: str
) -> None:
    with pytest.raises(PolicyError, match=message):
        check_policy(wrong)
    with pytest.raises(PolicyError, match=message):
        save(domain.domid, 1, host=host, policy=wrong)
    assert domain.state == "running"
    assert domain.counters["domain_info"] == 0


def saved(host: Host, domain: Domain, who: Policy) -> SaveResult:
    with Path("/dev/null").open("wb") as sink:
        return save(domain.domid, sink, host=host, policy=who)


def test_a_combination_decides_a_save(host: Host, domain: Domain) -> None:
    result = saved(host, domain, patient | StopAfter(rounds=1))
    assert result.reason == "StopAfter: 1 rounds sent, the limit"
    assert result.rounds == 1


def test_an_abort_of_a_member_ends_a_save_with_its_reason(host: Host, domain: Domain) -> None:
    def closed(stats: PrecopyStats) -> Decision | Verdict:
        return ABORT.because("the window has closed") if stats.iteration else CONTINUE

    with pytest.raises(PolicyAbort) as caught:
        saved(host, domain, closed & LibxcPolicy())
    assert caught.value.reason == "closed: the window has closed"
    assert caught.value.guest_state == "running"
    assert domain.state == "running"
    assert not domain.logdirty
