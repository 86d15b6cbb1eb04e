# SPDX-License-Identifier: GPL-3.0-or-later
"""Results and statistics are values: pickled, copied, compared, hashed, made again from dictionaries."""

from __future__ import annotations

import copy
import json
import math
import pickle
import weakref
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

import xenmig
from xenmig import (
    Decision,
    PrecopyStats,
    RestoreEvent,
    RestoreProgress,
    RestoreResult,
    RoundStats,
    SaveEvent,
    SaveResult,
    _native,
)
from xenmig.policies import DowntimeTarget
from xenmig.sim import Host, HotCold, Idle, Phase, Phased, Pv, Scripted, Step, Uniform, Workload

if TYPE_CHECKING:
    from xenmig.sim import Domain

Record = PrecopyStats | RestoreEvent | RestoreProgress | RestoreResult | RoundStats | SaveEvent | SaveResult

PROTOCOLS = range(pickle.HIGHEST_PROTOCOL + 1)
PHASES = ["before_round", "batch", "after_round", "waiting", "stop_and_copy", "verify"]

counts = st.integers(0, 2**64 - 1)
seconds = st.floats(0, 1e9)
rates = st.none() | st.floats(0, allow_infinity=False)

FIELDS: dict[str, st.SearchStrategy[Any]] = {
    "iteration": st.integers(0, 2**32 - 1),
    "total_written": counts,
    "dirty_count": st.none() | counts,
    "phase": st.sampled_from(PHASES),
    "p2m_size": counts,
    "ram_pages": st.integers(0, 2**52 - 1),
    "pages_claimed": counts,
    "pages_sent": counts,
    "pages_skipped": counts,
    "pages_deferred": counts,
    "pages_remaining": counts,
    "pages_redirtied": st.none() | counts,
    "bytes_sent": counts,
    "elapsed_s": seconds,
    "round_elapsed_s": seconds,
    "send_rate_bytes_per_s": rates,
    "dirty_rate_pages_per_s": rates,
}
DERIVED = {"pages_owed", "expected_copy_s"}

statistics = st.fixed_dictionaries({}, optional=FIELDS).map(lambda fields: PrecopyStats.example(**fields))


@pytest.fixture
def records(host: Host, domain: Domain, empty_domain: Domain, tmp_path: Path) -> list[Record]:
    """At least one of each kind, as a save and a restore make them."""
    seen: list[Record] = []
    events: list[SaveEvent | RestoreEvent] = []

    def stop(stats: PrecopyStats) -> Decision:
        seen.append(stats)
        return Decision.STOP_AND_COPY

    with (tmp_path / "image").open("wb") as out:
        saved = xenmig.save(domain.domid, out, host=host, policy=stop, on_event=events.append)
    progress: list[Record] = []
    with (tmp_path / "image").open("rb") as source:
        restored = xenmig.restore(
            empty_domain.domid, source, host=host, on_progress=progress.append, on_event=events.append
        )
    one_of_each = {(type(event), event.kind): event for event in events}
    assert set(one_of_each) >= {(SaveEvent, "stage"), (SaveEvent, "consult"), (RestoreEvent, "stage")}
    return [seen[0], saved, saved.passes[0], *one_of_each.values(), restored, progress[-1]]


def made_of(record: Record, fields: object) -> Record:
    """Makes a record of the same kind as unpickling does."""
    return cast("Record", cast("Any", type(record))._from_dict(fields))


def assert_same(left: Record, right: object) -> None:
    assert type(right) is type(left)
    assert left == right
    assert not left != right  # noqa: SIM202 - the operator is what is tested
    assert hash(left) == hash(right)
    assert repr(left) == repr(right)
    assert isinstance(right, type(left))
    assert left.to_dict() == right.to_dict()


