# SPDX-License-Identifier: GPL-3.0-or-later
"""The exceptions: what they are, what they carry, and that they survive a trip to another process."""

from __future__ import annotations

import copy
import errno
import inspect
import pickle
from typing import TYPE_CHECKING, Any

import pytest

from xenmig import PrecopyStats, errors
from xenmig.errors import (
    HypercallError,
    PolicyAbort,
    PolicyError,
    StreamError,
    TransportError,
    XenmigError,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from xenmig import GuestState

CLASSES = [one for one in vars(errors).values() if inspect.isclass(one) and issubclass(one, XenmigError)]
WITH_ERRNO = [HypercallError, TransportError]


def made(
    cls: type[XenmigError], *, guest_state: GuestState | None = None, warnings: tuple[str, ...] = ()
) -> XenmigError:
    arguments: tuple[Any, ...] = (errno.EPIPE, "it broke") if issubclass(cls, OSError) else ("it broke",)
    return cls(*arguments, guest_state=guest_state, warnings=warnings)


def test_all_classes_are_exported_and_found_here() -> None:
    names = {cls.__name__ for cls in CLASSES if not cls.__name__.startswith("_")}
    assert len(names) == 13
    assert names == set(errors.__all__) - {"GuestState"}


@pytest.mark.parametrize("cls", CLASSES)
def test_each_shows_its_message_and_carries_the_guests_state(cls: type[XenmigError]) -> None:
    error = made(cls, guest_state="resumed", warnings=("log-dirty mode is still on",))
    assert str(error) == "it broke"
    assert error.guest_state == "resumed"
    assert error.warnings == ("log-dirty mode is still on",)
    bare = made(cls)
    assert bare.guest_state is None
    assert bare.warnings == ()


@pytest.mark.parametrize("cls", WITH_ERRNO)
def test_errno_is_really_set(cls: type[OSError]) -> None:
    error = cls(errno.ESRCH, "getdomaininfo of d7 failed")
    assert isinstance(error, OSError)
    assert (error.errno, error.strerror) == (errno.ESRCH, "No such process")
    assert error.args == (errno.ESRCH, "getdomaininfo of d7 failed")
    # A subclass stays what it is: OSError would choose ProcessLookupError.
    assert type(error) is cls


def pickled(error: XenmigError) -> XenmigError:
    again: XenmigError = pickle.loads(pickle.dumps(error))  # noqa: S301 - made here
    return again


DETAILED = [
    HypercallError(errno.ENOMEM, "populate failed", op="populate_physmap", domid=3, guest_state="unknown"),
    TransportError(errno.ECONNRESET, "writing failed", guest_state="running", warnings=["one", "two"]),
    StreamError("no END", offset=4096),
    PolicyAbort("aborted", reason="too slow", iteration=4, guest_state="running"),
    *(made(cls, guest_state="suspended") for cls in CLASSES),
]


@pytest.mark.parametrize("error", DETAILED, ids=lambda error: type(error).__name__)
@pytest.mark.parametrize("trip", [pickled, copy.copy])
def test_a_copy_has_everything(error: XenmigError, trip: Callable[[XenmigError], XenmigError]) -> None:
    again = trip(error)
    assert type(again) is type(error)
    assert str(again) == str(error)
    assert again.args == error.args
    assert vars(again) == vars(error)
    if isinstance(error, OSError):
        assert isinstance(again, OSError)
        assert (again.errno, again.strerror) == (error.errno, error.strerror)


def test_statistics_travel_with_an_abort() -> None:
    abort = PolicyAbort("aborted", reason="too slow", stats=PrecopyStats.example(iteration=4))
    assert abort.stats is not None
    assert abort.stats.iteration == 4
    again = pickled(abort)
    assert isinstance(again, PolicyAbort)
    assert again.stats == abort.stats
    assert again.reason == "too slow"


def test_a_wrong_policy_is_a_type_error_too() -> None:
    assert issubclass(PolicyError, TypeError)
    assert not issubclass(PolicyAbort, TypeError)
