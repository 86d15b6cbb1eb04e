# SPDX-License-Identifier: GPL-3.0-or-later
"""xenmig and C libxc side by side: both over the same fake kernel, in the same process, taking turns.

```text
libxc.py ──> worker.py          both engines, under LD_PRELOAD=libfakexen.so
   │  └────> worker.py          the other side of a migration; a fresh one for each peak of memory
   └───────> peer.py            the other ends of sockets
```
"""

from __future__ import annotations

import ctypes
from typing import TYPE_CHECKING

import clean_bitmap
import migrations
import restores
import saves
from channel import Remote
from peaks import Peaks
from stage import Stage

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from pathlib import Path

    from result import Row

__all__ = ["KINDS", "measure", "missing"]

#: Kinds of measurements.
KINDS = ("saves", "restores", "migrations", "rounds")

_SIZES_MIB = (256, 1024, 4096)
#: The highest page of a p2m of 1 TiB.
_FAR_PFN = (1 << 28) - 1
#: The C libraries that are measured. Each needs the one before.
_SONAMES = ("libxentoollog.so.1", "libxenctrl.so.4.17", "libxenguest.so.4.17")


def missing() -> str | None:
    """Returns which of Xen's libraries this machine lacks, and how to get it; ``None`` if it has all."""
    try:
        for name in _SONAMES:
            ctypes.CDLL(name, mode=ctypes.RTLD_GLOBAL)
    except OSError as error:
        return f"{error}: install Debian's libxenmisc4.17"
    return None


def measure(
    library: Path, pairs: int, say: Callable[[str], None], *, quick: bool, only: Sequence[str] = ()
) -> list[Row]:
    """Measures everything.

    Args:
        library: ``libfakexen.so``.
        pairs: How often each engine runs for a row, beside the run that does not count.
        say: Is told what is being measured.
        quick: Small guests and few rounds: to see that it works, not how fast.
        only: Which of :data:`KINDS`; without any, all.

    Returns:
        The rows.
    """
    with Remote("peer.py", {}) as peer:
        stage = Stage(
            library=library,
            pairs=pairs,
            sizes_mib=(4, 16) if quick else _SIZES_MIB,
            middle_mib=4 if quick else 1024,
            far_pfn=(1 << 20) - 1 if quick else _FAR_PFN,
            dirty_rounds=5 if quick else 100,
            peer=peer,
            say=say,
        )
        peaks = Peaks(stage)
        kinds: dict[str, Callable[[], Iterable[Row]]] = {
            "saves": lambda: saves.measure(stage, peaks),
            "restores": lambda: restores.measure(stage, peaks),
            "migrations": lambda: migrations.measure(stage),
            "rounds": lambda: clean_bitmap.measure(stage),
        }
        rows = [row for kind in only or KINDS for row in kinds[kind]()]
    # They are measured by size, and shown by kind.
    order = list(dict.fromkeys(row.what for row in rows))
    return sorted(rows, key=lambda row: order.index(row.what))
