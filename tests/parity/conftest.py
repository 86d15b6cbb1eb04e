# SPDX-License-Identifier: GPL-3.0-or-later
"""Fixtures of the parity tests: the fake kernel, a worker process, and that tests leave it clean."""

from __future__ import annotations

import ctypes
import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from tests.parity.client import ROOT, Worker
from tests.parity.engine import MODULES
from tests.parity.libxc import SONAMES
from tests.parity.verify import SCRIPT, Verifier

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.parity.protocol import EngineName


class WorkerPool:
    """Keeps one worker process, and starts another if a test broke it."""

    def __init__(self, library: Path, verifier: Verifier) -> None:
        self._library = library
        self._verifier = verifier
        self._worker: Worker | None = None

    def get(self) -> Worker:
        """Returns a worker that runs."""
        if self._worker is None or not self._worker.alive:
            self.close()
            self._worker = Worker(self._library, self._verifier.check)
        return self._worker

    def close(self) -> None:
        """Ends the worker."""
        if self._worker is not None:
            self._worker.close()
            self._worker = None


@pytest.fixture(scope="session")
def fakexen_library() -> Path:
    """``libfakexen.so``: the one that ``XENMIG_FAKEXEN`` names, or built from the sources."""
    if named := os.environ.get("XENMIG_FAKEXEN"):
        return Path(named)
    cargo = shutil.which("cargo")
    assert cargo is not None, "cargo is needed to build libfakexen.so"
    command = [cargo, "build", "--quiet", "--locked", "--package=xenmig-fakexen", "--message-format=json"]
    built = subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True).stdout
    files = (Path(name) for line in built.splitlines() for name in json.loads(line).get("filenames", []))
    return next(file for file in files if file.name == "libfakexen.so")


@pytest.fixture(scope="session")
def xen_libraries() -> None:
    """The real Xen libraries; tests are skipped where they are not installed."""
    try:
        for name in SONAMES:
            ctypes.CDLL(name, mode=ctypes.RTLD_GLOBAL)
    except OSError as error:
        pytest.skip(f"{error}: install Debian's libxenmisc4.17")


@pytest.fixture(scope="session")
def verifier() -> Verifier:
    """Xen's own verifier, which checks every stream that xenmig writes; without it tests are skipped."""
    if not SCRIPT.exists():
        pytest.skip(f"there is no {SCRIPT}: install Debian's xen-utils-4.17")
    return Verifier()


@pytest.fixture(scope="session")
def worker_pool(
    fakexen_library: Path,
    xen_libraries: None,  # noqa: ARG001 - they must be there
    verifier: Verifier,
) -> Iterator[WorkerPool]:
    """The worker process of this session."""
    pool = WorkerPool(fakexen_library, verifier)
    yield pool
    pool.close()


@pytest.fixture(scope="session")
def xenmig_on_xen(worker_pool: WorkerPool) -> None:
    """xenmig with the real Xen in it; tests are skipped where it cannot be built with it."""
    try:
        worker_pool.get().load("xenmig")
    except RuntimeError as error:
        script = ROOT / "scripts" / "xen-features.sh"
        buildable = subprocess.run(
            ["bash", script], check=True, stdout=subprocess.PIPE, text=True
        ).stdout.strip()
        if "XenUnavailable" not in str(error) or buildable:
            raise
        pytest.skip(str(error))


@pytest.fixture(params=MODULES)
def engine(request: pytest.FixtureRequest) -> EngineName:
    """Each engine in turn."""
    name: EngineName = request.param
    if name == "xenmig":
        request.getfixturevalue("xenmig_on_xen")
    return name


@pytest.fixture
def tmp_path(tmp_path: Path) -> Iterator[Path]:
    """A directory for streams. They are large: nothing is kept of them."""
    yield tmp_path
    shutil.rmtree(tmp_path)


@pytest.fixture
def xen(worker_pool: WorkerPool) -> Iterator[Worker]:
    """A fake host without domains. When the test ends, nothing may be mapped, allocated or open any more."""
    worker = worker_pool.get()
    worker.reset()
    yield worker
    if worker.alive:
        left = worker.left()
        unsafe = worker.counters()["unsafe_pointers"]
        if left:
            worker_pool.close()
        assert not left, "the test left something behind"
        assert not unsafe, "a hypercall's argument was not in hypercall memory"
