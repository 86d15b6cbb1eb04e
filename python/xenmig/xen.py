# SPDX-License-Identifier: GPL-3.0-or-later
"""The real Xen, from its control domain."""

from __future__ import annotations

from typing import Any

from xenmig._native import XenHost

__all__ = ["Xen"]


class Xen:
    """The Xen that this machine runs under.

    Give it to :func:`xenmig.save` and :func:`xenmig.restore` as ``host``. Who suspends a guest there is the
    toolstack's business, so ``save`` needs its ``suspend``.

    It may be used by several threads at once. A child of this process cannot use it after a fork.

    Raises:
        XenUnavailable: There is no Xen here, or not one that this build can talk to. The message says what
            to do.
    """

    def __init__(self) -> None:
        self._native = XenHost()

    def __repr__(self) -> str:
        major, minor = self.version
        return f"<xenmig.Xen {major}.{minor}>"

    @property
    def version(self) -> tuple[int, int]:
        """Major and minor version of the running hypervisor."""
        return self._native.version

    def domain_info(self, domid: int) -> dict[str, Any]:
        """Returns what the hypervisor says of a domain.

        The keys are ``domid``, ``kind``, ``state``, ``total_pages`` and ``max_pages``.

        Raises:
            HypercallError: There is no such domain (``ESRCH``), or the hypervisor refuses to say.
        """
        return self._native.domain_info(domid)
