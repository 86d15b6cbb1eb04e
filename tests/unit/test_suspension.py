# SPDX-License-Identifier: GPL-3.0-or-later
"""Asking a guest to suspend itself: a xenstore and a guest that are played here."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from xenmig.errors import GuestNotSuspended, GuestSuspendTimeout, XenUnavailable
from xenmig.xen.suspension import ask_to_suspend, wait_until_suspended
from xenmig.xen.xenstore import Xenstore

if TYPE_CHECKING:
    from collections.abc import Iterator

NODE = "/local/domain/7/control/shutdown"


class Store:
    """A xenstore with the nodes of one guest."""

    def __init__(self, conflicts: int = 0) -> None:
        self.nodes: dict[str, bytes] = {NODE: b""}
        self.conflicts = conflicts
        self.transactions = 0

    def read(self, path: str) -> bytes | None:
        return self.nodes.get(path)

    def write(self, path: str, value: bytes) -> None:
        self.nodes[path] = value

    @contextmanager
    def transaction(self) -> Iterator[None]:
        before = dict(self.nodes)
        self.transactions += 1
        yield
        if self.conflicts:
            self.conflicts -= 1
            self.nodes = before
            raise BlockingIOError(11, "another process wrote")


class Guest:
    """A guest that takes the request at one look at its state, and has reached `end` at another."""

    def __init__(self, store: Store, *, takes_at: int, ends_at: int = 10**9, end: str = "suspended") -> None:
        self.store, self.takes_at, self.ends_at, self.end = store, takes_at, ends_at, end
        self.looks = 0

    def state(self) -> str:
        self.looks += 1
        if self.looks == self.takes_at and self.store.nodes[NODE] == b"suspend":
            self.store.nodes[NODE] = b""
        return self.end if self.looks >= self.ends_at else "running"


def test_returns_when_the_guest_has_suspended() -> None:
    store = Store()
    guest = Guest(store, takes_at=2, ends_at=4)
    ask_to_suspend(store, 7, guest.state, timeout_s=60)
    assert guest.looks == 4
    assert store.nodes == {NODE: b""}
    assert not store.transactions


def test_a_guest_that_never_answers_finds_no_request_later() -> None:
    store = Store(conflicts=2)
    guest = Guest(store, takes_at=10**9)
    with pytest.raises(GuestSuspendTimeout, match="request was withdrawn") as caught:
        ask_to_suspend(store, 7, guest.state, timeout_s=0.02)
    assert caught.value.guest_state == "running"
    assert store.nodes == {NODE: b""}
    assert store.transactions == 3


def test_a_guest_that_took_the_request_may_still_suspend() -> None:
    store = Store()
    guest = Guest(store, takes_at=1)
    with pytest.raises(GuestSuspendTimeout, match="may still do so"):
        ask_to_suspend(store, 7, guest.state, timeout_s=0.02)
    assert store.nodes == {NODE: b""}


def test_a_wait_that_is_interrupted_withdraws_the_request() -> None:
    store = Store()

    def state() -> str:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        ask_to_suspend(store, 7, state, timeout_s=60)
    assert store.nodes == {NODE: b""}


@pytest.mark.parametrize(
    ("end", "says", "left"),
    [
        ("paused", "unpause it first", "running"),
        ("shutdown", "but is shutdown", "unknown"),
        ("dying", "but is dying", "unknown"),
        ("crash", "but has crashed", "unknown"),
        ("reboot", "but has shut down to reboot", "unknown"),
        ("gone", "but is gone", "unknown"),
    ],
)
def test_a_guest_that_cannot_suspend_is_not_waited_for(end: str, says: str, left: str) -> None:
    store = Store()
    guest = Guest(store, takes_at=10**9, ends_at=1, end=end)
    with pytest.raises(GuestNotSuspended, match=says) as caught:
        ask_to_suspend(store, 7, guest.state, timeout_s=60)
    assert caught.value.guest_state == left
    assert store.nodes == {NODE: b""}


def test_a_guest_that_is_suspended_over_its_head_is_waited_for() -> None:
    store = Store()
    wait_until_suspended(7, Guest(store, takes_at=10**9, ends_at=3).state, timeout_s=60)
    with pytest.raises(GuestSuspendTimeout):
        wait_until_suspended(7, Guest(store, takes_at=10**9).state, timeout_s=0.01)
    assert store.nodes == {NODE: b""}


def test_without_libxenstore_it_says_what_to_install() -> None:
    with pytest.raises(XenUnavailable, match="libxenstore4"):
        Xenstore("libnot-there.so.4")
