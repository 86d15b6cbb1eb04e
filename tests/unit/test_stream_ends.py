# SPDX-License-Identifier: GPL-3.0-or-later
# ruff: noqa: SIM115 - what is opened is closed by an exit stack
"""The ends of a stream: what is refused since its bytes would be bypassed, and where a file stands after."""

from __future__ import annotations

import asyncio
import bz2
import errno
import gzip
import io
import lzma
import multiprocessing
import os
import socket
import ssl
import subprocess
import sys
import tempfile
import threading
import zipfile
from contextlib import ExitStack, contextmanager, suppress
from typing import TYPE_CHECKING, Any

import pytest

from xenmig import StreamError, TransportError, restore, save
from xenmig.descriptor import opened

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from xenmig.sim import Domain, Host

HEADER = b'{"name": "guest"}\n'
TRAILER = b"EMULATOR-RECORD"


def assert_untouched(domain: Domain) -> None:
    assert (domain.state, domain.logdirty) == ("running", False)


class Tracing(socket.socket):
    """A socket that counts what it sends."""

    sent = 0

    def send(self, data: Any, flags: int = 0, /) -> int:  # noqa: ANN401 - any buffer
        count = super().send(data, flags)
        self.sent += count
        return count


class Named(socket.socket):
    """A socket with a name, which sends and receives as any other."""

    name = "migration"


class Upper(io.FileIO):
    """A file that changes what is written."""

    def write(self, data: Any, /) -> int:  # noqa: ANN401 - any buffer
        return super().write(bytes(data).upper())


class LooksLikeAFile:
    """An object with a descriptor, through which its bytes may or may not go."""

    def __init__(self, fd: int) -> None:
        self.fd = fd

    def fileno(self) -> int:
        return self.fd


def tls_socket(stack: ExitStack, _path: Path) -> Any:  # noqa: ANN401 - what is refused is of any type
    one, other = socket.socketpair()
    stack.enter_context(other)
    context = ssl.create_default_context()
    context.check_hostname = False
    return stack.enter_context(context.wrap_socket(one, do_handshake_on_connect=False))


def connection(stack: ExitStack, _path: Path) -> Any:  # noqa: ANN401
    one, other = multiprocessing.Pipe()
    stack.enter_context(other)
    return stack.enter_context(one)


def asyncio_transport(stack: ExitStack, _path: Path) -> Any:  # noqa: ANN401
    loop = asyncio.new_event_loop()
    stack.callback(loop.close)
    one, other = socket.socketpair()
    stack.enter_context(other)
    transport, _protocol = loop.run_until_complete(loop.create_connection(asyncio.Protocol, sock=one))
    stack.callback(lambda: loop.run_until_complete(asyncio.sleep(0)))
    stack.callback(transport.close)
    return transport.get_extra_info("socket")


def overridden_instance(stack: ExitStack, _path: Path) -> Any:  # noqa: ANN401
    one = stack.enter_context(Named())
    one.send = len  # type: ignore[method-assign, assignment]
    return one


def in_archive(stack: ExitStack, path: Path) -> Any:  # noqa: ANN401
    archive = stack.enter_context(zipfile.ZipFile(path, "w"))
    return stack.enter_context(archive.open("stream", "w"))


