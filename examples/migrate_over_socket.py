# SPDX-License-Identifier: GPL-3.0-or-later
"""Migrates a guest from one host to another over a socket, and lets exactly one of the two run at the end.

::

    python examples/migrate_over_socket.py

The two hosts are one process here, with a thread for the receiver: the interpreter is free while the engine
works, so one process can serve many migrations. A guest's memory goes through the socket as it is. Between
real hosts use an encrypted tunnel; the manual's page "Streams" shows how.
"""

import socket
from concurrent.futures import ThreadPoolExecutor

import xenmig
from xenmig.policies import DowntimeTarget, StopAfter


def receive(host: xenmig.sim.Host, connection: socket.socket) -> xenmig.sim.Domain:
    """Restores a guest that does not run yet; a half restored one is destroyed."""
    domain = host.create(memory="64M", populated=False)
    try:
        with connection:
            xenmig.restore(domain.domid, connection, host=host)
    except BaseException:
        host.destroy(domain.domid)
        raise
    return domain


def migrate(source: xenmig.sim.Host, domid: int, target: xenmig.sim.Host) -> xenmig.sim.Domain:
    """Migrates a guest and returns the one that runs now. If it fails, the original goes on."""
    ours, theirs = socket.socketpair()
    with ThreadPoolExecutor() as pool:
        received = pool.submit(receive, target, theirs)
        with ours:
            policy = DowntimeTarget(ms=100) | StopAfter(rounds=10, factor_of_ram=3)
            result = xenmig.save(domid, ours, host=source, policy=policy)
        try:
            arrived = received.result()
        except BaseException:
            source.domain(domid).resume()
            raise
    print(f"{result.pages_sent} pages, {result.elapsed_s:.2f} s, stopped because {result.reason}")
    source.destroy(domid)
    arrived.resume()
    return arrived


def main() -> None:
    """Migrates a simulated guest between two simulated hosts."""
    here, there = xenmig.sim.Host(), xenmig.sim.Host()
    guest = here.create(memory="64M", workload=xenmig.sim.HotCold(hot_pages=500, hot_pages_per_s=5000))
    arrived = migrate(here, guest.domid, there)
    print(f"here: {len(here.domids)} domains; there: domain {arrived.domid} is {arrived.state}")


if __name__ == "__main__":
    main()
