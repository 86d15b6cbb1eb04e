# SPDX-License-Identifier: GPL-3.0-or-later
"""Each single call that xenmig makes fails once: the exception says which and why, and nothing is left.

The calls are found by counting those of a job that succeeds: none is forgotten when the engine changes.
"""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

import pytest
from tests.parity.protocol import DomainSpec, SaveOptions, Step
from tests.parity.test_save import END

if TYPE_CHECKING:
    from pathlib import Path

    from tests.parity.client import Worker
    from tests.parity.conftest import WorkerPool
    from tests.parity.protocol import RestoreOutcome, SaveOutcome

pytestmark = pytest.mark.usefixtures("xenmig_on_xen")

SPEC = DomainSpec(
    memory_pages=2500, steps=[Step("before_clean", 0, write=[(0, 100)]), Step("at_suspend", write=[9])]
)
EMPTY = DomainSpec(memory_pages=2500, populated=False)

#: Kinds of calls of a live save, and what an error's message calls them.
SAVE_KINDS = {
    "open": "",
    "xen_version": "xen_version",
    "getdomaininfo": "getdomaininfo",
    "multicall": "maximum_gpfn",
    "maximum_gpfn": "maximum_gpfn",
    "get_cpu_policy": "get_cpu_policy",
    "sysctl_get_cpu_policy": "get_cpu_policy",
    "shadow_enable_logdirty": "shadow_op ENABLE_LOGDIRTY",
    "shadow_clean": "shadow_op CLEAN",
    "shadow_clean_final": "shadow_op CLEAN",
    "shadow_off": "shadow_op OFF",
    "getpageframeinfo3": "getpageframeinfo3",
    "mmap": "foreign mapping",
    "mmapbatch": "foreign mapping",
    "gettscinfo": "gettscinfo",
    "gethvmcontext": "gethvmcontext",
    "hvm_get_param": "get_param",
}
#: Kinds of calls of a restore.
RESTORE_KINDS = {
    "open": "",
    "xen_version": "xen_version",
    "getdomaininfo": "getdomaininfo",
    "set_cpu_policy": "set_cpu_policy",
    "multicall": "populate_physmap",
    "populate_physmap": "populate_physmap",
    "mmap": "foreign mapping",
    "mmapbatch": "foreign mapping",
    "settscinfo": "settscinfo",
    "hvm_set_param": "HVM parameter",
    "sethvmcontext": "sethvmcontext",
    "mmap_resource": "seeding the grant table",
}
#: Of these, the first so many calls belong to the opening of Xen: there is no job yet.
OPENING = {"open": 9, "xen_version": 1, "getdomaininfo": 1}
#: Memory for the arguments of hypercalls. It is allocated within other calls, and has a test of its own.
ALLOCATION = "alloc_buffer"
#: Superpages that cannot be had are replaced by small pages: calls of a restore that may fail.
SUPERPAGE_CALLS = 2


@pytest.fixture(autouse=True)
def _loaded(xen: Worker) -> None:
    """The engine opens Xen once when it is loaded: before calls are counted."""
    xen.load("xenmig")


@pytest.fixture(scope="module")
def calls(worker_pool: WorkerPool, tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, int]]:
    """How many calls of each kind a save and a restore make."""
    xen, stream = worker_pool.get(), tmp_path_factory.mktemp("calls") / "stream"
    xen.load("xenmig")
    xen.reset()
    assert not xen.save("xenmig", xen.create(SPEC), stream).failed
    made = {"save": dict(xen.counters()["calls"])}
    xen.reset()
    assert not xen.restore("xenmig", xen.create(EMPTY), stream).failed
    made["restore"] = dict(xen.counters()["calls"])
    stream.unlink()
    return made


def test_no_kind_is_forgotten(calls: dict[str, dict[str, int]]) -> None:
    assert set(calls["save"]) == {*SAVE_KINDS, ALLOCATION}
    assert set(calls["restore"]) == {*RESTORE_KINDS, ALLOCATION}
    assert all(job[kind] >= count for job in calls.values() for kind, count in OPENING.items())


