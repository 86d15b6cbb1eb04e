# SPDX-License-Identifier: GPL-3.0-or-later
"""Saving a domain: the arguments checked and completed, then the engine runs.

The stream goes from the engine straight into the file descriptor. Python is entered for the policy's
consults, for the callbacks, and for signals; the interpreter is free for other threads meanwhile.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, TypeAlias

from xenmig import _native
from xenmig.descriptor import opened
from xenmig.host import lifecycle, native_host
from xenmig.policy import check_policy

if TYPE_CHECKING:
    from collections.abc import Callable

    from xenmig._native import PrecopyStats, SaveEvent, SaveResult
    from xenmig.descriptor import Stream
    from xenmig.host import AnyHost
    from xenmig.policy import Policy

__all__ = ["Consult", "save"]

Consult: TypeAlias = Literal["round", "batch"]
"""How often a policy is asked: twice a round as libxc does, or after each batch as well."""


def save(  # noqa: PLR0913 - the optional ones are keywords
    domid: int,
    out: Stream,
    *,
    host: AnyHost,
    policy: Policy | None = None,
    consult: Consult | None = None,
    live: bool = True,
    verify: bool = False,
    suspend: Callable[[], object] | None = None,
    resume: Callable[[], object] | None = None,
    device_model_logdirty: Callable[[bool], object] | None = None,
    on_progress: Callable[[PrecopyStats], object] | None = None,
    progress_interval_s: float = 0.1,
    on_event: Callable[[SaveEvent], object] | None = None,
    stall_timeout_s: float | None = 60.0,
    min_round_s: float = 0.05,
    skip_redirtied: bool = False,
) -> SaveResult:
    """Saves a domain as a libxc migration stream, version 3.

    Sends the memory while the guest runs, round after round, until the policy has seen enough; then suspends
    the guest and sends the rest. On success the guest is suspended and the stream is whole: restore it
    elsewhere and destroy the domain, or resume the domain. On failure the exception says in ``guest_state``
    what the guest does.

    Ctrl-C and other signals are heard at least every 100 ms, also while the other end takes nothing. An
    exception of a signal handler, of the policy or of a callback ends the save and comes out unchanged.

    Args:
        domid: The domain.
        out: Where the stream goes: a file descriptor, a socket without TLS, or a binary file as ``open()``
            returns it. What a file object has buffered is written first, and afterwards the object stands
            after the stream. It is not closed. The manual's page "Streams" says how to encrypt or compress.
        host: The host that the domain is on.
        policy: Who decides, at each consult, whether the precopy goes on. ``None`` is libxc's own rule: stop
            below 50 dirty pages or after five rounds.
        consult: ``"batch"`` asks before a round, after each batch and after a round, and an answer takes
            effect at once; while the other end takes nothing, it asks every 100 ms. ``"round"`` asks twice a
            round, and a STOP before a round still sends that round, as libxc does. Default: ``"batch"`` with
            a policy; without one ``"round"``, so that the stream is libxc's byte for byte.
        live: ``False`` suspends the guest first and asks no policy.
        verify: Sends all memory once more at the end, for the receiver to compare. The guest is down for all
            of it: for debugging. Only with ``live=True``.
        suspend: Suspends the guest and returns when it is suspended; called once. Default: the host's own
            way, on Xen :meth:`xenmig.Xen.suspend`.
        resume: Lets the guest go on after a failure that came after `suspend`. Default: the host's own way if
            `suspend` is the host's, otherwise it is not resumed and ``guest_state`` is ``"suspended"``.
        device_model_logdirty: Told ``True`` before the first round and ``False`` at the end of a live save,
            to pass on to the device model. Not needed for PVH guests and simulated domains.
        on_progress: Called with the statistics, at most every `progress_interval_s`; also in the final pass.
        progress_interval_s: Least time between two calls of `on_progress`, in seconds.
        on_event: Called with everything that happens: stages, consults with their answers, rounds, progress.
        stall_timeout_s: How long the other end may take nothing while the guest is suspended, in seconds.
            Then the save fails and the guest goes on. ``None`` waits for ever. While the guest runs, the
            policy is asked instead, with the phase ``"waiting"``: ``AbortAfter(seconds=...)`` ends a save
            whose other end has stalled.
        min_round_s: Least time between two CLEANs when nothing was dirty, in seconds.
        skip_redirtied: Leaves pages out of a round that are dirty again when their turn comes: the next round
            has them anyway. Costs a PEEK of the whole bitmap every 20 ms; only with ``consult="batch"``.

    Returns:
        What was sent, round by round, how long the guest was down and for what, and why the precopy ended.

    Raises:
        HypercallError: The hypervisor refused a call; ``ESRCH`` if there is no such domain.
        TransportError: `out` is closed, cannot carry a stream, failed, or stalled (``ETIMEDOUT``).
        PolicyError: `policy` is no policy, or it answered something that is no decision.
        PolicyAbort: The policy answered ABORT.
        GuestNotSuspended: `suspend` returned, but the guest is not suspended.
        SaveInProgress: Another save of the domain is under way.
        DomainRefused: The domain cannot be saved as it is.
        TypeError: An argument is of the wrong type, or `out` is an object that the stream would bypass: a TLS
            socket, a compressing file.
        ValueError: A number or a name is out of range, or `verify` is asked of a save that is not live.

    Example:
        >>> import tempfile, xenmig
        >>> from xenmig.policies import DowntimeTarget, StopAfter
        >>> host = xenmig.sim.Host()
        >>> guest = host.create(memory="64M", workload=xenmig.sim.Uniform(pages_per_s=1000))
        >>> policy = DowntimeTarget(ms=300) | StopAfter(seconds=30)
        >>> with tempfile.TemporaryFile() as file:
        ...     result = xenmig.save(guest.domid, file, host=host, policy=policy)
        >>> result.decision, result.bytes_sent > 64 << 20
        ('stop_and_copy', True)
    """
    native = native_host(host)
    if verify and not live:
        raise ValueError("verify=True needs live=True: a save that is not live sends each page once")
    if policy is not None:
        check_policy(policy)
    if suspend is None:
        suspend, own_resume = lifecycle(host, domid)
        resume = resume or own_resume
    with opened("out", out) as descriptor:
        return _native.save(
            native,
            domid,
            descriptor.fd,
            policy=policy,
            consult=consult or ("round" if policy is None else "batch"),
            live=live,
            verify=verify,
            skip_redirtied=skip_redirtied,
            min_round_s=min_round_s,
            progress_interval_s=progress_interval_s,
            suspend=suspend,
            resume=resume,
            device_model_logdirty=device_model_logdirty,
            on_progress=on_progress,
            on_event=on_event,
            stall_timeout_s=stall_timeout_s,
            peer_timeout_s=descriptor.timeout_s,
        )
