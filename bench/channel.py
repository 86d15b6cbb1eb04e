# SPDX-License-Identifier: GPL-3.0-or-later
"""How the processes of the benchmark talk: requests and replies in JSON, with open descriptors beside them.

The process that measures starts others as :class:`Remote`; each of them calls :func:`serve`. A message is one
datagram of a Unix socket, so a descriptor cannot be mistaken for another message's.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, final

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

__all__ = ["Remote", "RemoteError", "serve"]

#: Most bytes of a message: below what a Unix socket takes as one datagram.
_MESSAGE_BYTES = 160 << 10
_MOST_DESCRIPTORS = 4


class RemoteError(RuntimeError):
    """What was asked of another process failed there, or the process is gone."""


def _send(channel: socket.socket, message: dict[str, Any], fds: Sequence[int] = ()) -> None:
    data = json.dumps(message).encode()
    if len(data) > _MESSAGE_BYTES:
        raise ValueError(f"a message of {len(data)} bytes: at most {_MESSAGE_BYTES} fit")
    if fds:
        socket.send_fds(channel, [data], list(fds))
    else:
        channel.send(data)


@final
class Remote:
    """Another process, a program of this directory, that does what it is asked for."""

    def __init__(self, program: str, environment: Mapping[str, str]) -> None:
        """Starts the process.

        Args:
            program: Its file name.
            environment: What its environment has beside this process's.
        """
        self._program = program
        self._channel, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, str(Path(__file__).with_name(program)), str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                env={**os.environ, **environment},
            )

    def __enter__(self) -> Remote:
        return self

    def __exit__(self, *_: object) -> None:
        self._channel.close()
        self._process.wait()

    def begin(self, name: str, fds: Sequence[int] = (), **arguments: object) -> None:
        """Asks for something and does not wait. The descriptors stay open here."""
        try:
            _send(self._channel, {"do": name, **arguments}, fds)
        except BrokenPipeError:
            raise self._gone(name) from None

    def finish(self) -> Any:  # noqa: ANN401 - it came as JSON
        """Waits for the reply to what was asked for last, and returns the result.

        Raises:
            RemoteError: It failed.
        """
        data = self._channel.recv(_MESSAGE_BYTES)
        if not data:
            raise self._gone("the last request")
        reply = json.loads(data)
        if "error" in reply:
            raise RemoteError(f"{self._program}: {reply['error']}")
        return reply["result"]

    def call(self, name: str, fds: Sequence[int] = (), **arguments: object) -> Any:  # noqa: ANN401 - JSON
        """Asks for something and returns the result.

        Raises:
            RemoteError: It failed.
        """
        self.begin(name, fds, **arguments)
        return self.finish()

    def _gone(self, during: str) -> RemoteError:
        return RemoteError(f"{self._program} ended with status {self._process.wait()} in {during!r}")


def serve(requests: Mapping[str, Callable[..., object]]) -> None:
    """Does requests until the other side is gone.

    A request is called with the descriptors that came with it, then the arguments by keyword. The descriptors
    are closed before the reply is sent.
    """
    channel = socket.socket(fileno=int(sys.argv[1]))
    while True:
        data, fds, _, _ = socket.recv_fds(channel, _MESSAGE_BYTES, _MOST_DESCRIPTORS)
        if not data:
            return
        message = json.loads(data)
        try:
            reply = {"result": requests[message.pop("do")](*fds, **message)}
        except Exception as error:  # noqa: BLE001 - whatever it is, the other side is told
            reply = {"error": f"{type(error).__name__}: {error}"}
        finally:
            for fd in fds:
                os.close(fd)
        _send(channel, reply)
