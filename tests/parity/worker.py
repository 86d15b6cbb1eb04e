# SPDX-License-Identifier: GPL-3.0-or-later
"""The worker process: it runs under ``LD_PRELOAD=libfakexen.so`` and does what the tests ask for.

A request is a line of JSON on standard input, ``{"do": NAME, ...arguments}``; the reply is one on standard
output, ``{"result": ...}`` or ``{"error": {"class", "errno", "message"}}``. Hundreds of jobs run in one
process.
"""

from __future__ import annotations

import json
import os
import socket
import sys
import threading
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from tests.parity import engine
from tests.parity.fakexen import Fakexen
from tests.parity.protocol import EngineName, RestoreOptions, RestoreOutcome, SaveOptions, SaveOutcome

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.parity.engine import Engine


class Worker:
    """What a test may ask for; each public method is a request."""

    def __init__(self) -> None:
        """Connects to the fake host of this process."""
        self.fakexen = Fakexen()
        self._engines: dict[EngineName, Engine] = {}

    def _engine(self, name: EngineName) -> Engine:
        if name not in self._engines:
            self._engines[name] = engine.load(name, self.fakexen)
        return self._engines[name]

    def load(self, engine: EngineName) -> None:
        """Makes sure that an engine can be used."""
        self._engine(engine)

    def save(self, engine: EngineName, domid: int, path: str, options: dict[str, Any]) -> dict[str, Any]:
        """Saves a domain to a new file."""
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        try:
            return asdict(self._engine(engine).save(domid, fd, SaveOptions(**options)))
        finally:
            os.close(fd)

    def restore(self, engine: EngineName, domid: int, path: str, options: dict[str, Any]) -> dict[str, Any]:
        """Restores a domain from a file."""
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            return asdict(self._engine(engine).restore(domid, fd, RestoreOptions(**options)))
        finally:
            os.close(fd)

    def migrate(
        self,
        engines: tuple[EngineName, EngineName],
        domids: tuple[int, int],
        options: tuple[dict[str, Any], dict[str, Any]],
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """Saves a domain with one engine while another restores it, over a unix socket."""
        saver, restorer = (self._engine(name) for name in engines)
        sender, receiver = socket.socketpair()
        outcome: list[RestoreOutcome] = []

        def restore() -> None:
            with receiver:
                outcome.append(restorer.restore(domids[1], receiver.fileno(), RestoreOptions(**options[1])))

        thread = threading.Thread(target=restore)
        thread.start()
        with sender:
            saved: SaveOutcome = saver.save(domids[0], sender.fileno(), SaveOptions(**options[0]))
        thread.join()
        return asdict(saved), asdict(outcome[0])

    def read_page(self, domid: int, pfn: int) -> str:
        """Returns a page as hexadecimal digits."""
        return self.fakexen.read_page(domid, pfn).hex()

    def write_page(self, domid: int, pfn: int, contents: str) -> None:
        """Writes a page, given as hexadecimal digits."""
        self.fakexen.write_page(domid, pfn, bytes.fromhex(contents))

    def balloon(self, domid: int, pfn: int, give: bool) -> None:  # noqa: FBT001 - an argument in JSON
        """Gives the domain a page, or takes it away."""
        self.fakexen.balloon(domid, pfn, give=give)

    def handler(self, name: str) -> Callable[..., Any]:
        """Returns what does a request: a method of this class, or of the control interface."""
        if name.startswith("_"):
            raise AttributeError(name)
        found: Callable[..., Any] = getattr(self, name, None) or getattr(self.fakexen, name)
        return found


def serve() -> None:
    """Does requests until standard input ends."""
    # Children of this process, if a job starts any, need no fake kernel.
    os.environ.pop("LD_PRELOAD", None)
    # What a library prints must not come between the replies.
    replies = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    worker = Worker()
    for line in sys.stdin:
        request = json.loads(line)
        try:
            reply = {"result": worker.handler(request.pop("do"))(**request)}
        except Exception as error:  # noqa: BLE001 - whatever it is, the test is told
            errno = getattr(error, "errno", None)
            reply = {"error": {"class": type(error).__name__, "errno": errno, "message": str(error)}}
        replies.write(json.dumps(reply) + "\n")
        replies.flush()


if __name__ == "__main__":
    serve()
