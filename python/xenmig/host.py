# SPDX-License-Identifier: GPL-3.0-or-later
"""What can be given as ``host``: the simulated host or the real Xen."""

from __future__ import annotations

from typing import TypeAlias

from xenmig._native import SimHost, XenHost
from xenmig.sim import Host
from xenmig.xen import Xen

__all__ = ["AnyHost", "native_host"]

AnyHost: TypeAlias = Host | Xen | SimHost | XenHost
"""What can be given as ``host``."""


def native_host(host: object) -> SimHost | XenHost:
    """Returns what the engine knows a host as.

    Raises:
        TypeError: It is no host.
    """
    if isinstance(host, (Host, Xen)):
        return host._native  # noqa: SLF001 - a host and its native part are one thing
    if isinstance(host, (SimHost, XenHost)):
        return host
    raise TypeError(
        f"host is of type {type(host).__name__}: give a host, such as xenmig.sim.Host() or xenmig.Xen()"
    )
