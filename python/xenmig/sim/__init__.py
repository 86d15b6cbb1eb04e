# SPDX-License-Identifier: GPL-3.0-or-later
"""A simulated host, for desks without Xen: domains with real memory, and vCPU threads that really write.

Everything lives in this process and ends with it. A policy meets the same log-dirty semantics, the same races
with a guest that writes, and the same consults as on Xen; what differs is what a hypercall costs.

    >>> import os, xenmig
    >>> from xenmig.sim import Host, HotCold
    >>> host = Host()
    >>> guest = host.create(memory="64M", workload=HotCold(hot_pages=100, hot_pages_per_s=5000))
    >>> with open(os.devnull, "wb") as sink:
    ...     result = xenmig.save(guest.domid, sink, host=host)
    >>> guest.state
    'suspended'
"""

from xenmig.sim.host import MAX_MEMORY_BYTES, MIN_MEMORY_BYTES, Domain, Host, memory_bytes
from xenmig.sim.pv import Pv
from xenmig.sim.workload import HotCold, Idle, Phase, Phased, Scripted, Step, Uniform, Workload

__all__ = [
    "MAX_MEMORY_BYTES",
    "MIN_MEMORY_BYTES",
    "Domain",
    "Host",
    "HotCold",
    "Idle",
    "Phase",
    "Phased",
    "Pv",
    "Scripted",
    "Step",
    "Uniform",
    "Workload",
    "memory_bytes",
]
