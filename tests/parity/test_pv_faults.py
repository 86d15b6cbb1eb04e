# SPDX-License-Identifier: GPL-3.0-or-later
"""Each single call that an engine makes for a PV guest fails once: the errno comes out, log-dirty mode is
off, nothing is left mapped, no END is written, and it can be tried again. xenmig also says which call it was.

The calls are found by counting those of a job that succeeds.
"""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

import pytest
from tests.parity.compare import records
from tests.parity.engine import MODULES
from tests.parity.protocol import PvSpec, SaveOptions, Step
from tests.parity.pv_shapes import empty, shape
from tests.parity.test_faults import ALLOCATION, OPENING

if TYPE_CHECKING:
    from pathlib import Path

    from tests.parity.client import Worker
    from tests.parity.conftest import WorkerPool
    from tests.parity.protocol import EngineName

pytestmark = pytest.mark.usefixtures("xenmig_on_xen")

STEPS = [Step("before_clean", 0, write=[(0, 100)]), Step("at_suspend", write=[9])]
SPECS = {
    "32 bits": shape(PvSpec(width=4, offline_vcpus=[1]), 300, vcpus=3, steps=STEPS),
    "64 bits, tree": shape(PvSpec(tree=True), 300, steps=STEPS),
}
#: Kinds of calls of a live save, and what an error's message of xenmig calls them. Those of the last lines
#: are made for 32-bit guests only.
SAVE_KINDS = {
    "open": "",
    "xen_version": "xen_version",
    "getdomaininfo": "getdomaininfo",
    "multicall": "",
    "get_address_size": "get_address_size",
    "maximum_ram_page": "maximum_ram_page",
    "machphys_mfn_list": "machphys_mfn_list",
    "get_cpu_policy": "get_cpu_policy",
    "sysctl_get_cpu_policy": "get_cpu_policy",
    "shadow_enable_logdirty": "shadow_op ENABLE_LOGDIRTY",
    "shadow_clean": "shadow_op CLEAN",
    "shadow_clean_final": "shadow_op CLEAN",
    "shadow_off": "shadow_op OFF",
    "getpageframeinfo3": "getpageframeinfo3",
    "mmap": "mapping",
    "mmapbatch": "mapping",
    "gettscinfo": "gettscinfo",
    "getvcpuinfo": "getvcpuinfo",
    "getvcpucontext": "getvcpucontext",
    "get_ext_vcpucontext": "get_ext_vcpucontext",
    "getvcpuextstate": "getvcpuextstate",
    "get_vcpu_msrs": "get_vcpu_msrs",
    "machphys_compat_mfn_list": "machphys_compat_mfn_list",
}
#: Kinds of calls of a restore, likewise.
RESTORE_KINDS = {
    "open": "",
    "xen_version": "xen_version",
    "getdomaininfo": "getdomaininfo",
    "get_address_size": "get_address_size",
    "set_cpu_policy": "set_cpu_policy",
    "multicall": "populate_physmap",
    "populate_physmap": "populate_physmap",
    "mmap": "",
    "mmapbatch": "mapping",
    "settscinfo": "settscinfo",
    "setvcpucontext": "setvcpucontext",
    "set_ext_vcpucontext": "set_ext_vcpucontext",
    "setvcpuextstate": "setvcpuextstate",
    "set_vcpu_msrs": "set_vcpu_msrs",
    "mmuext_op": "mmuext_op",
    "mmap_resource": "seeding the grant table",
    "set_address_size": "set_address_size",
}
#: Those that libxc makes besides, of a restore: it maps the machine's table there, too, and asks how long the
#: p2m is.
MORE_RESTORE_KINDS = {"maximum_ram_page", "machphys_mfn_list", "maximum_gpfn"}
#: It does not ask for the version.
LESS_RESTORE_KINDS = {"xen_version"}
#: The kind of an END record. A stream may end in zeros without one.
END = 0
#: Of which a failure is no failure of a job: log-dirty mode is switched off at the end.
HARMLESS = {"shadow_off"}
#: Opening is the test's own with libxc.
NOT_BY_LIBXC = {"open", ALLOCATION}


@pytest.fixture(scope="module")
def calls(
    worker_pool: WorkerPool, tmp_path_factory: pytest.TempPathFactory
) -> dict[tuple[str, str, str], dict[str, int]]:
    """How many calls of each kind a save and a restore make, by job, engine, and domain."""
    xen, stream = worker_pool.get(), tmp_path_factory.mktemp("calls") / "stream"
    made: dict[tuple[str, str, str], dict[str, int]] = {}
    for engine in MODULES:
        xen.load(engine)
        for name, spec in SPECS.items():
            xen.reset()
            assert not xen.save(engine, xen.create(spec), stream).failed
            made["save", engine, name] = dict(xen.counters()["calls"])
            xen.reset()
            assert not xen.restore(engine, xen.create(empty(spec)), stream).failed
            made["restore", engine, name] = dict(xen.counters()["calls"])
    return made


