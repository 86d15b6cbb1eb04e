# SPDX-License-Identifier: GPL-3.0-or-later
"""``python -m xenmig``: the command line."""

from xenmig.cli import main

main()
