# SPDX-License-Identifier: GPL-3.0-or-later
"""The ready-made policies against their rules, written once more and in another way."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xenmig import PAGE_SIZE, Decision, PrecopyStats, Verdict, save
from xenmig.policies import AbortAfter, DowntimeTarget, LibxcPolicy, StopAfter
from xenmig.sim import HotCold

if TYPE_CHECKING:
    from collections.abc import Callable

    from xenmig.sim import Host

STOP, CONTINUE = Decision.STOP_AND_COPY, Decision.CONTINUE
LIVE_PHASES = ["before_round", "batch", "after_round"]

counts = st.integers(0, 2**34)
seconds = st.floats(0, 1e6)


def decision_of(answer: Decision | Verdict) -> Decision:
    return answer if isinstance(answer, Decision) else answer.decision


def assert_stops_for(answer: Decision | Verdict, reason: str) -> None:
    assert isinstance(answer, Verdict)
    assert answer.decision is STOP
    assert reason in answer.reason


@given(
    iteration=st.integers(0, 10),
    dirty_count=st.one_of(st.none(), st.integers(0, 100), counts),
    phase=st.sampled_from(LIVE_PHASES),
    pages_sent=counts,
    elapsed_s=seconds,
)
def test_libxc_policy_looks_at_dirty_count_and_iteration_only(
    iteration: int, dirty_count: int | None, phase: str, pages_sent: int, elapsed_s: float
) -> None:
    stats = PrecopyStats.example(
        iteration=iteration, dirty_count=dirty_count, phase=phase, pages_sent=pages_sent, elapsed_s=elapsed_s
    )
    # C has -1 for a dirty count that is not known.
    dirty_in_c = -1 if dirty_count is None else dirty_count
    stops = 0 <= dirty_in_c <= 49 or iteration > 4
    assert (decision_of(LibxcPolicy()(stats)) is STOP) == stops


@pytest.mark.parametrize(("dirty_count", "decision"), [(49, STOP), (50, CONTINUE), (51, CONTINUE), (0, STOP)])
def test_libxc_policy_at_its_threshold(dirty_count: int, decision: Decision) -> None:
    assert decision_of(LibxcPolicy()(PrecopyStats.example(iteration=1, dirty_count=dirty_count))) is decision


def test_libxc_policy_says_what_the_engine_says() -> None:
    dirty = LibxcPolicy()(PrecopyStats.example(iteration=1, dirty_count=12))
    assert dirty == STOP.because("12 dirty pages, fewer than 50")
    rounds = LibxcPolicy()(PrecopyStats.example(iteration=5))
    assert rounds == STOP.because("5 rounds sent")


def test_stop_after_keeps_each_limit() -> None:
    rounds = StopAfter(rounds=3)
    assert rounds(PrecopyStats.example(iteration=2)) is CONTINUE
    assert_stops_for(rounds(PrecopyStats.example(iteration=3)), "3 rounds")
    time = StopAfter(seconds=2.5)
    assert time(PrecopyStats.example(elapsed_s=2.4)) is CONTINUE
    assert_stops_for(time(PrecopyStats.example(elapsed_s=2.5)), "2.5 s")
    data = StopAfter(factor_of_ram=3)
    assert data(PrecopyStats.example(iteration=1, ram_pages=100, pages_sent=299)) is CONTINUE
    assert_stops_for(data(PrecopyStats.example(iteration=1, ram_pages=100, pages_sent=300)), "3 x the RAM")


@given(
    iteration=st.integers(0, 40),
    elapsed_s=st.floats(0, 100),
    ram_pages=st.integers(1, 2**20),
    pages_sent=st.integers(0, 2**22),
    limits=st.fixed_dictionaries(
        {},
        optional={
            "rounds": st.integers(1, 40),
            "seconds": st.floats(0.1, 100),
            "factor_of_ram": st.floats(1, 5),
        },
    ).filter(bool),
)
def test_stop_after_stops_at_the_first_limit_and_never_before(
    iteration: int, elapsed_s: float, ram_pages: int, pages_sent: int, limits: dict[str, Any]
) -> None:
    stats = PrecopyStats.example(
        iteration=iteration, elapsed_s=elapsed_s, ram_pages=ram_pages, pages_sent=pages_sent, phase="batch"
    )
    reached = (
        iteration >= limits.get("rounds", math.inf)
        # What the statistics say: they count in nanoseconds.
        or stats.elapsed_s >= limits.get("seconds", math.inf)
        or pages_sent >= limits.get("factor_of_ram", math.inf) * ram_pages
    )
    assert (decision_of(StopAfter(**limits)(stats)) is STOP) == reached


def test_abort_after_aborts_at_its_limit_and_never_stops() -> None:
    policy = AbortAfter(seconds=10)
    assert policy(PrecopyStats.example(iteration=99, dirty_count=0, elapsed_s=9.99)) is CONTINUE
    answer = policy(PrecopyStats.example(elapsed_s=10))
    assert isinstance(answer, Verdict)
    assert answer.decision is Decision.ABORT
    assert "10.0 s" in answer.reason


def owing(pages: int, **others: object) -> PrecopyStats:
    """Statistics in the middle of a save, with a number of pages left of the round."""
    fields: dict[str, Any] = {
        "iteration": 1,
        "phase": "batch",
        "ram_pages": 2**30,
        "pages_remaining": pages,
        "pages_redirtied": 0,
        "send_rate_bytes_per_s": 1e9,
        "dirty_rate_pages_per_s": 0.0,
    }
    return PrecopyStats.example(**fields | others)


def test_downtime_target_stops_when_the_rest_fits() -> None:
    # 100 ms at 1 GB/s, less the 20 ms of overhead: 19,531 pages.
    fits = int(0.080 * 1e9 / PAGE_SIZE)
    assert_stops_for(DowntimeTarget(ms=100)(owing(fits)), f"{fits} pages owed")
    assert DowntimeTarget(ms=100)(owing(fits + 1)) is CONTINUE


@given(
    remaining=st.integers(0, 10**6),
    redirtied=st.integers(0, 10**6),
    deferred=st.integers(0, 10**6),
    dirty_rate=st.floats(0, 1e7),
    round_elapsed_s=st.floats(0, 10),
    rate=st.floats(1e6, 1e11),
    target=st.tuples(st.floats(1, 1000), st.floats(0, 0.9), st.floats(1, 3)),
)
def test_downtime_target_compares_a_time_with_its_target(  # noqa: PLR0917
    remaining: int,
    redirtied: int,
    deferred: int,
    dirty_rate: float,
    round_elapsed_s: float,
    rate: float,
    target: tuple[float, float, float],
) -> None:
    stats = owing(
        remaining,
        pages_redirtied=redirtied,
        pages_deferred=deferred,
        dirty_rate_pages_per_s=dirty_rate,
        round_elapsed_s=round_elapsed_s,
        send_rate_bytes_per_s=rate,
    )
    ms, overhead, speedup = target
    dirty_again = max(redirtied, dirty_rate * stats.round_elapsed_s)
    owed_bytes = (remaining + dirty_again + deferred) * 4096
    expected_ms = 1000 * owed_bytes / (rate * speedup) + overhead * ms
    if math.isclose(expected_ms, ms, rel_tol=1e-9):
        return
    policy = DowntimeTarget(ms=ms, overhead_ms=overhead * ms, speedup=speedup)
    assert (decision_of(policy(stats)) is STOP) == (expected_ms < ms)


@pytest.mark.parametrize("missing", ["send_rate_bytes_per_s", "dirty_rate_pages_per_s", "pages_redirtied"])
@pytest.mark.parametrize("phase", ["batch", "after_round"])
def test_downtime_target_goes_on_while_it_does_not_know(phase: str, missing: str) -> None:
    assert decision_of(DowntimeTarget(ms=1000)(owing(0, phase=phase))) is STOP
    assert DowntimeTarget(ms=1000)(owing(0, **{"phase": phase, missing: None})) is CONTINUE


def test_downtime_target_needs_no_peek_before_a_round() -> None:
    before = owing(1000, phase="before_round", pages_redirtied=None, dirty_rate_pages_per_s=1e9)
    assert_stops_for(DowntimeTarget(ms=100)(before), "1000 pages owed")
    assert DowntimeTarget(ms=100)(owing(10**6, phase="before_round", pages_redirtied=None)) is CONTINUE
    first = owing(1000, phase="before_round", iteration=0, pages_redirtied=None)
    assert DowntimeTarget(ms=100)(first) is CONTINUE


def test_downtime_target_owes_no_more_than_there_is() -> None:
    small = owing(1000, ram_pages=1000, pages_redirtied=900, pages_deferred=900)
    assert_stops_for(DowntimeTarget(ms=100)(small), "1000 pages owed")


def test_downtime_target_foresees_what_is_left_on_a_busy_guest(host: Host) -> None:
    guest = host.create(memory="64M", workload=HotCold(1000, 20000.0))
    # Slow enough that the guest dirties a good part of its hot set in a round.
    guest.inject("map_cost", ns_per_page=20000)
    with Path("/dev/null").open("wb") as sink:
        policy = DowntimeTarget(ms=30, overhead_ms=20) | StopAfter(seconds=20)
        result = save(guest.domid, sink, host=host, policy=policy)
    assert result.reason is not None
    foreseen = re.match(r"DowntimeTarget: (\d+) pages owed", result.reason)
    assert foreseen, result.reason
    # What is dirtied between the answer and the suspension is not in it.
    assert result.passes[-1].pages_sent <= 2 * int(foreseen[1]) + 100


def test_downtime_target_owes_what_it_has_not_seen_in_the_first_round() -> None:
    policy = DowntimeTarget(ms=100)
    early = owing(10**6, iteration=0, ram_pages=10**6, pages_sent=10**5)
    assert policy(early) is CONTINUE
    # Only 1000 pages of memory are unseen; the rest of the claimed pfns are holes.
    late = owing(9 * 10**5, iteration=0, ram_pages=10**6, pages_sent=10**6 - 1000)
    assert_stops_for(policy(late), "1000 pages owed")


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (StopAfter, ValueError, "needs a limit"),
        (lambda: StopAfter(rounds=0), ValueError, "rounds is 0: give at least 1"),
        (lambda: StopAfter(rounds=cast("int", 1.5)), TypeError, "rounds is an integer, not float"),
        (lambda: StopAfter(rounds=True), TypeError, "rounds is an integer, not bool"),
        (lambda: StopAfter(seconds=0), ValueError, "seconds is 0: give more than 0"),
        (lambda: StopAfter(seconds=math.nan), ValueError, "seconds is nan: give a finite number"),
        (lambda: StopAfter(factor_of_ram=0.5), ValueError, "factor_of_ram is 0.5: give at least 1"),
        (lambda: AbortAfter(seconds=-1), ValueError, "seconds is -1: give more than 0"),
        (lambda: AbortAfter(seconds=cast("float", "9")), TypeError, "seconds is a number, not str"),
        (lambda: DowntimeTarget(ms=0), ValueError, "ms is 0: give more than 0"),
        (lambda: DowntimeTarget(ms=math.inf), ValueError, "ms is inf: give a finite number"),
        (lambda: DowntimeTarget(ms=20), ValueError, "leaves nothing of the 20 ms"),
        (lambda: DowntimeTarget(ms=100, overhead_ms=-1), ValueError, "overhead_ms is -1: give at least 0"),
        (lambda: DowntimeTarget(ms=100, speedup=0.9), ValueError, "speedup is 0.9: give at least 1"),
    ],
)
def test_nonsense_is_refused_with_what_is_allowed(
    make: Callable[[], object], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        make()
