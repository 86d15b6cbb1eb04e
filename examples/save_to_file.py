# SPDX-License-Identifier: GPL-3.0-or-later
"""Saves a guest to a file, and restores it from there.

::

    python examples/save_to_file.py guest.xenmig
    xenmig verify guest.xenmig

The guest runs while most of the file is written. If anything goes wrong it goes on running, and the file has
no END record, so that no receiver takes it for whole; here it is removed.
"""

import sys
from pathlib import Path

import xenmig


def save_to_file(domid: int, path: Path, host: xenmig.sim.Host) -> xenmig.SaveResult:
    """Saves a domain to a new file, and leaves nothing behind if that fails."""
    with path.open("xb") as file:
        try:
            return xenmig.save(domid, file, host=host)
        except BaseException:
            path.unlink()
            raise


def main(name: str) -> None:
    """Saves a simulated guest and restores it into a second domain."""
    host = xenmig.sim.Host()
    guest = host.create(memory="64M", workload=xenmig.sim.Uniform(pages_per_s=1000))
    path = Path(name)
    saved = save_to_file(guest.domid, path, host)
    print(f"saved {saved.bytes_sent} bytes in {saved.rounds} rounds, downtime {saved.downtime_ms:.1f} ms")

    copy = host.create(memory="64M", populated=False)
    with path.open("rb") as file:
        xenmig.restore(copy.domid, file, host=host)
    host.destroy(guest.domid)
    copy.resume()
    print(f"domain {copy.domid} is {copy.state}")


if __name__ == "__main__":
    main(*sys.argv[1:])
