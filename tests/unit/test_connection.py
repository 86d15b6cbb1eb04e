# SPDX-License-Identifier: GPL-3.0-or-later
"""The demo's TCP connection: only who knows the token gets the guest's memory."""

from __future__ import annotations

import socket
import threading
import time
from typing import TYPE_CHECKING

import pytest

from xenmig.cli import connection
from xenmig.cli.connection import TOKEN_BYTES, accept, connect, listen

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def listening() -> Iterator[tuple[socket.socket, bytes]]:
    listener, token = listen()
    with listener:
        yield listener, token


def port_of(listener: socket.socket) -> int:
    port: int = listener.getsockname()[1]
    return port


def test_it_listens_on_the_loopback_only_and_each_token_is_new(
    listening: tuple[socket.socket, bytes],
) -> None:
    listener, token = listening
    assert listener.getsockname()[0] == "127.0.0.1"
    other, another = listen()
    other.close()
    assert len(token) == len(another) == TOKEN_BYTES
    assert token != another


def test_who_presents_the_token_is_accepted(listening: tuple[socket.socket, bytes]) -> None:
    listener, token = listening
    with (
        connect(port_of(listener), token) as peer,
        accept(listener, token, timeout_s=5, is_alive=lambda: True) as ours,
    ):
        assert ours.getpeername() == peer.getsockname()
        assert ours.gettimeout() is None
        ours.sendall(b"stream")
        assert peer.recv(100) == b"stream"


@pytest.mark.parametrize("presented", [b"", b"\0" * TOKEN_BYTES, b"short", b"x" * 1000])
def test_others_get_nothing_and_do_not_keep_the_right_one_out(
    listening: tuple[socket.socket, bytes], presented: bytes
) -> None:
    listener, token = listening
    with socket.create_connection(listener.getsockname()) as stranger:
        stranger.sendall(presented)
        stranger.shutdown(socket.SHUT_WR)
        with (
            connect(port_of(listener), token) as peer,
            accept(listener, token, timeout_s=5, is_alive=lambda: True) as ours,
        ):
            assert ours.getpeername() == peer.getsockname()
        assert received(stranger) == b""


@pytest.mark.parametrize("presented", [b"", b"half of it"])
def test_a_silent_stranger_is_waited_for_only_so_long(
    listening: tuple[socket.socket, bytes], presented: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    listener, token = listening
    monkeypatch.setattr(connection, "_TOKEN_TIMEOUT_S", 0.1)
    with socket.create_connection(listener.getsockname()) as stranger:
        stranger.sendall(presented)
        with (
            connect(port_of(listener), token) as peer,
            accept(listener, token, timeout_s=5, is_alive=lambda: True) as ours,
        ):
            assert ours.getpeername() == peer.getsockname()


def test_a_token_may_come_in_pieces(listening: tuple[socket.socket, bytes]) -> None:
    listener, token = listening

    def present() -> None:
        with socket.create_connection(listener.getsockname()) as peer:
            for byte in token:
                peer.sendall(bytes([byte]))
                time.sleep(0.001)

    thread = threading.Thread(target=present)
    thread.start()
    accept(listener, token, timeout_s=5, is_alive=lambda: True).close()
    thread.join()


def test_nobody_comes(listening: tuple[socket.socket, bytes]) -> None:
    listener, token = listening
    with pytest.raises(TimeoutError, match=r"did not connect within 0\.1 s"):
        accept(listener, token, timeout_s=0.1, is_alive=lambda: True)
    with pytest.raises(ConnectionAbortedError, match="ended before it connected"):
        accept(listener, token, timeout_s=5, is_alive=lambda: False)


def received(peer: socket.socket) -> bytes:
    """What a peer gets until its connection ends, one way or the other."""
    try:
        return peer.recv(100)
    except ConnectionResetError:
        return b""
