# SPDX-License-Identifier: GPL-3.0-or-later
"""A small policy: the guest may be suspended at night only.

By day the precopy goes on, so that at the first quiet minute little is left to send. Combined with a downtime
target, and with a deadline after which the guest stays where it is::

    python examples/quiet_hours.py 22 5
    xenmig demo --policy examples/quiet_hours.py:QuietHours --policy-arg first_hour=0 --policy-arg end_hour=24
"""

import sys
import time
from pathlib import Path

import xenmig
from xenmig.policies import AbortAfter, DowntimeTarget


class QuietHours(xenmig.BasePolicy):
    """Stops within the given hours of local time, which may span midnight, whatever is left to send."""

    def __init__(self, first_hour: int, end_hour: int) -> None:
        night = range(first_hour, end_hour if first_hour < end_hour else end_hour + 24)
        self.hours = {hour % 24 for hour in night}

    def __call__(self, _stats: xenmig.PrecopyStats, /) -> xenmig.Decision | xenmig.Verdict:
        """Answers one consult."""
        hour = time.localtime().tm_hour
        if hour in self.hours:
            return xenmig.Decision.STOP_AND_COPY.because(f"{hour} o'clock is a quiet hour")
        return xenmig.Decision.CONTINUE


def main(first_hour: str = "0", end_hour: str = "24") -> None:
    """Saves a simulated guest under the policy."""
    quiet = QuietHours(int(first_hour), int(end_hour))
    policy = DowntimeTarget(ms=300) & quiet | AbortAfter(seconds=8 * 3600)
    host = xenmig.sim.Host()
    guest = host.create(memory="64M", workload=xenmig.sim.HotCold(hot_pages=500, hot_pages_per_s=2000))
    with Path("/dev/null").open("wb") as sink:
        result = xenmig.save(guest.domid, sink, host=host, policy=policy)
    print(f"{result.rounds} rounds, downtime {result.downtime_ms:.1f} ms; stopped because {result.reason}")


if __name__ == "__main__":
    main(*sys.argv[1:])
