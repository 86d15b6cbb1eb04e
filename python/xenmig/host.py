# SPDX-License-Identifier: GPL-3.0-or-later
"""What can be given as ``host``: the simulated host or the real Xen."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, TypeAlias

from xenmig._native import SimHost, XenHost
from xenmig.sim import Host
from xenmig.xen import Xen

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["AnyHost", "lifecycle", "native_host"]

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


def lifecycle(host: object, domid: int) -> tuple[Callable[[], object], Callable[[], object]]:
    """Returns a host's own way to suspend a domain, and to let it go on.

    Raises:
        TypeError: It has none.
    """
    if isinstance(host, Xen):
        return partial(host.suspend, domid), partial(host.resume, domid)
    native = native_host(host)
    if isinstance(native, SimHost):
        # The domain is looked up when it is needed: that there is none is for the engine to say.
        return lambda: native.domain(domid).suspend(), lambda: native.domain(domid).resume()
    raise TypeError("this host cannot suspend a guest: give suspend=, or xenmig.Xen() as host")
