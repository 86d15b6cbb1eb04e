# SPDX-License-Identifier: GPL-3.0-or-later
"""Calls that fail, with both engines: the errno comes out, log-dirty is off, nothing is left, no END is
there.

Every single call that xenmig makes is in ``test_faults.py``.
"""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

import pytest
from tests.parity.protocol import DomainSpec, FakexenError, SaveOptions, Step
from tests.parity.test_save import END

if TYPE_CHECKING:
    from pathlib import Path

    from tests.parity.client import Worker
    from tests.parity.protocol import EngineName, SaveOutcome, Suspend

SPEC = DomainSpec(memory_pages=2500, steps=[Step("before_clean", 0, write=[(0, 100)])])
EMPTY = DomainSpec(memory_pages=2500, populated=False)

#: Calls that both engines make in a live save: kind, number of the call that fails, how many fail. Two in a
#: row must fail where the engine tries again (ENABLE_LOGDIRTY).
SAVE_CALLS = [
    ("getdomaininfo", 0, 1),
    ("maximum_gpfn", 0, 1),
    ("multicall", 0, 1),
    ("xen_version", 0, 1),
    ("sysctl_get_cpu_policy", 0, 1),
    ("get_cpu_policy", 0, 1),
    ("shadow_enable_logdirty", 0, 2),
    ("getpageframeinfo3", 0, 1),
    ("getpageframeinfo3", 2, 1),
    ("getpageframeinfo3", 3, 1),
    ("mmap", 0, 1),
    ("mmapbatch", 0, 1),
    ("mmapbatch", 3, 1),
    ("shadow_clean", 0, 1),
    ("shadow_clean", 1, 1),
    ("getdomaininfo", 1, 1),
    ("shadow_clean_final", 0, 1),
    ("gettscinfo", 0, 1),
    ("gethvmcontext", 0, 1),
    ("gethvmcontext", 1, 1),
    ("hvm_get_param", 0, 1),
    ("hvm_get_param", 15, 1),
]
#: Calls of a restore: kind, number.
RESTORE_CALLS = [
    ("getdomaininfo", 0),
    ("set_cpu_policy", 0),
    ("populate_physmap", 2),
    ("mmapbatch", 0),
    ("mmapbatch", 3),
    ("settscinfo", 0),
    ("hvm_set_param", 0),
    ("hvm_set_param", 9),
    ("sethvmcontext", 0),
    ("mmap_resource", 0),
]
#: Those that libxc needs besides: the size of the p2m; populating, where xenmig first asks for superpages,
#: which it can do without.
MORE_RESTORE_CALLS = [("maximum_gpfn", 0), ("populate_physmap", 0)]


@pytest.mark.parametrize(("kind", "nth", "times"), SAVE_CALLS)
def test_a_failing_call_of_a_save(
    *, xen: Worker, tmp_path: Path, engine: EngineName, kind: str, nth: int, times: int
) -> None:
    stream = tmp_path / "stream"
    domid = xen.create(SPEC)
    xen.inject(fault="errno", kind=kind, nth=nth, times=times, errno=errno.EPERM)
    saved = xen.save(engine, domid, stream)
    assert (saved.failed, saved.errno) == (True, errno.EPERM)
    assert saved.messages
    assert not stream.read_bytes().endswith(END)
    assert not xen.state(domid)["logdirty_on"]
    assert xen.counters()["calls"][kind] > nth, "the call was not reached"


@pytest.mark.parametrize(("kind", "nth"), RESTORE_CALLS)
def test_a_failing_call_of_a_restore(
    xen: Worker, tmp_path: Path, engine: EngineName, kind: str, nth: int
) -> None:
    restore_with_failing_call(xen, tmp_path / "stream", engine, kind, nth)


@pytest.mark.parametrize(("kind", "nth"), MORE_RESTORE_CALLS)
def test_a_failing_call_of_a_restore_by_libxc(xen: Worker, tmp_path: Path, kind: str, nth: int) -> None:
    restore_with_failing_call(xen, tmp_path / "stream", "libxc", kind, nth)


def restore_with_failing_call(xen: Worker, stream: Path, engine: EngineName, kind: str, nth: int) -> None:
    assert not xen.save("libxc", xen.create(SPEC), stream).failed
    target = xen.create(EMPTY)
    xen.inject(fault="errno", kind=kind, nth=nth, domid=target, errno=errno.EPERM)
    restored = xen.restore(engine, target, stream)
    assert (restored.failed, restored.errno) == (True, errno.EPERM)
    assert xen.counters(target)["calls"][kind] > nth, "the call was not reached"


def test_a_page_that_cannot_be_mapped_fails_the_save(xen: Worker, tmp_path: Path, engine: EngineName) -> None:
    domid = xen.create(SPEC)
    xen.inject(fault="page", domid=domid, pfn=2000, errno=errno.EINVAL)
    saved = xen.save(engine, domid, tmp_path / "stream", SaveOptions(live=False))
    assert saved.failed
    assert xen.counters(domid)["calls"]["mmapbatch"] == 2


def test_a_page_that_is_paged_out_is_waited_for(xen: Worker, tmp_path: Path, engine: EngineName) -> None:
    domid, target = xen.create(SPEC), xen.create(EMPTY)
    xen.inject(fault="page", domid=domid, pfn=2000, errno=errno.ENOENT, times=3)
    assert not xen.save(engine, domid, tmp_path / "stream", SaveOptions(live=False)).failed
    assert xen.counters(domid)["calls"]["mmapbatch"] == 3 + 3
    assert not xen.restore(engine, target, tmp_path / "stream").failed
    assert xen.differing(domid, target) == []


