# SPDX-License-Identifier: GPL-3.0-or-later
"""Where and when something was measured, and with which Xen."""

from __future__ import annotations

import datetime as dt
import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from xenmig import _native

__all__ = ["describe"]

_XEN_PACKAGES = ("libxen-dev", "libxenmisc4.17", "xen-utils-4.17")


def _cpu() -> str:
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    names = (line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.machine())


def _memory_gib() -> int:
    return round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / (1 << 30))


def _xen_packages() -> dict[str, str]:
    """Returns the versions of Debian's packages; none on another system."""
    query = shutil.which("dpkg-query")
    if query is None:
        return {}
    command = [query, "--show", "--showformat=${Package} ${Version}\\n", *_XEN_PACKAGES]
    shown = subprocess.run(command, check=False, capture_output=True, text=True).stdout
    return dict(line.split(" ", 1) for line in shown.splitlines() if " " in line.strip())


def describe() -> dict[str, Any]:
    """Returns the machine, the date, the command, and the versions."""
    return {
        "cpu": _cpu(),
        "cores": os.cpu_count(),
        "memory_gib": _memory_gib(),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "xenmig": _native.__version__,
        "xen_packages": _xen_packages(),
        "date": dt.datetime.now(tz=dt.timezone.utc).date().isoformat(),
        "command": " ".join(["python", "bench/run.py", *sys.argv[1:]]),
    }
