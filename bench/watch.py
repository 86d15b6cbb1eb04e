# SPDX-License-Identifier: GPL-3.0-or-later
"""Watches how much memory this process takes for itself.

The memory of a simulated domain is shared (a memfd), what a save or restore allocates is anonymous: so the
anonymous part of the resident set is watched, every millisecond. It tells most in a fresh process.
"""

from __future__ import annotations

import threading
from pathlib import Path
from typing import final

__all__ = ["Watch"]


def _anonymous_bytes() -> int:
    status = Path("/proc/self/status").read_text(encoding="ascii")
    line = next(line for line in status.splitlines() if line.startswith("RssAnon:"))
    return int(line.split()[1]) * 1024


@final
class Watch(threading.Thread):
    """Watches while it is entered.

    Attributes:
        peak_bytes: The most that was added meanwhile.
    """

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.peak_bytes = 0
        self._before = _anonymous_bytes()
        self._stop_watching = threading.Event()

    def __enter__(self) -> Watch:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop_watching.set()
        self.join()

    def run(self) -> None:
        """Looks every millisecond."""
        while True:
            self.peak_bytes = max(self.peak_bytes, _anonymous_bytes() - self._before)
            if self._stop_watching.wait(0.001):
                return
