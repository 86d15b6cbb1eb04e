# SPDX-License-Identifier: GPL-3.0-or-later
"""What the tests of PV guests vary: shapes of domains, and what their kernels do meanwhile."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from tests.parity.protocol import DomainSpec, PvSpec, Step

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import TypeAlias

    from tests.parity.client import Worker
    from tests.parity.protocol import PvAction, PvMap

    #: What a guest does, given what it uses its pages for.
    Guest: TypeAlias = Callable[[PvMap], list[Step]]

#: Pages of the domains whose guests are varied: two batches, and a part of one.
PAGES = 2100
#: Guests of either width, with either form of the p2m.
FORMS = {
    f"{8 * width} bits, {'tree' if tree else 'list'}": PvSpec(width=width, tree=tree)
    for width in (8, 4)
    for tree in (False, True)
}
#: Entries of the p2m for which a 64-bit guest has one L1 table; a 32-bit guest has one for twice as many.
TABLE_PFNS = 512 * 512
#: Entries of the p2m for which the tree of a 32-bit guest has one list.
LIST_PFNS = 1024 * 1024


def shape(spec: PvSpec, memory_pages: int = PAGES, **other: object) -> DomainSpec:
    """Returns a domain of this kind."""
    return replace(DomainSpec(memory_pages=memory_pages, pv=spec), **other)  # type: ignore[arg-type]


#: Shapes of PV guests.
PV_SHAPES = {name: shape(form) for name, form in FORMS.items()} | {
    "a batch": shape(PvSpec(), 1024),
    "a batch and one": shape(PvSpec(width=4), 1025),
    "zeros": shape(PvSpec(), fill=False),
    "holes": shape(PvSpec(), holes=[(5, 9), (600, 1640), *range(1700, 1800, 3), PAGES - 1]),
    "holes, 32 bits": shape(PvSpec(width=4), holes=[0, (1024, 2048)]),
    "holes, tree": shape(PvSpec(tree=True), holes=[0, (512, 1024), (1025, 1028)]),
    "holes, 32 bits, tree": shape(PvSpec(width=4, tree=True), holes=[(1024, 2048), 2099]),
    "five vCPUs": shape(PvSpec(), vcpus=5),
    "five vCPUs, 32 bits": shape(PvSpec(width=4), vcpus=5),
    "vCPUs that are offline": shape(PvSpec(offline_vcpus=[1, 4]), vcpus=6),
    "vCPUs that are offline, 32 bits": shape(PvSpec(width=4, offline_vcpus=[2, 3]), vcpus=4),
    "the least state": shape(PvSpec(extended=False, xsave_bytes=0, msrs=0), vcpus=2),
    "the most state": shape(PvSpec(xsave_bytes=8192, msrs=7), vcpus=2),
    "an odd length of state": shape(PvSpec(width=4, xsave_bytes=577, msrs=1)),
    "a list from slot 7 on": shape(PvSpec(first_slot=7)),
    "a list from slot 400 on, 32 bits": shape(PvSpec(width=4, first_slot=16)),
    "spare entries on the last page": shape(PvSpec(spare_pfns=100)),
    "spare entries on more pages": shape(PvSpec(spare_pfns=3000)),
    "spare entries on more tables": shape(PvSpec(spare_pfns=3 * TABLE_PFNS)),
    "spare entries on more tables from slot 3 on": shape(PvSpec(spare_pfns=3 * TABLE_PFNS, first_slot=3)),
    "spare entries on more tables, 32 bits": shape(PvSpec(width=4, spare_pfns=5 * TABLE_PFNS)),
    "spare entries on more lists of a tree": shape(PvSpec(width=4, tree=True, spare_pfns=2 * LIST_PFNS), 600),
    "spare entries in a tree": shape(PvSpec(tree=True, spare_pfns=5000)),
    "a far page": shape(PvSpec(), 1024, highest_pfn=TABLE_PFNS + 77),
    "a far page and spare entries": shape(
        PvSpec(spare_pfns=3 * TABLE_PFNS), 1024, highest_pfn=TABLE_PFNS + 77
    ),
    "a far page, 32 bits": shape(PvSpec(width=4), 1500, highest_pfn=70_000),
    "types without data": shape(PvSpec(), types=[(2000, 0xD), (2001, 0xE)]),
    "VRAM tracking": shape(PvSpec(), vram_tracking=True),
}


def empty(spec: DomainSpec) -> DomainSpec:
    """Returns the domain that a guest is restored into. No domain is told its guest's width beforehand."""
    return replace(
        spec,
        steps=[],
        types=[],
        vram_tracking=False,
        populated=False,
        pv=replace(spec.pv or PvSpec(), width=8),
    )


def cleans(*steps: Step) -> list[Step]:
    """Numbers steps: the guest does the first one before the first CLEAN, and so on."""
    return [replace(step, when="before_clean", n=n) for n, step in enumerate(steps)]


def does(*actions: PvAction) -> Step:
    """Makes a step of what the kernel does."""
    return Step("at_suspend", pv=actions)


def each(name: str, pfns: list[int]) -> list[PvAction]:
    """Does the same with several pages."""
    return [{name: pfn} for pfn in pfns]


def tables(pages: PvMap, level: int) -> list[int]:
    """Returns the page tables of a level, pinned or not."""
    return [pfn for pfn, kind in pages["tables"] if kind & 7 == level]