def test_every_record_survives_pickling_and_copying(records: list[Record]) -> None:
    assert {type(record) for record in records} == set(get_args(Record))
    assert {each for each in vars(_native).values() if hasattr(each, "to_dict")} == set(get_args(Record))
    for record in records:
        for protocol in PROTOCOLS:
            assert_same(record, pickle.loads(pickle.dumps(record, protocol)))  # noqa: S301 - our own
        assert_same(record, copy.copy(record))
        assert_same(record, copy.deepcopy(record))
        assert_same(record, made_of(record, json.loads(json.dumps(record.to_dict()))))


def test_records_differ_by_each_field_and_from_everything_else(records: list[Record]) -> None:
    for record in records:
        fields = record.to_dict()
        others: list[object] = [fields, tuple(fields.values()), None]
        assert record not in others
        for name, value in fields.items():
            if isinstance(value, bool) or not isinstance(value, (int, float)):
                continue
            other = made_of(record, {**fields, name: value + 1})
            assert record != other, name
            assert hash(record) != hash(other), name
            assert f"{name}={value!r}" in repr(record)


def test_records_can_be_referred_to_weakly(records: list[Record]) -> None:
    for record in records:
        assert weakref.ref(record)() is record
        assert weakref.WeakKeyDictionary({record: 1})[record] == 1


def test_records_are_not_ordered(records: list[Record]) -> None:
    for record in records:
        with pytest.raises(TypeError, match="not supported"):
            record < record  # type: ignore[operator]  # noqa: B015, PLR0124


def is_refused(record: Record, name: str, value: object) -> bool:
    """Whether a field cannot have this value; the error names the field."""
    try:
        made_of(record, {**record.to_dict(), name: value})
    except (TypeError, ValueError) as error:
        return name in str(error)
    return False


@pytest.mark.parametrize("wrong", [-1, 1.5j, {}, {"a": 1}, b"", math.nan, object(), [{}], [3]])
def test_wrong_fields_are_refused(records: list[Record], wrong: object) -> None:
    for record in records:
        for name in record.to_dict():
            assert is_refused(record, name, wrong), (type(record), name)


def test_missing_and_further_fields_are_refused(records: list[Record]) -> None:
    for record in records:
        fields = record.to_dict()
        name = type(record).__name__
        with pytest.raises(TypeError, match=f"{name} has no field 'mood'"):
            made_of(record, {**fields, "mood": 1})
        with pytest.raises(TypeError, match=f"{name} has no field 3"):
            made_of(record, dict([*fields.items(), (3, 1)]))
        first, _ = fields.popitem()
        with pytest.raises(TypeError, match=f"{name} needs the field '{first}'"):
            made_of(record, fields)


@given(statistics)
def test_statistics_survive_pickling_and_their_dictionary(stats: PrecopyStats) -> None:
    assert set(stats.to_dict()) == set(FIELDS) | DERIVED
    assert_same(stats, pickle.loads(pickle.dumps(stats)))  # noqa: S301 - our own
    assert_same(stats, PrecopyStats.example(**stats.to_dict()))
    assert_same(stats, PrecopyStats.example(**json.loads(json.dumps(stats.to_dict()))))


@given(statistics, st.sampled_from(sorted(FIELDS)), st.data())
def test_statistics_are_equal_if_their_fields_are(
    stats: PrecopyStats, name: str, data: st.DataObject
) -> None:
    fields = {name: value for name, value in stats.to_dict().items() if name not in DERIVED}
    other = PrecopyStats.example(**fields | {name: data.draw(FIELDS[name])})
    assert (stats == other) == (stats.to_dict() == other.to_dict())
    if stats == other:
        assert hash(stats) == hash(other)


def test_statistics_of_a_run_can_be_made_again(host: Host, busy_domain: Domain) -> None:
    seen: list[PrecopyStats] = []
    with Path("/dev/null").open("wb") as sink:
        policy = seen.append
        xenmig.save(
            busy_domain.domid,
            sink,
            host=host,
            policy=lambda stats: (
                policy(stats) or (Decision.STOP_AND_COPY if stats.iteration else Decision.CONTINUE)
            ),
            on_progress=seen.append,
            progress_interval_s=0,
        )
    assert len(seen) > 20
    for stats in seen:
        assert_same(stats, PrecopyStats.example(**stats.to_dict()))


