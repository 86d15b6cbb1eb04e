# SPDX-License-Identifier: GPL-3.0-or-later
"""The stock ``xl``, with ``xenmig-save-helper`` in the place of libxl's own helper, or with libxl's own."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

__all__ = ["RECEIVE", "Finished", "HelperName", "Running", "Toolstack"]

HelperName = Literal["xenmig", "stock"]

RECEIVE = "xl migrate-receive"
"""What takes a migration to this same host."""
TIMEOUT_S = 150.0
T = TypeVar("T")
_POLL_S = 0.01


@dataclass(frozen=True)
class Finished:
    """A run of ``xl`` that has ended.

    Attributes:
        status: Its exit status; the negative number of a signal that ended it.
        output: What it, its helpers and its receiver have written to standard output and error.
        log: The entries that this run has added to ``XENMIG_LOG``.
        elapsed_s: How long it took.
    """

    status: int
    output: str
    log: list[dict[str, Any]]
    elapsed_s: float

    @property
    def entry(self) -> dict[str, Any]:
        """The log's only entry: what our helper did in this run."""
        assert len(self.log) == 1, f"{len(self.log)} log entries:\n{self.output}"
        return self.log[0]

    def ok(self) -> Finished:
        """Returns this run, which must have succeeded."""
        assert self.status == 0, f"xl ended with status {self.status}:\n{self.output}"
        return self

    def failed(self) -> Finished:
        """Returns this run, which must have failed."""
        assert self.status != 0, f"xl succeeded:\n{self.output}"
        return self

    def saved(self) -> dict[str, Any]:
        """Returns the result of the save that our helper did, which must be without a warning."""
        self.ok()
        assert self.entry["outcome"] == "saved", self.entry
        # A log-dirty mode that was on already, from a failed migration, would be one.
        assert self.entry["warnings"] == [], self.entry
        result: dict[str, Any] = self.entry["result"]
        return result


