# SPDX-License-Identifier: GPL-3.0-or-later
"""What a policy in Python costs a save: per consult, and for a whole save."""

from __future__ import annotations

import statistics
import time
import timeit
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pairs import compare

import xenmig
from xenmig.sim import Host

if TYPE_CHECKING:
    from xenmig.policy import Policy

__all__ = ["measure"]

_CALLS = 200_000
_CONTINUE, _STOP = xenmig.Decision.CONTINUE, xenmig.Decision.STOP_AND_COPY


def trivial(stats: xenmig.PrecopyStats) -> xenmig.Decision:
    """The least that a policy can do and still end: one round, then stop."""
    return _STOP if stats.iteration else _CONTINUE


def _body_s() -> float:
    stats = xenmig.PrecopyStats.example()
    return min(timeit.repeat(lambda: trivial(stats), number=_CALLS, repeat=5)) / _CALLS


def measure(memory: str, pairs: int) -> dict[str, Any]:
    """Saves an idle domain to the null device again and again, with and without a policy.

    Args:
        memory: Size of the domain.
        pairs: How many pairs of saves are timed.

    Returns:
        ``consult_us``: what one consult costs in Python beyond the built-in policy's, less the body of the
        policy. ``save_ratio``: time of a save with the policy over that of one without.
    """
    host = Host()
    guest = host.create(memory=memory)
    guest.fill()
    consults: list[int] = []

    with Path("/dev/null").open("wb") as null:

        def save(policy: Policy | None, consult: xenmig.Consult) -> None:
            result = xenmig.save(guest.domid, null, host=host, policy=policy, consult=consult)
            consults.append(result.consults)
            guest.resume()

        # The time of the thread, not of the clock on the wall: a consult is much shorter than a time slice.
        per_consult = compare(
            lambda: save(None, "batch"), lambda: save(trivial, "batch"), pairs=pairs, clock=time.thread_time
        )
        # The built-in policy is asked twice more than the trivial one: before the second round, and in it.
        asked = statistics.median(consults)
        whole = compare(lambda: save(None, "round"), lambda: save(trivial, "batch"), pairs=pairs)
    return {
        "memory": memory,
        "pairs": pairs,
        "consults": int(asked),
        "policy_body_us": _body_s() * 1e6,
        "consult_us": (per_consult.difference_s / asked - _body_s()) * 1e6,
        "save_without_ms": statistics.median(whole.base_s) * 1e3,
        "save_with_ms": statistics.median(whole.other_s) * 1e3,
        "save_ratio": whole.ratio,
    }
