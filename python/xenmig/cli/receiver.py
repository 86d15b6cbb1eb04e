# SPDX-License-Identifier: GPL-3.0-or-later
"""The demo's second process: it makes an empty domain, restores into it, and says what has become of it.

:func:`receive` is the hidden command that runs there. It answers with one JSON object on its standard output:
what was received and the fingerprint of the domain, or ``{"error": ...}``. :func:`started` is the demo's
side.
"""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from contextlib import ExitStack, contextmanager
from enum import Enum
from typing import TYPE_CHECKING, Annotated, Any

import typer

from xenmig.cli.connection import accept, connect, listen
from xenmig.errors import XenmigError
from xenmig.restore import restore
from xenmig.sim import Host

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

__all__ = ["Receiver", "ReceiverError", "Transport", "receive", "started"]

_START_TIMEOUT_S = 20.0
_ANSWER_TIMEOUT_S = 120.0
_END_TIMEOUT_S = 2.0


class Transport(str, Enum):
    """How the stream gets to the second process."""

    UNIX = "unix"
    TCP = "tcp"


class ReceiverError(Exception):
    """The second process failed. The message is its own, where it could still say something."""


class Receiver:
    """The second process, waiting for a stream.

    Attributes:
        connection: Where the stream is to be written.
    """

    def __init__(self, process: subprocess.Popen[bytes], connection: socket.socket) -> None:
        self._process = process
        self.connection = connection

    def answer(self) -> dict[str, Any]:
        """Ends the connection and returns what the process answers.

        Raises:
            ReceiverError: It failed, or does not answer.
        """
        self.connection.close()
        return _answer_of(self._process)


def _answer_of(process: subprocess.Popen[bytes]) -> dict[str, Any]:
    try:
        out, errors = process.communicate(timeout=_ANSWER_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        raise ReceiverError(f"no answer within {_ANSWER_TIMEOUT_S:g} s") from None
    try:
        answer: dict[str, Any] = json.loads(out)
    except ValueError:
        last_words = (errors.decode(errors="replace").splitlines() or ["it said nothing"])[-1]
        raise ReceiverError(f"ended with status {process.returncode}: {last_words}") from None
    if "error" in answer:
        raise ReceiverError(answer["error"])
    return answer


@contextmanager
def started(transport: Transport, memory_bytes: int) -> Iterator[Receiver]:
    """Starts the second process and connects to it. At the end it is reaped, and its connection closed.

    Args:
        transport: How to connect to it.
        memory_bytes: RAM of the domain that it makes.

    Raises:
        ReceiverError: It did not start, or did not connect.
    """
    with ExitStack() as opened:
        if transport is Transport.UNIX:
            ours, theirs = socket.socketpair()
            opened.enter_context(ours)
            with theirs:
                process = opened.enter_context(
                    _process(memory_bytes, ["--fd", str(theirs.fileno())], pass_fds=[theirs.fileno()])
                )
            yield Receiver(process, ours)
            return
        listener, token = listen()
        with listener:
            port = listener.getsockname()[1]
            process = opened.enter_context(_process(memory_bytes, ["--port", str(port)], token=token))
            try:
                peer = accept(
                    listener, token, timeout_s=_START_TIMEOUT_S, is_alive=lambda: process.poll() is None
                )
            except ConnectionAbortedError as error:
                _answer_of(process)
                raise ReceiverError(str(error)) from error
            except OSError as error:
                raise ReceiverError(str(error)) from error
        yield Receiver(process, opened.enter_context(peer))


@contextmanager
def _process(
    memory_bytes: int, arguments: Sequence[str], *, pass_fds: Sequence[int] = (), token: bytes = b""
) -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(  # noqa: S603 - this interpreter, this package, numbers
        [sys.executable, "-m", "xenmig", "receive", "--memory", str(memory_bytes), *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        pass_fds=pass_fds,
        # Ctrl-C is for the demo, which ends this process in order.
        start_new_session=True,
    )
    # Leaving the Popen closes its pipes and reaps the process.
    with process:
        try:
            if process.stdin is not None:
                process.stdin.write(f"{token.hex()}\n".encode())
                process.stdin.flush()
            yield process
        finally:
            if process.poll() is None:
                process.terminate()
                try:
                    process.wait(_END_TIMEOUT_S)
                except subprocess.TimeoutExpired:
                    process.kill()


def receive(
    *,
    memory: Annotated[int, typer.Option(help="RAM of the domain, in bytes.")],
    fd: Annotated[int | None, typer.Option(help="An inherited socket.")] = None,
    port: Annotated[int | None, typer.Option(help="A port of the loopback; token on stdin.")] = None,
) -> None:
    """Restore a simulated domain: the second process of the demo."""
    try:
        answer = _receive(memory, fd, port)
    except (XenmigError, OSError, ValueError) as error:
        answer = {"error": f"{type(error).__name__}: {error}"}
    sys.stdout.write(json.dumps(answer))
    sys.stdout.flush()
    if "error" in answer:
        raise typer.Exit(1)


def _receive(memory: int, fd: int | None, port: int | None) -> dict[str, Any]:
    if fd is not None:
        connection = socket.socket(fileno=fd)
    elif port is not None:
        connection = connect(port, bytes.fromhex(sys.stdin.readline()))
    else:
        raise ValueError("give --fd or --port")
    with connection:
        host = Host()
        domain = host.create(memory=memory, populated=False)
        restored = restore(domain.domid, connection, host=host)
    return {**restored.to_dict(), "fingerprint": domain.fingerprint()}