@pytest.mark.parametrize("live", [True, False], ids=["live", "non-live"])
@pytest.mark.parametrize("suspend", ["fails", "lies"])
def test_a_guest_that_does_not_suspend(
    *, xen: Worker, tmp_path: Path, engine: EngineName, suspend: Suspend, live: bool
) -> None:
    domid = xen.create(SPEC)
    saved = xen.save(engine, domid, tmp_path / "stream", SaveOptions(suspend=suspend, live=live))
    assert saved.failed
    assert not (tmp_path / "stream").read_bytes().endswith(END)
    state = xen.state(domid)
    assert (state["state"], state["logdirty_on"]) == ("running", False)
    if engine == "xenmig":
        # An exception of a callback comes out as it is.
        assert saved.error == ("CallbackError" if suspend == "fails" else "GuestNotSuspended")
        assert "resume" not in saved.events


def test_a_device_model_that_does_not_answer(xen: Worker, tmp_path: Path, engine: EngineName) -> None:
    domid = xen.create(SPEC)
    saved = xen.save(engine, domid, tmp_path / "stream", SaveOptions(qemu=-1))
    assert saved.failed
    assert saved.error == ("" if engine == "libxc" else "CallbackError")
    assert not (tmp_path / "stream").read_bytes().endswith(END)
    state = xen.state(domid)
    assert (state["state"], state["logdirty_on"]) == ("running", False)


def test_a_page_that_cannot_be_mapped_fails_the_restore(
    xen: Worker, tmp_path: Path, engine: EngineName
) -> None:
    assert not xen.save("libxc", xen.create(SPEC), tmp_path / "stream").failed
    target = xen.create(EMPTY)
    xen.inject(fault="page", domid=target, pfn=2000, errno=errno.EINVAL)
    restored = xen.restore(engine, target, tmp_path / "stream")
    assert restored.failed
    if engine == "xenmig":
        assert (restored.error, restored.errno) == ("HypercallError", errno.EINVAL)


def test_a_domain_that_is_too_small(xen: Worker, tmp_path: Path, engine: EngineName) -> None:
    assert not xen.save("libxc", xen.create(SPEC), tmp_path / "stream").failed
    target = xen.create(DomainSpec(memory_pages=2400, populated=False))
    restored = xen.restore(engine, target, tmp_path / "stream")
    assert restored.failed
    if engine == "xenmig":
        assert (restored.error, restored.errno) == ("HypercallError", errno.ENOMEM)


@pytest.mark.parametrize("kind", range(5, 9))
def test_a_page_type_that_no_xen_defines(xen: Worker, tmp_path: Path, engine: EngineName, kind: int) -> None:
    domid = xen.create(DomainSpec(memory_pages=2500, types=[(2000, kind)]))
    saved = xen.save(engine, domid, tmp_path / "stream")
    assert saved.failed
    assert not (tmp_path / "stream").read_bytes().endswith(END)
    if engine == "xenmig":
        assert (saved.error, saved.errno, saved.guest_state) == ("HypercallError", errno.EPROTO, "running")


def test_another_save_after_a_failed_one(xen: Worker, tmp_path: Path, engine: EngineName) -> None:
    domid, target = xen.create(SPEC), xen.create(EMPTY)
    xen.inject(fault="errno", kind="shadow_clean", errno=errno.EIO)
    assert xen.save(engine, domid, tmp_path / "stream").failed
    assert not xen.save(engine, domid, tmp_path / "stream").failed
    assert not xen.restore(engine, target, tmp_path / "stream").failed
    assert xen.differing(domid, target) == []


def test_a_domain_that_is_not_there(xen: Worker, tmp_path: Path, engine: EngineName) -> None:
    # Asked about domain 4, Xen 4.17 answers about domain 5.
    xen.create(DomainSpec(domid=5))
    for domid in (4, 6):
        saved = xen.save(engine, domid, tmp_path / "stream")
        assert saved.failed
        assert (tmp_path / "stream").read_bytes() == b""
        if engine == "xenmig":
            assert (saved.error, saved.errno) == ("HypercallError", errno.ESRCH)
            assert f"getdomaininfo of domain d{domid}" in saved.messages[0]


def test_pages_can_cost_time(xen: Worker, tmp_path: Path, engine: EngineName) -> None:
    def save() -> SaveOutcome:
        domid = xen.create(DomainSpec(memory_pages=1000))
        return xen.save(engine, domid, tmp_path / "stream", SaveOptions(live=False))

    xen.inject(fault="cost", map_ns_per_page=150_000, unmap_ns_per_page=150_000)
    assert save().seconds > 0.3
    xen.clear_faults()
    # On a busy machine a save may take long; it does not take much CPU time.
    assert save().cpu_seconds < 0.3


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ({"memory_pages": 0}, "multiple of 4096"),
        ({"memory": 5}, "unknown field `memory`"),
        ({"types": [[1, 16]]}, "0 to 15"),
        ({"cpu_policy": {"leaves": [[14, 0, 0, 0, 0, 0]]}}, "cpu_policy"),
        ({"workload": {"kind": "scripted", "steps": [{"when": "never"}]}}, "never"),
        ({"domid": 0x7FF0}, "no domid"),
    ],
)
def test_a_description_without_sense_is_refused(xen: Worker, spec: dict[str, object], said: str) -> None:
    with pytest.raises(FakexenError, match=said) as refused:
        xen.create_raw(spec)
    assert refused.value.errno == errno.EINVAL
    with pytest.raises(FakexenError, match="there is no domain 1"):
        xen.state(1)
