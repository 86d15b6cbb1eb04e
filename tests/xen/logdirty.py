# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether a domain is in log-dirty mode: asked of Xen itself, by its debug key ``q``, and nothing else.

Xen's answer goes to its own log, where ``xl dmesg`` finds it: for each domain a paragraph, with a line like
``paging assistance: hap refcounts log_dirty translate external`` (``paging_dump_domain_info()``). A PV guest
has no such line, unless it is in log-dirty mode: ``paging assistance: shadow log_dirty``. It changes nothing,
unlike an attempt to enable log-dirty mode that is to be refused.
"""

from __future__ import annotations

import re
import subprocess

__all__ = ["is_on", "paging_modes"]

_PARAGRAPH = re.compile(
    r"General information for domain (\d+):(.*?)(?=General information for domain|\Z)", re.DOTALL
)
_END = "VCPU information and callbacks"
"""What follows in the paragraph, and has lines of the same words, but of a vCPU."""
_MODES = re.compile(r"paging assistance: ([a-z_ ]+)")


def is_on(domid: int) -> bool:
    """Says whether Xen logs the pages that a domain dirties."""
    return "log_dirty" in paging_modes(domid)


def paging_modes(domid: int) -> set[str]:
    """Returns the domain's paging modes in Xen's words; none of a PV guest that pages itself.

    Raises:
        LookupError: Xen says nothing of the domain, or not all of it: it is gone, for one.
    """
    subprocess.run(["xl", "debug-keys", "q"], check=True, timeout=60)
    # The log may hold earlier answers, and have lost the beginning of this one: the last word counts.
    log = subprocess.run(["xl", "dmesg"], check=True, timeout=60, capture_output=True).stdout.decode(
        errors="replace"
    )
    answers = [text for number, text in _PARAGRAPH.findall(log) if int(number) == domid]
    answer, end, _ = (answers[-1] if answers else "").partition(_END)
    if not end:
        raise LookupError(f"Xen's debug key q does not say how domain {domid} is paged")
    modes = _MODES.search(answer)
    return set(modes[1].split()) if modes else set()
