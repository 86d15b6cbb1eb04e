# SPDX-License-Identifier: GPL-3.0-or-later
"""A save helper for ``xl save -c`` that has the guest suspended once, and saved several times meanwhile.

::

    xl, libxl ── suspend, complete ──> this program ──> libxl's own helper ──> a file
                                            │                                  (the same domain, suspended
                                            └─────────> xenmig-save-helper ──> a file    and unchanged)

It plays libxl for each of them: their ``suspend`` is answered at once, for the guest is suspended already; so
is ``switch_qemu_logdirty``, for the device model is stopped with it. libxl itself gets no stream at all.
``SAVE_TWICE`` says what to do, as JSON: ``{"flags": N, "saves": [{"helper": PATH, "stream": PATH}, ...]}``.
"""

from __future__ import annotations

import json
import os
import struct
import subprocess
import sys

_SUSPEND, _SWITCH_QEMU_LOGDIRTY, _COMPLETE = 3, 7, 10
_REPLIES = {_SUSPEND: 1, _SWITCH_QEMU_LOGDIRTY: 0, _COMPLETE: 0}
_CBFLAGS = 1 << _SUSPEND | 1 << _SWITCH_QEMU_LOGDIRTY


def main() -> int:
    """Does it; returns the exit status."""
    plan = json.loads(os.environ["SAVE_TWICE"])
    mode, _io_fd, recv_fd, domid, *_rest = sys.argv[1:]
    if mode != "--save-domain":
        print(f"save_twice: {mode} is not for this program", file=sys.stderr)  # noqa: T201 - its only output
        return 2
    if not ask(struct.pack("=H", _SUSPEND)):
        ask(struct.pack("=Hii", _COMPLETE, -1, 5))
        return 0
    failed = 0
    for save in plan["saves"]:
        problem = save_once(save["helper"], save["stream"], recv_fd, domid, plan["flags"])
        if problem:
            print(f"save_twice: {save['helper']}: {problem}", file=sys.stderr)  # noqa: T201 - as above
            failed += 1
    ask(struct.pack("=Hii", _COMPLETE, -1 if failed else 0, 5 if failed else 0))
    return 0


def ask(body: bytes) -> int:
    """Sends a message to libxl, and returns its reply."""
    os.write(1, struct.pack("=H", len(body)) + body)
    return int(struct.unpack("=i", os.read(0, 4))[0])


def save_once(helper: str, stream: str, recv_fd: str, domid: str, flags: int) -> str | None:
    """Has a helper save the suspended domain to a file. Returns what was wrong, if anything was."""
    io_fd = os.open(stream, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    arguments = [helper, "--save-domain", str(io_fd), recv_fd, domid, str(flags), str(_CBFLAGS), "0"]
    process = subprocess.Popen(
        arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE, pass_fds=(io_fd, int(recv_fd))
    )
    os.close(io_fd)
    assert process.stdin is not None
    assert process.stdout is not None
    completed = None
    while head := process.stdout.read(2):
        body = process.stdout.read(*struct.unpack("=H", head))
        number = struct.unpack_from("=H", body)[0]
        if number == _COMPLETE:
            completed = struct.unpack_from("=ii", body, 2)
        if number in _REPLIES:
            process.stdin.write(struct.pack("=i", _REPLIES[number]))
            process.stdin.flush()
    status = process.wait()
    if completed is None or completed[0] != 0 or status != 0:
        return f"exit status {status}, complete{completed}"
    return None


if __name__ == "__main__":
    sys.exit(main())
