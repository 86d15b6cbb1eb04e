# SPDX-License-Identifier: GPL-3.0-or-later
"""The simulated host as users see it: sizes, workloads, and the errors of both."""

from __future__ import annotations

import errno
import time
from typing import TYPE_CHECKING, Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xenmig import HypercallError, SimError, save
from xenmig._native import SimHost
from xenmig.sim import (
    MAX_MEMORY_BYTES,
    MIN_MEMORY_BYTES,
    Domain,
    Host,
    HotCold,
    Idle,
    Phase,
    Phased,
    Pv,
    Scripted,
    Step,
    Uniform,
    Workload,
    memory_bytes,
)
from xenmig.sim.workload import native_workload

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("256M", 256 << 20),
        ("256 MiB", 256 << 20),
        ("256mb", 256 << 20),
        ("1G", 1 << 30),
        ("1.5GiB", 3 << 29),
        (" 65536k ", 64 << 20),
        ("64G", 64 << 30),
        (64 << 20, 64 << 20),
    ],
)
def test_sizes(text: str | int, size: int) -> None:
    assert memory_bytes(text) == size


@given(
    st.integers(MIN_MEMORY_BYTES >> 20, MAX_MEMORY_BYTES >> 20), st.sampled_from(["M", "MB", "MiB", "mib"])
)
def test_every_number_of_mib_means_itself(mib: int, unit: str) -> None:
    assert memory_bytes(f"{mib}{unit}") == memory_bytes(mib << 20) == mib << 20


@pytest.mark.parametrize(
    "text", ["", "256", "M", "-64M", "64 M B", "1e3M", "64T", "64Mi", "nanG", "64M\n64M"]
)
def test_what_is_no_size_is_refused(text: str) -> None:
    with pytest.raises(SimError, match="is no size of memory: write it as 256M"):
        memory_bytes(text)


@pytest.mark.parametrize(
    "size", [0, -1, MIN_MEMORY_BYTES - 4096, "63M", MAX_MEMORY_BYTES + 4096, "65G", "1000000G"]
)
def test_the_limits_are_kept_and_named(size: str | int) -> None:
    with pytest.raises(SimError, match="a simulated domain has 64 MiB to 64 GiB"):
        memory_bytes(size)


def test_memory_is_whole_pages_and_a_number() -> None:
    with pytest.raises(SimError, match="whole number of pages of 4096 bytes"):
        memory_bytes(MIN_MEMORY_BYTES + 1)
    for wrong in (True, 64.0, None):
        with pytest.raises(TypeError, match="memory is a number of bytes or a string"):
            memory_bytes(wrong)  # type: ignore[arg-type]


WRITING = [
    Uniform(pages_per_s=20000),
    HotCold(hot_pages=100, hot_pages_per_s=20000, cold_pages_per_s=10),
    Phased([Phase(0.01, Idle()), Phase(0.01, Uniform(20000))]),
]


@pytest.mark.parametrize("workload", WRITING, ids=lambda workload: type(workload).__name__)
def test_a_workload_writes(host: Host, workload: Workload) -> None:
    guest = host.create(memory="64M", workload=workload)
    deadline = time.monotonic() + 5
    while guest.pages_written < 100:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    host.set_workload(guest.domid, Idle())
    written = guest.pages_written
    time.sleep(0.05)
    assert guest.pages_written == written


def test_a_script_acts_where_it_says(host: Host, tmp_path: Path) -> None:
    script = [Step("clean", 0, "write", 7), Step("clean", 0, "write", 8), Step("suspend", 0, "write", 9)]
    guest = host.create(memory="64M", workload=Scripted(script))
    before = guest.read_page(9)
    with (tmp_path / "stream").open("wb") as file:
        result = save(guest.domid, file, host=host)
    # The first pass was for all memory, the second for what the first CLEAN found.
    assert result.passes[1].dirty_count == 2
    assert guest.read_page(9) != before


@pytest.mark.parametrize(
    ("workload", "error"),
    [
        (Uniform(-1), "pages_per_s"),
        (HotCold(0, 1), "hot_pages is 0"),
        (HotCold(1 << 40, 1), "hot_pages"),
        (Phased([]), "at least one phase"),
        (Phased([Phase(1, Phased([Phase(1, Idle())]))]), "a phase must be idle, uniform or hot/cold"),  # type: ignore[arg-type]
    ],
    ids=lambda value: str(value)[:30],
)
def test_a_workload_that_makes_no_sense_is_refused(host: Host, workload: Workload, error: str) -> None:
    with pytest.raises(SimError, match=error):
        host.create(memory="64M", workload=workload)
    assert host.domids == []


def test_a_workload_is_one_of_the_classes(host: Host) -> None:
    for wrong in ("hotcold", Uniform, 5):
        with pytest.raises(TypeError, match=r"give one of xenmig\.sim"):
            host.create(memory="64M", workload=wrong)  # type: ignore[arg-type]


def test_workloads_are_values() -> None:
    assert HotCold(10, 5.0) == HotCold(hot_pages=10, hot_pages_per_s=5.0, cold_pages_per_s=0.0)
    assert native_workload(HotCold(10, 5.0)) == (
        "hotcold",
        {"hot_pages": 10, "hot_pages_per_s": 5.0, "cold_pages_per_s": 0.0},
    )
    with pytest.raises(AttributeError):
        Uniform(1).pages_per_s = 2  # type: ignore[misc]


