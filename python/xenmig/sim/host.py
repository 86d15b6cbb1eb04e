# SPDX-License-Identifier: GPL-3.0-or-later
"""The simulated host itself: it makes domains, finds them and destroys them."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from xenmig._native import PAGE_SIZE, SimHost
from xenmig._native import SimDomain as Domain
from xenmig.errors import SimError
from xenmig.sim.pv import Pv, native_pv
from xenmig.sim.workload import Idle, Workload, native_workload

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["MAX_MEMORY_BYTES", "MIN_MEMORY_BYTES", "Domain", "Host", "memory_bytes"]

MIN_MEMORY_BYTES = 64 << 20
MAX_MEMORY_BYTES = 64 << 30

_SIZE = re.compile(r"(?P<number>[0-9]+(?:\.[0-9]+)?) ?(?P<unit>[KMG])(?:iB|B)?", re.IGNORECASE)
_UNITS = {"K": 1 << 10, "M": 1 << 20, "G": 1 << 30}


class Host:
    """A host with no domains yet.

    It may be used by several threads at once. A child of this process cannot use it after a fork.
    """

    def __init__(self) -> None:
        self._native = SimHost()

    def __repr__(self) -> str:
        return f"<xenmig.sim.Host with domids {self.domids}>"

    def create(  # noqa: PLR0913 - one for each property of a domain
        self,
        *,
        memory: int | str,
        workload: Workload | None = None,
        vcpus: int = 1,
        domid: int | None = None,
        populated: bool = True,
        holes: Sequence[tuple[int, int]] = (),
        special_pages: bool = True,
        highest_pfn: int | None = None,
        vram_tracking: bool = False,
        pv: Pv | None = None,
        seed: int = 0,
    ) -> Domain:
        """Makes a domain. It runs at once, or waits empty to be restored into.

        Args:
            memory: RAM, 64 MiB to 64 GiB: a number of bytes, or a string such as ``"256M"`` or ``"1.5GiB"``.
            workload: What its vCPUs write; nothing by default.
            vcpus: Number of vCPUs, 1 to 64. The workload's rates are sums over all of them.
            domid: Its number; by default the next free one, from 1 on.
            populated: ``False`` makes an empty, paused domain, the target of a restore. Give the same memory
                and the same `special_pages` and `highest_pfn` as the saved one has.
            holes: Ranges of pfns without a page, each ``(first, end)``.
            special_pages: Whether it has the eight pages just below 4 GiB (store, console, ...) of a PVH
                guest. With them the p2m is almost 4 GiB long, however little RAM there is. A PV guest has
                none.
            highest_pfn: A further page at this pfn, to make the p2m longer.
            vram_tracking: Whether log-dirty mode is on from the start, as the device model does for its
                screen.
            pv: Makes it a PV guest. All PV guests of a host together have less than 5 GiB of memory.
            seed: Seed of the vCPUs' choices and of the state that is not memory.

        Returns:
            The domain. Dropping it does not destroy it; :meth:`destroy` does.

        Raises:
            SimError: A value makes no sense, the domid is in use, or this machine has too little memory.
        """
        name, params = native_workload(workload or Idle())
        return self._native.create(
            memory=memory_bytes(memory),
            domid=domid,
            vcpus=vcpus,
            workload=name,
            workload_params=params,
            holes=holes,
            special_pages=special_pages and pv is None,
            highest_pfn=highest_pfn,
            vram_tracking=vram_tracking,
            populated=populated,
            seed=seed,
            pv=native_pv(pv),
        )

    def domain(self, domid: int) -> Domain:
        """Looks a domain up.

        Raises:
            HypercallError: There is no such domain (``ESRCH``).
        """
        return self._native.domain(domid)

    def destroy(self, domid: int) -> None:
        """Destroys a domain and gives its memory back.

        Raises:
            HypercallError: There is no such domain (``ESRCH``).
        """
        self._native.destroy(domid)

    def set_workload(self, domid: int, workload: Workload) -> None:
        """Makes a domain's vCPUs do something else from now on.

        Raises:
            SimError: A value makes no sense for this domain.
            HypercallError: There is no such domain (``ESRCH``).
        """
        self._native.domain(domid).set_workload(*native_workload(workload))

    @property
    def domids(self) -> list[int]:
        """The numbers of all domains, ascending."""
        return self._native.domids


def memory_bytes(memory: int | str) -> int:
    """Returns a domain's memory in bytes, a whole number of pages.

    Units are binary, with or without ``B`` or ``iB``, as in xl's configuration files.

    Raises:
        SimError: It is no size, or not within 64 MiB to 64 GiB.
        TypeError: It is neither a number nor a string.

    Example:
        >>> memory_bytes("256M"), memory_bytes("1.5 GiB"), memory_bytes(64 << 20)
        (268435456, 1610612736, 67108864)
    """
    if isinstance(memory, str):
        match = _SIZE.fullmatch(memory.strip())
        if match is None:
            raise SimError(f"{memory!r} is no size of memory: write it as 256M, 1G or 512MiB")
        size = int(float(match["number"]) * _UNITS[match["unit"].upper()])
    elif isinstance(memory, bool) or not isinstance(memory, int):
        raise TypeError(f"memory is a number of bytes or a string, not {type(memory).__name__}")
    else:
        size = memory
    if not MIN_MEMORY_BYTES <= size <= MAX_MEMORY_BYTES:
        raise SimError(f"{memory!r} of memory: a simulated domain has 64 MiB to 64 GiB")
    if size % PAGE_SIZE:
        raise SimError(f"{memory!r} of memory is no whole number of pages of {PAGE_SIZE} bytes")
    return size
