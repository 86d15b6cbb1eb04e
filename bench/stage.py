# SPDX-License-Identifier: GPL-3.0-or-later
"""What all measurements share: the processes, the guests, and how much of everything."""

from __future__ import annotations

import os
import shutil
import tempfile
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from channel import Remote

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = ["Stage", "guest", "set_up"]

_ROOT = Path(__file__).parents[1]
_MIB = 1 << 20
_SIZES_MIB = (256, 1024, 4096)
#: The highest page of a p2m of 1 TiB.
_FAR_PFN = (1 << 28) - 1


def guest(memory_mib: int, **more: Any) -> dict[str, Any]:  # noqa: ANN401 - it becomes JSON
    """Describes an idle guest for ``fakexen_create``: all its memory is backed from the start."""
    pages = memory_mib * _MIB // 4096
    return {"memory_pages": pages, "fill": False, "warm": True, "workload": {"kind": "idle"}, **more}


@dataclass(frozen=True)
class Stage:
    """How to measure.

    Attributes:
        library: ``libfakexen.so``.
        pairs: How often each engine runs for a row, beside the run that does not count.
        sizes_mib: Sizes of guests, ascending.
        middle_mib: The size that the single rows are measured with.
        far_pfn: Where the page near 1 TiB is.
        dirty_rounds: How many rounds are measured in one save.
        peer: The process at the other end of sockets.
        say: Is told what is being measured.
    """

    library: Path
    pairs: int
    sizes_mib: tuple[int, ...]
    middle_mib: int
    far_pfn: int
    dirty_rounds: int
    peer: Remote
    say: Callable[[str], None]

    def worker(self, package: Path | None = None) -> Remote:
        """Starts a process with both engines, over a fake kernel without domains.

        Args:
            package: A folder with another xenmig, which is used instead of the installed one.
        """
        paths = [package or "", _ROOT, os.environ.get("PYTHONPATH", "")]
        environment = {
            "LD_PRELOAD": str(self.library),
            "PYTHONPATH": os.pathsep.join(filter(None, map(str, paths))),
            # Its domains are not domains of this machine.
            "XENMIG_RUN_DIR": str(Path(tempfile.gettempdir()) / f"xenmig-bench-claims-{os.getuid()}"),
        }
        return Remote("worker.py", environment)

    @contextmanager
    def stream_file(self) -> Iterator[Path]:
        """Makes room for a file in memory (tmpfs), and removes it."""
        folder = Path(tempfile.mkdtemp(prefix="xenmig-bench-", dir="/dev/shm"))
        try:
            yield folder / "stream"
        finally:
            shutil.rmtree(folder)

    def fits(self, memory_mib: int, copies: int) -> bool:
        """Says whether so many copies of a guest's memory fit, and tells if not."""
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        available = next(int(line.split()[1]) for line in lines if line.startswith("MemAvailable:")) // 1024
        needed = memory_mib * copies + 512
        if available < needed:
            self.say(
                f"left out: {memory_mib} MiB guests, as {needed} MiB are needed and {available} are free"
            )
        return available >= needed


@contextmanager
def set_up(library: Path, pairs: int, say: Callable[[str], None], *, quick: bool) -> Iterator[Stage]:
    """Starts the process at the other end of sockets.

    Args:
        library: ``libfakexen.so``.
        pairs: How often each engine runs for a row, beside the run that does not count.
        say: Is told what is being measured.
        quick: Small guests and few rounds: to see that it works, not how fast.
    """
    with Remote("peer.py", {}) as peer:
        yield Stage(
            library=library,
            pairs=pairs,
            sizes_mib=(4, 16) if quick else _SIZES_MIB,
            middle_mib=4 if quick else 1024,
            far_pfn=(1 << 20) - 1 if quick else _FAR_PFN,
            dirty_rounds=5 if quick else 100,
            peer=peer,
            say=say,
        )
