# SPDX-License-Identifier: GPL-3.0-or-later
"""The process that is measured: both engines over the same fake kernel, each doing what it is told.

It runs under ``LD_PRELOAD=libfakexen.so``; ``libxc.py`` starts it and says what to do. Streams go to and come
from descriptors that arrive with a request; who is at their other end is not this process's business.
"""

from __future__ import annotations

import gc
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict

import dirty_rounds
import policy_cost
from channel import serve
from peer import CHUNK_BYTES
from tests.parity.fakexen import Fakexen
from tests.parity.libxc import Libxc
from tests.parity.protocol import RestoreOptions, SaveOptions
from watch import Watch

import xenmig
from xenmig.sim import Domain, Host

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Timing", "Work"]


class Timing(TypedDict):
    """One run.

    Attributes:
        began: When it began, on a clock that all processes share, in seconds.
        seconds: How long it took.
        cpu_seconds: CPU time of this process meanwhile, all threads.
        wrote: Bytes of the stream: of C what the process wrote by ``write`` and the like, sockets left out;
            of xenmig what its result says.
    """

    began: float
    seconds: float
    cpu_seconds: float
    wrote: int


def _wrote() -> int:
    lines = Path("/proc/self/io").read_text(encoding="ascii").splitlines()
    return int(next(line for line in lines if line.startswith("wchar:")).split()[1])


def _timed(job: Callable[[], object]) -> Timing:
    wrote = _wrote()
    cpu_began, began = time.process_time(), time.perf_counter()
    job()
    ended, cpu_ended = time.perf_counter(), time.process_time()
    return {
        "began": began,
        "seconds": ended - began,
        "cpu_seconds": cpu_ended - cpu_began,
        "wrote": _wrote() - wrote,
    }


class Work:
    """What can be asked for; each public method is a request. The first arguments are descriptors."""

    def __init__(self) -> None:
        """Opens both engines."""
        self._fakexen = Fakexen()
        self._libxc = Libxc(self._fakexen)
        self._xen = xenmig.Xen()
        self._junk = memoryview(os.urandom(CHUNK_BYTES))
        self._simulated: tuple[Host, Domain] | None = None

    def package(self) -> dict[str, Any]:
        """Returns where xenmig was imported from, and whether it is a debug build."""
        return {"file": xenmig.__file__, "debug": xenmig._native.DEBUG_BUILD}  # noqa: SLF001 - not in the API

    def create(self, **guest: Any) -> int:  # noqa: ANN401 - it is JSON
        """Makes a domain and returns its domid."""
        return self._fakexen.create(guest)

    def destroy(self, domid: int) -> None:
        """Destroys a domain."""
        self._fakexen.destroy(domid)

    def resume(self, domid: int) -> None:
        """Lets a suspended guest run."""
        self._fakexen.resume(domid)

    def differing(self, one: int, other: int) -> list[int]:
        """Returns the first pfns at which two domains differ."""
        return self._fakexen.differing(one, other, 8)

    def cost(self, *, costs: dict[str, int]) -> None:
        """Lets calls take so much longer from now on, and no more than that."""
        self._fakexen.clear_faults()
        self._fakexen.inject({"fault": "cost", **costs})

    def save(self, fd: int, *, engine: str, domid: int, live: bool) -> Timing:
        """Saves a domain. Engines are ``libxc``, ``xenmig``, and ``xenmig, no holes sent``.

        Opening Xen is not in the time, of either.
        """

        def suspend() -> None:
            self._fakexen.suspend(domid)

        if engine != "libxc":
            policy = xenmig.policies.LibxcPolicy() if engine == "xenmig, no holes sent" else None
            saved: list[xenmig.SaveResult] = []

            def save() -> None:
                saved.append(
                    xenmig.save(domid, fd, host=self._xen, live=live, suspend=suspend, policy=policy)
                )

            # Not what the process wrote: the lock of the domain is a file as well.
            return {**_timed(save), "wrote": saved[0].bytes_sent}
        wrote, began = _wrote(), time.perf_counter()
        libxc = self._libxc.save(domid, fd, SaveOptions(live=live, policy="none"))
        if libxc.failed:
            raise RuntimeError(f"xc_domain_save: errno {libxc.errno}, {libxc.messages}")
        return {
            "began": began,
            "seconds": libxc.seconds,
            "cpu_seconds": libxc.cpu_seconds,
            "wrote": _wrote() - wrote,
        }

    def restore(self, fd: int, *, engine: str, domid: int) -> Timing:
        """Restores into an empty domain."""
        if engine == "xenmig":
            return _timed(lambda: xenmig.restore(domid, fd, host=self._xen))
        began = time.perf_counter()
        restored = self._libxc.restore(domid, fd, RestoreOptions())
        if restored.failed:
            raise RuntimeError(f"xc_domain_restore: errno {restored.errno}, {restored.messages}")
        return {
            "began": began,
            "seconds": restored.seconds,
            "cpu_seconds": restored.cpu_seconds,
            "wrote": 0,
        }

    def simulate(self, *, memory_mib: int) -> None:
        """Makes an idle domain on a simulated host, for :meth:`save_simulated`."""
        host = Host()
        guest = host.create(memory=f"{memory_mib}M")
        guest.fill()
        self._simulated = host, guest

    def save_simulated(self, fd: int, *, policy: bool) -> Timing:
        """Saves the simulated domain, with a policy that ends the precopy after one round or without one."""
        if self._simulated is None:
            raise RuntimeError("there is no simulated domain")
        host, guest = self._simulated
        decide = policy_cost.trivial if policy else None
        timing = _timed(lambda: xenmig.save(guest.domid, fd, host=host, policy=decide))
        guest.resume()
        return timing

    def peak(self, fd: int, *, job: str, **arguments: Any) -> int:  # noqa: ANN401 - it is JSON
        """Does a save or a restore, and returns the most memory that it added to this process, in bytes."""
        with Watch() as watch:
            getattr(self, job)(fd, **arguments)
        return watch.peak_bytes

    def rounds(self, fd: int, *, engine: str, domid: int, rounds: int) -> list[float]:
        """Saves a domain live and returns how long each round took but the first, in seconds."""
        measure = dirty_rounds.libxc_rounds if engine == "libxc" else dirty_rounds.xenmig_rounds
        return measure(self._fakexen, domid, fd, rounds)

    def write(self, fd: int, *, count: int) -> Timing:
        """Writes a number of bytes, 4 MiB at a time."""

        def write() -> None:
            left = count
            while left:
                left -= os.write(fd, self._junk[: min(left, CHUNK_BYTES)])

        return _timed(write)

    def read(self, fd: int) -> Timing:
        """Reads to the end, 4 MiB at a time."""
        buffer = bytearray(CHUNK_BYTES)

        def read() -> None:
            while os.readv(fd, [buffer]):
                pass

        return _timed(read)


def main() -> None:
    """Does requests until there are no more."""
    # Children of this process, if there are any, need no fake kernel.
    os.environ.pop("LD_PRELOAD", None)
    work = Work()
    # A collection in the middle of a run would be measured.
    gc.freeze()
    gc.disable()
    serve({name: getattr(work, name) for name in dir(work) if not name.startswith("_")})


if __name__ == "__main__":
    main()
