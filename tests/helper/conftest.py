# SPDX-License-Identifier: GPL-3.0-or-later
"""Fixtures of the save helper's tests: the helper, libxl's own, and a libxl that a test plays."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from tests.helper.toolstack import Starter
from tests.parity.conftest import fakexen_library, xen_libraries

import xenmig

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["fakexen_library", "xen_libraries"]

STOCK_HELPER = Path("/usr/lib/xen-4.17/bin/libxl-save-helper")
DOOR = Path(__file__).with_name("door.c")


@pytest.fixture(scope="session")
def helper() -> Path:
    """``xenmig-save-helper``, as it was installed with the package that is tested."""
    program = Path(sys.executable).with_name("xenmig-save-helper")
    assert program.exists(), f"there is no {program}: install the wheel (make .venv/installed)"
    return program


@pytest.fixture(scope="session")
def stock_helper() -> Path:
    """libxl's own helper; tests are skipped where it is not installed."""
    if not STOCK_HELPER.exists():
        pytest.skip(f"there is no {STOCK_HELPER}: install Debian's xen-utils-4.17")
    return STOCK_HELPER


@pytest.fixture(scope="session")
def door_library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``door.c``, compiled."""
    compiler = shutil.which("cc")
    assert compiler is not None, "a C compiler is needed to build the door into the helper's process"
    library = tmp_path_factory.mktemp("door") / "door.so"
    flags = ["-std=c11", "-Wall", "-Wextra", "-Werror", "-O1", "-shared", "-fPIC", "-pthread"]
    subprocess.run([compiler, *flags, "-o", library, DOOR], check=True)
    return library


@pytest.fixture(scope="session")
def xen_in_xenmig(xen_libraries: None) -> None:  # noqa: ARG001 - they must be there
    """xenmig with the real Xen in it; tests are skipped where it was built without."""
    try:
        xenmig.Xen()
    except xenmig.XenUnavailable as error:
        if "no support for Xen" in str(error):
            pytest.skip(str(error))


@pytest.fixture
def starter(
    tmp_path: Path,
    fakexen_library: Path,
    door_library: Path,
    xen_in_xenmig: None,  # noqa: ARG001 - it must be there
) -> Iterator[Starter]:
    """Starts helpers on a simulated host. None of them outlives the test."""
    starter = Starter(tmp_path, [fakexen_library, door_library])
    yield starter
    starter.close()


@pytest.fixture
def bare_starter(tmp_path: Path) -> Iterator[Starter]:
    """Starts helpers where there is no Xen."""
    starter = Starter(tmp_path, [])
    yield starter
    starter.close()
