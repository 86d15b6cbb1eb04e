# SPDX-License-Identifier: GPL-3.0-or-later
"""The most memory that a save or a restore takes beside the domain's, each in a process of its own."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from stage import guest

if TYPE_CHECKING:
    from stage import Stage

__all__ = ["Peaks"]

#: Pages that the guest has never touched: they are zero, and take memory when they are first mapped.
_UNTOUCHED: dict[str, Any] = {"warm": False}


class Peaks:
    """Measures on demand, and remembers: a peak does not depend on what the stream is written to."""

    def __init__(self, stage: Stage) -> None:
        self._stage = stage
        self._known: dict[tuple[object, ...], int] = {}

    def of_save(self, engine: str, memory_mib: int, *, live: bool = True, **more: object) -> int:
        """Returns the peak of a save in bytes. `more` describes the guest."""
        key = (engine, memory_mib, live, repr(more))
        if key not in self._known:
            with self._stage.worker() as worker, Path("/dev/null").open("wb") as null:
                domid = worker.call("create", **guest(memory_mib, **{**_UNTOUCHED, **more}))
                arguments = {"engine": engine, "domid": domid, "live": live}
                self._known[key] = worker.call("peak", [null.fileno()], job="save", **arguments)
        return self._known[key]

    def of_restore(self, engine: str, memory_mib: int, stream: Path) -> int:
        """Returns the peak of a restore from a file in bytes."""
        with self._stage.worker() as worker, stream.open("rb") as file:
            domid = worker.call("create", **guest(memory_mib, **_UNTOUCHED, populated=False))
            peak: int = worker.call("peak", [file.fileno()], job="restore", engine=engine, domid=domid)
        return peak
