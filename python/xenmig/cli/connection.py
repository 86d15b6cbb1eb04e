# SPDX-License-Identifier: GPL-3.0-or-later
"""The demo's connection to the process that restores: a pair of unix sockets, or TCP over the loopback.

A unix socket pair is inherited, so no other process can have an end of it. Every process on the machine can
connect to a TCP port, and what goes through it is a guest's memory. So the receiver must first present a
token that it gets from its parent over its standard input; a connection without the token is closed before
any of the guest's bytes are sent.

::

    demo                                         receiver
    listen on 127.0.0.1, any port
    start the receiver; token ──── stdin ──────>
                        <──────── connect ──────
                        <──────── token ────────
    compare
                        ──────── stream ───────>
"""

from __future__ import annotations

import hmac
import secrets
import socket
import time
from contextlib import suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["TOKEN_BYTES", "accept", "connect", "listen"]

TOKEN_BYTES = 32

_LOOPBACK = "127.0.0.1"
_TOKEN_TIMEOUT_S = 2.0
_LOOK_INTERVAL_S = 0.2


def listen() -> tuple[socket.socket, bytes]:
    """Listens on a free port of the loopback, and makes the token for it."""
    return socket.create_server((_LOOPBACK, 0)), secrets.token_bytes(TOKEN_BYTES)


def accept(
    listener: socket.socket, token: bytes, *, timeout_s: float, is_alive: Callable[[], bool]
) -> socket.socket:
    """Returns the first connection that presents the token; all others are closed.

    Args:
        listener: The listening socket.
        token: What the peer must send first.
        timeout_s: How long to wait for it, in seconds.
        is_alive: Whether the peer can still come.

    Raises:
        TimeoutError: No connection presented it in time.
        ConnectionAbortedError: The peer is dead.
    """
    deadline = time.monotonic() + timeout_s
    listener.settimeout(_LOOK_INTERVAL_S)
    while time.monotonic() < deadline:
        try:
            peer, _ = listener.accept()
        except TimeoutError:
            if not is_alive():
                raise ConnectionAbortedError("the receiver ended before it connected") from None
            continue
        if hmac.compare_digest(_presented(peer), token):
            peer.settimeout(None)
            return peer
        peer.close()
    raise TimeoutError(f"the receiver did not connect within {timeout_s:g} s")


def connect(port: int, token: bytes) -> socket.socket:
    """Connects to a port of the loopback and presents the token.

    Raises:
        OSError: The connection was refused.
    """
    connection = socket.create_connection((_LOOPBACK, port))
    connection.sendall(token)
    return connection


def _presented(peer: socket.socket) -> bytes:
    """Reads as many bytes as a token has, or as many as come in time."""
    presented = b""
    deadline = time.monotonic() + _TOKEN_TIMEOUT_S
    with suppress(OSError):
        while len(presented) < TOKEN_BYTES:
            peer.settimeout(max(deadline - time.monotonic(), 0.001))
            part = peer.recv(TOKEN_BYTES - len(presented))
            if not part:
                break
            presented += part
    return presented
