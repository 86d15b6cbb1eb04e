# SPDX-License-Identifier: GPL-3.0-or-later
"""Fixtures of the tests on the real Xen, which run in its dom0: ``pytest -m xen``.

Without Xen they are deselected. In a dom0 in which something is missing they are skipped, and say what; in
the testbed, which has ``XENMIG_TESTBED`` set, nothing may be missing.

``XENMIG_GUEST_KERNEL``, ``XENMIG_GUEST_RAMDISK`` and ``XENMIG_CONSOLE_LOGS`` say where the guests' images and
xenconsoled's logs are, on a machine that is not the testbed.
"""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import pytest
from tests.xen.guest import Guest, GuestKind, Images
from tests.xen.parts import one_part
from tests.xen.toolstack import Toolstack

import xenmig

if TYPE_CHECKING:
    from collections.abc import Iterator

HERE = Path(__file__).parent
KERNEL = "/guest/vmlinuz"
RAMDISK = "/guest/initrd.img"
CONSOLE_LOGS = "/var/log/xen/console"
TEST_TIMEOUT_S = 420
"""The first test of an HVM guest waits for its boot, and all is slow where Xen is emulated."""


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Marks the tests of this directory, and keeps one part of them if ``XENMIG_TEST_PART`` asks for it."""
    here = [item for item in items if HERE in item.path.parents]
    for item in here:
        item.add_marker("xen")
        item.add_marker(pytest.mark.timeout(TEST_TIMEOUT_S))
    part = os.environ.get("XENMIG_TEST_PART", "1/1")
    left_out = set(here) - set(one_part(here, part))
    items[:] = [item for item in items if item not in left_out]
    config.hook.pytest_deselected(items=list(left_out))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Says how many tests a real Xen has seen."""
    reports = [*terminalreporter.getreports("passed"), *terminalreporter.getreports("failed")]
    ran = {report.nodeid for report in reports if report.when == "call" and "xen" in report.keywords}
    skipped = len(terminalreporter.getreports("skipped"))
    if ran:
        major, minor = xenmig.Xen().version
        terminalreporter.write_line(f"{len(ran)} tests ran on Xen {major}.{minor}, {skipped} were skipped")


def missing(reason: str) -> NoReturn:
    """Skips a test because of something that the machine lacks."""
    if os.environ.get("XENMIG_TESTBED"):
        pytest.fail(f"in the testbed nothing may be missing: {reason}")
    pytest.skip(reason)


@pytest.fixture(scope="session")
def dom0(tmp_path_factory: pytest.TempPathFactory) -> Images:
    """A dom0 with all that the tests need, and where the guests' images are."""
    if os.geteuid() != 0:
        missing("only root may use xl")
    if (
        not Path("/proc/xen/capabilities").exists()
        or "control_d" not in Path("/proc/xen/capabilities").read_text()
    ):
        missing("this is no dom0 (/proc/xen/capabilities)")
    if shutil.which("xl") is None:
        missing("there is no xl: install xen-utils")
    try:
        xenmig.Xen()
    except xenmig.XenUnavailable as error:
        missing(str(error))
    images = Images(
        kernel=Path(os.environ.get("XENMIG_GUEST_KERNEL", KERNEL)),
        ramdisk=Path(os.environ.get("XENMIG_GUEST_RAMDISK", RAMDISK)),
        console_logs=Path(os.environ.get("XENMIG_CONSOLE_LOGS", CONSOLE_LOGS)),
        work=tmp_path_factory.mktemp("guests"),
    )
    for image in (images.kernel, images.ramdisk):
        if not image.exists():
            missing(f"there is no {image}: tests/xen/testbed/README.md says how to make it")
    if not images.console_logs.is_dir():
        missing(f"there is no {images.console_logs}: start xenconsoled with --log=guest")
    return images


@pytest.fixture(scope="session")
def helper(dom0: Images) -> Path:  # noqa: ARG001 - only there it is of use
    """``xenmig-save-helper``."""
    beside = Path(sys.executable).with_name("xenmig-save-helper")
    found = str(beside) if beside.exists() else shutil.which("xenmig-save-helper")
    if found is None:
        missing("there is no xenmig-save-helper in PATH: install the wheel")
    return Path(found)


@pytest.fixture
def tmp_path(tmp_path: Path) -> Iterator[Path]:
    """A directory for images of domains. They are large, and it may be memory: nothing is kept of them."""
    yield tmp_path
    shutil.rmtree(tmp_path)


@pytest.fixture
def toolstack(helper: Path, tmp_path: Path) -> Iterator[Toolstack]:
    """``xl`` with our helper. Nothing of it outlives the test."""
    toolstack = Toolstack(helper, tmp_path)
    yield toolstack
    toolstack.close()


class Guests:
    """The guests of the session, one of each kind. They boot when they are first used."""

    def __init__(self, images: Images) -> None:
        self._images = images
        self._guests: dict[GuestKind, Guest] = {}

    def get(self, kind: GuestKind) -> Guest:
        """Returns a guest that runs and is well. The others wait, and cost no processor."""
        self.wait(but=kind)
        guest = self._guests.get(kind)
        if guest is None:
            guest = self._guests[kind] = Guest(f"xenmig-{kind}", kind, self._images)
        guest.ready()
        return guest

    def wait(self, but: GuestKind | None = None) -> None:
        """Stops their processors, all but those of one kind."""
        for guest in self._guests.values():
            if guest.kind != but:
                guest.pause()

    def destroy(self) -> None:
        """Ends them all."""
        for guest in self._guests.values():
            guest.destroy()


@pytest.fixture(scope="session")
def guests(dom0: Images) -> Iterator[Guests]:
    """All guests."""
    guests = Guests(dom0)
    yield guests
    guests.destroy()


# Of the session, so that all tests of one kind come one after the other.
@pytest.fixture(scope="session", params=["pvh", "hvm", "pv"])
def guest_kind(request: pytest.FixtureRequest) -> GuestKind:
    """Each kind of guest that xenmig saves."""
    kind: GuestKind = request.param
    return kind


@pytest.fixture
def guest(guests: Guests, guest_kind: GuestKind) -> Guest:
    """A running guest of each kind, with a busy workload."""
    return guests.get(guest_kind)


@pytest.fixture(params=["pvh", "pv"])
def guest_alone(guests: Guests, request: pytest.FixtureRequest) -> Guest:
    """A running guest of each kind that has no device model."""
    return guests.get(request.param)


@pytest.fixture
def pvh_guest(guests: Guests) -> Guest:
    """A running PVH guest, with a busy workload."""
    return guests.get("pvh")


@pytest.fixture
def hvm_guest(guests: Guests) -> Guest:
    """A running HVM guest, with a busy workload."""
    return guests.get("hvm")


@pytest.fixture
def pv_guest(guests: Guests) -> Guest:
    """A running PV guest, with a busy workload."""
    return guests.get("pv")
