# SPDX-License-Identifier: GPL-3.0-or-later
"""What ``save`` and ``restore`` take, complete and refuse, each with the right exception."""

from __future__ import annotations

import errno
import io
import os
import socket
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, cast

import pytest

import xenmig
from xenmig import (
    Decision,
    GuestNotSuspended,
    HypercallError,
    PrecopyStats,
    StreamError,
    TransportError,
    restore,
    save,
)
from xenmig.policies import StopAfter

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from xenmig.descriptor import Stream
    from xenmig.sim import Domain, Host


@pytest.fixture
def null() -> Iterator[io.BufferedWriter]:
    with Path("/dev/null").open("wb") as sink:
        yield sink


@pytest.fixture
def saved_stream(host: Host, domain: Domain, tmp_path: Path) -> Path:
    """The stream of a domain that was saved, and still exists."""
    path = tmp_path / "stream"
    with path.open("wb") as file:
        save(domain.domid, file, host=host)
    return path


def assert_untouched(domain: Domain) -> None:
    assert domain.state == "running"
    assert not domain.logdirty
    assert domain.counters["mappings_now"] == 0


OUTS: dict[str, Callable[[Path], Any]] = {
    "buffered": lambda path: path.open("wb"),
    "unbuffered": lambda path: path.open("wb", buffering=0),
    "both ways": lambda path: path.open("w+b"),
    "descriptor": lambda path: os.open(path, os.O_WRONLY | os.O_CREAT),
}


@pytest.mark.parametrize("kind", OUTS)
def test_a_stream_goes_to_and_comes_from_any_kind_of_file(
    host: Host, domain: Domain, empty_domain: Domain, tmp_path: Path, kind: str
) -> None:
    out = OUTS[kind](tmp_path / "stream")
    save(domain.domid, out, host=host)
    os.close(out) if isinstance(out, int) else out.close()
    source: Any = (tmp_path / "stream").open("rb", buffering=0 if kind == "unbuffered" else -1)
    restore(empty_domain.domid, source.fileno() if kind == "descriptor" else source, host=host)
    source.close()
    assert empty_domain.fingerprint() == domain.fingerprint()


def test_what_was_written_before_stands_before_the_stream(
    host: Host, domain: Domain, empty_domain: Domain, tmp_path: Path
) -> None:
    path = tmp_path / "stream"
    with path.open("w+b") as file:
        file.write(b"a header of the caller's\n")
        save(domain.domid, file, host=host)
    with path.open("rb") as file:
        # The file object has read ahead of this line.
        assert file.readline() == b"a header of the caller's\n"
        restore(empty_domain.domid, file, host=host)
    assert empty_domain.fingerprint() == domain.fingerprint()


def test_restore_leaves_what_follows_the_stream(host: Host, empty_domain: Domain, saved_stream: Path) -> None:
    with saved_stream.open("ab") as file:
        file.write(b"and more")
    with saved_stream.open("rb", buffering=0) as file:
        restore(empty_domain.domid, file, host=host)
        assert file.read() == b"and more"


@pytest.mark.parametrize(
    ("stream", "error", "message"),
    [
        (True, TypeError, "is of type bool"),
        ("guest.xenmig", TypeError, "is of type str: give a file descriptor or an open file"),
        (Path("guest.xenmig"), TypeError, "Path: give a file descriptor"),
        (None, TypeError, "is of type NoneType"),
        (io.BytesIO(), TypeError, "a BytesIO, has no descriptor"),
        (io.StringIO(), TypeError, "is a file in text mode"),
        (-1, ValueError, "is -1: a file descriptor is 0 or more"),
    ],
    ids=lambda value: repr(value)[:20],
)
def test_what_is_no_file_is_refused(
    host: Host, domain: Domain, stream: Stream, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=f"out.*{message}"):
        save(domain.domid, stream, host=host)
    with pytest.raises(error, match=f"source.*{message}"):
        restore(domain.domid, stream, host=host)
    assert_untouched(domain)


def test_a_file_in_text_mode_is_refused(host: Host, domain: Domain, tmp_path: Path) -> None:
    with (tmp_path / "text").open("w") as file, pytest.raises(TypeError, match=r"out is a file in text mode"):
        save(domain.domid, cast("Any", file), host=host)


def closed_file() -> BinaryIO:
    with Path("/dev/null").open("r+b") as file:
        return file


