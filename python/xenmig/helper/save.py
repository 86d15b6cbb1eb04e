# SPDX-License-Identifier: GPL-3.0-or-later
"""A save for libxl: :func:`xenmig.save`, with libxl behind its callbacks."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from xenmig.errors import HypercallError, XenmigError
from xenmig.helper.libxl import LOG_INTERVAL_S, PROGRESS_INTERVAL_S, Level
from xenmig.helper.outcome import Failure
from xenmig.helper.signals import Interrupted, uninterrupted
from xenmig.progress_text import describe, describe_briefly
from xenmig.save import save as xenmig_save
from xenmig.xen.state import state_now

if TYPE_CHECKING:
    from xenmig._native import PrecopyStats, SaveResult
    from xenmig.errors import GuestState
    from xenmig.helper.arguments import SaveRequest
    from xenmig.helper.libxl import Libxl
    from xenmig.helper.signals import Signals
    from xenmig.policy import Decision, Policy, Verdict
    from xenmig.save import Consult
    from xenmig.xen import Xen

__all__ = ["Save"]


@dataclass(frozen=True)
class Save:
    """A save that can begin.

    Attributes:
        request: What libxl asks for.
        host: Where the domain is.
        policy: Who decides when the precopy ends; ``None`` is libxc's own rule.
        consult: How often it is asked.
        skip_redirtied: Whether pages that are dirty again are left out of a round.
        stall_timeout_s: How many seconds the other end may take nothing while the guest is suspended;
            ``None`` is no limit.
    """

    request: SaveRequest
    host: Xen
    policy: Policy | None
    consult: Consult | None
    skip_redirtied: bool
    stall_timeout_s: float | None = None

    def run(self, libxl: Libxl, signals: Signals) -> SaveResult | Failure:
        """Saves the domain. Whatever happens comes back as a value."""
        request = self.request
        policy = None if self.policy is None else _WatchedPolicy(self.policy, signals)

        @uninterrupted
        def suspend() -> None:
            libxl.suspend()
            signals.check()

        @uninterrupted
        def device_model_logdirty(on: bool) -> None:  # noqa: FBT001 - it is called so
            libxl.switch_device_model_logdirty(request.domid, on=on)
            if on:
                signals.check()

        try:
            return xenmig_save(
                request.domid,
                request.io_fd,
                host=self.host,
                policy=policy,
                consult=self.consult,
                live=request.live,
                verify=request.verify,
                suspend=suspend,
                device_model_logdirty=device_model_logdirty if request.device_model else None,
                on_progress=_Progress(libxl, signals, live=request.live),
                progress_interval_s=PROGRESS_INTERVAL_S,
                skip_redirtied=self.skip_redirtied,
                stall_timeout_s=self.stall_timeout_s,
            )
        except BaseException as error:  # noqa: BLE001 - a policy may raise anything, and libxl is to hear of it
            return self._failure(error, policy)

    @uninterrupted
    def _failure(self, error: BaseException, policy: _WatchedPolicy | None) -> Failure:
        of_policy = policy is not None and error is policy.failed and not isinstance(error, Interrupted)
        known = error.guest_state if isinstance(error, XenmigError) else None
        if known in {None, "unknown"}:
            found, ended = self._look_at_guest()
            return Failure(error, known or found, of_policy=of_policy, ended=ended)
        return Failure(error, known, of_policy=of_policy)

    def _look_at_guest(self) -> tuple[GuestState, str | None]:
        """Returns what the guest does, and how it has ended if it has."""
        try:
            state = state_now(lambda: self.host.domain_info(self.request.domid))
        except HypercallError:
            return "unknown", None
        if state in {"running", "paused"}:
            return "running", None
        return ("suspended", None) if state == "suspended" else ("unknown", state)


class _WatchedPolicy:
    """A policy, of which it is remembered how it failed, and which cannot swallow a signal."""

    def __init__(self, policy: Policy, signals: Signals) -> None:
        self._policy = policy
        self._signals = signals
        self.failed: BaseException | None = None

    def __repr__(self) -> str:
        return repr(self._policy)

    def __call__(self, stats: PrecopyStats, /) -> Decision | Verdict:
        """Asks the policy."""
        try:
            return self._policy(stats)
        except BaseException as error:
            self.failed = error
            raise
        finally:
            self._signals.check()


class _Progress:
    """Tells libxl how far the save is.

    ``xl save`` shows progress messages. ``xl migrate``, whose saves are live, hides them, and so do some
    callers of libxl: there the same is logged, at the beginning of each iteration and every five seconds.
    """

    def __init__(self, libxl: Libxl, signals: Signals, *, live: bool) -> None:
        self._libxl = libxl
        self._signals = signals
        self._live = live
        self._logged: tuple[str, int] | None = None
        self._logged_at_s = 0.0

    def __call__(self, stats: PrecopyStats) -> None:
        """Tells it."""
        self._signals.check()
        total = max(stats.ram_pages, 1)
        done = total - min(stats.pages_owed, total)
        if not self._live:
            # It fits into a line of a terminal, which xl -t writes again and again.
            self._libxl.progress(describe_briefly(stats), done, total)
            return
        text = ", ".join(describe(stats))
        self._libxl.progress(text, done, total)
        if stats.send_rate_bytes_per_s is None:
            return
        place = (stats.phase if stats.phase in {"stop_and_copy", "verify"} else "", stats.iteration)
        now_s = time.monotonic()
        if place != self._logged or now_s - self._logged_at_s >= LOG_INTERVAL_S:
            self._logged, self._logged_at_s = place, now_s
            self._libxl.log(Level.PROGRESS, text)
