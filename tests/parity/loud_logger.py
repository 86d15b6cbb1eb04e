# SPDX-License-Identifier: GPL-3.0-or-later
"""A process with two users of the Xen libraries: xenmig, and a thread with a logger in Python.

libxencall calls the logger while it holds a lock that all its handles in the process share, and the logger
needs the interpreter. So whoever has the interpreter must not wait for that lock. Run under ``LD_PRELOAD``
by ``test_threads.py``; it hangs otherwise.
"""

from __future__ import annotations

import ctypes
import sys
import threading

from tests.parity.libxc import SONAMES, VMESSAGE, Logger

import xenmig

#: For so long the logger leaves the interpreter to the other thread, which then wants the lock.
PATIENCE_S = 0.5


def main() -> None:
    """Closes an interface of libxenctrl, and, while it logs, lets go of a host of xenmig."""
    _, control, _ = (ctypes.CDLL(name, mode=ctypes.RTLD_GLOBAL) for name in SONAMES)
    control.xc_interface_open.restype = ctypes.c_void_p
    closing, logging = threading.Event(), threading.Event()

    def vmessage(*_: object) -> None:
        if closing.is_set() and not logging.is_set():
            logging.set()
            threading.Event().wait(PATIENCE_S)

    logger = Logger(vmessage=VMESSAGE(vmessage))
    interface = ctypes.c_void_p(control.xc_interface_open(ctypes.byref(logger), None, 0))

    def close() -> None:
        closing.set()
        control.xc_interface_close(interface)

    host = xenmig.Xen()
    other = threading.Thread(target=close)
    other.start()
    logging.wait()
    del host
    other.join()
    sys.stdout.write("both are closed\n")


if __name__ == "__main__":
    main()
