# SPDX-License-Identifier: GPL-3.0-or-later
"""Ready-made policies, one file each, and :func:`replay`, which asks one about a recorded save.

All can be combined with ``|`` and ``&``, with each other and with plain functions::

    DowntimeTarget(ms=300) | StopAfter(factor_of_ram=3)      # whichever comes first
    DowntimeTarget(ms=300) | AbortAfter(seconds=600)         # give up rather than exceed the target
"""

from xenmig.policies.abort_after import AbortAfter
from xenmig.policies.downtime_target import DowntimeTarget
from xenmig.policies.libxc import LibxcPolicy
from xenmig.policies.replay import replay
from xenmig.policies.stop_after import StopAfter

__all__ = ["AbortAfter", "DowntimeTarget", "LibxcPolicy", "StopAfter", "replay"]
