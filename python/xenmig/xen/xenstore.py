# SPDX-License-Identifier: GPL-3.0-or-later
"""The few calls to xenstore that suspending a guest needs, through Xen's own libxenstore (``xenstore.h``).

libxenstore has a stable interface. It is looked up when a connection is opened, so this module can be
imported where there is no Xen.
"""

from __future__ import annotations

import ctypes
import errno
import os
from contextlib import contextmanager
from typing import TYPE_CHECKING

from xenmig.errors import XenUnavailable

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import TracebackType

__all__ = ["Xenstore"]

_SONAME = "libxenstore.so.4"
_NO_TRANSACTION = 0


def _load(soname: str) -> ctypes.CDLL:
    try:
        library = ctypes.CDLL(soname, use_errno=True)
    except OSError as error:
        raise XenUnavailable(
            f"cannot load {soname}: {error}; install Xen's libraries (Debian: libxenstore4)"
        ) from None
    handle, number, text = ctypes.c_void_p, ctypes.c_uint32, ctypes.c_char_p
    prototypes: dict[str, tuple[object, list[object]]] = {
        "xs_open": (handle, [ctypes.c_ulong]),
        "xs_close": (None, [handle]),
        "xs_read": (ctypes.c_void_p, [handle, number, text, ctypes.POINTER(ctypes.c_uint)]),
        "xs_write": (ctypes.c_bool, [handle, number, text, ctypes.c_char_p, ctypes.c_uint]),
        "xs_transaction_start": (number, [handle]),
        "xs_transaction_end": (ctypes.c_bool, [handle, number, ctypes.c_bool]),
        "xs_resume_domain": (ctypes.c_bool, [handle, ctypes.c_uint]),
    }
    for name, (result, arguments) in prototypes.items():
        function = getattr(library, name)
        function.restype, function.argtypes = result, arguments
    return library


def _failed(what: str) -> OSError:
    number = ctypes.get_errno()
    return OSError(number, f"xenstore: {what}: {os.strerror(number)}")


class Xenstore:
    """A connection to xenstore; close it, or use it in a ``with`` block.

    Raises:
        XenUnavailable: libxenstore is not installed.
        OSError: There is no answer: xenstored does not run, or this process may not talk to it.
    """

    def __init__(self, soname: str = _SONAME) -> None:
        self._library = _load(soname)
        self._free = ctypes.CDLL(None).free
        self._free.argtypes, self._free.restype = [ctypes.c_void_p], None
        self._handle: int | None = self._library.xs_open(0)
        self._transaction = _NO_TRANSACTION
        if not self._handle:
            raise _failed("cannot connect to xenstored")

    def __enter__(self) -> Xenstore:  # noqa: PYI034 - Self is of Python 3.11
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Ends the connection. May be called again."""
        if self._handle:
            self._library.xs_close(self._handle)
            self._handle = None

    def read(self, path: str) -> bytes | None:
        """Returns a node's value; ``None`` if there is no such node."""
        length = ctypes.c_uint()
        value = self._library.xs_read(self._handle, self._transaction, path.encode(), ctypes.byref(length))
        if not value:
            if ctypes.get_errno() == errno.ENOENT:
                return None
            raise _failed(f"cannot read {path}")
        try:
            return ctypes.string_at(value, length.value)
        finally:
            self._free(value)

    def write(self, path: str, value: bytes) -> None:
        """Sets a node's value."""
        if not self._library.xs_write(self._handle, self._transaction, path.encode(), value, len(value)):
            raise _failed(f"cannot write {path}")

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Makes what the block reads and writes one step; given up if the block raises.

        Raises:
            BlockingIOError: Another process wrote the same nodes meanwhile: nothing was written, try again.
        """
        number = self._library.xs_transaction_start(self._handle)
        if number == _NO_TRANSACTION:
            raise _failed("cannot start a transaction")
        self._transaction = number
        abort = True
        try:
            yield
            abort = False
        finally:
            self._transaction = _NO_TRANSACTION
            ended = self._library.xs_transaction_end(self._handle, number, abort)
        if not ended:
            raise _failed("cannot end a transaction")

    def resume_domain(self, domid: int) -> None:
        """Tells xenstored that a domain which had shut down goes on."""
        if not self._library.xs_resume_domain(self._handle, domid):
            raise _failed(f"cannot resume d{domid}")
