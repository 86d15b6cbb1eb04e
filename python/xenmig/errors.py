# SPDX-License-Identifier: GPL-3.0-or-later
"""What can go wrong, as exceptions.

The Rust extension raises these classes: it imports this module, so they are ordinary Python classes that can
be subclassed, pickled and shown by any tool. An exception that comes from the caller's own code (a policy, a
callback) passes through :func:`xenmig.save` unchanged and is none of these.

::

    XenmigError
    ├── HypercallError (OSError)     the hypervisor refused a call
    ├── TransportError (OSError)     the stream could not be written or read
    ├── StreamError                  what was read is no valid stream
    ├── PolicyError (TypeError)      something was given or answered that is no policy, or no decision
    ├── PolicyAbort                  the policy answered ABORT
    ├── GuestNotSuspended            the guest runs although it should be suspended
    │   └── GuestSuspendTimeout      ... because it took too long
    ├── DomainRefused                this domain cannot be saved or restored as it is
    │   └── SaveInProgress           ... because another save of it is under way
    ├── SimError                     the simulated host cannot do what was asked
    ├── HostForked (RuntimeError)    the host was opened in another process
    └── XenUnavailable               there is no Xen here, or not one that this build can talk to
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Iterable

    from xenmig._native import PrecopyStats

GuestState = Literal["running", "suspended", "resumed", "unknown"]
"""What the guest does after a failure.

``running``: it was never suspended. ``suspended``: it is suspended, and must be resumed or destroyed.
``resumed``: it was suspended for the save and goes on again. ``unknown``: the hypervisor could not be asked,
or resuming failed.
"""

__all__ = [
    "DomainRefused",
    "GuestNotSuspended",
    "GuestState",
    "GuestSuspendTimeout",
    "HostForked",
    "HypercallError",
    "PolicyAbort",
    "PolicyError",
    "SaveInProgress",
    "SimError",
    "StreamError",
    "TransportError",
    "XenUnavailable",
    "XenmigError",
]


class XenmigError(Exception):
    """The base of all errors of this package.

    After a failed save, whatever the class: the stream has no END record, so no receiver takes it for whole;
    log-dirty mode is off if the save switched it on (a warning says so if that failed); nothing of the guest
    is mapped any more. A guest that was already suspended has been resumed if the save was given a way to.

    Attributes:
        guest_state: What the guest does now; ``None`` where no guest is concerned, and on restore, where
            the new domain has not run yet and is to be destroyed.
        warnings: What else went wrong while cleaning up, one sentence each.
    """

    guest_state: GuestState | None
    warnings: tuple[str, ...]

    def __init__(
        self, message: str = "", *, guest_state: GuestState | None = None, warnings: Iterable[str] = ()
    ) -> None:
        super().__init__(message)
        self.guest_state = guest_state
        self.warnings = tuple(warnings)


class _ErrnoError(XenmigError, OSError):
    """An error with an errno. ``strerror`` is the system's text for it, ``str()`` the whole message."""

    errno: int
    strerror: str

    def __init__(
        self,
        errno: int,
        message: str,
        *,
        guest_state: GuestState | None = None,
        warnings: Iterable[str] = (),
    ) -> None:
        # OSError sets errno only if it gets both; XenmigError would hand on the message alone.
        OSError.__init__(self, errno, message)
        self.strerror = os.strerror(errno)
        self.guest_state = guest_state
        self.warnings = tuple(warnings)

    def __str__(self) -> str:
        return str(self.args[1])


class HypercallError(_ErrnoError):
    """The hypervisor refused a call.

    Raised by a save or a restore at any step. ``ESRCH`` means that there is no such domain, ``EPERM`` that
    the caller may not do this, ``ENOMEM`` on restore that the host has too little memory. ``EBUSY`` has been
    retried already. The guest's state is in ``guest_state``; a domain that was being restored is incomplete:
    destroy it.

    Attributes:
        op: The call, in Xen's words, where it is known.
        domid: The domain, where it is known.

    Example:
        >>> import errno
        >>> error = HypercallError(errno.ESRCH, "getdomaininfo of d7 failed", op="getdomaininfo", domid=7)
        >>> error.errno == errno.ESRCH, error.strerror, str(error)
        (True, 'No such process', 'getdomaininfo of d7 failed')
    """

    op: str | None
    domid: int | None

    def __init__(  # noqa: PLR0913 - one for each attribute
        self,
        errno: int,
        message: str,
        *,
        op: str | None = None,
        domid: int | None = None,
        guest_state: GuestState | None = None,
        warnings: Iterable[str] = (),
    ) -> None:
        super().__init__(errno, message, guest_state=guest_state, warnings=warnings)
        self.op = op
        self.domid = domid


class TransportError(_ErrnoError):
    """The stream's file descriptor failed.

    Raised when a write or a read fails: ``EPIPE`` and ``ECONNRESET`` if the other end is gone, ``ENOSPC`` if
    the disk is full, ``EBADF`` if the descriptor is closed or open the other way, ``EISDIR``, ``EPROTOTYPE``
    or ``EINVAL`` if it is of a kind that cannot carry a stream. Bytes that were written are of no use to
    anybody: start again with a new connection or an empty file.
    """


