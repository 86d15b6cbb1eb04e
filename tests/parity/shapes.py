# SPDX-License-Identifier: GPL-3.0-or-later
"""What the tests vary: shapes of domains, what their guests do meanwhile, and how they are saved."""

from __future__ import annotations

from tests.parity.protocol import DomainSpec, SaveOptions, Step

#: Page types that Xen defines, by number (``XEN_DOMCTL_PFINFO_*`` of ``public/domctl.h``, shifted): NOTAB,
#: L1TAB to L4TAB, the same pinned, BROKEN, XALLOC, XTAB.
PAGE_TYPES = (0x0, 0x1, 0x2, 0x3, 0x4, 0x9, 0xA, 0xB, 0xC, 0xD, 0xE, 0xF)

#: Shapes of domains.
SHAPES = {
    "one page": DomainSpec(memory_pages=1, xen_mapped_pages=0),
    "a batch less one": DomainSpec(memory_pages=1023),
    "a batch": DomainSpec(memory_pages=1024),
    "a batch and one": DomainSpec(memory_pages=1025),
    "no multiple of 64": DomainSpec(memory_pages=2500),
    "holes": DomainSpec(memory_pages=3000, holes=[0, (5, 9), (1000, 1030), (2048, 2560), 2999]),
    "every other page": DomainSpec(memory_pages=1100, holes=list(range(1, 1100, 2))),
    "a batch of holes": DomainSpec(memory_pages=4096, holes=[(1024, 3072)]),
    "far page": DomainSpec(memory_pages=512, highest_pfn=200_000),
    "PVH": DomainSpec(memory_pages=2048, special_pages=True),
    "types without data": DomainSpec(memory_pages=64, types=[(3, 0xD), (9, 0xE)]),
    "VRAM tracking": DomainSpec(memory_pages=1024, vram_tracking=True),
    "no parameters": DomainSpec(memory_pages=64, hvm_params={}),
    "small context": DomainSpec(memory_pages=64, hvm_context_bytes=13),
    "no leaves": DomainSpec(memory_pages=64, cpu_policy={}),
}
#: More shapes, for comparing bytes.
MORE_SHAPES = {
    "every page type": DomainSpec(
        memory_pages=1500, types=[(70 * n, kind) for n, kind in enumerate(PAGE_TYPES)]
    ),
    "all parameters": DomainSpec(
        memory_pages=64,
        # Pages of xenstore and console have no more than 32 bits: a grant could not name them.
        hvm_params={index: index + (1 << 20 if index in (1, 17) else 1 << 32) for index in range(39)},
    ),
    "large context": DomainSpec(memory_pages=64, hvm_context_bytes=300_001),
    "eight bytes of context": DomainSpec(memory_pages=64, hvm_context_bytes=8),
    "many pages mapped by Xen": DomainSpec(memory_pages=1300, xen_mapped_pages=1030),
    "zeros": DomainSpec(memory_pages=1300, fill=False),
    "no MSRs": DomainSpec(memory_pages=64, cpu_policy={"leaves": [[0, 0xFFFF_FFFF, 1, 2, 3, 4]]}),
    "hole at the end of a word": DomainSpec(memory_pages=256, holes=[63, 64, 127, 191, 192]),
    "one page in each batch": DomainSpec(memory_pages=5000, holes=[(1, 1500), (1501, 2900), (2901, 4999)]),
}
MODES = {
    "non-live": SaveOptions(live=False),
    "live": SaveOptions(),
    "live, default policy": SaveOptions(policy="none"),
    "live, debug": SaveOptions(debug=True),
}
#: The guest writes before the first CLEANs, and when it is asked to suspend.
BUSY = [
    Step("before_clean", 0, write=[(0, 700)]),
    Step("before_clean", 1, write=[(60, 160), 1022]),
    Step("before_clean", 2, write=[3]),
    Step("at_suspend", write=[(0, 5), 1023]),
]
