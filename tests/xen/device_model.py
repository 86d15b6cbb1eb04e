# SPDX-License-Identifier: GPL-3.0-or-later
"""The device model's log-dirty mode, switched without libxl: by a command of QEMU's QMP."""

from __future__ import annotations

import json
import socket
from typing import Any

__all__ = ["switch_logdirty"]

_TIMEOUT_S = 30.0


def switch_logdirty(domid: int, *, on: bool) -> None:
    """Has the device model of a domain log the pages that it writes, or stop that.

    Raises:
        OSError: It does not answer.
        RuntimeError: It refuses.
    """
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(_TIMEOUT_S)
        connection.connect(f"/run/xen/qmp-libxl-{domid}")
        with connection.makefile("rw", encoding="utf-8") as qmp:
            qmp.readline()  # the greeting
            for execute, arguments in (
                ("qmp_capabilities", {}),
                ("xen-set-global-dirty-log", {"enable": on}),
            ):
                qmp.write(json.dumps({"execute": execute, "arguments": arguments}) + "\n")
                qmp.flush()
                answer = _answer(qmp)
                if "error" in answer:
                    raise RuntimeError(f"{execute}: {answer['error']}")


def _answer(qmp: Any) -> dict[str, Any]:  # noqa: ANN401 - a text file
    """Returns the answer to a command; events may come before it."""
    while True:
        message: dict[str, Any] = json.loads(qmp.readline())
        if "event" not in message:
            return message