def test_domains_are_made_found_and_destroyed(host: Host) -> None:
    first, second = host.create(memory="64M"), host.create(memory="64M", domid=7, populated=False)
    assert host.domids == [1, 7]
    assert (first.state, second.state) == ("running", "paused")
    assert (first.pages_populated, second.pages_populated) == ((64 << 20) // 4096 + 8, 0)
    assert host.domain(7).domid == 7
    host.destroy(7)
    assert host.domids == [1]
    for act in (host.domain, host.destroy):
        with pytest.raises(HypercallError) as caught:
            act(7)
        assert caught.value.errno == errno.ESRCH
    with pytest.raises(SimError, match="exists already"):
        host.create(memory="64M", domid=1)


def test_a_native_host_is_a_host_too(tmp_path: Path) -> None:
    host = SimHost()
    guest = host.create(memory=64 << 20)
    with (tmp_path / "stream").open("wb") as file:
        assert save(guest.domid, file, host=host).guest_state == "suspended"


def test_a_host_says_what_it_holds(host: Host) -> None:
    host.create(memory="64M")
    assert repr(host) == "<xenmig.sim.Host with domids [1]>"


def test_special_pages_make_a_long_p2m(host: Host) -> None:
    sizes: dict[bool, Any] = {
        special: host.create(memory="64M", special_pages=special).p2m_size for special in (True, False)
    }
    assert sizes == {True: 0xFF000, False: (64 << 20) // 4096}


@pytest.mark.parametrize("width", [32, 64])
@pytest.mark.parametrize("p2m", ["list", "tree"])
def test_a_pv_guest_is_made_and_sound(
    host: Host, width: Literal[32, 64], p2m: Literal["list", "tree"]
) -> None:
    pv = Pv(width, p2m, spare_pfns=1000, offline_vcpus=[1])
    guest = host.create(memory="64M", vcpus=3, pv=pv)
    guest.check_pv()
    pages = (64 << 20) // 4096
    assert (guest.p2m_size, guest.pages_populated) == (pages + 1000, pages)
    guest.fill(1)
    guest.suspend()
    guest.check_pv()
    twin = host.create(memory="64M", vcpus=3, pv=pv)
    twin.fill(1)
    twin.suspend()
    assert twin.fingerprint() == guest.fingerprint()
    assert twin.differing_pages(guest) == []
    twin.resume()
    twin.check_pv()


def test_a_pv_guests_kernel_is_busy(host: Host) -> None:
    pv = Pv(ptes_per_s=5000, tables_per_s=1000, balloons_per_s=5000)
    guest = host.create(memory="64M", pv=pv)
    pages = guest.pages_populated
    deadline = time.monotonic() + 20
    while guest.pages_populated == pages:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    guest.suspend()
    guest.check_pv()


@pytest.mark.parametrize(
    ("pv", "error"),
    [
        (Pv(width=16), "32 or 64 bits"),  # type: ignore[arg-type]
        (Pv(p2m="map"), "p2m is 'map': give one of 'list', 'tree'"),  # type: ignore[arg-type]
        (Pv(spare_pfns=-1), "-1"),
    ],
    ids=lambda value: str(value)[:30],
)
def test_what_is_no_pv_guest_is_refused(host: Host, pv: Pv, error: str) -> None:
    with pytest.raises(ValueError, match=error):
        host.create(memory="64M", pv=pv)


def test_a_pv_guest_that_makes_no_sense_is_refused(host: Host) -> None:
    for pv, error in [
        (Pv(offline_vcpus=[0]), "from 1 on"),
        (Pv(spare_pfns=1 << 25), "below 0x2000000"),
        (Pv(ptes_per_s=-1), "ptes_per_s"),
    ]:
        with pytest.raises(SimError, match=error):
            host.create(memory="64M", pv=pv)
    with pytest.raises(SimError, match="no frames left"):
        host.create(memory="6G", pv=Pv())
    with pytest.raises(TypeError, match=r"give a xenmig\.sim\.Pv"):
        host.create(memory="64M", pv={})  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="no parameter 'mfns'"):
        SimHost().create(memory=64 << 20, special_pages=False, pv={"mfns": 3})
    with pytest.raises(SimError, match="special pages"):
        SimHost().create(memory=64 << 20, pv={})
    assert host.domids == []


def test_a_guest_that_is_no_pv_guest_is_not_checked(host: Host) -> None:
    with pytest.raises(SimError, match="no PV guest"):
        host.create(memory="64M").check_pv()


@pytest.mark.parametrize("number", [errno.EBUSY, errno.EAGAIN, errno.EINTR])
def test_a_suspension_is_tried_again_while_the_host_is_busy(
    host: Host, domain: Domain, tmp_path: Path, number: int
) -> None:
    for nth in range(3):
        domain.inject("errno", verb="suspend", nth=nth, errno=number)
    with (tmp_path / "stream").open("wb") as file:
        save(domain.domid, file, host=host)
    assert (domain.state, domain.logdirty) == ("suspended", False)