def assert_failed_well(xen: Worker, saved: SaveOutcome, domid: int, stream: Path, op: str) -> None:
    """Asserts that a save failed with EPERM at a call, and that everything is as before."""
    assert (saved.failed, saved.error, saved.errno) == (True, "HypercallError", errno.EPERM)
    assert op in saved.messages[0]
    assert len(saved.messages) == 1, "nothing else went wrong"
    assert not stream.read_bytes().endswith(END)
    suspended = "suspend" in saved.events
    assert saved.guest_state == ("resumed" if suspended else "running")
    assert saved.events.count("resume") == suspended
    assert saved.events.count("qemu_logdirty 1") == saved.events.count("qemu_logdirty 0")
    state = xen.state(domid)
    assert (state["state"], state["logdirty_on"]) == ("running", False)
    assert xen.left() == {}


@pytest.mark.parametrize("kind", [kind for kind in SAVE_KINDS if kind != "shadow_off"])
def test_each_call_of_a_save(
    xen: Worker, tmp_path: Path, calls: dict[str, dict[str, int]], kind: str
) -> None:
    stream = tmp_path / "stream"
    for nth in range(calls["save"][kind]):
        xen.reset()
        domid, target = xen.create(SPEC), xen.create(EMPTY)
        # Log-dirty mode may be on, so that a first failure means nothing.
        times = 2 if kind == "shadow_enable_logdirty" else 1
        xen.inject(fault="errno", kind=kind, nth=nth, times=times, errno=errno.EPERM)
        saved = xen.save("xenmig", domid, stream)
        if nth < OPENING.get(kind, 0):
            assert (saved.error, saved.errno, saved.events) == ("XenUnavailable", errno.EPERM, []), nth
            assert (stream.stat().st_size, xen.left()) == (0, {})
        else:
            assert_failed_well(xen, saved, domid, stream, SAVE_KINDS[kind])
        assert xen.counters()["calls"][kind] > nth, "the call was not reached"
        # It can be tried again at once.
        again = xen.save("xenmig", domid, stream)
        assert not again.failed, again.messages
        assert not xen.restore("libxc", target, stream).failed
        assert xen.differing(domid, target) == []


@pytest.mark.parametrize("kind", RESTORE_KINDS)
def test_each_call_of_a_restore(
    xen: Worker, tmp_path: Path, calls: dict[str, dict[str, int]], kind: str
) -> None:
    stream = tmp_path / "stream"
    source = xen.create(SPEC)
    assert not xen.save("xenmig", source, stream).failed
    for nth in range(calls["restore"][kind]):
        target = xen.create(EMPTY)
        before = xen.counters()["calls"].get(kind, 0)
        xen.inject(fault="errno", kind=kind, nth=nth, errno=errno.EPERM)
        restored = xen.restore("xenmig", target, stream)
        assert xen.counters()["calls"][kind] > before + nth, "the call was not reached"
        assert xen.left() == {}
        if RESTORE_KINDS[kind] == "populate_physmap" and nth < SUPERPAGE_CALLS:
            assert not restored.failed, (nth, restored.messages)
            assert xen.differing(source, target) == []
        elif nth < OPENING.get(kind, 0):
            assert (restored.error, restored.errno) == ("XenUnavailable", errno.EPERM), nth
        else:
            assert (restored.error, restored.errno) == ("HypercallError", errno.EPERM), (nth, restored)
            # The grant table is mapped in the end.
            last = kind == "mmap" and nth == calls["restore"][kind] - 1
            assert RESTORE_KINDS["mmap_resource" if last else kind] in restored.messages[0]
        xen.clear_faults()
        xen.destroy(target)
        # Another domain can be made of the same stream.
        fresh = xen.create(EMPTY)
        assert not xen.restore("xenmig", fresh, stream).failed
        assert xen.differing(source, fresh) == []
        xen.destroy(fresh)


