# SPDX-License-Identifier: GPL-3.0-or-later
"""xenmig in a process where another thread uses the Xen libraries, too."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from tests.parity.client import ROOT

if TYPE_CHECKING:
    from pathlib import Path

#: Seconds until a process counts as hanging.
HANGS_S = 5


@pytest.mark.usefixtures("xenmig_on_xen")
def test_a_host_is_let_go_while_another_thread_logs(fakexen_library: Path) -> None:
    environment = os.environ | {"LD_PRELOAD": str(fakexen_library), "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "tests.parity.loud_logger"]
    done = subprocess.run(
        command, env=environment, capture_output=True, text=True, timeout=HANGS_S, check=True
    )
    assert done.stdout == "both are closed\n"
