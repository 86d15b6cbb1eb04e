# SPDX-License-Identifier: GPL-3.0-or-later
"""The test's side of ``door.c``: a domain in the helper's process, made before the helper's own code runs."""

from __future__ import annotations

import json
import socket
from typing import TYPE_CHECKING, Any, cast

from tests.parity.protocol import FakexenError

if TYPE_CHECKING:
    from tests.parity.protocol import Counters, DomainSpec, State

TIMEOUT_S = 20


class Door:
    """A socket, one end of which the helper's process inherits."""

    def __init__(self) -> None:
        """Opens it."""
        self._socket, self.helpers_end = socket.socketpair()
        self._socket.settimeout(TIMEOUT_S)
        self._lines = self._socket.makefile("r")

    def close(self) -> None:
        """Closes it."""
        for end in (self._lines, self._socket, self.helpers_end):
            end.close()

    def wait_for_program(self) -> int:
        """Waits until a program has started in the helper's process, and returns the process's number."""
        line = self._lines.readline().split()
        assert line[:1] == ["started"], line
        return int(line[1])

    def go(self) -> None:
        """Lets the program run."""
        self._ask("go")

    def create(self, spec: DomainSpec | dict[str, Any]) -> int:
        """Makes a domain and returns its domid."""
        described = spec if isinstance(spec, dict) else spec.as_json()
        return self._ask("create", json.dumps(described))[0]

    def suspend(self, domid: int) -> None:
        """Lets the guest suspend itself."""
        self._ask("suspend", str(domid))

    def state(self, domid: int) -> State:
        """Tells what a domain is and does."""
        return cast("State", json.loads(self._ask("state", str(domid))[1]))

    def counters(self) -> Counters:
        """Tells what was called and what is mapped."""
        return cast("Counters", json.loads(self._ask("counters", "-1")[1]))

    def inject(self, **fault: object) -> None:
        """Adds a fault."""
        self._ask("inject", json.dumps(fault))

    def _ask(self, name: str, argument: str = "") -> tuple[int, str]:
        self._socket.sendall(f"{name} {argument}\n".encode())
        number, _, text = self._lines.readline().rstrip("\n").partition(" ")
        if int(number) < 0:
            raise FakexenError(-int(number), text)
        return int(number), text
