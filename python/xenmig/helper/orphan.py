# SPDX-License-Identifier: GPL-3.0-or-later
"""A domain whose libxl has ended in the middle, with a Ctrl-C for one, and what becomes of it."""

from __future__ import annotations

from xenmig.errors import XenmigError
from xenmig.xen import Xen

__all__ = ["destroy", "resume"]


def resume(domid: int) -> str:
    """Lets a guest go on that was suspended to be saved, and says how that went.

    Nothing else will, and no copy of it can be started: the image has no end without libxl.
    """
    why = f"domain {domid} is suspended, and libxl, which was to resume it, has ended"
    by_hand = f"python3 -c 'import xenmig; xenmig.Xen().resume({domid})'"
    try:
        if _has_device_model(domid):
            return f"{why}; its device model is stopped, too: let that go on, then {by_hand}; or destroy it"
        Xen().resume(domid)
    except (XenmigError, OSError) as error:
        return f"{why}; resuming it failed: {error}. If it has no device model, try: {by_hand}"
    return f"domain {domid} was suspended, and libxl, which was to resume it, has ended; it was resumed"


def destroy(domid: int) -> str:
    """Says what is to be done about a new domain, restored or not: without libxl it is of no use."""
    return f"libxl, which was to start or to destroy domain {domid}, has ended: xl destroy {domid}"


def _has_device_model(domid: int) -> bool:
    from xenmig.xen.xenstore import Xenstore  # noqa: PLC0415 - few saves come here

    with Xenstore() as store:
        return store.read(f"/local/domain/0/device-model/{domid}/state") is not None
