# SPDX-License-Identifier: GPL-3.0-or-later
"""What a save helper costs, whichever it is: processor time and bytes written, counted from outside.

libxl starts a shell script, which starts the helper, waits for it, and leaves what the kernel counted: the
shell's ``times``, and ``/proc/PID/io``, which includes processes that were waited for. It costs both helpers
the same.
"""

from __future__ import annotations

import re
import shlex
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["Cost", "MeasuredHelper"]

_SCRIPT = """#!/bin/sh
{helper} "$@"
status=$?
case $1 in --save-domain) {{ times; cat /proc/$$/io; }} >{figures} ;; esac
exit $status
"""
_TIME = re.compile(r"(\d+)m([\d.]+)s")


class Cost(NamedTuple):
    """What a run of a helper has cost.

    Attributes:
        cpu_s: Processor time of the helper in this domain, in seconds: its own, the kernel's, and what it
            had Xen do in hypercalls; from its start on.
        written_bytes: What it wrote: the stream, and some messages.
    """

    cpu_s: float
    written_bytes: int


class MeasuredHelper:
    """A helper that libxl can be given, and that is measured."""

    def __init__(self, helper: Path, directory: Path) -> None:
        """Writes the script.

        Args:
            helper: The helper to measure.
            directory: Where the script and its figures go.
        """
        self.script = directory / f"measured-{helper.name}"
        self._figures = directory / f"measured-{helper.name}.txt"
        self.script.write_text(
            _SCRIPT.format(helper=shlex.quote(str(helper)), figures=shlex.quote(str(self._figures)))
        )
        self.script.chmod(0o700)

    def cost(self) -> Cost:
        """Returns what the last save has cost, once.

        Raises:
            FileNotFoundError: There was none since the last call.
        """
        text = self._figures.read_text()
        self._figures.unlink()
        # The first two times are the shell's own.
        times = [60 * int(minutes) + float(seconds) for minutes, seconds in _TIME.findall(text)]
        written = re.search(r"^wchar: (\d+)$", text, re.MULTILINE)
        assert len(times) == 4, text
        assert written is not None, text
        return Cost(sum(times[2:]), int(written[1]))