def test_no_kind_is_forgotten(calls: dict[tuple[str, str, str], dict[str, int]]) -> None:
    for engine in MODULES:
        restore_kinds = set(RESTORE_KINDS)
        if engine == "libxc":
            restore_kinds = restore_kinds - LESS_RESTORE_KINDS | MORE_RESTORE_KINDS
        assert set(calls["save", engine, "32 bits"]) == {*SAVE_KINDS, ALLOCATION}
        assert set(calls["restore", engine, "32 bits"]) == {*restore_kinds, ALLOCATION}
        assert "unknown" not in calls["save", engine, "64 bits, tree"]


@pytest.mark.parametrize("name", SPECS)
@pytest.mark.parametrize("kind", [kind for kind in SAVE_KINDS if kind not in HARMLESS])
def test_each_call_of_a_save(
    *,
    xen: Worker,
    tmp_path: Path,
    calls: dict[tuple[str, str, str], dict[str, int]],
    engine: EngineName,
    name: str,
    kind: str,
) -> None:
    stream, spec = tmp_path / "stream", SPECS[name]
    xen.load(engine)
    if engine == "libxc" and kind in NOT_BY_LIBXC:
        pytest.skip("the test opens it")
    for nth in range(calls["save", engine, name].get(kind, 0)):
        xen.reset()
        domid = xen.create(spec)
        # Log-dirty mode may be on, so that a first failure means nothing.
        times = 2 if kind == "shadow_enable_logdirty" else 1
        xen.inject(fault="errno", kind=kind, nth=nth, times=times, errno=errno.EPERM)
        saved = xen.save(engine, domid, stream)
        assert xen.counters()["calls"][kind] > nth, "the call was not reached"
        assert (saved.failed, xen.left()) == (True, {}), nth
        *_, last = records(stream.read_bytes())
        assert last.kind != END
        state = xen.state(domid)
        assert not state["logdirty_on"]
        if engine == "libxc":
            if state["state"] == "shutdown":
                xen.resume(domid)
        elif nth < OPENING.get(kind, 0):
            assert (saved.error, saved.errno, saved.events) == ("XenUnavailable", errno.EPERM, []), nth
        else:
            assert (saved.error, saved.errno) == ("HypercallError", errno.EPERM), (nth, saved)
            assert SAVE_KINDS[kind] in saved.messages[0]
            assert len(saved.messages) == 1, "nothing else went wrong"
            suspended = "suspend" in saved.events
            assert saved.guest_state == ("resumed" if suspended else "running")
            assert state["state"] == "running"
        # It can be tried again at once.
        again = xen.save(engine, domid, stream, SaveOptions(live=False))
        assert not again.failed, again.messages
        assert xen.pv_state(domid)["unsound"] is None


@pytest.mark.parametrize("name", SPECS)
@pytest.mark.parametrize("kind", [*RESTORE_KINDS, *sorted(MORE_RESTORE_KINDS)])
def test_each_call_of_a_restore(
    *,
    xen: Worker,
    tmp_path: Path,
    calls: dict[tuple[str, str, str], dict[str, int]],
    engine: EngineName,
    name: str,
    kind: str,
) -> None:
    stream, spec = tmp_path / "stream", SPECS[name]
    xen.load(engine)
    if engine == "libxc" and kind in NOT_BY_LIBXC:
        pytest.skip("the test opens it")
    source = xen.create(spec)
    assert not xen.save("xenmig", source, stream).failed
    for nth in range(calls["restore", engine, name].get(kind, 0)):
        target = xen.create(empty(spec))
        before = xen.counters()["calls"].get(kind, 0)
        xen.inject(fault="errno", kind=kind, nth=nth, errno=errno.EPERM)
        restored = xen.restore(engine, target, stream)
        assert xen.counters()["calls"][kind] > before + nth, "the call was not reached"
        assert (restored.failed, xen.left()) == (True, {}), nth
        if engine == "xenmig" and nth < OPENING.get(kind, 0):
            assert (restored.error, restored.errno) == ("XenUnavailable", errno.EPERM), nth
        elif engine == "xenmig":
            assert (restored.error, restored.errno) == ("HypercallError", errno.EPERM), (nth, restored)
            assert RESTORE_KINDS[kind] in restored.messages[0]
        xen.clear_faults()
        xen.destroy(target)
    # Another domain can be made of the same stream.
    fresh = xen.create(empty(spec))
    assert not xen.restore(engine, fresh, stream).failed
    assert xen.differing(source, fresh) == []


def test_log_dirty_mode_that_cannot_be_switched_off(xen: Worker, tmp_path: Path, engine: EngineName) -> None:
    domid = xen.create(SPECS["32 bits"])
    xen.inject(fault="errno", kind="shadow_off", errno=errno.EPERM)
    saved = xen.save(engine, domid, tmp_path / "stream")
    assert not saved.failed
    # libxc does not look at it.
    assert len(saved.messages) == (engine == "xenmig")
