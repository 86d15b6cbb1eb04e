# SPDX-License-Identifier: GPL-3.0-or-later
"""What could kill the process, run in a child process: a broken pipe with SIGPIPE, and exhausted memory."""

from __future__ import annotations

import errno
import subprocess
import sys

import pytest

SIGPIPE = """
import os, signal, socket, sys, threading
import xenmig
from xenmig.sim import Host, Uniform

kind, disposition = sys.argv[1:]
caught = []
handlers = {"default": signal.SIG_DFL, "ignored": signal.SIG_IGN, "handled": lambda *_: caught.append(1)}
if disposition in handlers:
    signal.signal(signal.SIGPIPE, handlers[disposition])
else:
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGPIPE])

host = Host()
guest = host.create(memory="64M", workload=Uniform(pages_per_s=1000))
guest.fill()
if kind == "socket":
    ours, theirs = socket.socketpair()
    out, close = ours, theirs.close
elif kind == "fifo":
    path = sys.stdin.readline().strip()
    os.mkfifo(path)
    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    out, close = open(path, "wb"), lambda: os.close(reader)
elif kind == "device":
    reader, writer = os.pipe()
    os.dup2(writer, 1)
    os.close(writer)
    out, close = open("/dev/stdout", "wb"), lambda: os.close(reader)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
else:
    reader, out = os.pipe()
    close = lambda: os.close(reader)
threading.Timer(0.1, close).start()
try:
    xenmig.save(guest.domid, out, host=host)
except xenmig.TransportError as error:
    print(error.errno, error.guest_state, guest.state, guest.logdirty, file=sys.stderr)
if disposition == "blocked":
    assert not signal.sigpending()
    signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGPIPE])
assert not caught
"""


@pytest.mark.parametrize("disposition", ["default", "ignored", "handled", "blocked"])
@pytest.mark.parametrize("kind", ["pipe", "fifo", "device", "socket"])
def test_a_peer_that_goes_away_is_an_error_whatever_sigpipe_does(
    tmp_path_factory: pytest.TempPathFactory, kind: str, disposition: str
) -> None:
    path = tmp_path_factory.mktemp("fifo") / "fifo"
    child = subprocess.run(
        [sys.executable, "-c", SIGPIPE, kind, disposition],
        input=f"{path}\n",
        capture_output=True,
        text=True,
        check=False,
    )
    # A socket that is closed with bytes unread resets the connection.
    numbers = {errno.EPIPE, errno.ECONNRESET} if kind == "socket" else {errno.EPIPE}
    assert child.returncode == 0
    assert child.stderr in {f"{number} running running False\n" for number in numbers}


MEMORY = """
import resource, sys, tempfile
import xenmig
from xenmig.sim import Host

host = Host()
guest = host.create(memory="64M")
guest.fill()

def large():
    keep = []
    while True:
        keep.append(bytearray(1 << 20))

def small():
    keep = None
    while True:
        keep = (keep, object())

def both():
    try:
        large()
    except MemoryError as error:
        kept.append(error)  # its frames hold what was allocated
    small()

kept = []
exhaust = {"large": large, "small": small, "both": both}[sys.argv[2]]
size = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
limit = size + int(sys.argv[3])

def policy(stats):
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    exhaust()

def progress(stats):
    if not kept:
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
        try:
            exhaust()
        except MemoryError as error:
            kept.append(error)

try:
    with tempfile.TemporaryFile() as file:
        if sys.argv[1] == "restore":
            xenmig.save(guest.domid, file, host=host)
            guest.resume()
            file.seek(0)
            copy = host.create(memory="64M", populated=False)
            xenmig.restore(copy.domid, file, host=host, on_progress=policy)
        arguments = {
            "policy": dict(policy=policy),
            "progress": dict(on_progress=policy),
            "go on": dict(on_progress=progress, progress_interval_s=0),
        }[sys.argv[1]]
        xenmig.save(guest.domid, file, host=host, **arguments)
except MemoryError:
    kept.clear()
    print("MemoryError", guest.state, guest.logdirty)
else:
    kept.clear()
    print("saved", guest.state, guest.logdirty)
"""


def run_out_of_memory(*arguments: str) -> str:
    child = subprocess.run(
        [sys.executable, "-c", MEMORY, *arguments], capture_output=True, text=True, check=False
    )
    assert (child.returncode, child.stderr) == (0, "")
    return child.stdout


@pytest.mark.parametrize("limit_bytes", [-50 << 20, 0, 1 << 20, 100 << 20])
@pytest.mark.parametrize("exhaust", ["large", "small", "both"])
@pytest.mark.parametrize("where", ["policy", "progress", "restore"])
def test_a_callback_that_exhausts_memory_ends_the_run_in_order(
    where: str, exhaust: str, limit_bytes: int
) -> None:
    assert run_out_of_memory(where, exhaust, str(limit_bytes)) == "MemoryError running False\n"


@pytest.mark.parametrize("exhaust", ["large", "small", "both"])
def test_a_save_goes_on_without_memory_or_ends_in_order(exhaust: str) -> None:
    assert run_out_of_memory("go on", exhaust, str(16 << 20)) in {
        "MemoryError running False\n",
        "saved suspended False\n",
    }