class StreamError(XenmigError):
    """What was read is no valid migration stream: truncated, corrupt, or of a version or kind not known here.

    Raised on restore, and by the readers of :mod:`xenmig.stream`. The new domain is incomplete: destroy it,
    and let the guest go on at the source.

    Attributes:
        offset: Where it was found out, in bytes from the start of the stream.
    """

    offset: int | None

    def __init__(
        self,
        message: str,
        *,
        offset: int | None = None,
        guest_state: GuestState | None = None,
        warnings: Iterable[str] = (),
    ) -> None:
        super().__init__(message, guest_state=guest_state, warnings=warnings)
        self.offset = offset


class PolicyError(XenmigError, TypeError):
    """Something that is no policy was given as one, or a policy answered something that is no decision.

    In the first case nothing has been done and ``guest_state`` is ``None``. In the second the save has ended
    as if the answer were ABORT: the guest was never suspended. Both are type errors, and so is this class. An
    answer must be a :class:`~xenmig.Decision` or a :class:`~xenmig.Verdict`; ``True``, ``1`` and ``None`` are
    refused, because a guest must not be suspended over a missing ``return``.
    """


class PolicyAbort(XenmigError):  # noqa: N818 - it names what the policy did
    """The policy answered ABORT.

    The guest was never suspended and runs on; the save can be started again at any time.

    Attributes:
        reason: The policy's reason, if it gave one.
        iteration: Rounds that had been sent when it was asked.
        stats: The statistics of the consult at which it aborted.
    """

    reason: str | None
    iteration: int | None
    stats: PrecopyStats | None

    def __init__(  # noqa: PLR0913 - one for each attribute
        self,
        message: str,
        *,
        reason: str | None = None,
        iteration: int | None = None,
        stats: PrecopyStats | None = None,
        guest_state: GuestState | None = None,
        warnings: Iterable[str] = (),
    ) -> None:
        super().__init__(message, guest_state=guest_state, warnings=warnings)
        self.reason = reason
        self.iteration = iteration
        self.stats = stats


class GuestNotSuspended(XenmigError):  # noqa: N818 - it names a state, as PolicyAbort does
    """The suspend callback returned, but the domain is not shut down with the reason *suspend*.

    The guest may have crashed, or the callback returned too early. ``guest_state`` says what was found. A
    guest that runs goes on as if nothing had been; find out why it did not suspend before trying again.
    """


class GuestSuspendTimeout(GuestNotSuspended):
    """The guest did not suspend in time.

    Raised by suspend callbacks that ask the guest to suspend itself. The request may still be pending: a
    guest without the needed drivers ignores it, a busy one may follow it later.
    """


class DomainRefused(XenmigError):  # noqa: N818 - it names what happened to the domain
    """The domain cannot be saved, or not be restored into, as it is.

    Raised before anything is touched: the domain is of a kind not supported yet, dying, shut down, or, on
    restore, not empty. The message says what to do about it.
    """


class SaveInProgress(DomainRefused):
    """Another save of the domain is under way, in this process or another.

    Two saves of one domain would take pages out of each other's dirty bitmap, and one image would be stale
    without an error. The second is refused before anything is touched; the first goes on. Wait until it has
    ended, or end it.

    Attributes:
        pid: The process that is saving the domain, if it is known.
    """

    pid: int | None

    def __init__(
        self,
        message: str,
        *,
        pid: int | None = None,
        guest_state: GuestState | None = None,
        warnings: Iterable[str] = (),
    ) -> None:
        super().__init__(message, guest_state=guest_state, warnings=warnings)
        self.pid = pid


class SimError(XenmigError):
    """The simulated host cannot do what it was asked.

    A size, a rate, a pfn or a name makes no sense, a domid is in use, a domain is in a state that does not
    allow it, or this machine has too little memory. The message names the value and says what is allowed.
    That a domain does not exist is a :class:`HypercallError` with ``ESRCH``, as on Xen.
    """


class HostForked(XenmigError, RuntimeError):  # noqa: N818 - it names what happened to the host
    """A host was used in a child of the process that opened it.

    Mappings and vCPU threads do not follow a fork. Open a new host in the child, or start the child as a new
    program. The parent's host and its guests are untouched.
    """


class XenUnavailable(XenmigError):  # noqa: N818 - it says what is the case, like its siblings
    """There is no Xen here that can be used.

    Raised by :class:`xenmig.Xen`. The message says what is missing and what to do: no Xen below this machine,
    not its control domain, Xen's libraries not installed, another version of Xen than this build is for, or a
    build without Xen's headers. No guest was touched.

    Attributes:
        errno: The error number behind it, if there was one.
    """

    errno: int | None

    def __init__(
        self,
        message: str,
        *,
        errno: int | None = None,
        guest_state: GuestState | None = None,
        warnings: Iterable[str] = (),
    ) -> None:
        super().__init__(message, guest_state=guest_state, warnings=warnings)
        self.errno = errno
