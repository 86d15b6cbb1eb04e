# SPDX-License-Identifier: GPL-3.0-or-later
"""Xen's own verifier of migration streams, as Debian installs it.

Its classes are used in this process; the script around them is run where a test is about it.
"""

from __future__ import annotations

import os
import subprocess
import sys
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

#: The script, and the packages that it needs.
SCRIPT = Path("/usr/lib/xen-4.17/bin/verify-stream-v2")
PACKAGES = Path("/usr/lib/xen-4.17/lib/python")


class Verifier:
    """Checks streams without the headers of a toolstack. It reads files, not pipes."""

    def __init__(self) -> None:
        """Imports the verifier's modules."""
        sys.path.append(str(PACKAGES))
        try:
            self._verify_libxc: Callable[..., Any] = import_module("xen.migration.libxc").VerifyLibxc
            self._errors: Any = import_module("xen.migration.verify")
        finally:
            sys.path.remove(str(PACKAGES))

    def check(self, stream: Path) -> None:
        """Checks a stream.

        Raises:
            AssertionError: The stream is not right, or something follows it; the message is the verifier's.
        """
        refusals = (self._errors.StreamError, self._errors.RecordError, OSError)
        with stream.open("rb") as file:
            try:
                self._verify_libxc(lambda _text: None, file.read).verify()
            except refusals as error:
                raise AssertionError(f"Xen's verifier refuses {stream.name}: {error}") from error
            assert not file.read(1), f"something follows the END record of {stream.name}"

    @staticmethod
    def run_script(stream: Path) -> subprocess.CompletedProcess[str]:
        """Runs the verifier as a program."""
        environment = {**os.environ, "PYTHONPATH": str(PACKAGES)}
        command = [str(SCRIPT), "--format=libxc", f"--in={stream}"]
        return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
