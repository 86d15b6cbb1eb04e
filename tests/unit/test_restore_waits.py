# SPDX-License-Identifier: GPL-3.0-or-later
"""What a restore does while it waits for its sender, and what it tells of itself."""

from __future__ import annotations

import errno
import socket
import threading
from typing import TYPE_CHECKING

import pytest

from xenmig import DomainRefused, HypercallError, TransportError, restore, save
from xenmig.sim import Host

if TYPE_CHECKING:
    import io
    from collections.abc import Iterator
    from pathlib import Path

    from xenmig import RestoreEvent
    from xenmig.sim import Domain

MEMORY_BYTES = 64 << 20


@pytest.fixture
def host() -> Host:
    return Host()


@pytest.fixture
def stream(host: Host, tmp_path: Path) -> Iterator[io.BufferedReader]:
    """The stream of a whole domain."""
    path = tmp_path / "stream"
    with path.open("wb") as out:
        save(host.create(memory=MEMORY_BYTES).domid, out, host=host)
    with path.open("rb") as file:
        yield file


@pytest.fixture
def empty(host: Host) -> Domain:
    return host.create(memory=MEMORY_BYTES, populated=False)


@pytest.mark.parametrize(("own_s", "socket_s"), [(0.2, None), (None, 0.2), (0.2, 60.0), (60.0, 0.2)])
def test_a_sender_that_stalls_is_given_up(
    host: Host, stream: io.BufferedReader, empty: Domain, own_s: float | None, socket_s: float | None
) -> None:
    here, there = socket.socketpair()
    with here, there:
        here.settimeout(socket_s)
        there.sendall(stream.read(5000))
        with pytest.raises(TransportError, match="stalled") as caught:
            restore(empty.domid, here, host=host, stall_timeout_s=own_s)
    assert caught.value.errno == errno.ETIMEDOUT


@pytest.mark.parametrize("stall_timeout_s", [-1.0, float("nan")])
def test_a_limit_is_a_number_of_seconds(
    host: Host, stream: io.BufferedReader, empty: Domain, stall_timeout_s: float
) -> None:
    with pytest.raises(ValueError, match="stall_timeout_s"):
        restore(empty.domid, stream, host=host, stall_timeout_s=stall_timeout_s)
    assert stream.tell() == 0


@pytest.mark.parametrize("change", ["destroyed", "started"])
def test_a_restore_ends_with_its_domain(
    host: Host, stream: io.BufferedReader, empty: Domain, change: str
) -> None:
    here, there = socket.socketpair()
    begun = threading.Event()

    def disturb() -> None:
        there.sendall(stream.read(5000))
        assert begun.wait(60)
        if change == "destroyed":
            host.destroy(empty.domid)
        else:
            empty.unpause()

    thread = threading.Thread(target=disturb)
    thread.start()
    with here, there:
        with pytest.raises(
            (HypercallError, DomainRefused), match=f"was {change}.* during the restore"
        ) as caught:
            restore(empty.domid, here, host=host, on_event=lambda _event: begun.set())
        thread.join()
    if change == "destroyed":
        assert isinstance(caught.value, HypercallError)
        assert caught.value.errno == errno.ESRCH
    else:
        assert isinstance(caught.value, DomainRefused)


def test_events_tell_the_stages_and_the_progress(
    host: Host, stream: io.BufferedReader, empty: Domain
) -> None:
    events: list[RestoreEvent] = []
    result = restore(empty.domid, stream, host=host, on_event=events.append, progress_interval_s=0)
    stages = [event.stage for event in events if event.kind == "stage"]
    assert stages == ["headers", "static_data", "memory", "end", "complete"]
    assert {event.kind for event in events} == {"stage", "progress"}
    assert [event.elapsed_s for event in events] == sorted(event.elapsed_s for event in events)
    last = events[-1]
    assert last.progress.pages_received == result.pages_received
    assert last.progress.bytes_received == result.bytes_received
    assert last.elapsed_s == result.elapsed_s
    assert last.to_dict()["progress"] == last.progress.to_dict()


def test_an_exception_of_an_observer_comes_out_as_it_is(
    host: Host, stream: io.BufferedReader, empty: Domain
) -> None:
    enough = RuntimeError("enough")

    def observe(event: RestoreEvent) -> None:
        if event.stage == "memory":
            raise enough

    with pytest.raises(RuntimeError) as caught:
        restore(empty.domid, stream, host=host, on_event=observe)
    assert caught.value is enough
