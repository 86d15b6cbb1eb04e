# SPDX-License-Identifier: GPL-3.0-or-later
"""The host that :func:`xenmig.save` and :func:`xenmig.restore` take for the real Xen."""

from __future__ import annotations

from typing import Any

from xenmig._native import XenHost
from xenmig.errors import DomainRefused, GuestNotSuspended
from xenmig.xen.state import describe_state, state_now, state_of
from xenmig.xen.suspension import ask_to_suspend, wait_until_suspended
from xenmig.xen.xenstore import Xenstore

__all__ = ["Xen"]


class Xen:
    """The Xen that this machine runs under.

    Give it to :func:`xenmig.save` and :func:`xenmig.restore` as ``host``. A save suspends the guest by
    :meth:`suspend`, and lets it go on by :meth:`resume` if it fails after that; a toolstack that has ways of
    its own gives those instead.

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

        The keys are ``domid``, ``kind``, ``state``, ``shutdown_reason``, ``total_pages`` and ``max_pages``.
        The reason is ``"poweroff"``, ``"reboot"``, ``"crash"``, ``"watchdog"`` or ``"soft_reset"`` if the
        domain has shut down for it, else ``None``.

        Raises:
            HypercallError: There is no such domain (``ESRCH``), or the hypervisor refuses to say.
        """
        return self._native.domain_info(domid)

    def suspend(self, domid: int, *, timeout_s: float = 60.0) -> None:
        """Suspends a guest, and returns when it is suspended.

        A guest with PV drivers, as every PV guest has, is asked through xenstore and suspends itself. An HVM
        guest without them is suspended without being asked. A guest that is suspended already is left alone.

        The device model of an HVM guest is not stopped and not saved: that is the toolstack's part.

        Args:
            domid: The domain.
            timeout_s: How long to wait, in seconds. A request that is not followed in time is withdrawn.

        Raises:
            GuestSuspendTimeout: It did not suspend in time.
            GuestNotSuspended: It is paused, or it has ended: it crashed, shut down or was destroyed. That is
                noticed at once.
            DomainRefused: It is the control domain.
            HypercallError: There is no such domain (``ESRCH``), or the hypervisor refused.
            XenUnavailable: libxenstore is not installed.
            OSError: xenstored does not answer.
        """

        def state() -> str:
            return state_now(lambda: self.domain_info(domid))

        if domid == 0:
            raise DomainRefused("d0 is the control domain: it would take the whole machine to sleep")
        before = state_of(self.domain_info(domid))
        if before == "suspended":
            return
        if before not in {"running", "paused"}:
            raise GuestNotSuspended(
                f"d{domid} cannot be suspended: it {describe_state(before)}", guest_state="unknown"
            )
        if not self._native.has_pv_drivers(domid):
            self._native.suspend(domid)
            wait_until_suspended(domid, state, timeout_s=timeout_s)
            return
        with Xenstore() as store:
            ask_to_suspend(store, domid, state, timeout_s=timeout_s)

    def resume(self, domid: int) -> None:
        """Lets a suspended guest go on where it is, as if it had never been suspended.

        Raises:
            HypercallError: The guest is not suspended (``EINVAL``), or there is no such domain (``ESRCH``).
            XenUnavailable: libxenstore is not installed.
            OSError: xenstored does not answer. The guest goes on all the same.
        """
        self._native.resume(domid)
        with Xenstore() as store:
            store.resume_domain(domid)