class Running:
    """A run of ``xl`` that goes on."""

    def __init__(self, arguments: list[str], environment: Mapping[str, str], output: Path, log: Path) -> None:
        """Starts it, in a process group of its own."""
        self._arguments = arguments
        self._output = output
        self._log = log
        self._log_bytes = log.stat().st_size if log.exists() else 0
        self._started_s = time.monotonic()
        with output.open("wb") as file:
            self.process = subprocess.Popen(
                arguments,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    @property
    def output(self) -> str:
        """What was written so far."""
        return self._output.read_text(errors="replace")

    def helper_pid(self, mode: Literal["save", "restore"] = "save", timeout_s: float = 30.0) -> int:
        """Waits for the helper that saves, or for the one that restores, and returns its process id."""
        wanted = f"--{mode}-domain".encode()

        def find() -> list[int]:
            pids = _descendants(self.process.pid)
            return [pid for pid in pids if wanted in _read(Path(f"/proc/{pid}/cmdline")).split(b"\0")]

        return self.until(find, f"a helper with {wanted.decode()}", timeout_s)[0]

    def until(self, happened: Callable[[], T], what: str, timeout_s: float = 60.0) -> T:
        """Waits until a function returns something true, and returns that; `xl` must not end meanwhile."""
        until_s = time.monotonic() + timeout_s
        while not (result := happened()):
            assert self.process.poll() is None, f"xl ended without {what}:\n{self.output}"
            assert time.monotonic() < until_s, f"no {what} within {timeout_s:.0f} s:\n{self.output}"
            time.sleep(_POLL_S)
        return result

    def interrupt(self) -> None:
        """Sends SIGINT to xl and all that it has started, as Ctrl-C in a terminal does."""
        os.killpg(self.process.pid, signal.SIGINT)

    def wait(self, timeout_s: float = TIMEOUT_S) -> Finished:
        """Waits for its end. If that does not come, everything of it is killed, and the test fails."""
        try:
            status = self.process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            self.kill()
            raise AssertionError(
                f"{' '.join(self._arguments)} did not end in {timeout_s:.0f} s:\n{self.output}"
            ) from None
        return Finished(status, self.output, self._entries(), time.monotonic() - self._started_s)

    def kill(self) -> None:
        """Kills it with all that it has started, if it still runs."""
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()

    def _entries(self) -> list[dict[str, Any]]:
        if not self._log.exists():
            return []
        added = self._log.read_bytes()[self._log_bytes :]
        return [json.loads(line) for line in added.splitlines()]


class Toolstack:
    """Starts ``xl``. Nothing of the tester's own configuration of xenmig has a part in it."""

    def __init__(self, helper: Path, directory: Path) -> None:
        """Uses a helper, and a directory for output, logs and policies."""
        self.helper = helper
        self.directory = directory
        self.log = directory / "log.jsonl"
        self._runs: list[Running] = []

    def start(
        self,
        *arguments: str | Path,
        helper: HelperName | Path = "xenmig",
        policy: str | None = None,
        policy_args: str = "",
        environment: Mapping[str, str] | None = None,
    ) -> Running:
        """Starts ``xl`` with these arguments.

        Args:
            arguments: Its arguments.
            helper: Ours, libxl's own, or any other program.
            policy: What ``XENMIG_POLICY`` names. :meth:`policy_file` makes one that may be used.
            policy_args: ``XENMIG_POLICY_ARGS``.
            environment: More variables, which win over the others.
        """
        variables = {name: value for name, value in os.environ.items() if not name.startswith("XENMIG_")}
        variables.pop("LIBXL_SAVE_HELPER", None)
        if helper != "stock":
            variables["LIBXL_SAVE_HELPER"] = str(self.helper if helper == "xenmig" else helper)
        variables |= {"XENMIG_LOG": str(self.log), "XENMIG_CONFIG": ""}
        if policy is not None:
            variables |= {"XENMIG_POLICY": policy, "XENMIG_POLICY_ARGS": policy_args}
        output = self.directory / f"xl-{len(self._runs)}.log"
        run = Running(["xl", *map(str, arguments)], variables | dict(environment or {}), output, self.log)
        self._runs.append(run)
        return run

    def xl(self, *arguments: str | Path, timeout_s: float = TIMEOUT_S, **options: Any) -> Finished:  # noqa: ANN401 - those of start()
        """Runs ``xl`` to its end; the options are those of :meth:`start`."""
        return self.start(*arguments, **options).wait(timeout_s)

    def migrate(self, name: str, receive: str = RECEIVE, **options: Any) -> Finished:  # noqa: ANN401 - as above
        """Migrates a guest to this same host, live."""
        return self.xl("migrate", "-s", "", name, receive, **options)

    def receiver(self, helper: HelperName) -> str:
        """Returns what takes a migration to this same host with one of the helpers, whichever saves."""
        # -s '' runs it by a shell that has xl's environment: this sets it apart.
        setting = f"LIBXL_SAVE_HELPER={self.helper}" if helper == "xenmig" else "-u LIBXL_SAVE_HELPER"
        return f"env {setting} {RECEIVE}"

    def policy_file(self, source: Path) -> Path:
        """Returns a copy of a policy file that only its owner can write: root's helper demands that."""
        copy = self.directory / source.name
        copy.write_bytes(source.read_bytes())
        copy.chmod(0o600)
        return copy

    def close(self) -> None:
        """Ends what still runs."""
        for run in self._runs:
            run.kill()


def _descendants(pid: int) -> list[int]:
    """The processes that a process has started, and that those have started."""
    parents: dict[int, int] = {}
    for directory in Path("/proc").iterdir():
        if directory.name.isdecimal() and (found := re.search(rb"\) \S (\d+) ", _read(directory / "stat"))):
            parents[int(directory.name)] = int(found[1])
    found_pids, unseen = [], [pid]
    while unseen:
        parent = unseen.pop()
        children = [child for child, its_parent in parents.items() if its_parent == parent]
        found_pids += children
        unseen += children
    return found_pids


def _read(path: Path) -> bytes:
    """A file of a process, empty if the process has ended."""
    try:
        return path.read_bytes()
    except OSError:
        return b""
