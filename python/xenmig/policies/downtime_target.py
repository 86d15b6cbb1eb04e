# SPDX-License-Identifier: GPL-3.0-or-later
"""Stops as soon as the guest would be down for no longer than wanted."""

from __future__ import annotations

from typing import TYPE_CHECKING

from xenmig._native import PAGE_SIZE
from xenmig.policies._limits import at_least, positive
from xenmig.policy import BasePolicy, Decision, Verdict

if TYPE_CHECKING:
    from xenmig._native import PrecopyStats

__all__ = ["DowntimeTarget"]


class DowntimeTarget(BasePolicy):
    """Stops when the expected downtime is at most `ms` milliseconds.

    Expected is the time for the pages that the final pass would have to send now, at the send rate of the
    last second or so, plus what a suspension costs besides pages. Owed are the rest of this round, what was
    deferred, and what is dirty again. Asked after each batch, it can stop in the middle of a round, at the
    moment the rest fits. Pages of the first round that were not sent yet are owed like any others, so it does
    not stop before all memory was seen, except if what is unseen fits as well.

    What is dirty again was counted by the last PEEK, which is up to 100 ms old; it is brought up to date with
    the dirty rate of that PEEK. In a round without a PEEK it goes on: the rate of the round before is no
    guide, because a page that is written all the time counts once in a long round as in a short one. Before a
    round the count is exact. Without a send rate, before the first batch, it goes on as well.

    The two corrections are for this: with the guest suspended, a page costs less than the live rate says,
    since nobody competes for the memory and the CPUs (``speedup`` above 1); but suspending a real guest takes
    tens of milliseconds, and the last CLEAN and the device state take their share (``overhead_ms``). Measure
    both on the host in question: with ``result = xenmig.save(...)``, the overhead is ``result.downtime_ms -
    result.final_pages_ms``, and the speedup is the rate of ``result.passes[-1]`` divided by that of the
    rounds before it. Without a measurement, the defaults are cautious on a fast link and right on a slow one.

    What it does not see: what the receiver still has to do after the last byte; a guest that becomes busier
    while it is being suspended; and the future, so it does not wait for a quieter moment. A guest that
    dirties memory faster than the link takes it never gets there: combine it with
    :class:`~xenmig.policies.StopAfter` or :class:`~xenmig.policies.AbortAfter`.

    Args:
        ms: The longest downtime wanted, in milliseconds. Others use 300 (QEMU, Cloud Hypervisor) or 500
            (vMotion).
        overhead_ms: What a suspension takes besides sending pages, in milliseconds; less than `ms`.
        speedup: How much faster pages go out once the guest is suspended; at least 1.

    Raises:
        ValueError: A number makes no sense, or the overhead alone is not below the target.
        TypeError: Something is no number.

    Example:
        25,000 pages at 1 GB/s are 102 ms:

        >>> from xenmig import PrecopyStats
        >>> stats = PrecopyStats.example(
        ...     iteration=2, phase="batch", ram_pages=262144, pages_remaining=20000, pages_redirtied=5000,
        ...     send_rate_bytes_per_s=1e9, dirty_rate_pages_per_s=10000.0,
        ... )
        >>> DowntimeTarget(ms=100)(stats)
        Decision.CONTINUE
        >>> DowntimeTarget(ms=150)(stats).reason
        '25000 pages owed, expected downtime 122 ms of 150 ms'
    """

    def __init__(self, *, ms: float, overhead_ms: float = 20.0, speedup: float = 1.0) -> None:
        self.ms = positive("ms", ms)
        self.overhead_ms = at_least(0, "overhead_ms", overhead_ms)
        self.speedup = at_least(1, "speedup", speedup)
        if self.overhead_ms >= self.ms:
            raise ValueError(
                f"overhead_ms ({overhead_ms:g}) leaves nothing of the {ms:g} ms for pages: "
                "give a longer downtime, or a smaller overhead if it was measured"
            )

    def __call__(self, stats: PrecopyStats, /) -> Decision | Verdict:
        """Answers one consult."""
        rate, redirtied = stats.send_rate_bytes_per_s, _redirtied(stats)
        if not rate or redirtied is None:
            return Decision.CONTINUE
        unsent = stats.pages_remaining
        if stats.iteration == 0:
            # The first round claims holes too.
            unsent = min(unsent, max(stats.ram_pages - stats.pages_sent, 0))
        owed = min(unsent + stats.pages_deferred + redirtied, stats.ram_pages)
        expected_ms = 1000 * owed * PAGE_SIZE / (rate * self.speedup) + self.overhead_ms
        if expected_ms > self.ms:
            return Decision.CONTINUE
        return Decision.STOP_AND_COPY.because(
            f"{owed:.0f} pages owed, expected downtime {expected_ms:.0f} ms of {self.ms:g} ms"
        )


def _redirtied(stats: PrecopyStats) -> float | None:
    """Returns how many pages are dirty again now; ``None`` if nobody has counted since the last CLEAN."""
    if stats.phase == "before_round" and stats.iteration > 0:
        return 0
    if stats.pages_redirtied is None or stats.dirty_rate_pages_per_s is None:
        return None
    return max(stats.pages_redirtied, stats.dirty_rate_pages_per_s * stats.round_elapsed_s)
