# SPDX-License-Identifier: GPL-3.0-or-later
"""How a policy decides when the precopy ends: the answers, the protocol, and how policies are combined.

At each consult the engine calls the policy with a :class:`~xenmig.PrecopyStats` and does what it answers.
Ready-made policies are in :mod:`xenmig.policies`. This module does not import the extension, because the
extension imports it.

A policy is anything that can be called with the statistics. A plain function will do:

    >>> def patient(stats):
    ...     if stats.dirty_count is not None and stats.dirty_count < 1000:
    ...         return Decision.STOP_AND_COPY.because("fewer than 1000 pages are dirty")
    ...     return Decision.CONTINUE

A class that derives from :class:`BasePolicy` can also be combined with any other policy: ``a | b`` stops when
either would, ``a & b`` when both would. Its instances are values: they can be shown,
compared, copied and pickled.
"""

from __future__ import annotations

import inspect
from abc import ABC, abstractmethod
from enum import IntEnum
from typing import TYPE_CHECKING, ClassVar, NamedTuple, Protocol, cast

from xenmig.errors import PolicyError
from xenmig.policy_arguments import arguments_of, call_of, keeping_arguments

if TYPE_CHECKING:
    from xenmig._native import PrecopyStats

__all__ = ["AllOf", "AnyOf", "BasePolicy", "Decision", "Policy", "Verdict", "check_policy", "verdict_of"]


class Decision(IntEnum):
    """What a policy answers. The numbers are those of ``XGS_POLICY_*`` in Xen's ``xenguest.h``."""

    ABORT = -1
    """Give up. The guest is never suspended and runs on; ``save`` raises :class:`~xenmig.PolicyAbort`."""

    CONTINUE = 0
    """Continue the precopy."""

    STOP_AND_COPY = 1
    """Suspend the guest and send the rest."""

    def __repr__(self) -> str:
        return f"{type(self).__name__}.{self.name}"

    def because(self, reason: str) -> Verdict:
        """Adds the reason, for the log, the progress display and the result.

        Example:
            >>> Decision.ABORT.because("the window has closed")
            Verdict(decision=Decision.ABORT, reason='the window has closed')
        """
        return Verdict(self, reason)


class Verdict(NamedTuple):
    """A decision and why it was taken.

    Attributes:
        decision: The decision.
        reason: Why, in the policy's words; empty if it gave none. To give none, a policy returns the bare
            decision.
    """

    decision: Decision
    reason: str


class Policy(Protocol):
    """Anything that answers a consult.

    With ``consult="batch"`` it is asked before a round (``phase="before_round"``, ``dirty_count`` known),
    after each batch of up to 1024 pages that had something to send (``"batch"``) and after a round
    (``"after_round"``), and each answer takes effect at once. With ``consult="round"`` it is asked twice a
    round, as libxc does.

    It runs on the thread that called :func:`xenmig.save`. It may take its time, but the guest keeps dirtying
    memory meanwhile. If it raises, the save ends as by ABORT and raises the same exception.
    """

    def __call__(self, stats: PrecopyStats, /) -> Decision | Verdict:
        """Answers one consult."""
        ...


class BasePolicy(ABC):
    """A policy that can be combined with others, and is a value.

    Either side of ``|`` and ``&`` may be a plain function. An ABORT from any member always wins, whatever the
    operator: it is how a policy says that the guest must not be suspended. All members are asked at every
    consult, even if the first settles the matter, because a policy may keep state: one that smooths a rate,
    or waits for a minimum, must not miss statistics because of its place in the expression.

    The arguments of a subclass's ``__init__`` are recorded. ``repr()`` shows those that differ from their
    default; two policies are equal, and have the same hash, if they have the same class and equal arguments.
    State that a policy keeps between consults does not count. Copies and pickles include it.

    Example:
        >>> class Patient(BasePolicy):
        ...     def __init__(self, pages, *, rounds=3):
        ...         self.pages, self.rounds = pages, rounds
        ...
        ...     def __call__(self, stats, /):
        ...         return Decision.STOP_AND_COPY if stats.iteration >= self.rounds else Decision.CONTINUE
        >>> Patient(1000)
        Patient(pages=1000)
        >>> Patient(1000) == Patient(pages=1000, rounds=3)
        True
    """

    def __init_subclass__(cls, **kwargs: object) -> None:
        super().__init_subclass__(**kwargs)
        if "__init__" in vars(cls):
            cls.__init__ = keeping_arguments(cls.__init__)  # type: ignore[method-assign]

    def __repr__(self) -> str:
        arguments = arguments_of(self)
        return super().__repr__() if arguments is None else call_of(self, arguments)

    def __eq__(self, other: object) -> bool:
        if type(other) is not type(self):
            return NotImplemented
        arguments = arguments_of(self)
        return NotImplemented if arguments is None else arguments == arguments_of(other)

    def __hash__(self) -> int:
        arguments = arguments_of(self)
        return super().__hash__() if arguments is None else hash((type(self), *arguments.values()))

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
    """Several policies as one.

    A member of the same kind is replaced by its own members. Two combinations of a kind are equal if their
    members are, in order.
    """

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
        shown = [getattr(member, "__name__", None) or repr(member) for member in self.members]
        # An operator makes no subclass, and needs a BasePolicy at its left or right.
        made_by_operator = type(self) in {AnyOf, AllOf} and len(shown) > 1
        if made_by_operator and any(isinstance(member, BasePolicy) for member in self.members[:2]):
            return f"({f' {self._operator} '.join(shown)})"
        return f"{type(self).__name__}({', '.join(shown)})"

    def __eq__(self, other: object) -> bool:
        return self.members == other.members if type(other) is type(self) else NotImplemented

    def __hash__(self) -> int:
        return hash((type(self), self.members))

    def __call__(self, stats: PrecopyStats, /) -> Decision | Verdict:
        """Asks every member and combines their answers; the reason names those that decided."""
        answers = [member(stats) for member in self.members]
        if all(answer is Decision.CONTINUE for answer in answers):
            return Decision.CONTINUE
        verdicts = [verdict_of(member, answer) for member, answer in zip(self.members, answers, strict=True)]
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


def verdict_of(policy: Policy, answer: object) -> Verdict:
    """Returns a policy's answer as a verdict; a bare decision has an empty reason.

    Raises:
        PolicyError: It is neither a decision nor a verdict.
    """
    match answer:
        case Decision():
            return answer.because("")
        case Verdict(decision=Decision(), reason=str()):
            return answer
    raise PolicyError(f"the policy {_name(policy)} answered {answer!r}: give a Decision or a Verdict")


def _name(policy: object) -> str:
    """Returns a policy's name for a reason: a function's own name, otherwise its class's."""
    if isinstance(policy, _Combination):
        return "(" + f" {policy._operator} ".join(map(_name, policy.members)) + ")"  # noqa: SLF001 - its own module
    name: str | None = getattr(policy, "__name__", None)
    return name or type(policy).__name__
