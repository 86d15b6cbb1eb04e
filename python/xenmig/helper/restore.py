# SPDX-License-Identifier: GPL-3.0-or-later
"""A restore for libxl: :func:`xenmig.restore`, with libxl behind its callbacks.

libxl has made the domain, empty and paused, and destroys it if the restore fails.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from xenmig.helper.libxl import LOG_INTERVAL_S, PROGRESS_INTERVAL_S, Level
from xenmig.helper.outcome import Failure
from xenmig.helper.signals import uninterrupted
from xenmig.progress_text import format_bytes
from xenmig.restore import restore as xenmig_restore

if TYPE_CHECKING:
    from xenmig._native import RestoreProgress, RestoreResult
    from xenmig.helper.arguments import RestoreRequest
    from xenmig.helper.libxl import Libxl
    from xenmig.helper.signals import Signals
    from xenmig.xen import Xen

__all__ = ["Restore"]


@dataclass(frozen=True)
class Restore:
    """A restore that can begin.

    Attributes:
        request: What libxl asks for.
        host: Where the domain is.
        max_pages: What the new domain may have at most: about as many pages as will come.
    """

    request: RestoreRequest
    host: Xen
    max_pages: int

    def run(self, libxl: Libxl, signals: Signals) -> RestoreResult | Failure:
        """Restores the domain. Whatever happens comes back as a value."""
        request = self.request

        @uninterrupted
        def static_data_done(missing: int) -> None:
            libxl.static_data_done(missing)
            signals.check()

        try:
            return xenmig_restore(
                request.domid,
                request.io_fd,
                host=self.host,
                store_evtchn=request.store_evtchn,
                store_domid=request.store_domid,
                console_evtchn=request.console_evtchn,
                console_domid=request.console_domid,
                static_data_done=static_data_done if request.static_data else None,
                on_progress=_Progress(libxl, signals, self.max_pages),
                progress_interval_s=PROGRESS_INTERVAL_S,
            )
        except BaseException as error:  # noqa: BLE001 - libxl is to hear of it, whatever it is
            return Failure(error, restoring=request.domid)


class _Progress:
    """Tells libxl how far the restore is.

    It is shown by ``xl restore``, as a percentage of the domain's memory. ``xl migrate-receive`` hides it, so
    the same is logged every five seconds.
    """

    def __init__(self, libxl: Libxl, signals: Signals, max_pages: int) -> None:
        self._libxl = libxl
        self._signals = signals
        self._max_pages = max(max_pages, 1)
        self._logged_at_s = time.monotonic()

    def __call__(self, progress: RestoreProgress) -> None:
        """Tells it."""
        self._signals.check()
        rate = progress.bytes_received / progress.elapsed_s if progress.elapsed_s > 0 else 0.0
        doing = "comparing" if progress.verifying else "restoring"
        text = f"{doing}, {progress.pages_received:,} pages, {format_bytes(rate)}/s"
        self._libxl.progress(text, min(progress.pages_populated, self._max_pages), self._max_pages)
        now_s = time.monotonic()
        if now_s - self._logged_at_s >= LOG_INTERVAL_S:
            self._logged_at_s = now_s
            self._libxl.log(Level.PROGRESS, text)
