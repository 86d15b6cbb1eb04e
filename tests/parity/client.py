# SPDX-License-Identifier: GPL-3.0-or-later
"""The tests' side of the worker process: starts it, and turns method calls into requests."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from tests.parity.protocol import (
    Consult,
    Counters,
    DomainSpec,
    EngineName,
    FakexenError,
    PvMap,
    PvState,
    RestoreOptions,
    RestoreOutcome,
    SaveOptions,
    SaveOutcome,
    State,
)

if TYPE_CHECKING:
    from collections.abc import Callable

ROOT = Path(__file__).parents[2]
#: Counters of what exists now: zero when no job is under way.
EXISTING = ("areas_now", "mappings_now", "pages_mapped_now", "buffers_now", "devices_open_now")


class WorkerDiedError(RuntimeError):
    """The worker process has ended: a library in it crashed, or it could not start."""


class Worker:
    """A worker process. :meth:`close` ends it."""

    def __init__(self, library: Path, check: Callable[[Path], None]) -> None:
        """Starts the process under ``LD_PRELOAD``.

        Args:
            library: ``libfakexen.so``.
            check: Checks every whole stream that xenmig writes to a file.
        """
        self._check = check
        paths = [str(ROOT), os.environ.get("PYTHONPATH", "")]
        environment = os.environ | {
            "LD_PRELOAD": str(library),
            "PYTHONPATH": os.pathsep.join(filter(None, paths)),
        }
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.parity.worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=environment,
            text=True,
        )

    def close(self) -> None:
        """Ends the process."""
        self._process.kill()
        self._process.communicate()

    @property
    def alive(self) -> bool:
        """Whether the process still runs."""
        return self._process.poll() is None

    def _do(self, name: str, **arguments: object) -> Any:  # noqa: ANN401 - it came as JSON
        """Makes a request and returns its result."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            self._process.stdin.write(json.dumps({"do": name, **arguments}) + "\n")
            self._process.stdin.flush()
            line = self._process.stdout.readline()
        except BrokenPipeError:
            line = ""
        if not line:
            raise WorkerDiedError(f"the worker process ended with status {self._process.wait()} in {name!r}")
        reply = json.loads(line)
        if error := reply.get("error"):
            if error["class"] == "FakexenError":
                raise FakexenError(error["errno"], error["message"])
            raise RuntimeError(f"{name}: {error['class']}: {error['message']}")
        return reply["result"]

    def load(self, engine: EngineName) -> None:
        """Makes sure that an engine can be used.

        Raises:
            RuntimeError: It cannot be loaded; the message says why.
        """
        self._do("load", engine=engine)

    def create(self, spec: DomainSpec) -> int:
        """Makes a domain and returns its domid."""
        return cast("int", self._do("create", spec=spec.as_json()))

    def create_raw(self, spec: dict[str, Any]) -> int:
        """Makes a domain from the JSON that ``fakexen_create`` takes."""
        return cast("int", self._do("create", spec=spec))

    def destroy(self, domid: int) -> None:
        """Destroys a domain."""
        self._do("destroy", domid=domid)

    def suspend(self, domid: int) -> None:
        """Lets the guest suspend itself."""
        self._do("suspend", domid=domid)

    def resume(self, domid: int) -> None:
        """Lets the guest run."""
        self._do("resume", domid=domid)

    def read_page(self, domid: int, pfn: int) -> bytes:
        """Returns the contents of a page."""
        return bytes.fromhex(self._do("read_page", domid=domid, pfn=pfn))

    def write_page(self, domid: int, pfn: int, contents: bytes) -> None:
        """Writes a page, as the guest would."""
        self._do("write_page", domid=domid, pfn=pfn, contents=contents.hex())

    def balloon(self, domid: int, pfn: int, *, give: bool) -> None:
        """Gives the domain a page, or takes it away."""
        self._do("balloon", domid=domid, pfn=pfn, give=give)

    def state(self, domid: int) -> State:
        """Tells what a domain is and does."""
        return cast("State", self._do("state", domid=domid))

    def pv_state(self, domid: int) -> PvState:
        """Tells what a PV guest has beside."""
        state = self.state(domid)["pv"]
        assert state is not None, "a PV guest"
        return state

    def pv_map(self, domid: int) -> PvMap:
        """Tells what a PV guest uses its pages for."""
        return cast("PvMap", self._do("pv_map", domid=domid))

    def differing(self, one: int, other: int, limit: int = 8) -> list[int]:
        """Returns the first pfns at which two domains differ."""
        return cast("list[int]", self._do("differing", one=one, other=other, limit=limit))

    def counters(self, domid: int | None = None) -> Counters:
        """Tells what was called and what is mapped, about a domain or the host."""
        return cast("Counters", self._do("counters", domid=domid))

    def left(self) -> dict[str, object]:
        """Returns what jobs left behind: mappings, hypercall buffers, open devices. Empty if nothing."""
        return {name: count for name, count in self.counters().items() if name in EXISTING and count}

    def inject(self, **fault: object) -> None:
        """Adds a fault: ``fault=`` ``"errno"``, ``"page"`` or ``"cost"``, and the fields of ``Fault``.

        They are described in ``rust/fakexen/src/faults.rs``.
        """
        self._do("inject", fault=fault)

    def clear_faults(self) -> None:
        """Removes all faults."""
        self._do("clear_faults")

    def reset(self) -> None:
        """Destroys all domains, removes all faults, counts from zero."""
        self._do("reset")

    def save(
        self, engine: EngineName, domid: int, path: Path, options: SaveOptions | None = None
    ) -> SaveOutcome:
        """Saves a domain to a new file, and has the stream checked if it is xenmig's."""
        asked = asdict(options or SaveOptions())
        outcome = _saved(self._do("save", engine=engine, domid=domid, path=str(path), options=asked))
        if engine == "xenmig" and not outcome.failed:
            self._check(path)
        return outcome

    def restore(
        self, engine: EngineName, domid: int, path: Path, options: RestoreOptions | None = None
    ) -> RestoreOutcome:
        """Restores a domain from a file."""
        asked = asdict(options or RestoreOptions())
        outcome = self._do("restore", engine=engine, domid=domid, path=str(path), options=asked)
        return RestoreOutcome(**outcome)

    def migrate(
        self,
        engines: tuple[EngineName, EngineName],
        domids: tuple[int, int],
        options: SaveOptions | None = None,
    ) -> tuple[SaveOutcome, RestoreOutcome]:
        """Saves a domain with one engine while another restores it, over a unix socket."""
        asked = [asdict(options or SaveOptions()), asdict(RestoreOptions())]
        saved, restored = self._do("migrate", engines=engines, domids=domids, options=asked)
        return _saved(saved), RestoreOutcome(**restored)


def _saved(outcome: dict[str, Any]) -> SaveOutcome:
    consults = [Consult(*consult) for consult in outcome.pop("consults")]
    return SaveOutcome(consults=consults, **outcome)
