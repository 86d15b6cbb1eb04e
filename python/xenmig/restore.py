# SPDX-License-Identifier: GPL-3.0-or-later
"""Restoring a domain: the arguments checked, then the engine reads the stream into an empty domain."""

from __future__ import annotations

from typing import TYPE_CHECKING

from xenmig import _native
from xenmig.descriptor import reading
from xenmig.host import native_host

if TYPE_CHECKING:
    from collections.abc import Callable

    from xenmig._native import RestoreProgress, RestoreResult
    from xenmig.descriptor import Stream
    from xenmig.host import AnyHost

__all__ = ["restore"]


def restore(
    domid: int,
    source: Stream,
    *,
    host: AnyHost,
    on_progress: Callable[[RestoreProgress], object] | None = None,
    progress_interval_s: float = 0.1,
) -> RestoreResult:
    """Restores a libxc migration stream, version 2 or 3, into an empty domain.

    The domain must exist, have no memory yet, and may have as many pages as the saved one. On success it is
    whole and does not run yet: start it when the other side has let go of the original. On failure destroy
    it.

    Reading ends with the END record: what follows it in the file or connection is left there.

    Args:
        domid: The empty domain.
        source: Where the stream comes from: a file descriptor, or an open file, pipe or stream socket. It is
            not closed.
        host: The host that the domain is on.
        on_progress: Called with what has arrived, at most every `progress_interval_s`.
        progress_interval_s: Least time between two calls of `on_progress`, in seconds.

    Returns:
        What was received.

    Raises:
        StreamError: The stream is truncated, corrupt, or not one that can be restored.
        TransportError: `source` is closed, cannot carry a stream, or failed.
        HypercallError: The hypervisor refused a call; ``ESRCH`` if there is no such domain.
        DomainRefused: The domain cannot be restored into as it is.
        TypeError: An argument is of the wrong type.
        ValueError: A number is out of range.

    Example:
        >>> import os, tempfile, xenmig
        >>> host = xenmig.sim.Host()
        >>> guest = host.create(memory="64M")
        >>> copy = host.create(memory="64M", populated=False)
        >>> with tempfile.TemporaryFile() as file:
        ...     saved = xenmig.save(guest.domid, file, host=host)
        ...     _ = file.seek(0)
        ...     restored = xenmig.restore(copy.domid, file, host=host)
        >>> restored.bytes_received == saved.bytes_sent
        True
        >>> copy.fingerprint() == guest.fingerprint()
        True
    """
    return _native.restore(
        native_host(host),
        domid,
        reading(source),
        on_progress=on_progress,
        progress_interval_s=progress_interval_s,
    )
