# SPDX-License-Identifier: GPL-3.0-or-later
"""``xenmig-save-helper``: the program that libxl starts to save or restore a domain.

::

    xl, libvirt ──> libxl ──fork, exec──> this program ──> xenmig.save ──> stream (a descriptor from libxl)
                      │ ^                     │ ^     └──> xenmig.restore <── stream
                      │ └── messages, fd 1 ───┘ │     log, progress, restore_results; with an int as reply:
                      └──── replies, fd 0 ──────┘     suspend, switch_qemu_logdirty, static_data_done,
                                                      complete

``arguments`` reads what libxl wants, ``configuration`` what the operator wants, ``start`` decides who does
it, ``save`` and ``restore`` do it. ``channel`` and ``libxl`` are the protocol, ``signals`` is how libxl ends
it, ``stock`` is libxl's own helper for what is not done here. What is rarely needed is imported when it is: a
toolstack waits for this program.
"""

from __future__ import annotations

import contextlib
import os
import sys
from typing import NoReturn

from xenmig.helper.signals import Interrupted, Signals

__all__ = ["main"]


def main() -> NoReturn:
    """Does what the program's arguments ask for, and exits.

    The exit status is 0 if libxl was told how it ended, well or not; 1 if it could not be told; 2 if
    the program was not started by libxl.
    """
    signals = Signals()
    signals.install()
    arguments = sys.argv[1:]
    if arguments[:1] in (["--help"], ["-h"], ["--version"]):
        _print(arguments[0])
        sys.exit(0)
    try:
        status = _serve(arguments, signals)
    except Interrupted as interrupted:
        print(f"xenmig-save-helper: {interrupted}", file=sys.stderr)  # noqa: T201 - the only way to report it
        status = 1
    with contextlib.suppress(OSError):
        for stream in filter(None, (sys.stdout, sys.stderr)):
            stream.flush()
    # The guest is suspended, and libxl waits until this process is gone; there is nothing left to tidy up.
    os._exit(status)


def _serve(arguments: list[str], signals: Signals) -> int:
    from xenmig.helper.channel import Channel  # noqa: PLC0415 - not needed for --help

    if not arguments or os.isatty(1):
        from xenmig.helper.usage import USAGE  # noqa: PLC0415 - for humans only

        print(USAGE, file=sys.stderr)  # noqa: T201 - it was started by hand
        return 2
    try:
        channel = Channel.take()
    except OSError as error:
        print(f"xenmig-save-helper: libxl's pipes are not there: {error}", file=sys.stderr)  # noqa: T201 - as above
        return 2
    from xenmig.helper.start import Start  # noqa: PLC0415 - printing cannot disturb libxl from here on

    return Start(arguments, channel, signals).run()


def _print(option: str) -> None:
    from xenmig import __version__  # noqa: PLC0415 - for humans only
    from xenmig.helper.usage import USAGE  # noqa: PLC0415 - as above

    print(f"xenmig {__version__}" if option == "--version" else USAGE)  # noqa: T201 - that is what it is for
