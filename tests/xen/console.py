# SPDX-License-Identifier: GPL-3.0-or-later
"""What a test guest says: the workload's lines, followed through the console's log files.

``xenconsoled --log=guest`` writes ``guest-NAME.log``. A domain that ``xl migrate-receive`` has made was
called ``NAME--incoming`` when its log was opened, and that is where it goes on to write; after ``xl restore``
it is ``guest-NAME.log`` again. The lines are described in ``testbed/guest/workload.c``.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["Console", "Report"]

_REPORT = re.compile(r"workload report n=(\d+) writes=(\d+) bad=(\d+) up_ms=(\d+) clock_ms=(\d+)$")
_TAIL_LINES = 30


@dataclass(frozen=True)
class Report:
    """One report of the workload.

    Attributes:
        n: Which report it is, from 0.
        writes: Pages written since the guest's start.
        bad: Pages that did not hold what was written to them.
        up_ms: The guest's time since its boot, in ms.
        clock_ms: The guest's wall clock, in ms.
    """

    n: int
    writes: int
    bad: int
    up_ms: int
    clock_ms: int


class Console:
    """The console of the guests of one name, one after the other."""

    def __init__(self, directory: Path, name: str) -> None:
        """Follows the logs in a directory from their present ends."""
        self._logs = [directory / f"guest-{name}.log", directory / f"guest-{name}--incoming.log"]
        self._offsets = {log: log.stat().st_size if log.exists() else 0 for log in self._logs}

    def new_lines(self) -> list[str]:
        """Returns the lines that were written since the last call, in the order of their time.

        It must be called at least once between two moves of the guest: of two logs, the one that spoke last
        is taken to be the source.
        """
        lines: list[str] = []
        for log in tuple(self._logs):
            new = self._new_lines_of(log)
            if new:
                # Where the guest is now, and so what is read first the next time.
                self._logs.remove(log)
                self._logs.insert(0, log)
            lines += new
        return lines

    def tail(self) -> str:
        """Returns the last lines of the log that spoke last, for a failure's message."""
        log = self._logs[0]
        if not log.exists():
            return f"there is no {log}"
        lines = log.read_text(errors="replace").splitlines()[-_TAIL_LINES:]
        return "\n".join([f"--- end of {log}", *lines])

    def _new_lines_of(self, log: Path) -> list[str]:
        if not log.exists():
            return []
        with log.open("rb") as file:
            file.seek(self._offsets[log])
            text = file.read()
        # The rest of a line that is being written comes the next time.
        whole = text[: text.rfind(b"\n") + 1]
        self._offsets[log] += len(whole)
        return whole.decode(errors="replace").splitlines()


def parse(line: str) -> Report | None:
    """Returns the report that a line holds, if it holds one."""
    found = _REPORT.search(line.strip())
    return Report(*map(int, found.groups())) if found else None
