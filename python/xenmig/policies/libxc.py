# SPDX-License-Identifier: GPL-3.0-or-later
"""libxc's own rule, in Python. The engine has the same rule built in, for saves without a policy."""

from __future__ import annotations

from typing import TYPE_CHECKING

from xenmig.policy import BasePolicy, Decision, Verdict

if TYPE_CHECKING:
    from xenmig._native import PrecopyStats

__all__ = ["LibxcPolicy"]


class LibxcPolicy(BasePolicy):
    """Stops when fewer than 50 pages are dirty, or after five rounds.

    Why: it is what ``xc_domain_save()`` does when no policy is given. With ``consult="round"`` it gives the
    same stream as no policy at all. Use it for comparison and in combinations.

    What it does not see: how fast the link is, how fast the guest dirties its memory, how long the downtime
    will be. A guest that dirties more than 50 pages in each round always pays for five rounds, even if those
    after the first gain nothing, and then stops with whatever is dirty at that moment.

    Example:
        >>> from xenmig import PrecopyStats
        >>> LibxcPolicy()(PrecopyStats.example(iteration=1, dirty_count=49, phase="before_round"))
        Verdict(decision=Decision.STOP_AND_COPY, reason='49 dirty pages, fewer than 50')
        >>> LibxcPolicy()(PrecopyStats.example(iteration=1, dirty_count=50, phase="before_round"))
        Decision.CONTINUE
        >>> LibxcPolicy()(PrecopyStats.example(iteration=5, dirty_count=None, phase="after_round"))
        Verdict(decision=Decision.STOP_AND_COPY, reason='5 rounds sent')
    """

    TARGET_DIRTY_PAGES = 50
    """Stops with fewer dirty pages than this."""

    MAX_ITERATIONS = 5
    """Stops after this number of rounds."""

    def __call__(self, stats: PrecopyStats, /) -> Decision | Verdict:
        """Answers one consult."""
        dirty = stats.dirty_count
        target = self.TARGET_DIRTY_PAGES
        if dirty is not None and dirty < target:
            return Decision.STOP_AND_COPY.because(f"{dirty} dirty pages, fewer than {target}")
        if stats.iteration >= self.MAX_ITERATIONS:
            return Decision.STOP_AND_COPY.because(f"{stats.iteration} rounds sent")
        return Decision.CONTINUE