@pytest.mark.parametrize("job", ["save", "restore"])
def test_each_allocation_of_hypercall_memory(
    *, worker_pool: WorkerPool, tmp_path: Path, calls: dict[str, dict[str, int]], job: str
) -> None:
    stream = tmp_path / "stream"
    failures, left = 0, []
    for nth in range(calls[job][ALLOCATION]):
        xen = worker_pool.get()
        xen.load("xenmig")
        xen.reset()
        source, target = xen.create(SPEC), xen.create(EMPTY)
        if job == "restore":
            assert not xen.save("libxc", source, stream).failed
        xen.inject(fault="errno", kind=ALLOCATION, nth=nth, errno=errno.ENOMEM)
        outcome: SaveOutcome | RestoreOutcome
        if job == "restore":
            outcome = xen.restore("xenmig", target, stream)
        else:
            outcome = xen.save("xenmig", source, stream)
            assert outcome.failed
            assert not stream.read_bytes().endswith(END)
            state = xen.state(source)
            assert (state["state"], state["logdirty_on"]) == ("running", False)
        assert xen.counters()["calls"][ALLOCATION] > nth, "the call was not reached"
        if outcome.failed:
            assert outcome.error == ("XenUnavailable" if nth == 0 else "HypercallError")
            assert outcome.errno == errno.ENOMEM
            failures += 1
        else:
            assert xen.differing(source, target) == []
        if xen.left():
            left.append(xen.left())
            worker_pool.close()
    # A restore that cannot ask for superpages asks for small pages: each such call allocates twice at most.
    assert failures >= calls[job][ALLOCATION] - 2 * SUPERPAGE_CALLS
    # libxenctrl's memory_op itself leaks its argument, of one page, if its second allocation fails; so does
    # a save by libxc. Nothing of the save is left.
    assert left == [{"buffers_now": 1}]


@pytest.mark.parametrize(
    "number", [errno.EINVAL, errno.ENOMEM, errno.EFAULT, errno.ESRCH, errno.EACCES, errno.ENOSYS]
)
@pytest.mark.parametrize("kind", ["shadow_clean", "getpageframeinfo3", "shadow_clean_final", "gethvmcontext"])
def test_an_errno_comes_out_as_it_is(xen: Worker, tmp_path: Path, kind: str, number: int) -> None:
    domid = xen.create(SPEC)
    xen.inject(fault="errno", kind=kind, times=9, errno=number)
    saved = xen.save("xenmig", domid, tmp_path / "stream")
    assert (saved.error, saved.errno) == ("HypercallError", number)


def test_log_dirty_mode_that_cannot_be_switched_off_is_a_warning(xen: Worker, tmp_path: Path) -> None:
    domid = xen.create(SPEC)
    xen.inject(fault="errno", kind="shadow_off", errno=errno.EPERM)
    saved = xen.save("xenmig", domid, tmp_path / "stream")
    assert not saved.failed
    assert len(saved.messages) == 1
    assert "log-dirty mode is still on" in saved.messages[0]
    assert (tmp_path / "stream").read_bytes().endswith(END)


def test_a_failure_says_that_log_dirty_mode_is_still_on(xen: Worker, tmp_path: Path) -> None:
    domid = xen.create(SPEC)
    xen.inject(fault="errno", kind="shadow_off", errno=errno.EACCES)
    xen.inject(fault="errno", kind="shadow_clean", errno=errno.EPERM)
    saved = xen.save("xenmig", domid, tmp_path / "stream")
    assert (saved.error, saved.errno, saved.guest_state) == ("HypercallError", errno.EPERM, "running")
    assert "log-dirty mode is still on" in saved.messages[1]


@pytest.mark.parametrize("kind", ["shadow_clean_final", "gettscinfo", "hvm_get_param"])
def test_without_a_way_to_resume_it_the_guest_stays_suspended(xen: Worker, tmp_path: Path, kind: str) -> None:
    domid = xen.create(SPEC)
    xen.inject(fault="errno", kind=kind, errno=errno.EPERM)
    saved = xen.save("xenmig", domid, tmp_path / "stream", SaveOptions(resume=False))
    assert (saved.error, saved.errno, saved.guest_state) == ("HypercallError", errno.EPERM, "suspended")
    state = xen.state(domid)
    assert (state["state"], state["logdirty_on"]) == ("shutdown", False)


def test_the_state_of_a_guest_that_cannot_be_asked_for_is_unknown(xen: Worker, tmp_path: Path) -> None:
    domid = xen.create(SPEC)
    xen.inject(fault="errno", kind="shadow_clean_final", errno=errno.EPERM)
    xen.inject(fault="errno", kind="getdomaininfo", domid=domid, nth=4, errno=errno.EACCES)
    saved = xen.save("xenmig", domid, tmp_path / "stream")
    assert (saved.error, saved.errno, saved.guest_state) == ("HypercallError", errno.EPERM, "unknown")
    assert "resume" not in saved.events
    assert not xen.state(domid)["logdirty_on"]
