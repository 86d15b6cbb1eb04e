# SPDX-License-Identifier: GPL-3.0-or-later
"""Stops as soon as the expected downtime is within a target."""

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

    The expected downtime is the time to send the pages that the final pass owes now, at the send rate of the
    last second or so, plus what a suspension costs apart from pages. Owed are the rest of this round, the
    deferred pages, and those that are dirty again. The policy is asked after each batch, so it can stop in
    the middle of a round, as soon as the rest fits. Pages that the first round has not sent yet are owed like
    any others: it stops before all memory has been seen only if what is unseen fits as well.

    The last PEEK, up to 100 ms ago, counted the pages that are dirty again; its dirty rate brings the count
    up to date. In a round without a PEEK the policy continues: the rate of the previous round is no guide,
    because a page that is written all the time counts once in a long round and once in a short one. Before a
    round the count is exact. Before the first batch there is no send rate, and the policy continues as well.

    Two arguments correct the estimate. While the guest is suspended, a page costs less than the live rate
    suggests, because the guest no longer competes for memory and CPUs (``speedup`` above 1). But suspending a
    real guest takes tens of milliseconds, and the last CLEAN and the device state take their share
    (``overhead_ms``). Measure both on your host: after ``result = xenmig.save(...)`` the overhead is
    ``result.downtime_ms - result.final_pages_ms``, and the speedup is the rate of ``result.passes[-1]``
    divided by that of the rounds before it. Without a measurement, the defaults are cautious on a fast link
    and right on a slow one.

    What it does not see: the receiver's work after the last byte; a guest that becomes busier while it is
    being suspended; and the future, so it does not wait for a quieter moment. A guest that dirties memory
    faster than the link carries it never meets the target: combine it with
    :class:`~xenmig.policies.StopAfter` or :class:`~xenmig.policies.AbortAfter`.

    Args:
        ms: The longest acceptable downtime, in milliseconds. Defaults elsewhere are 300 (QEMU, Cloud
            Hypervisor) and 500 (vMotion).
        overhead_ms: What a suspension takes apart from sending pages, in milliseconds; less than `ms`.
        speedup: How much faster pages are sent once the guest is suspended; at least 1.

    Raises:
        ValueError: A number is out of range, or the overhead alone reaches the target.
        TypeError: An argument is not a number.

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
    """Returns how many pages are dirty again now; ``None`` if none were counted since the last CLEAN."""
    if stats.phase == "before_round" and stats.iteration > 0:
        return 0
    if stats.pages_redirtied is None or stats.dirty_rate_pages_per_s is None:
        return None
    return max(stats.pages_redirtied, stats.dirty_rate_pages_per_s * stats.round_elapsed_s)