def test_derived_fields_must_agree() -> None:
    fields: dict[str, Any] = {
        "iteration": 1,
        "ram_pages": 100,
        "pages_remaining": 10,
        "send_rate_bytes_per_s": 3e6,
    }
    stats = PrecopyStats.example(**fields)
    assert stats.pages_owed == 10
    # As it was printed.
    assert PrecopyStats.example(**fields, pages_owed=10, expected_copy_s=0.0136533333) == stats
    for name, wrong in [
        ("pages_owed", 11),
        ("pages_owed", 0),
        ("expected_copy_s", 0.0137),
        ("expected_copy_s", None),
    ]:
        with pytest.raises(ValueError, match=rf"{name} is .* follows from the other fields"):
            PrecopyStats.example(**fields | {name: wrong})


@pytest.mark.parametrize(
    ("fields", "error", "message"),
    [
        ({"mood": 1}, TypeError, "PrecopyStats has no field 'mood'"),
        ({"iteration": True}, TypeError, "iteration: True is a bool: give an integer"),
        ({"iteration": 2**32}, ValueError, "iteration: 4294967296 is out of range"),
        ({"bytes_sent": -1}, ValueError, "bytes_sent: -1 is out of range: give 0 to 2"),
        ({"phase": "later"}, ValueError, "phase: .*'before_round', 'batch'"),
        ({"elapsed_s": math.inf}, ValueError, "elapsed_s: "),
        ({"send_rate_bytes_per_s": math.nan}, ValueError, "send_rate_bytes_per_s: NaN is out of range"),
        ({"dirty_rate_pages_per_s": math.inf}, ValueError, "dirty_rate_pages_per_s is infinite"),
        ({"ram_pages": 2**52}, ValueError, "ram_pages: .*an address space has"),
        ({"expected_copy_s": "soon"}, ValueError, "expected_copy_s: "),
    ],
)
def test_statistics_that_cannot_be_are_refused(
    fields: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises((error, TypeError), match=message):
        PrecopyStats.example(**fields)


@pytest.mark.parametrize(
    ("value", "again"),
    [
        (Idle(), Idle()),
        (Uniform(5.0), Uniform(5)),
        (HotCold(1, 2.0), HotCold(1, 2.0, 0.0)),
        (
            Phased([Phase(0.5, Idle()), Phase(1, Uniform(3))]),
            Phased((Phase(0.5, Idle()), Phase(1, Uniform(3)))),
        ),
        (Scripted([Step("clean", 0, "write", 5)]), Scripted((Step("clean", 0, "write", 5),))),
        (Pv(offline_vcpus=[1]), Pv(offline_vcpus=(1,))),
    ],
)
def test_what_a_simulated_guest_does_is_a_value(value: Workload | Pv, again: Workload | Pv) -> None:
    assert value == again
    assert len({value, again}) == 1
    assert eval(repr(value)) == value  # noqa: S307 - our own classes
    for protocol in PROTOCOLS:
        assert pickle.loads(pickle.dumps(value, protocol)) == value  # noqa: S301 - our own
    assert copy.deepcopy(value) == copy.copy(value) == value


def downtimes(ms: int) -> SaveResult:
    host = Host()
    guest = host.create(memory="64M", workload=Uniform(2000))
    with Path("/dev/null").open("wb") as sink:
        return xenmig.save(guest.domid, sink, host=host, policy=DowntimeTarget(ms=ms))


def test_a_pool_of_processes_returns_results() -> None:
    with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as pool:
        results = list(pool.map(downtimes, (100, 200)))
    assert all(isinstance(result, SaveResult) for result in results)
    assert len(set(results)) == 2
