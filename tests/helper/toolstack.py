# SPDX-License-Identifier: GPL-3.0-or-later
"""libxl's part, played by a test: starts a save helper, answers its messages, and sees how it ends."""

from __future__ import annotations

import os
import re
import signal
import struct
import subprocess
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from tests.helper.door import Door
from tests.helper.messages import LEVELS, WITH_REPLY, EndOfMessages, Message, read_message

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path
    from typing import IO

    from tests.parity.protocol import Counters, DomainSpec, State

LIVE, DEBUG = 1, 2
#: ``suspend`` and ``switch_qemu_logdirty``: what libxl offers for a save that is no checkpoint.
CBFLAGS = 1 << 3 | 1 << 7
#: ``static_data_done`` and ``restore_results``: what libxl offers for a restore that is no checkpoint.
RESTORE_CBFLAGS = 1 << 8 | 1 << 9
STORE_EVTCHN, STORE_DOMID, CONSOLE_EVTCHN, CONSOLE_DOMID = 31, 3, 32, 4
TIMEOUT_S = 20
_FRONT = re.compile(r"(?:save|restore): Domain \d+: ")


def restore_arguments(
    io_fd: int, domid: int, *, cbflags: int = RESTORE_CBFLAGS, stream_type: int = 0
) -> list[str]:
    """What libxl starts a helper with for a restore."""
    channels = (STORE_EVTCHN, STORE_DOMID, CONSOLE_EVTCHN, CONSOLE_DOMID)
    numbers = (io_fd, -1, domid, *channels, cbflags, stream_type)
    return ["--restore-domain", *map(str, numbers)]


@dataclass
class Toolstack:
    """A helper under way.

    Attributes:
        messages: What it has said so far.
        at_complete: The domain and the counters when it said ``complete``.
    """

    process: subprocess.Popen[bytes]
    door: Door | None
    domid: int
    replies: int
    incoming: int
    errors: IO[bytes]
    messages: list[Message] = field(default_factory=list)
    at_complete: tuple[State, Counters] | None = None

    def next(self, timeout_s: float = TIMEOUT_S) -> Message:
        """Returns the helper's next message."""
        message = read_message(self.incoming, timeout_s)
        self.messages.append(message)
        if message.name == "complete" and self.door is not None:
            self.at_complete = self.door.state(self.domid), self.door.counters()
        return message

    def reply(self, number: int) -> None:
        """Answers a message."""
        os.write(self.replies, struct.pack("=i", number))

    def answer(self, message: Message) -> None:
        """Does what a message asks for, as libxl does, if all goes well."""
        if message.name == "suspend":
            assert self.door is not None
            self.door.suspend(self.domid)
            self.reply(1)
        elif message.name in WITH_REPLY:
            self.reply(0)

    def run(self, answers: Mapping[str, Callable[[Toolstack, Message], object]] | None = None) -> Toolstack:
        """Answers messages until the helper has ended.

        Args:
            answers: What is done about certain messages instead.
        """
        while True:
            try:
                message = self.next()
            except EndOfMessages:
                break
            (answers or {}).get(message.name, Toolstack.answer)(self, message)
        self.process.wait(TIMEOUT_S)
        return self

    def until(self, name: str) -> Message:
        """Answers messages up to, but without, the first of a kind."""
        while True:
            message = self.next()
            if message.name == name:
                return message
            self.answer(message)

    def signal(self, number: int = signal.SIGTERM) -> None:
        """Sends a signal, by default the one with which libxl ends a save."""
        self.process.send_signal(number)

    def hang_up(self) -> None:
        """Closes the pipes, as if libxl were killed."""
        for fd in (self.replies, self.incoming):
            if fd >= 0:
                os.close(fd)
        self.replies = self.incoming = -1

    @property
    def status(self) -> int:
        """The exit status."""
        return self.process.wait(TIMEOUT_S)

    @property
    def stderr(self) -> str:
        """What was printed."""
        self.errors.seek(0)
        return self.errors.read().decode()

    @property
    def calls(self) -> list[Message]:
        """The messages, but for what is logged and how far the save is."""
        return [message for message in self.messages if message.name not in {"log", "progress"}]

    @property
    def completed(self) -> tuple[int | str, ...] | None:
        """The arguments of ``complete``, if it came: return value and errno."""
        found = [message.arguments for message in self.messages if message.name == "complete"]
        assert len(found) <= 1
        return found[0] if found else None

    def logged(self, level: str) -> list[str]:
        """What was logged at a level, without the front by which libvirt's logger knows the domain."""
        texts = [
            str(message.arguments[3])
            for message in self.messages
            if message.name == "log" and LEVELS[int(message.arguments[0])] == level
        ]
        fronts = [_FRONT.match(text) for text in texts]
        assert all(fronts), texts
        return [text[front.end() :] for text, front in zip(texts, fronts, strict=True) if front]

    def close(self) -> None:
        """Ends the helper if it still runs, and closes everything."""
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        self.hang_up()
        self.errors.close()
        if self.door is not None:
            self.door.close()


