# SPDX-License-Identifier: GPL-3.0-or-later
"""The reference: ``xc_domain_save`` and ``xc_domain_restore`` of the real libxenguest 4.17, called by ctypes.

Runs in the worker process. Every save and restore opens an interface of its own and closes it again, so that
nothing of it (cached hypercall buffers, descriptors) may be left when it returns. Structures are those of
Xen's ``xenguest.h`` and ``xentoollog.h``.
"""

from __future__ import annotations

import ctypes
import os
from contextlib import contextmanager
from typing import TYPE_CHECKING, ClassVar

from tests.parity.protocol import RestoreOutcome, SaveOutcome
from tests.parity.recorder import Clock, Recorder

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.parity.engine import Engine
    from tests.parity.fakexen import Fakexen
    from tests.parity.protocol import RestoreOptions, SaveOptions

#: The libraries of Debian's Xen 4.17, in the order in which they need each other.
SONAMES = ("libxentoollog.so.1", "libxenctrl.so.4.17", "libxenguest.so.4.17")
XCFLAGS_LIVE, XCFLAGS_DEBUG = 1, 2
XC_STREAM_PLAIN = 0
#: What is logged at this level or above is recorded.
XTL_WARN = 7


class PrecopyStats(ctypes.Structure):
    """``struct precopy_stats``."""

    _fields_: ClassVar = [
        ("iteration", ctypes.c_uint),
        ("total_written", ctypes.c_ulong),
        ("dirty_count", ctypes.c_long),
    ]


SUSPEND = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p)
PRECOPY_POLICY = ctypes.CFUNCTYPE(ctypes.c_int, PrecopyStats, ctypes.c_void_p)
SWITCH_QEMU_LOGDIRTY = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_uint32, ctypes.c_uint, ctypes.c_void_p)
STATIC_DATA_DONE = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_uint, ctypes.c_void_p)
VMESSAGE = ctypes.CFUNCTYPE(
    None, ctypes.c_void_p, ctypes.c_int, ctypes.c_int, ctypes.c_char_p, ctypes.c_char_p, ctypes.c_void_p
)


class SaveCallbacks(ctypes.Structure):
    """``struct save_callbacks``."""

    _fields_: ClassVar = [
        ("suspend", SUSPEND),
        ("precopy_policy", PRECOPY_POLICY),
        ("postcopy", ctypes.c_void_p),
        ("checkpoint", ctypes.c_void_p),
        ("wait_checkpoint", ctypes.c_void_p),
        ("switch_qemu_logdirty", SWITCH_QEMU_LOGDIRTY),
        ("data", ctypes.c_void_p),
    ]


class RestoreCallbacks(ctypes.Structure):
    """``struct restore_callbacks``. ``restore_results`` is called for COLO alone."""

    _fields_: ClassVar = [
        ("static_data_done", STATIC_DATA_DONE),
        ("suspend", ctypes.c_void_p),
        ("postcopy", ctypes.c_void_p),
        ("checkpoint", ctypes.c_void_p),
        ("wait_checkpoint", ctypes.c_void_p),
        ("restore_results", ctypes.c_void_p),
        ("data", ctypes.c_void_p),
    ]


class Logger(ctypes.Structure):
    """``struct xentoollog_logger``."""

    _fields_: ClassVar = [("vmessage", VMESSAGE), ("progress", ctypes.c_void_p), ("destroy", ctypes.c_void_p)]


