# SPDX-License-Identifier: GPL-3.0-or-later
"""Who decides when the precopy ends: the answers, the protocol, and how policies are combined.

The engine asks a policy at each consult with a :class:`~xenmig.PrecopyStats` and does what it answers.
Ready-made policies are in :mod:`xenmig.policies`; this module needs nothing of the extension, which imports
it.

A policy is anything that can be called with the statistics. A plain function will do:

    >>> def patient(stats):
    ...     if stats.dirty_count is not None and stats.dirty_count < 1000:
    ...         return Decision.STOP_AND_COPY.because("fewer than 1000 pages are dirty")
    ...     return Decision.CONTINUE

A class that derives from :class:`BasePolicy` can also be combined with any other policy: ``a | b`` stops when
either would, ``a & b`` when both would.
"""

from __future__ import annotations

import inspect
from abc import ABC, abstractmethod
from enum import IntEnum
from typing import TYPE_CHECKING, ClassVar, NamedTuple, Protocol, cast

from xenmig.errors import PolicyError

if TYPE_CHECKING:
    from xenmig._native import PrecopyStats

__all__ = ["AllOf", "AnyOf", "BasePolicy", "Decision", "Policy", "Verdict", "check_policy"]


class Decision(IntEnum):
    """What a policy answers. The numbers are those of ``XGS_POLICY_*`` in Xen's ``xenguest.h``."""

    ABORT = -1
    """Give up. The guest is never suspended and runs on; the save raises :class:`~xenmig.PolicyAbort`."""

    CONTINUE = 0
    """Go on with the precopy."""

    STOP_AND_COPY = 1
    """Suspend the guest and send the rest."""

    def because(self, reason: str) -> Verdict:
        """Adds the reason, for the log, the progress display and the result.

        Example:
            >>> Decision.ABORT.because("the window has closed")
            Verdict(decision=<Decision.ABORT: -1>, reason='the window has closed')
        """
        return Verdict(self, reason)


class Verdict(NamedTuple):
    """A decision and why it was taken.

    Attributes:
        decision: The decision.
        reason: Why, in the policy's words. A decision without a reason is answered as it is.
    """

    decision: Decision
    reason: str


class Policy(Protocol):
    """Anything that answers a consult.

    With ``consult="batch"`` it is asked before a round (``phase="before_round"``, ``dirty_count`` known),
    after each batch of up to 1024 pages that had something to send (``"batch"``) and after a round
    (``"after_round"``), and each answer takes effect at once. With ``consult="round"`` it is asked twice a
    round, as libxc does.

    It runs on the thread that called :func:`xenmig.save`. It may take its time, but the guest goes on
    dirtying meanwhile. An exception that it raises ends the save as ABORT would and comes out of it
    unchanged.
    """

    def __call__(self, stats: PrecopyStats, /) -> Decision | Verdict:
        """Answers one consult."""
        ...


class BasePolicy(ABC):
    """A policy that can be combined with others.

    On either side of ``|`` and ``&`` may stand a plain function. An ABORT of any member always wins, whatever
    the operator: it is how a policy says that the guest must not be suspended. All members are asked at every
    consult, even if the first has settled the matter, because a policy may keep state: one that smooths a
    rate, or waits for a minimum, must not miss statistics only because of its place in the expression.
    """

    @abstractmethod
    def __call__(self, stats: PrecopyStats, /) -> Decision | Verdict:
        """Answers one consult."""

    def __or__(self, other: Policy) -> AnyOf:
        """Stops when either would."""
        return AnyOf(self, other) if callable(other) else NotImplemented

    def __ror__(self, other: Policy) -> AnyOf:
        """Stops when either would."""
        return AnyOf(other, self) if callable(other) else NotImplemented

    def __and__(self, other: Policy) -> AllOf:
        """Stops when both would, at the same consult."""
        return AllOf(self, other) if callable(other) else NotImplemented

    def __rand__(self, other: Policy) -> AllOf:
        """Stops when both would, at the same consult."""
        return AllOf(other, self) if callable(other) else NotImplemented


class _Combination(BasePolicy):
    """Several policies as one. A member of the same kind is replaced by its own members."""

    _operator: ClassVar[str]

    def __init__(self, *members: Policy) -> None:
        if not members:
            raise PolicyError(f"{type(self).__name__} needs at least one policy")
        self.members: tuple[Policy, ...] = tuple(
            part
            for member in members
            for part in (member.members if type(member) is type(self) else (check_policy(member),))
        )

    def __repr__(self) -> str:
        return "(" + f" {self._operator} ".join(map(_name, self.members)) + ")"

    def __call__(self, stats: PrecopyStats, /) -> Decision | Verdict:
        """Asks every member and combines their answers; the reason names those that decided."""
        answers = [member(stats) for member in self.members]
        if all(answer is Decision.CONTINUE for answer in answers):
            return Decision.CONTINUE
        verdicts = [_verdict(member, answer) for member, answer in zip(self.members, answers, strict=True)]
        decision = self._combine([verdict.decision for verdict in verdicts])
        if decision is Decision.CONTINUE:
            return decision
        reasons = [
            f"{_name(member)}: {verdict.reason}" if verdict.reason else _name(member)
            for member, verdict in zip(self.members, verdicts, strict=True)
            if verdict.decision is decision
        ]
        return decision.because("; ".join(reasons))

    @abstractmethod
    def _combine(self, decisions: list[Decision]) -> Decision: ...


class AnyOf(_Combination):
    """Stops when any member would: what ``a | b`` makes. ``AnyOf(f, g)`` combines two plain functions.

    Attributes:
        members: The policies, in the order in which they are asked.
    """

    _operator = "|"

    def _combine(self, decisions: list[Decision]) -> Decision:
        if Decision.ABORT in decisions:
            return Decision.ABORT
        return max(decisions)


class AllOf(_Combination):
    """Stops when all members would at the same consult: what ``a & b`` makes.

    Attributes:
        members: The policies, in the order in which they are asked.
    """

    _operator = "&"

    def _combine(self, decisions: list[Decision]) -> Decision:
        # ABORT is the smallest, so it wins here as well.
        return min(decisions)


def check_policy(policy: object) -> Policy:
    """Returns what was given as a policy if it can be one.

    Raises:
        PolicyError: It cannot be called, or it is a class where an instance is meant, or a coroutine
        function.
    """
    if inspect.isclass(policy):
        name = policy.__name__
        raise PolicyError(f"the policy is the class {name}: give an instance, {name}(...)")
    if not callable(policy):
        raise PolicyError(
            f"a policy is called with the statistics, and {type(policy).__name__} objects cannot be called"
        )
    if inspect.iscoroutinefunction(policy) or inspect.iscoroutinefunction(type(policy).__call__):
        raise PolicyError(f"the policy {_name(policy)} is a coroutine function: a policy answers at once")
    return cast("Policy", policy)


def _verdict(member: Policy, answer: object) -> Verdict:
    match answer:
        case Decision():
            return answer.because("")
        case Verdict(decision=Decision(), reason=str()):
            return answer
    raise PolicyError(f"the policy {_name(member)} answered {answer!r}: give a Decision or a Verdict")


def _name(policy: object) -> str:
    """What a policy is called in a reason: a function's own name, else its class's; a combination in full."""
    if isinstance(policy, _Combination):
        return repr(policy)
    name: str | None = getattr(policy, "__name__", None)
    return name or type(policy).__name__
