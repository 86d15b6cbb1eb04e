# SPDX-License-Identifier: GPL-3.0-or-later
"""A deadline after which the guest stays where it is."""

from __future__ import annotations

from typing import TYPE_CHECKING

from xenmig.policies._limits import positive
from xenmig.policy import BasePolicy, Decision, Verdict

if TYPE_CHECKING:
    from xenmig._native import PrecopyStats

__all__ = ["AbortAfter"]


class AbortAfter(BasePolicy):
    """Aborts when the precopy has taken too long; never stops it.

    Why: where a long downtime is worse than no migration, ``DowntimeTarget(ms=300) |
    AbortAfter(seconds=600)`` tries for ten minutes and then leaves the guest running where it is. This policy
    only aborts, so it needs another one that stops.

    What it does not see: the time that the final pass takes. Once the guest is suspended no policy is asked.

    Args:
        seconds: Abort when the save has taken this long.

    Raises:
        ValueError: The number is not positive and finite.
        TypeError: It is not a number.

    Example:
        >>> from xenmig import PrecopyStats
        >>> AbortAfter(seconds=600)(PrecopyStats.example(iteration=40, elapsed_s=601.5))
        Verdict(decision=Decision.ABORT, reason='not done after 601.5 s, the limit is 600 s')
    """

    def __init__(self, *, seconds: float) -> None:
        self.seconds = positive("seconds", seconds)

    def __call__(self, stats: PrecopyStats, /) -> Decision | Verdict:
        """Answers one consult."""
        if stats.elapsed_s < self.seconds:
            return Decision.CONTINUE
        return Decision.ABORT.because(
            f"not done after {stats.elapsed_s:.1f} s, the limit is {self.seconds:g} s"
        )