class Libxc:
    """The real C libraries, as an engine."""

    def __init__(self, fakexen: Fakexen) -> None:
        """Loads the libraries.

        Raises:
            OSError: They are not installed.
        """
        self._fakexen = fakexen
        # Each needs the symbols of those before it; errno is kept for each thread.
        self._toollog, self._ctrl, self._guest = (
            ctypes.CDLL(name, mode=ctypes.RTLD_GLOBAL, use_errno=True) for name in SONAMES
        )
        self._libc = ctypes.CDLL(None)
        for function in (
            self._libc.fdopen,
            self._toollog.xtl_createlogger_stdiostream,
            self._ctrl.xc_interface_open,
        ):
            function.restype = ctypes.c_void_p

    def save(self, domid: int, fd: int, options: SaveOptions) -> SaveOutcome:
        """Saves a domain to a file descriptor by ``xc_domain_save``."""
        recorder = Recorder(self._fakexen, domid, options)

        def precopy_policy(stats: PrecopyStats, _data: object) -> int:
            return recorder.consult(stats.iteration, stats.total_written, stats.dirty_count)

        callbacks = SaveCallbacks(
            suspend=SUSPEND(lambda _data: int(recorder.suspend())),
            switch_qemu_logdirty=SWITCH_QEMU_LOGDIRTY(
                lambda _domid, enable, _data: recorder.qemu_logdirty(enable)
            ),
        )
        if options.policy != "none":
            callbacks.precopy_policy = PRECOPY_POLICY(precopy_policy)
        flags = XCFLAGS_LIVE * options.live | XCFLAGS_DEBUG * options.debug
        with self._interface() as (interface, messages):
            clock = Clock()
            result = self._guest.xc_domain_save(
                interface, fd, domid, flags, ctypes.byref(callbacks), XC_STREAM_PLAIN, -1
            )
            errno = ctypes.get_errno() if result else 0
            seconds, cpu_seconds = clock.read()
        return SaveOutcome(
            result != 0, errno, recorder.consults, recorder.events, messages, seconds, cpu_seconds
        )

    def restore(self, domid: int, fd: int, options: RestoreOptions) -> RestoreOutcome:
        """Restores from a file descriptor into an empty domain by ``xc_domain_restore``."""
        missing: list[int] = []

        def static_data_done(flags: int, _data: object) -> int:
            missing.append(flags)
            return options.static_data

        callbacks = RestoreCallbacks(static_data_done=STATIC_DATA_DONE(static_data_done))
        store_gfn, console_gfn = ctypes.c_ulong(), ctypes.c_ulong()
        with self._interface() as (interface, messages):
            clock = Clock()
            result = self._guest.xc_domain_restore(
                *(interface, fd, domid),
                *(options.store_evtchn, ctypes.byref(store_gfn), options.store_domid),
                *(options.console_evtchn, ctypes.byref(console_gfn), options.console_domid),
                *(XC_STREAM_PLAIN, ctypes.byref(callbacks), -1),
            )
            errno = ctypes.get_errno() if result else 0
            seconds, cpu_seconds = clock.read()
        return RestoreOutcome(
            result != 0,
            errno,
            store_gfn.value,
            console_gfn.value,
            missing[0] if missing else None,
            messages,
            seconds,
            cpu_seconds,
        )

    @contextmanager
    def _interface(self) -> Iterator[tuple[ctypes.c_void_p, list[str]]]:
        """Opens an interface. Its warnings and errors are in the list when it is closed.

        The logger is the libraries' own. One in Python would be called while libxencall holds its lock, and
        would then wait for the interpreter's: the wrong order for a thread that has the interpreter and
        closes a handle.
        """
        messages: list[str] = []
        with os.fdopen(os.memfd_create("libxc-messages"), errors="replace") as written:
            file = ctypes.c_void_p(self._libc.fdopen(os.dup(written.fileno()), b"w"))
            logger = ctypes.c_void_p(self._toollog.xtl_createlogger_stdiostream(file, XTL_WARN, 0))
            interface = ctypes.c_void_p(self._ctrl.xc_interface_open(logger, logger, 0))
            errno = ctypes.get_errno()
            try:
                if interface:
                    yield interface, messages
            finally:
                if interface:
                    self._ctrl.xc_interface_close(interface)
                self._toollog.xtl_logger_destroy(logger)
                self._libc.fclose(file)
                written.seek(0)
                messages.extend(written.read().splitlines())
        if not interface:
            raise OSError(errno, f"xc_interface_open failed: {messages}")


def engine(fakexen: Fakexen) -> Engine:
    """Returns the engine."""
    return Libxc(fakexen)
