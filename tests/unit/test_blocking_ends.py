# SPDX-License-Identifier: GPL-3.0-or-later
"""Ends that could block or end the process: terminals, broken pipes under a buffer, limits of stalls."""

from __future__ import annotations

import errno
import os
import socket
import subprocess
import sys
from typing import TYPE_CHECKING, cast

import pytest

from xenmig import TransportError, restore, save

if TYPE_CHECKING:
    from xenmig.sim import Domain, Host


def test_a_terminal_is_refused(host: Host, domain: Domain) -> None:
    """It can block for ever: no policy would be asked and no signal heard."""
    master, terminal = os.openpty()
    try:
        with pytest.raises(TransportError) as caught:
            save(domain.domid, terminal, host=host)
        assert caught.value.errno == errno.EINVAL
        assert (domain.state, domain.logdirty) == ("running", False)
    finally:
        os.close(master)
        os.close(terminal)


FLUSHED_INTO_A_BROKEN_PIPE = """
import os, signal, xenmig
signal.signal(signal.SIGPIPE, signal.SIG_DFL)
host = xenmig.sim.Host()
guest = host.create(memory="64M")
reader, writer = os.pipe()
out = open(writer, "wb")
out.write(b"header")
os.close(reader)
try:
    xenmig.save(guest.domid, out, host=host)
except xenmig.TransportError as error:
    print(error.errno, guest.state, signal.SIGPIPE in signal.sigpending(), flush=True)
os._exit(0)
"""


def test_a_buffer_is_flushed_into_a_broken_pipe_without_a_signal() -> None:
    done = subprocess.run(
        [sys.executable, "-c", FLUSHED_INTO_A_BROKEN_PIPE], capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == [str(errno.EPIPE), "running", "False"]


@pytest.mark.parametrize("limit", [True, "soon", 10**400])
def test_a_stall_timeout_is_a_number(
    *, limit: object, host: Host, domain: Domain, empty_domain: Domain
) -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.settimeout(5)
        with pytest.raises((TypeError, ValueError), match=r"bool|real number|out of range"):
            save(domain.domid, ours, host=host, stall_timeout_s=cast("float", limit))
        with pytest.raises((TypeError, ValueError), match=r"bool|real number|out of range"):
            restore(empty_domain.domid, ours, host=host, stall_timeout_s=cast("float", limit))
