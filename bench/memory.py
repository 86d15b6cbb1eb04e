# SPDX-License-Identifier: GPL-3.0-or-later
"""What a save needs of memory, beyond the domain's own.

Measured in a process of its own; what is measured is said in ``watch.py``.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
from typing import Any

from watch import Watch

import xenmig
from xenmig.sim import Host, Uniform

__all__ = ["measure"]

_MIB = 1 << 20
_PAGE_BYTES = 4096


def _drain(peer: socket.socket) -> None:
    buffer = bytearray(_MIB)
    while peer.recv_into(buffer):
        pass


def _save(memory: str) -> dict[str, int]:
    host = Host()
    guest = host.create(memory=memory, workload=Uniform(pages_per_s=50_000))
    ours, theirs = socket.socketpair()
    reader = threading.Thread(target=_drain, args=(theirs,))
    reader.start()
    with Watch() as watch:
        result = xenmig.save(guest.domid, ours, host=host, policy=xenmig.policies.StopAfter(rounds=2))
    ours.close()
    reader.join()
    return {"p2m_size": result.p2m_size, "peak_bytes": watch.peak_bytes}


def measure(memory: str) -> dict[str, Any]:
    """Saves a busy domain into a socket, in a fresh process.

    Returns:
        ``peak_mib``: the most that the save added to the process's anonymous memory, the reading end of the
        socket included; ``allowed_mib``: 40 MiB and 3 bits for each page of the p2m.
    """
    answer = subprocess.run([sys.executable, __file__, memory], check=True, capture_output=True, text=True)
    measured: dict[str, int] = json.loads(answer.stdout)
    allowed = 40 * _MIB + measured["p2m_size"] * 3 // 8
    return {
        "memory": memory,
        "p2m_pages": measured["p2m_size"],
        "peak_mib": measured["peak_bytes"] / _MIB,
        "allowed_mib": allowed / _MIB,
    }


if __name__ == "__main__":
    json.dump(_save(sys.argv[1]), sys.stdout)
    sys.stdout.flush()
    os._exit(0)
