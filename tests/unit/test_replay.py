# SPDX-License-Identifier: GPL-3.0-or-later
"""``replay``: what a policy would have answered to a recorded trace."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import pytest

from xenmig import Decision, PolicyError, PrecopyStats, Verdict, save
from xenmig.policies import DowntimeTarget, LibxcPolicy, StopAfter, replay

if TYPE_CHECKING:
    from xenmig.policy import Policy
    from xenmig.sim import Domain, Host

ROUNDS = [PrecopyStats.example(iteration=n, phase="after_round") for n in range(5)]


def test_each_consult_gets_its_verdict() -> None:
    verdicts = replay(StopAfter(rounds=3), ROUNDS)
    assert [type(verdict) for verdict in verdicts] == [Verdict] * 5
    assert [verdict.decision for verdict in verdicts] == [Decision.CONTINUE] * 3 + [
        Decision.STOP_AND_COPY
    ] * 2
    assert [verdict.reason for verdict in verdicts] == [
        *[""] * 3,
        "3 rounds sent, the limit",
        "4 rounds sent, the limit",
    ]
    assert replay(StopAfter(rounds=3), iter(ROUNDS)) == verdicts
    assert replay(StopAfter(rounds=3), []) == []


def test_a_recorded_save_is_answered_as_it_was(host: Host, busy_domain: Domain) -> None:
    seen: list[PrecopyStats] = []
    given: list[Decision | Verdict] = []
    policy = DowntimeTarget(ms=30) | StopAfter(rounds=3)

    def recording(stats: PrecopyStats, /) -> Decision | Verdict:
        seen.append(stats)
        given.append(policy(stats))
        return given[-1]

    everything: list[PrecopyStats] = []
    with Path("/dev/null").open("wb") as sink:
        result = save(
            busy_domain.domid,
            sink,
            host=host,
            policy=recording,
            on_progress=everything.append,
            progress_interval_s=0,
        )
    fresh = DowntimeTarget(ms=30) | StopAfter(rounds=3)
    verdicts = replay(fresh, seen)
    assert verdicts == [Verdict(one, "") if isinstance(one, Decision) else one for one in given]
    assert verdicts[-1] == (Decision.STOP_AND_COPY, result.reason)
    # As JSON keeps it.
    lines = [json.dumps(stats.to_dict()) for stats in seen]
    assert replay(fresh, map(json.loads, lines)) == verdicts
    # Progress is also reported while the guest is suspended, where no policy is asked.
    asked = [stats for stats in everything if stats.phase not in {"stop_and_copy", "verify"}]
    assert 0 < len(asked) < len(everything)
    assert len(replay(fresh, everything)) == len(asked)


def test_a_policy_keeps_its_state_between_consults() -> None:
    class Third:
        asked = 0

        def __call__(self, _stats: PrecopyStats, /) -> Decision:
            self.asked += 1
            return Decision.STOP_AND_COPY if self.asked == 3 else Decision.CONTINUE

    policy = Third()
    again = copy.deepcopy(policy)
    decisions = [verdict.decision.name for verdict in replay(policy, ROUNDS)]
    assert decisions == ["CONTINUE", "CONTINUE", "STOP_AND_COPY", "CONTINUE", "CONTINUE"]
    assert [verdict.decision.name for verdict in replay(again, ROUNDS)] == decisions


@pytest.mark.parametrize(
    ("item", "error", "message"),
    [
        ({"iteration": 1, "mood": 2}, TypeError, "PrecopyStats has no field 'mood'"),
        ({"iteration": -1}, ValueError, "iteration: -1 is out of range"),
        ({"ram_pages": 5, "pages_owed": 3}, ValueError, "pages_owed is 3, but 0 follows"),
    ],
)
def test_what_is_no_trace_is_refused(item: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        replay(LibxcPolicy(), [ROUNDS[0], item])


def test_what_is_no_policy_is_refused() -> None:
    with pytest.raises(PolicyError, match="the class LibxcPolicy"):
        replay(cast("Policy", LibxcPolicy), ROUNDS)

    def forgets(_stats: PrecopyStats, /) -> Decision:
        return cast("Decision", None)

    with pytest.raises(PolicyError, match="the policy forgets answered None"):
        replay(forgets, ROUNDS)
