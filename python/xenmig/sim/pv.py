# SPDX-License-Identifier: GPL-3.0-or-later
"""What makes a simulated domain a PV guest. Users get this class from :mod:`xenmig.sim`.

A PV guest keeps page tables and a p2m in its own memory, full of frame numbers of the host's machine memory.
A migration has to rewrite them, and meets the guest while it changes them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["Pv", "native_pv"]


@dataclass(frozen=True)
class Pv:
    """A PV guest.

    Rates are steps per second, 0 to 100 000, of what its kernel does beside the workload, which writes data
    alone.

    Attributes:
        width: Bits of its words. An empty domain is made with 64 bits, as Xen makes it.
        p2m: How it says where its p2m is: a list that its page tables map, or a tree of frames.
        spare_pfns: Entries of the p2m after the last page.
        offline_vcpus: vCPUs that were never brought up; not the first, which is 0.
        ptes_per_s: Entries of page tables written. Some lead to another owner's frame for a moment.
        tables_per_s: Pages that become page tables, and page tables that become pages.
        balloons_per_s: Pages given back to Xen, and got from it again, in another frame.
    """

    width: Literal[32, 64] = 64
    p2m: Literal["list", "tree"] = "list"
    spare_pfns: int = 0
    offline_vcpus: Sequence[int] = ()
    ptes_per_s: float = 0.0
    tables_per_s: float = 0.0
    balloons_per_s: float = 0.0

    def __post_init__(self) -> None:
        # A list would be neither hashable nor equal to the same tuple.
        object.__setattr__(self, "offline_vcpus", tuple(self.offline_vcpus))


def native_pv(pv: Pv | None) -> dict[str, Any] | None:
    """Returns a PV guest as the extension takes it.

    Raises:
        TypeError: It is no PV guest.
    """
    if pv is None:
        return None
    if not isinstance(pv, Pv):
        raise TypeError(f"pv is of type {type(pv).__name__}: give a xenmig.sim.Pv")
    return vars(pv) | {"offline_vcpus": list(pv.offline_vcpus)}
