# SPDX-License-Identifier: GPL-3.0-or-later
"""Asking a guest to suspend itself, as toolstacks do it: through its node ``control/shutdown`` in xenstore.

A guest with PV drivers must be asked, so that its drivers are at rest when it happens. It empties the node to
say that it has begun, then shuts down with the reason *suspend*. Source: xenstore-paths,
``~/control/shutdown``.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Protocol

from xenmig.errors import GuestNotSuspended, GuestSuspendTimeout
from xenmig.xen.state import describe_state

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager

__all__ = ["Store", "ask_to_suspend", "wait_until_suspended"]

_REQUEST = b"suspend"
#: How often the hypervisor is asked whether the guest has suspended: it is part of the downtime.
_POLL_S = 0.001


class Store(Protocol):
    """What is asked of xenstore."""

    def read(self, path: str) -> bytes | None:
        """Returns a node's value."""

    def write(self, path: str, value: bytes) -> None:
        """Sets a node's value."""

    def transaction(self) -> AbstractContextManager[None]:
        """Makes a block one step."""


def ask_to_suspend(store: Store, domid: int, state: Callable[[], str], *, timeout_s: float) -> None:
    """Asks a guest to suspend, and returns when it has.

    If it does not in time, or the wait is interrupted, the request is withdrawn, so that the guest does not
    suspend later, when it is no longer expected to.

    Args:
        store: Xenstore.
        domid: The domain.
        state: Returns the domain's state, as :func:`xenmig.xen.state.state_now` does.
        timeout_s: How long to wait, in seconds.

    Raises:
        GuestSuspendTimeout: It did not suspend in time.
        GuestNotSuspended: It shut down for another reason, or it is paused.
    """
    node = f"/local/domain/{domid}/control/shutdown"
    store.write(node, _REQUEST)
    try:
        wait_until_suspended(domid, state, timeout_s=timeout_s)
    except GuestSuspendTimeout:
        if _withdraw(store, node):
            raise GuestSuspendTimeout(
                f"d{domid} did not answer the request to suspend within {timeout_s:g} s; the request was "
                "withdrawn. Is it alive, and does it have PV drivers?",
                guest_state="running",
            ) from None
        raise GuestSuspendTimeout(
            f"d{domid} took the request to suspend, but has not suspended within {timeout_s:g} s; "
            "it may still do so",
            guest_state="running",
        ) from None
    except BaseException:
        _withdraw(store, node)
        raise


def wait_until_suspended(domid: int, state: Callable[[], str], *, timeout_s: float) -> None:
    """Waits until a domain has suspended.

    Raises:
        GuestSuspendTimeout: It did not suspend in time.
        GuestNotSuspended: It shut down for another reason, or it is paused.
    """
    deadline = time.monotonic() + timeout_s
    while (now := state()) != "suspended":
        if now == "paused":
            raise GuestNotSuspended(
                f"d{domid} is paused and cannot suspend: unpause it first", guest_state="running"
            )
        if now != "running":
            raise GuestNotSuspended(
                f"d{domid} was to suspend, but {describe_state(now)}", guest_state="unknown"
            )
        if time.monotonic() >= deadline:
            raise GuestSuspendTimeout(
                f"d{domid} has not suspended within {timeout_s:g} s", guest_state="running"
            )
        time.sleep(_POLL_S)


def _withdraw(store: Store, node: str) -> bool:
    """Takes the request back, and says whether it was still there: the guest may be taking it right now."""
    while True:
        try:
            with store.transaction():
                pending = store.read(node) == _REQUEST
                if pending:
                    store.write(node, b"")
        except BlockingIOError:
            continue
        return pending