REFUSED: dict[str, Callable[[ExitStack, Path], Any]] = {
    "SSLSocket": tls_socket,
    "BufferedWriter over SSLSocket": lambda stack, path: tls_socket(stack, path).makefile("wb"),
    "BufferedReader over SSLSocket": lambda stack, path: tls_socket(stack, path).makefile("rb"),
    "BufferedRWPair": lambda stack, path: tls_socket(stack, path).makefile("rwb"),
    "GzipFile": lambda stack, path: stack.enter_context(gzip.open(path, "wb")),
    "BZ2File": lambda stack, path: stack.enter_context(bz2.open(path, "wb")),
    "LZMAFile": lambda stack, path: stack.enter_context(lzma.open(path, "wb")),
    "BufferedWriter over GzipFile": lambda stack, path: io.BufferedWriter(
        stack.enter_context(gzip.open(path, "wb"))
    ),
    "_ZipWriteFile": in_archive,
    "Tracing": lambda stack, _: stack.enter_context(Tracing()),
    "Named": overridden_instance,
    "BufferedWriter over Tracing": lambda stack, _: stack.enter_context(Tracing()).makefile("wb"),
    "Upper": lambda stack, path: stack.enter_context(Upper(path, "w")),
    "BufferedWriter over Upper": lambda stack, path: io.BufferedWriter(stack.enter_context(Upper(path, "w"))),
    "SpooledTemporaryFile": lambda stack, _: stack.enter_context(tempfile.SpooledTemporaryFile()),
    "Connection": connection,
    "TransportSocket": asyncio_transport,
    "LooksLikeAFile": lambda stack, path: LooksLikeAFile(stack.enter_context(path.open("w+b")).fileno()),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_an_object_whose_bytes_would_be_bypassed_is_refused_by_name(
    host: Host, domain: Domain, empty_domain: Domain, tmp_path: Path, kind: str
) -> None:
    with ExitStack() as stack:
        end = REFUSED[kind](stack, tmp_path / "stream")
        with pytest.raises(TypeError, match=f"^out.* {kind},.*descriptor"):
            save(domain.domid, end, host=host)
        with pytest.raises(TypeError, match=f"^source.* {kind},.*descriptor"):
            restore(empty_domain.domid, end, host=host)
    assert_untouched(domain)
    assert empty_domain.counters["mappings_now"] == 0


@pytest.mark.skipif(sys.version_info < (3, 14), reason="compression.zstd came with Python 3.14")
def test_a_zstandard_file_is_refused(host: Host, domain: Domain, tmp_path: Path) -> None:
    from compression import zstd  # type: ignore[import-not-found, unused-ignore]  # noqa: PLC0415

    with zstd.open(tmp_path / "stream", "wb") as file, pytest.raises(TypeError, match="ZstdFile"):
        save(domain.domid, file, host=host)
    assert_untouched(domain)


def test_nothing_is_written_below_what_is_refused(host: Host, domain: Domain, tmp_path: Path) -> None:
    path = tmp_path / "guest.gz"
    with gzip.open(path, "wb") as file:
        with pytest.raises(TypeError):
            save(domain.domid, file, host=host)  # type: ignore[arg-type]
        file.write(b"what the caller compresses")
    with gzip.open(path) as file:
        assert file.read() == b"what the caller compresses"


@contextmanager
def socket_pair(out: Callable[[socket.socket], Any], source: Callable[[socket.socket], Any]) -> Iterator[Any]:
    ours, theirs = socket.socketpair()
    with ours, theirs, out(ours) as one, source(theirs) as other:
        yield one, other


@contextmanager
def pipe() -> Iterator[Any]:
    read, write = os.pipe()
    with os.fdopen(write, "wb") as out, os.fdopen(read, "rb") as source:
        yield out, source


@contextmanager
def process() -> Iterator[Any]:
    with subprocess.Popen("cat", stdin=subprocess.PIPE, stdout=subprocess.PIPE) as copier:
        yield copier.stdin, copier.stdout


ACCEPTED: dict[str, Callable[[], Any]] = {
    "socket": lambda: socket_pair(lambda ours: ours, lambda theirs: theirs),
    "makefile": lambda: socket_pair(lambda ours: ours.makefile("wb"), lambda theirs: theirs.makefile("rb")),
    "unbuffered makefile": lambda: socket_pair(
        lambda ours: ours.makefile("wb", buffering=0), lambda theirs: theirs.makefile("rb", buffering=0)
    ),
    "subclass": lambda: socket_pair(lambda ours: Named(fileno=ours.detach()), lambda theirs: theirs),
    "pipe": pipe,
    "process": process,
}


@pytest.mark.parametrize("kind", ACCEPTED)
def test_sockets_pipes_and_processes_carry_a_stream_with_what_surrounds_it(
    host: Host, domain: Domain, empty_domain: Domain, kind: str
) -> None:
    rest = b""
    with ACCEPTED[kind]() as (out, source):

        def receive() -> None:
            nonlocal rest
            restore(empty_domain.domid, source, host=host)
            take = source.recv if isinstance(source, socket.socket) else source.read
            rest = take(len(TRAILER))

        thread = threading.Thread(target=receive)
        thread.start()
        save(domain.domid, out, host=host)
        (out.sendall if isinstance(out, socket.socket) else out.write)(TRAILER)
        with suppress(AttributeError):
            out.flush()
        thread.join()
    assert rest == TRAILER
    assert empty_domain.fingerprint() == domain.fingerprint()


def write_framed(host: Host, domain: Domain, path: Path) -> int:
    """Writes a header, a stream and a trailer as a toolstack does, and returns where the trailer starts."""
    with path.open("wb") as file:
        file.write(HEADER)
        saved = save(domain.domid, file, host=host)
        at = file.tell()
        file.write(TRAILER)
    assert at == len(HEADER) + saved.bytes_sent
    return at


FILES: dict[str, Callable[[Path], Any]] = {
    "buffered": lambda path: path.open("rb"),
    "unbuffered": lambda path: path.open("rb", buffering=0),
    "both ways": lambda path: path.open("r+b"),
    "a small buffer": lambda path: path.open("rb", buffering=20),
    "a buffer larger than the file": lambda path: path.open("rb", buffering=1 << 27),
}


@pytest.mark.parametrize("kind", FILES)
def test_a_file_stands_after_the_stream_that_was_restored(
    host: Host, domain: Domain, empty_domain: Domain, tmp_path: Path, kind: str
) -> None:
    at = write_framed(host, domain, tmp_path / "image")
    with FILES[kind](tmp_path / "image") as file:
        assert file.readline() == HEADER
        restore(empty_domain.domid, file, host=host)
        assert file.tell() == at
        assert file.read(4) == TRAILER[:4]
        assert file.read() == TRAILER[4:]
        file.seek(0)
        assert file.readline() == HEADER
    assert empty_domain.fingerprint() == domain.fingerprint()


@pytest.mark.parametrize("kind", FILES)
def test_a_file_stands_where_a_failed_restore_stopped(
    host: Host, domain: Domain, empty_domain: Domain, tmp_path: Path, kind: str
) -> None:
    path = tmp_path / "image"
    write_framed(host, domain, path)
    with path.open("r+b") as file:
        file.seek(len(HEADER) + 1_000_000)
        file.write(bytes(4096))
        length = file.seek(-len(TRAILER) - 1, os.SEEK_END)
        file.truncate()
    with FILES[kind](path) as file:
        file.readline()
        with pytest.raises(StreamError):
            restore(empty_domain.domid, file, host=host)
        at = file.tell()
        assert len(HEADER) < at <= length
        assert file.read(16) == path.read_bytes()[at : at + 16]


def test_a_file_that_is_written_and_read_stands_after_the_stream(
    host: Host, domain: Domain, empty_domain: Domain
) -> None:
    with tempfile.TemporaryFile() as file:
        file.write(b"old contents, read ahead below" * 100)
        file.seek(0)
        file.read(3)
        saved = save(domain.domid, file, host=host)
        assert file.tell() == 3 + saved.bytes_sent
        file.write(TRAILER)
        file.seek(0)
        assert file.read(3) == b"old"
        restore(empty_domain.domid, file, host=host)
        assert file.read() == TRAILER
    assert empty_domain.fingerprint() == domain.fingerprint()


def test_a_named_temporary_file_is_the_file_in_it(host: Host, domain: Domain, empty_domain: Domain) -> None:
    with tempfile.NamedTemporaryFile() as file:
        file.write(HEADER)
        save(domain.domid, file, host=host)
        file.write(TRAILER)
        file.seek(0)
        file.readline()
        restore(empty_domain.domid, file, host=host)
        assert file.read() == TRAILER
    assert empty_domain.fingerprint() == domain.fingerprint()


@pytest.mark.parametrize("kind", ["pipe", "makefile"])
def test_what_was_read_ahead_of_a_pipe_or_socket_is_not_lost(
    host: Host, empty_domain: Domain, kind: str
) -> None:
    with ACCEPTED[kind]() as (out, source):
        out.write(HEADER + b"the stream")
        out.flush()
        assert source.readline() == HEADER
        with pytest.raises(ValueError, match=r"source has read 10 bytes ahead.*buffering=0"):
            restore(empty_domain.domid, source, host=host)
        assert source.read(10) == b"the stream"
        # With nothing read ahead there is nothing to lose, and nothing to wait for.
        with opened("source", source) as descriptor:
            assert descriptor.fd == source.fileno()


def test_a_file_that_is_closed_meanwhile_does_not_hide_the_result(
    host: Host, domain: Domain, tmp_path: Path
) -> None:
    file = (tmp_path / "stream").open("wb")

    def close(_stats: object) -> None:
        file.close()

    assert save(domain.domid, file, host=host, on_progress=close, progress_interval_s=0).bytes_sent > 64 << 20


@pytest.mark.parametrize("close", ["close", "detach"])
def test_a_file_without_its_descriptor_is_closed(
    host: Host, domain: Domain, tmp_path: Path, close: str
) -> None:
    file = (tmp_path / "stream").open("wb")
    below = file.raw
    getattr(file, close)()
    with pytest.raises(TransportError, match="out cannot be used"):
        save(domain.domid, file, host=host)
    below.close()
    one, other = socket.socketpair()
    made = one.makefile("wb", buffering=0)
    made.close()
    with one, other, pytest.raises(TransportError, match="out cannot be used"):
        save(domain.domid, made, host=host)
    assert_untouched(domain)


@pytest.mark.parametrize(("timeout_s", "limit_s"), [(None, None), (0.0, None), (2.5, 2.5)])
def test_the_timeout_of_a_socket_comes_with_its_descriptor(
    timeout_s: float | None, limit_s: float | None
) -> None:
    one, other = socket.socketpair()
    with one, other, one.makefile("wb") as made:
        one.settimeout(timeout_s)
        for end in (one, made):
            with opened("out", end) as descriptor:
                assert (descriptor.fd, descriptor.timeout_s) == (one.fileno(), limit_s)


@pytest.mark.parametrize("buffered", [False, True])
@pytest.mark.parametrize("live", [False, True])
def test_a_peer_that_takes_nothing_for_the_sockets_timeout_ends_the_save(
    host: Host, domain: Domain, *, live: bool, buffered: bool
) -> None:
    ours, theirs = socket.socketpair()
    ours.settimeout(0.3)
    with ours, theirs, ours.makefile("wb") as made, pytest.raises(TransportError) as caught:
        save(domain.domid, made if buffered else ours, host=host, live=live)
    assert caught.value.errno == errno.ETIMEDOUT
    assert_untouched(domain)


def test_a_peer_that_sends_nothing_for_the_sockets_timeout_ends_the_restore(
    host: Host, empty_domain: Domain
) -> None:
    ours, theirs = socket.socketpair()
    theirs.settimeout(0.3)
    with ours, theirs, theirs.makefile("rb") as made:
        for source in (theirs, made):
            with pytest.raises(TransportError) as caught:
                restore(empty_domain.domid, source, host=host, stall_timeout_s=60)
            assert caught.value.errno == errno.ETIMEDOUT


def test_verify_without_a_live_save_is_a_mistake(host: Host, domain: Domain, tmp_path: Path) -> None:
    with (tmp_path / "stream").open("wb") as file:
        file.write(b"x")
        with pytest.raises(ValueError, match=r"verify=True needs live=True"):
            save(domain.domid, file, host=host, live=False, verify=True)
        assert (tmp_path / "stream").stat().st_size == 0
    assert_untouched(domain)