def busy(pages: PvMap) -> list[Step]:
    """A guest that does a little of everything."""
    data = pages["data"]
    torn = [data[n] for n in (3, 200, 333)]
    return [
        *cleans(
            Step("at_suspend", write=data[:300], pv=[*each("tear", torn), *each("touch", data[400:420])]),
            Step(
                "at_suspend", write=data[60:160], balloon_out=data[500:550], pv=each("make_table", data[1:9])
            ),
            Step("at_suspend", balloon_in=data[500:520], pv=["mend", *each("clear", data[40:50])]),
            does({"map": (data[40], data[41])}, *each("unmake_table", data[1:5]), {"tear": data[42]}),
        ),
        Step("at_suspend", write=data[:5], balloon_out=data[520:525], pv=["mend", {"make_table": data[30]}]),
    ]


def whole(pages: PvMap) -> list[Step]:
    """A guest that does a little of everything, and in the end has all the pages that it had."""
    return [*busy(pages), Step("at_suspend", balloon_in=pages["data"][520:550])]


#: What guests do.
PV_GUESTS: dict[str, Guest] = {
    "nothing": lambda _: [],
    "a little of everything": busy,
    "49 pages": lambda pages: cleans(Step("at_suspend", write=pages["data"][:49])),
    "50 pages": lambda pages: cleans(Step("at_suspend", write=pages["data"][:50])),
    "everything each round": lambda pages: (
        [*cleans(*([Step("at_suspend", write=pages["data"])] * 6)), Step("at_suspend", write=pages["data"])]
    ),
    "entries cleared and set again": lambda pages: cleans(
        does(*each("clear", pages["data"][:80])),
        does(*({"map": (pfn, pfn)} for pfn in pages["data"][:60])),
        does(*({"map": (pfn, pages["data"][0])} for pfn in pages["data"][60:90])),
    ),
    "entries that lead to page tables and to the GDT": lambda pages: cleans(
        does(
            *({"map": (pages["data"][n], pfn)} for n, pfn in enumerate(tables(pages, 1))),
            *({"map": (pages["data"][50 + n], pfn)} for n, pfn in enumerate(pages["gdts"])),
        )
    ),
    "entries touched at each call": lambda pages: [
        Step(when, n, pv=each("touch", pages["data"][n::90]))
        for when in ("before_types", "before_map", "after_map", "before_clean")
        for n in range(9)
    ],
    "entries torn and mended": lambda pages: cleans(
        Step("at_suspend", write=pages["data"][:60], pv=each("tear", pages["data"][::5])),
        Step("at_suspend", write=pages["data"][:60]),
        does("mend"),
    ),
    "entries torn until the suspension": lambda pages: [
        Step("before_types", 0, pv=each("tear", pages["data"][:900:7])),
        Step("at_suspend", pv=["mend"]),
    ],
    "entries torn between types and mapping": lambda pages: [
        Step("before_map", 5, pv=each("tear", pages["data"][:30])),
        Step("before_types", 1, pv=["mend"]),
        Step("after_map", 6, pv=each("tear", pages["data"][40:50])),
        Step("at_suspend", pv=["mend"]),
    ],
    "entries torn in tables of every level": lambda pages: [
        Step(
            "before_types",
            0,
            pv=[{"tear": (pfn, slot)} for pfn, _ in pages["tables"] for slot in range(0, 512, 3)],
        ),
        Step("at_suspend", pv=["mend"]),
    ],
    "tables made": lambda pages: cleans(
        does(*each("make_table", pages["data"][10:60])), does(*each("make_table", pages["data"][900:910]))
    ),
    "tables made and unmade": lambda pages: (
        [
            *cleans(
                does(*each("make_table", pages["data"][10:100])),
                does(*each("unmake_table", pages["data"][10:50])),
                does(*each("make_table", pages["data"][20:30])),
            ),
            does(*each("unmake_table", pages["data"][50:70])),
        ]
    ),
    "tables made between types and mapping": lambda pages: [
        Step("before_map", n, pv=each("make_table", pages["data"][9 * n : 9 * n + 9])) for n in range(9)
    ],
    "tables unmade between types and mapping": lambda pages: [
        Step("before_types", 0, pv=each("make_table", pages["data"][:60])),
        *(
            Step("before_map", n, pv=each("unmake_table", pages["data"][9 * n : 9 * n + 9]))
            for n in range(1, 9)
        ),
    ],
    "tables made before they are read": lambda pages: [
        Step("after_map", n, pv=each("make_table", pages["data"][9 * n : 9 * n + 9])) for n in range(9)
    ],
    "pages given back": lambda pages: cleans(
        Step("at_suspend", write=pages["data"][:90], balloon_out=pages["data"][30:600])
    ),
    "pages given back, and others got": lambda pages: [
        *cleans(
            Step("at_suspend", balloon_out=pages["data"][:300]),
            Step("at_suspend", write=pages["data"], balloon_in=pages["data"][:150]),
        ),
        Step("at_suspend", balloon_out=pages["data"][100:120], balloon_in=pages["data"][150:300]),
    ],
    "pages given back before types are queried": lambda pages: [
        Step("before_types", 0, balloon_out=pages["data"][:400:4]),
        Step("before_types", 1, balloon_out=pages["data"][1:400:4]),
        Step("at_suspend", balloon_in=pages["data"][:200:4]),
    ],
}


def with_steps(xen: Worker, spec: DomainSpec, guest: Guest) -> DomainSpec:
    """Returns a domain whose guest does something: it is made once, to see what its pages are used for."""
    xen.reset()
    return replace(spec, steps=guest(xen.pv_map(xen.create(spec))))
