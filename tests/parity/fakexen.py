# SPDX-License-Identifier: GPL-3.0-or-later
"""The control interface of ``libfakexen.so``, which is loaded in this process by ``LD_PRELOAD``.

Runs in the worker process. The functions are those of ``rust/fakexen/src/control.rs``.
"""

from __future__ import annotations

import ctypes
import json
from typing import Any, cast

from tests.parity.protocol import Counters, FakexenError, PvMap, State

#: The version of the control interface that is used here.
ABI = 2
#: Text that a call may return, in bytes.
TEXT_BYTES = 1 << 16
PAGE_BYTES = 4096


class Fakexen:
    """The fake host of this process."""

    def __init__(self) -> None:
        """Finds the functions.

        Raises:
            RuntimeError: The library is not loaded, or another version of it.
        """
        self._library = ctypes.CDLL(None)
        try:
            found = self._library.fakexen_abi()
        except AttributeError:
            raise RuntimeError("libfakexen.so is not loaded: start this process with LD_PRELOAD") from None
        if found != ABI:
            raise RuntimeError(f"libfakexen.so has control interface {found}, this is for {ABI}: rebuild it")

    def _call(self, name: str, *arguments: object) -> tuple[int, str]:
        function = getattr(self._library, f"fakexen_{name}")
        function.restype = ctypes.c_int64
        size = TEXT_BYTES
        while True:
            text = ctypes.create_string_buffer(size)
            number = function(*arguments, text, ctypes.c_size_t(size))
            if number < 0:
                raise FakexenError(-number, text.value.decode())
            if number < size:
                return number, text.value.decode()
            size = number + 1

    def create(self, spec: dict[str, Any]) -> int:
        """Makes a domain and returns its domid."""
        return self._call("create", json.dumps(spec).encode())[0]

    def destroy(self, domid: int) -> None:
        """Destroys a domain."""
        self._call("destroy", domid)

    def suspend(self, domid: int) -> None:
        """Lets the guest suspend itself."""
        self._call("suspend", domid)

    def resume(self, domid: int) -> None:
        """Lets the guest run."""
        self._call("resume", domid)

    def workload(self, domid: int, workload: dict[str, Any]) -> None:
        """Gives the vCPUs something else to do."""
        self._call("workload", domid, json.dumps(workload).encode())

    def fill(self, domid: int, seed: int) -> None:
        """Fills RAM with random bytes."""
        self._call("fill", domid, ctypes.c_uint64(seed))

    def read_page(self, domid: int, pfn: int) -> bytes:
        """Returns the contents of a page."""
        page = ctypes.create_string_buffer(PAGE_BYTES)
        self._call("read_page", domid, ctypes.c_uint64(pfn), page)
        return page.raw

    def write_page(self, domid: int, pfn: int, contents: bytes) -> None:
        """Writes a page, as the guest would."""
        if len(contents) != PAGE_BYTES:
            raise ValueError(f"a page has {PAGE_BYTES} bytes, not {len(contents)}")
        self._call("write_page", domid, ctypes.c_uint64(pfn), contents)

    def balloon(self, domid: int, pfn: int, *, give: bool) -> None:
        """Gives the domain a page, or takes it away."""
        self._call("balloon", domid, ctypes.c_uint64(pfn), int(give))

    def state(self, domid: int) -> State:
        """Tells what a domain is and does."""
        return cast("State", json.loads(self._call("state", domid)[1]))

    def pv_map(self, domid: int) -> PvMap:
        """Tells what a PV guest uses its pages for."""
        return cast("PvMap", json.loads(self._call("pv_map", domid)[1]))

    def differing(self, one: int, other: int, limit: int) -> list[int]:
        """Returns the first pfns at which two domains differ."""
        return cast("list[int]", json.loads(self._call("differing", one, other, limit)[1]))

    def counters(self, domid: int | None) -> Counters:
        """Tells what was called and what is mapped, about a domain or the host."""
        return cast("Counters", json.loads(self._call("counters", -1 if domid is None else domid)[1]))

    def inject(self, fault: dict[str, Any]) -> None:
        """Adds a fault."""
        self._call("inject", json.dumps(fault).encode())

    def clear_faults(self) -> None:
        """Removes all faults."""
        self._call("clear_faults")

    def reset(self) -> None:
        """Destroys all domains, removes all faults, counts from zero."""
        self._call("reset")
