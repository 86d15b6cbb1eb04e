# SPDX-License-Identifier: GPL-3.0-or-later
"""What only a PV guest has: frames that come and go during a migration, and vCPUs in the stream."""

from __future__ import annotations

import contextlib
import subprocess
import threading
from typing import TYPE_CHECKING

import pytest
from tests.xen.frame import Frame
from tests.xen.guest import Guest

import xenmig
from xenmig.stream import StreamReader, X86PvVcpu

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.xen.conftest import Guests
    from tests.xen.guest import Images
    from tests.xen.toolstack import HelperName, Toolstack

FULL_MB, SMALL_MB = 128, 112
"""The guest's memory, and how far it is taken back; what is left must do for the workload."""
ROUNDS = 5
"""Enough for the memory to come back while the migration goes on."""


class Balloon:
    """Takes memory from a guest and gives it back, again and again."""

    def __init__(self, guest: Guest) -> None:
        """Starts it."""
        self._guest = guest
        self._domid = guest.domid
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self.sizes: list[int] = []
        """What the domain had after each step, in pages."""
        self._thread.start()

    def _run(self) -> None:
        host = xenmig.Xen()
        # When the guest has moved, its number is no more.
        with contextlib.suppress(xenmig.HypercallError):
            while not self._end.is_set():
                for size_mb in (SMALL_MB, FULL_MB):
                    self.set_target(self._domid, size_mb)
                    self._end.wait(0.3)
                    self.sizes.append(int(host.domain_info(self._domid)["total_pages"]))

    @staticmethod
    def set_target(domid: int, size_mb: int) -> None:
        """Has xl ask a guest to change its size. It may have gone meanwhile."""
        command = ["xl", "mem-set", str(domid), f"{size_mb}m"]
        subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, timeout=60, check=False)

    def stop(self) -> None:
        """Stops it, and gives all memory back to the guest, wherever it is."""
        self._end.set()
        self._thread.join()
        self.set_target(self._guest.domid, FULL_MB)


@pytest.fixture
def two_vcpus(dom0: Images, guests: Guests) -> Iterator[Guest]:
    """A guest that works on two vCPUs in turns."""
    yield from own_guest(Guest("xenmig-pv-two", "pv", dom0, vcpus=2), guests)


@pytest.fixture
def one_vcpu_offline(dom0: Images, guests: Guests) -> Iterator[Guest]:
    """A guest that could have a second vCPU, and has not started it."""
    yield from own_guest(Guest("xenmig-pv-offline", "pv", dom0, offline_vcpus=1), guests)


def own_guest(guest: Guest, guests: Guests) -> Iterator[Guest]:
    """Starts a guest of a test's own, and ends it."""
    guests.wait()
    guest.create()
    yield guest
    guest.destroy()


@pytest.fixture
def ballooned(dom0: Images, guests: Guests) -> Iterator[Guest]:
    """A guest whose size may be changed: what its balloon thinks of it is not as it was after a migration."""
    yield from own_guest(Guest("xenmig-pv-balloon", "pv", dom0), guests)


@pytest.mark.parametrize("restorer", ["xenmig", "stock"])
def test_memory_that_comes_and_goes_meanwhile(
    ballooned: Guest, toolstack: Toolstack, restorer: HelperName
) -> None:
    domid = ballooned.domid
    receive = toolstack.receiver(restorer)
    run = toolstack.start("migrate", "-s", "", ballooned.name, receive, policy=f"stop-after:rounds={ROUNDS}")
    # Not before: xl makes the new domain as large as this one is when it begins.
    run.helper_pid("save")
    balloon = Balloon(ballooned)
    try:
        result = run.wait().saved()
    finally:
        balloon.stop()
    assert result["rounds"] == ROUNDS
    assert ballooned.domid != domid
    # It went down and up again, by more than the odd page.
    assert max(balloon.sizes) - min(balloon.sizes) > (FULL_MB - SMALL_MB) * 256 // 2, balloon.sizes
    assert balloon.sizes.index(min(balloon.sizes)) < len(balloon.sizes) - 1, balloon.sizes
    ballooned.check_goes_on()
    toolstack.migrate(ballooned.name).saved()
    ballooned.check_goes_on()


def test_two_vcpus_go_on(two_vcpus: Guest, toolstack: Toolstack, tmp_path: Path) -> None:
    guest, image = two_vcpus, tmp_path / "image"
    for saver, restorer in (("xenmig", "xenmig"), ("xenmig", "stock"), ("stock", "xenmig")):
        toolstack.xl("save", guest.name, image, helper=saver).ok()
        assert vcpus_in(image) == {0, 1}
        toolstack.xl("restore", image, helper=restorer).ok()
        image.unlink()
        # One report on each of them, and one more.
        guest.check_goes_on(reports=3)
    toolstack.migrate(guest.name).saved()
    guest.check_goes_on(reports=3)


def test_a_vcpu_that_is_offline_stays_so(
    one_vcpu_offline: Guest, toolstack: Toolstack, tmp_path: Path
) -> None:
    guest, image = one_vcpu_offline, tmp_path / "image"
    assert vcpus_online(guest) == [True, False]
    toolstack.xl("save", guest.name, image).saved()
    assert vcpus_in(image) == {0}
    toolstack.xl("restore", image).ok()
    assert vcpus_online(guest) == [True, False]
    guest.check_goes_on()


def vcpus_in(image: Path) -> set[int]:
    """Returns the vCPUs whose state is in an image of ``xl save``."""
    with image.open("rb") as file:
        file.seek(len(Frame.of(image).before))
        return {record.vcpu_id for record in StreamReader(file) if isinstance(record, X86PvVcpu)}


def vcpus_online(guest: Guest) -> list[bool]:
    """Returns for each vCPU whether it is online, as ``xl vcpu-list`` shows it."""
    command = ["xl", "vcpu-list", guest.name]
    rows = subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()[1:]
    # An offline one has no processor: "NAME ID VCPU - --p TIME AFFINITY".
    return [row.split()[3] != "-" for row in rows]
