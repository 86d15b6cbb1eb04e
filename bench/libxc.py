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
from peaks import Peaks

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from result import Row
    from stage import Stage

__all__ = ["KINDS", "measure", "missing"]

#: Kinds of measurements.
KINDS = ("saves", "restores", "migrations", "rounds")

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


def measure(stage: Stage, only: Sequence[str] = ()) -> list[Row]:
    """Measures everything.

    Args:
        stage: How.
        only: Which of :data:`KINDS`; without any, all.

    Returns:
        The rows.
    """
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