def closed_socket() -> socket.socket:
    one, other = socket.socketpair()
    one.close()
    other.close()
    return one


def closed_descriptor() -> int:
    fd = os.open("/dev/null", os.O_RDWR)
    os.close(fd)
    return fd


@pytest.mark.parametrize("closed", [closed_file, closed_socket, closed_descriptor])
def test_what_is_closed_is_ebadf(
    host: Host, domain: Domain, empty_domain: Domain, closed: Callable[[], Stream]
) -> None:
    with pytest.raises(TransportError) as caught:
        save(domain.domid, closed(), host=host)
    assert caught.value.errno == errno.EBADF
    with pytest.raises(TransportError) as caught:
        restore(empty_domain.domid, closed(), host=host)
    assert caught.value.errno == errno.EBADF
    assert_untouched(domain)


def test_a_descriptor_of_the_wrong_kind_is_said_to_be_one(host: Host, domain: Domain, tmp_path: Path) -> None:
    datagrams, _other = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    directory = os.open(tmp_path, os.O_RDONLY)
    reading = os.open("/dev/null", os.O_RDONLY)
    for fd, number in [
        (datagrams.fileno(), errno.EPROTOTYPE),
        (directory, errno.EBADF),
        (reading, errno.EBADF),
    ]:
        with pytest.raises(TransportError) as caught:
            save(domain.domid, fd, host=host)
        assert caught.value.errno == number
    os.close(directory)
    os.close(reading)
    datagrams.close()
    _other.close()
    assert_untouched(domain)


def test_a_buffer_that_cannot_be_written_out_is_a_transport_error(host: Host, domain: Domain) -> None:
    full = Path("/dev/full").open("wb")  # noqa: SIM115 - it cannot be closed without an error
    full.write(b"x")
    with pytest.raises(TransportError, match="writing out the file's buffer failed") as caught:
        save(domain.domid, full, host=host)
    assert caught.value.errno == errno.ENOSPC
    with pytest.raises(OSError, match="No space left"):
        full.close()
    assert_untouched(domain)


def test_a_domain_that_does_not_exist_is_esrch(
    host: Host, domain: Domain, saved_stream: Path, null: io.BufferedWriter
) -> None:
    for policy in (None, StopAfter(rounds=1)):
        with pytest.raises(HypercallError) as caught:
            save(domain.domid + 1, null, host=host, policy=policy)
        assert caught.value.errno == errno.ESRCH
        assert caught.value.domid == domain.domid + 1
    with saved_stream.open("rb") as file, pytest.raises(HypercallError) as caught:
        restore(domain.domid + 1, file, host=host)
    assert caught.value.errno == errno.ESRCH


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"host": None}, TypeError, "host is of type NoneType: give a host"),
        ({"consult": "daily"}, ValueError, "consult is 'daily': give one of 'round', 'batch'"),
        ({"min_round_s": -1.0}, ValueError, "min_round_s"),
        ({"progress_interval_s": float("nan")}, ValueError, "progress_interval_s"),
        ({"suspend": 5}, TypeError, "suspend"),
        ({"resume": 5}, TypeError, "resume"),
        ({"on_progress": 5}, TypeError, "on_progress"),
        ({"device_model_logdirty": 5}, TypeError, "device_model_logdirty"),
    ],
)
def test_other_arguments_are_checked_before_anything_is_done(
    host: Host, domain: Domain, arguments: dict[str, Any], error: type[Exception], message: str
) -> None:
    with Path("/dev/null").open("wb") as null, pytest.raises(error, match=message):
        save(domain.domid, null, **{"host": host, **arguments})
    assert_untouched(domain)


@pytest.mark.parametrize("domid", ["1", 1.0, None, True])
def test_a_domid_is_an_integer(host: Host, null: io.BufferedWriter, domid: int) -> None:
    with pytest.raises(TypeError):
        save(domid, null, host=host)


