# SPDX-License-Identifier: GPL-3.0-or-later
"""The real Xen, from its control domain: its hypercalls, xenstore, and asking a guest to suspend itself."""

from xenmig.xen.host import Xen

__all__ = ["Xen"]
