# SPDX-License-Identifier: GPL-3.0-or-later
"""Restoring a domain: the arguments checked, then the engine reads the stream into an empty domain."""

from __future__ import annotations

from typing import TYPE_CHECKING

from xenmig import _native
from xenmig.descriptor import opened
from xenmig.host import native_host

if TYPE_CHECKING:
    from collections.abc import Callable

    from xenmig._native import RestoreEvent, RestoreProgress, RestoreResult
    from xenmig.descriptor import Stream
    from xenmig.host import AnyHost

__all__ = ["restore"]


def restore(  # noqa: PLR0913 - the optional ones are keywords
    domid: int,
    source: Stream,
    *,
    host: AnyHost,
    store_evtchn: int | None = None,
    store_domid: int = 0,
    console_evtchn: int | None = None,
    console_domid: int = 0,
    static_data_done: Callable[[int], object] | None = None,
    on_progress: Callable[[RestoreProgress], object] | None = None,
    on_event: Callable[[RestoreEvent], object] | None = None,
    progress_interval_s: float = 0.1,
    stall_timeout_s: float | None = None,
) -> RestoreResult:
    """Restores a libxc migration stream, version 2 or 3, into an empty domain.

    The domain must exist, have no memory yet, and may have as many pages as the saved one. On success it is
    complete and does not run yet: start it when the other side has let go of the original. On failure destroy
    it. A restore fails if another program destroys or starts its domain, which is checked once a second.

    A guest of Xen's is connected to its toolstack by two event channels, which the toolstack allocates in the
    new domain beforehand. With them the pages that the guest shares with xenstore, its console and its device
    model are emptied (what is in them concerns the other host), the channels are told to the guest, and the
    domains at their other ends are granted the pages. Without them the domain is what was saved, to the last
    byte: right for the simulated host, where there is nothing to be connected to.

    The domain must be of the stream's kind: a PV domain for a PV guest, of either width; any other for an HVM
    or PVH guest. A PV guest's shared pages are not emptied: both sides find in them how far they had come.

    Reading ends with the END record. What follows it in the file or connection is read from there as usual:
    ``source.tell()`` and ``source.read()`` continue after the stream.

    Args:
        domid: The empty domain.
        source: Where the stream comes from: a file descriptor, a socket without TLS, or a binary file as
            ``open()`` returns it. It is not closed. The manual's page "Streams" says how to decrypt or
            decompress.
        host: The host that the domain is on.
        store_evtchn: The new domain's event channel to xenstore. Give this and the next, or neither.
        store_domid: The domain that xenstore runs in.
        console_evtchn: The new domain's event channel to its console.
        console_domid: The domain that the console is served by.
        static_data_done: Called once, before any memory arrives, with what the stream lacks of the CPU
            policy: 1 for CPUID, 2 for MSRs, 3 for both, 0 for nothing (``XGR_SDD_MISSING_*`` of
            ``xenguest.h``). What is there is set by then. What is missing is the caller's to set: streams of
            Xen before 4.14 have none of it. An exception ends the restore, and comes out unchanged.
        on_progress: Called with what has arrived, at most every `progress_interval_s`.
        on_event: Called with everything that happens: each stage that is reached, and the progress.
        progress_interval_s: Least time between two calls of `on_progress`, in seconds.
        stall_timeout_s: How long the sender may send nothing, in seconds. Then the restore fails with a
            TransportError of ``ETIMEDOUT``. ``None`` waits for ever: a sender may pause a migration for as
            long as it likes. The timeout of a socket (``settimeout``) limits it in the same way; the shorter
            one holds.

    Returns:
        What was received, and in `store_gfn` and `console_gfn` where the shared pages are, of which the
        toolstack has to tell xenstore. For a PV guest these are frames of the host.

    Raises:
        StreamError: The stream is truncated, corrupt, or not one that can be restored.
        TransportError: `source` is closed, cannot carry a stream, failed, or stalled (``ETIMEDOUT``).
        HypercallError: The hypervisor refused a call; ``ESRCH`` if there is no such domain, or not any more.
        DomainRefused: The domain cannot be restored into as it is, is not of the stream's kind, or was
            started by another program.
        TypeError: An argument is of the wrong type, or `source` is an object that would be bypassed: a TLS
            socket, a compressing file.
        ValueError: A number is out of range; one event channel is given without the other; or `source` is a
            pipe or socket of which a file object has read ahead: open it with ``buffering=0``.

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
    native = native_host(host)
    with opened("source", source) as descriptor:
        return _native.restore(
            native,
            domid,
            descriptor.fd,
            store_evtchn=store_evtchn,
            store_domid=store_domid,
            console_evtchn=console_evtchn,
            console_domid=console_domid,
            static_data_done=static_data_done,
            on_progress=on_progress,
            on_event=on_event,
            progress_interval_s=progress_interval_s,
            stall_timeout_s=stall_timeout_s,
            peer_timeout_s=descriptor.timeout_s,
        )
