# SPDX-License-Identifier: GPL-3.0-or-later
"""What the tests and the worker process tell each other: domains, jobs for an engine, and what came of them.

A test describes a domain and a job with the classes below; the client writes them as one line of JSON to the
worker, which runs under ``LD_PRELOAD=libfakexen.so``; the outcome comes back the same way.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, TypeAlias, TypedDict

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

#: A pfn, or the pfns from the first number up to, but without, the second.
Pfns: TypeAlias = "int | tuple[int, int]"
#: Calls at which a scripted guest can act.
Moment: TypeAlias = Literal[
    "before_clean", "before_peek", "before_types", "before_map", "after_map", "at_suspend"
]
#: What the kernel of a PV guest does, ``PvAction`` of ``rust/fakexen/src/pv_spec.rs``: ``"mend"``,
#: ``"bump_generation"``, or the name of an action and what it is done with. An entry of a page table is given
#: by the page that the kernel maps by it among all its memory, or as a page table's pfn and a slot.
PvAction: TypeAlias = "Literal['mend', 'bump_generation'] | Mapping[str, object]"
#: What a precopy policy answers: ``XGS_POLICY_*`` of ``xenguest.h``.
ABORT, CONTINUE, STOP_AND_COPY = -1, 0, 1
#: Which policy is asked: none, so that the engine's own default decides; one that answers as libxc's default
#: does, and can be recorded; or a list of answers, the last of which is given again and again.
Policy: TypeAlias = "Literal['none', 'libxc'] | list[int]"
#: What the suspend callback does: it suspends the guest; says that it failed; or says that it worked, and did
#: nothing.
Suspend: TypeAlias = Literal["works", "fails", "lies"]
#: Names of engines; see ``engine.py``.
EngineName: TypeAlias = Literal["libxc", "xenmig"]


@dataclass(frozen=True)
class Step:
    """What a scripted guest does before the ``n``-th call of a kind, counted from the domain's creation.

    Attributes:
        when: Which call.
        n: The number of the call, from 0. CLEANs with and without FINAL are counted together.
        write: Pages that it writes.
        balloon_out: Pages that it then gives back to Xen.
        balloon_in: Pages that it then gets from Xen.
        pv: What the kernel of a PV guest does after that, in order.
    """

    when: Moment
    n: int = 0
    write: Sequence[Pfns] = ()
    balloon_out: Sequence[Pfns] = ()
    balloon_in: Sequence[Pfns] = ()
    pv: Sequence[PvAction] = ()


@dataclass(frozen=True)
class PvSpec:
    """What makes a domain a PV guest.

    Attributes:
        width: The width of its words in bytes: 4 or 8. An empty domain is 8 bytes wide all the same. tree:
        Whether its p2m is a tree, rather than a list in its page tables. first_slot: Slot of an L2 table that
        the list begins at, at most 16. In a 32-bit guest it is counted from
            384, where its room for the list begins.
        spare_pfns: Pfns that the p2m has entries for behind the last page.
        offline_vcpus: vCPUs that were never brought up; not the first.
        extended: Whether a vCPU has an extended context.
        xsave_bytes: Size of what XSAVE saves of a vCPU, 16 to 8192; 0 for nothing.
        msrs: MSRs of a vCPU that are not 0, at most 7.
        scrubs: Whether the kernel clears a page before it gives it back.
    """

    width: int = 8
    tree: bool = False
    first_slot: int = 0
    spare_pfns: int = 0
    offline_vcpus: list[int] = field(default_factory=list)
    extended: bool = True
    xsave_bytes: int = 832
    msrs: int = 2
    scrubs: bool = True


@dataclass(frozen=True)
class DomainSpec:
    """A simulated domain; two of the same description are equal in everything and behave alike.

    Attributes:
        memory_pages: Pages of RAM, from pfn 0 on, holes included.
        vcpus: Number of vCPUs.
        holes: Pfns without a page.
        highest_pfn: A further page at this pfn, below 2**32.
        special_pages: Whether there are the eight pages just below 4 GiB of a PVH guest.
        seed: Seed of contents and of the HVM context.
        fill: Whether RAM holds random bytes, rather than zeros.
        warm: Whether all of RAM is backed by memory from the start, so that no measurement pays for a first
            touch.
        populated: ``False`` for an empty, paused domain to be restored into.
        vram_tracking: Whether log-dirty mode is on already.
        xen_mapped_pages: Pages that only a CLEAN with FINAL reports: the last ones of RAM.
        hvm_context_bytes: Size of the HVM context.
        hvm_params: HVM parameters that are not 0, by index; plausible ones without it.
        cpu_policy: ``{"leaves": [[leaf, subleaf, a, b, c, d], ...], "msrs": {index: value}}``; a plausible
            one without it.
        types: Page types to be reported instead of the true ones, as pairs of pfn and number (0 to 15).
        pv: Makes it a PV guest.
        steps: What the guest does.
        domid: Its number; the next free one without it.
    """

    memory_pages: int = 1024
    vcpus: int = 1
    holes: list[Pfns] = field(default_factory=list)
    highest_pfn: int | None = None
    special_pages: bool = False
    seed: int = 1
    fill: bool = True
    warm: bool = False
    populated: bool = True
    vram_tracking: bool = False
    xen_mapped_pages: int = 2
    hvm_context_bytes: int = 8192
    hvm_params: dict[int, int] | None = None
    cpu_policy: dict[str, Any] | None = None
    types: list[tuple[int, int]] = field(default_factory=list)
    pv: PvSpec | None = None
    steps: list[Step] = field(default_factory=list)
    domid: int | None = None

    def as_json(self) -> dict[str, Any]:
        """Returns the description as ``fakexen_create`` takes it."""
        described = asdict(self)
        described["workload"] = {"kind": "scripted", "steps": described.pop("steps")}
        return described


@dataclass(frozen=True)
class SaveOptions:
    """How a domain is saved.

    Attributes:
        live: Whether it runs meanwhile.
        debug: Whether all pages are sent a second time, to be compared (``XCFLAGS_DEBUG``).
        policy: Who decides about the precopy.
        suspend: What the suspend callback does.
        qemu: What ``switch_qemu_logdirty`` returns: 0 for success.
        resume: Whether the engine is told how to resume the guest. libxc leaves that to its caller.
    """

    live: bool = True
    debug: bool = False
    policy: Policy = "libxc"
    suspend: Suspend = "works"
    qemu: int = 0
    resume: bool = True


@dataclass(frozen=True)
class RestoreOptions:
    """How a domain is restored.

    Attributes:
        store_evtchn: Event channel of xenstore.
        store_domid: Domain of xenstore.
        console_evtchn: Event channel of the console.
        console_domid: Domain of the console.
        static_data: What the ``static_data_done`` callback returns: 0 for success.
    """

    store_evtchn: int = 11
    store_domid: int = 0
    console_evtchn: int = 12
    console_domid: int = 0
    static_data: int = 0


class Consult(NamedTuple):
    """One question to the precopy policy, and its answer."""

    iteration: int
    total_written: int
    dirty_count: int
    answer: int


@dataclass(frozen=True)
class SaveOutcome:
    """What came of a save.

    Attributes:
        failed: Whether it failed.
        errno: If it failed, the errno that it left; libxenguest sometimes leaves none, or a stale one.
        consults: The questions to the policy, if one was recorded.
        events: The callbacks in order: ``consult``, ``suspend``, ``qemu_logdirty 1``, ``resume``.
        messages: What the engine logged as a warning or worse; the exception's message and its warnings.
        seconds: How long it took.
        cpu_seconds: CPU time of the whole process meanwhile.
        error: Class of the exception, of an engine that raises them.
        guest_state: What the exception says that the guest does.
    """

    failed: bool
    errno: int
    consults: list[Consult]
    events: list[str]
    messages: list[str]
    seconds: float
    cpu_seconds: float
    error: str = ""
    guest_state: str | None = None


@dataclass(frozen=True)
class RestoreOutcome:
    """What came of a restore.

    Attributes:
        failed: Whether it failed.
        errno: As in :class:`SaveOutcome`.
        store_gfn: Where xenstore's page is; 0 if the stream does not say it, or the restore failed.
        console_gfn: Where the console's page is; 0 if the stream does not say it, or the restore failed.
        missing: Which policies the stream has not, as the argument of ``static_data_done``; ``None`` if that
            was not told.
        messages: As in :class:`SaveOutcome`.
        seconds: How long it took.
        cpu_seconds: CPU time of the whole process meanwhile.
        error: As in :class:`SaveOutcome`.
    """

    failed: bool
    errno: int
    store_gfn: int
    console_gfn: int
    missing: int | None
    messages: list[str]
    seconds: float
    cpu_seconds: float
    error: str = ""


class PvState(TypedDict):
    """What a PV guest has beside.

    Attributes:
        width_bytes: The width of its words.
        online: Which vCPUs are online.
        fingerprint: Of everything; the same before a migration and after it.
        unsound: What is wrong with it; ``None`` if nothing is.
    """

    width_bytes: int
    online: list[bool]
    fingerprint: str
    unsound: str | None


class PvMap(TypedDict):
    """What a PV guest uses its pages for, as pfns. Tables have their type's number, too."""

    start_info: int
    store: int
    console: int
    p2m_pages: list[int]
    gdts: list[int]
    tables: list[tuple[int, int]]
    data: list[int]


class State(TypedDict):
    """What a domain is and does, as ``fakexen_state`` tells it. Contents are digests."""

    domid: int
    state: Literal["running", "paused", "shutdown", "dying"]
    shutdown_reason: int | None
    memory_pages: int
    populated_pages: int
    p2m_pages: int
    writes: int
    logdirty_on: bool
    dirty_pages: int
    xen_mapped: list[int]
    memory: str
    hvm_context_bytes: int
    hvm_context: str
    hvm_params: dict[str, int]
    tsc: dict[str, int]
    cpuid: str
    msrs: str
    pv: PvState | None
    shared_info: str | None
    grants: list[list[int]]


class Counters(TypedDict):
    """Calls by kind since the last reset, and what exists now, as ``fakexen_counters`` tells it."""

    calls: dict[str, int]
    areas_now: int
    mappings_now: int
    pages_mapped_now: int
    buffers_now: int
    buffer_pages_now: int
    devices_open_now: int
    unsafe_pointers: int
    maps: int
    unmaps: int
    pages_mapped: int


class FakexenError(OSError):
    """A request of fakexen's control interface failed."""
