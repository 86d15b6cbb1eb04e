# SPDX-License-Identifier: GPL-3.0-or-later
"""Live migration of Xen domains, steered from Python.

:func:`save` sends a domain as a libxc migration stream while it runs, :func:`restore` makes a domain from
one, and a policy, a plain function that is asked after every batch of pages, decides when the guest is
suspended for the rest. The hot path is Rust; Python is entered once per consult and never per page.

::

    save ──> engine (Rust) ──> stream ──> file, pipe, socket ──> restore
                │     ^
    PrecopyStats│     │Decision
                v     │
             policy (Python)

Where to look: :mod:`xenmig.policies` for ready-made policies, :mod:`xenmig.sim` for a host without Xen,
:mod:`xenmig.errors` for what can go wrong, :mod:`xenmig.stream` for reading streams in pure Python.
"""

import warnings

from xenmig import policies, sim
from xenmig._native import (
    DEBUG_BUILD,
    PAGE_SIZE,
    PrecopyStats,
    RestoreEvent,
    RestoreProgress,
    RestoreResult,
    RoundStats,
    SaveEvent,
    SaveResult,
    __version__,
)
from xenmig.errors import (
    DomainRefused,
    GuestNotSuspended,
    GuestState,
    GuestSuspendTimeout,
    HostForked,
    HypercallError,
    PolicyAbort,
    PolicyError,
    SaveInProgress,
    SimError,
    StreamError,
    TransportError,
    XenmigError,
    XenUnavailable,
)
from xenmig.policy import AllOf, AnyOf, BasePolicy, Decision, Policy, Verdict
from xenmig.restore import restore
from xenmig.save import Consult, save
from xenmig.xen import Xen

__all__ = [
    "PAGE_SIZE",
    "AllOf",
    "AnyOf",
    "BasePolicy",
    "Consult",
    "Decision",
    "DomainRefused",
    "GuestNotSuspended",
    "GuestState",
    "GuestSuspendTimeout",
    "HostForked",
    "HypercallError",
    "Policy",
    "PolicyAbort",
    "PolicyError",
    "PrecopyStats",
    "RestoreEvent",
    "RestoreProgress",
    "RestoreResult",
    "RoundStats",
    "SaveEvent",
    "SaveInProgress",
    "SaveResult",
    "SimError",
    "StreamError",
    "TransportError",
    "Verdict",
    "Xen",
    "XenUnavailable",
    "XenmigError",
    "__version__",
    "policies",
    "restore",
    "save",
    "sim",
]

if DEBUG_BUILD:
    warnings.warn(
        "this is a debug build of xenmig: it is many times slower, and its timings mean nothing",
        RuntimeWarning,
        stacklevel=2,
    )