@pytest.mark.parametrize("name", ["min_round_s", "progress_interval_s"])
def test_a_bool_is_no_number(host: Host, domain: Domain, null: io.BufferedWriter, name: str) -> None:
    with pytest.raises(TypeError, match="True is a bool: give a number"):
        save(domain.domid, null, host=host, **cast("Any", {name: True}))
    with pytest.raises(TypeError, match="True is a bool: give an integer"):
        save(True, null, host=host)  # noqa: FBT003 - the mistake
    with pytest.raises(TypeError, match="True is a bool: give an integer"):
        restore(True, null, host=host)  # noqa: FBT003
    with pytest.raises(TypeError, match="False is a bool: give an integer"):
        restore(domain.domid, null, host=host, store_evtchn=False, console_evtchn=1)
    with pytest.raises(TypeError, match="number"):
        PrecopyStats.example(elapsed_s=True)
    with pytest.raises(TypeError, match="number"):
        PrecopyStats.example(send_rate_bytes_per_s=True)
    with pytest.raises(TypeError, match="True is a bool: give a number"):
        host.create(memory="64M", workload=xenmig.sim.Uniform(pages_per_s=True))
    assert_untouched(domain)


def test_the_hosts_own_suspend_and_resume_are_used(
    host: Host, domain: Domain, null: io.BufferedWriter
) -> None:
    assert save(domain.domid, null, host=host).guest_state == "suspended"
    assert domain.state == "suspended"
    domain.resume()
    domain.inject("errno", verb="hvm_context", errno=errno.EIO)
    with pytest.raises(HypercallError) as caught:
        save(domain.domid, null, host=host)
    assert caught.value.guest_state == "resumed"
    assert_untouched(domain)


def test_with_a_suspend_of_ones_own_nobody_resumes(
    host: Host, domain: Domain, null: io.BufferedWriter
) -> None:
    domain.inject("errno", verb="hvm_context", errno=errno.EIO)
    with pytest.raises(HypercallError) as caught:
        save(domain.domid, null, host=host, suspend=domain.suspend)
    assert caught.value.guest_state == "suspended"
    assert domain.state == "suspended"


def test_a_suspend_that_does_not_suspend_is_found_out(
    host: Host, domain: Domain, null: io.BufferedWriter
) -> None:
    with pytest.raises(GuestNotSuspended) as caught:
        save(domain.domid, null, host=host, suspend=lambda: None)
    assert caught.value.guest_state == "running"
    assert_untouched(domain)


def test_a_policy_is_asked_after_each_batch_and_no_policy_only_twice_a_round(
    host: Host, domain: Domain, null: io.BufferedWriter
) -> None:
    phases: list[str] = []

    def once(stats: PrecopyStats) -> Decision:
        phases.append(stats.phase)
        return Decision.STOP_AND_COPY if stats.phase == "after_round" else Decision.CONTINUE

    save(domain.domid, null, host=host, policy=once)
    assert phases == ["before_round", *["batch"] * phases.count("batch"), "after_round"]
    assert phases.count("batch") >= (64 << 20) // 4096 // 1024
    domain.resume()
    phases.clear()
    save(domain.domid, null, host=host, policy=once, consult="round")
    assert phases == ["before_round", "after_round"]
    domain.resume()
    # An idle guest: before the first round, after it, and before the second, which has nothing to send.
    assert save(domain.domid, null, host=host).consults == 3


def test_progress_is_told_to_both_sides(host: Host, domain: Domain, empty_domain: Domain) -> None:
    sent: list[PrecopyStats] = []
    arrived: list[xenmig.RestoreProgress] = []
    with tempfile.TemporaryFile() as file:
        save(domain.domid, file, host=host, on_progress=sent.append, progress_interval_s=0)
        file.seek(0)
        restore(empty_domain.domid, file, host=host, on_progress=arrived.append, progress_interval_s=0)
    assert [stats.bytes_sent for stats in sent] == sorted(stats.bytes_sent for stats in sent)
    assert {"batch", "stop_and_copy"} <= {stats.phase for stats in sent}
    assert len(arrived) > 1
    assert arrived[-1].pages_received > 0


def test_a_truncated_stream_has_an_offset(host: Host, empty_domain: Domain, saved_stream: Path) -> None:
    os.truncate(saved_stream, 1_000_000)
    with saved_stream.open("rb") as file, pytest.raises(StreamError) as caught:
        restore(empty_domain.domid, file, host=host)
    assert caught.value.offset is not None
    assert 0 < caught.value.offset <= 1_000_000


def test_nothing_is_closed_that_is_the_callers(host: Host, domain: Domain, null: io.BufferedWriter) -> None:
    before = set(Path("/proc/self/fd").iterdir())
    save(domain.domid, null, host=host)
    assert set(Path("/proc/self/fd").iterdir()) == before
    assert not null.closed