@dataclass(frozen=True)
class Starter:
    """How helpers are started.

    Attributes:
        directory: For files.
        libraries: What is loaded into them: the fake kernel and the door; nothing for a machine without Xen.
    """

    directory: Path
    libraries: Sequence[Path]
    started: list[Toolstack] = field(default_factory=list)

    def start(
        self,
        program: Path,
        arguments: Sequence[str],
        *,
        spec: DomainSpec | None = None,
        environment: Mapping[str, str] | None = None,
        pass_fds: Sequence[int] = (),
        before: Callable[[Door], object] | None = None,
        go: bool = True,
    ) -> Toolstack:
        """Starts a helper. In its process there is a domain, if one is described.

        Args:
            program: The helper.
            arguments: Its arguments; ``{domid}`` stands for the domain's number.
            spec: The domain, whose number must be in it.
            environment: More environment variables.
            pass_fds: Descriptors that it inherits.
            before: Called before its ``main()`` runs.
            go: Whether its ``main()`` runs, or the caller lets it.
        """
        door = Door() if spec is not None else None
        # The working directory is one that nothing is to be found in.
        variables = {
            "PATH": os.environ["PATH"],
            "XENMIG_CONFIG": "",
            "XENMIG_RUN_DIR": str(self.directory / "run"),
            **(environment or {}),
        }
        inherited = list(pass_fds)
        if door is not None:
            inherited.append(door.helpers_end.fileno())
            variables["LD_PRELOAD"] = ":".join(map(str, self.libraries))
            variables["HELPER_DOOR"] = str(door.helpers_end.fileno())
        (their_replies, replies), (incoming, their_messages) = os.pipe(), os.pipe()
        errors = (self.directory / f"stderr-{len(self.started)}").open("w+b")
        process = subprocess.Popen(
            [program, *arguments],
            stdin=their_replies,
            stdout=their_messages,
            stderr=errors,
            pass_fds=inherited,
            env=variables,
            cwd=self.directory,
        )
        os.close(their_replies)
        os.close(their_messages)
        domid = spec.domid if spec is not None and spec.domid is not None else 0
        toolstack = Toolstack(process, door, domid, replies, incoming, errors)
        self.started.append(toolstack)
        if door is not None and spec is not None:
            door.helpers_end.close()
            assert door.wait_for_program() == process.pid
            assert door.create(spec) == domid
            if before is not None:
                before(door)
            if go:
                door.go()
        return toolstack

    def save(
        self,
        program: Path,
        spec: DomainSpec,
        io_fd: int,
        *,
        flags: int = LIVE,
        environment: Mapping[str, str] | None = None,
        before: Callable[[Door], object] | None = None,
        go: bool = True,
    ) -> Toolstack:
        """Starts a helper that is to save a domain to a descriptor."""
        arguments = ["--save-domain", str(io_fd), "-1", str(spec.domid), str(flags), str(CBFLAGS), "0"]
        return self.start(
            program, arguments, spec=spec, environment=environment, pass_fds=[io_fd], before=before, go=go
        )

    def restore(
        self,
        program: Path,
        spec: DomainSpec,
        io_fd: int,
        *,
        environment: Mapping[str, str] | None = None,
        before: Callable[[Door], object] | None = None,
    ) -> Toolstack:
        """Starts a helper that is to restore an empty domain from a descriptor."""
        arguments = restore_arguments(io_fd, spec.domid or 0)
        return self.start(
            program, arguments, spec=spec, environment=environment, pass_fds=[io_fd], before=before
        )

    def close(self) -> None:
        """Ends all helpers."""
        for toolstack in self.started:
            toolstack.close()
