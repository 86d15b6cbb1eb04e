# SPDX-License-Identifier: GPL-3.0-or-later
"""What a policy would have answered to statistics that were recorded."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from xenmig._native import PrecopyStats
from xenmig.policy import check_policy, verdict_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from xenmig.policy import Policy, Verdict

__all__ = ["replay"]

_GUEST_SUSPENDED = {"stop_and_copy", "verify"}
"""The phases in which no policy is asked."""


def replay(policy: Policy, trace: Iterable[PrecopyStats | Mapping[str, Any]]) -> list[Verdict]:
    """Asks a policy at each consult of a recorded trace.

    The trace is what a policy or ``on_progress`` was called with, in order: the statistics themselves, or the
    dictionaries of ``stats.to_dict()``, which JSON can hold. A trace does not react: what the policy would
    have changed by stopping earlier or later is not in it, so record it with a policy that goes on for long
    enough. A policy that keeps state starts with the state that it has; give a fresh one.

    Args:
        policy: The policy.
        trace: The statistics. Those of a suspended guest (phases ``"stop_and_copy"`` and ``"verify"``) are no
            consults and are left out.

    Returns:
        One verdict for each consult, in order, also after the first that would have ended the precopy. A
        decision without a reason has an empty one.

    Raises:
        PolicyError: `policy` is not a policy, or its answer is not a decision.
        TypeError: A dictionary has a field that statistics do not have, or a value of the wrong type.
        ValueError: A value is out of range, or contradicts the other fields.

    Example:
        >>> from xenmig.policies import StopAfter
        >>> trace = [{"iteration": n, "phase": "after_round", "elapsed_s": 1.5 * n} for n in range(1, 5)]
        >>> for verdict in replay(StopAfter(seconds=4), trace):
        ...     print(verdict)
        Verdict(decision=Decision.CONTINUE, reason='')
        Verdict(decision=Decision.CONTINUE, reason='')
        Verdict(decision=Decision.STOP_AND_COPY, reason='4.5 s, the limit is 4 s')
        Verdict(decision=Decision.STOP_AND_COPY, reason='6.0 s, the limit is 4 s')
    """
    check_policy(policy)
    consults = (item if isinstance(item, PrecopyStats) else PrecopyStats.example(**item) for item in trace)
    return [verdict_of(policy, policy(stats)) for stats in consults if stats.phase not in _GUEST_SUSPENDED]
