# SPDX-License-Identifier: GPL-3.0-or-later
"""``xl save``, ``xl save -c`` and ``xl restore`` with our helper: what ``test_matrix`` does not show."""

from __future__ import annotations

import mmap
import re
import struct
from typing import TYPE_CHECKING

import pytest
from tests.xen.frame import Frame

from xenmig.stream import PAGE_BYTES, PageData, StreamReader

if TYPE_CHECKING:
    from pathlib import Path

    from tests.xen.guest import Guest
    from tests.xen.toolstack import Toolstack


def test_a_truncated_image(guest: Guest, toolstack: Toolstack, tmp_path: Path) -> None:
    image = tmp_path / "image"
    toolstack.xl("save", guest.name, image).saved()
    size = image.stat().st_size
    with image.open("r+b") as file:
        file.seek(size * 3 // 4)
        rest = file.read()
        file.truncate(size * 3 // 4)
    failed = toolstack.xl("restore", image).failed()
    assert re.search(r"xenmig: error: restore: Domain \d+: StreamError: ", failed.output)
    assert "is not whole, and the toolstack is to destroy it" in failed.output
    assert guest.names == [], "libxl has destroyed it"
    with image.open("ab") as file:
        file.write(rest)
    toolstack.xl("restore", image).ok()
    guest.check_goes_on()


def test_a_checkpoint_leaves_the_guest_running(guest: Guest, toolstack: Toolstack, tmp_path: Path) -> None:
    domid, before = guest.domid, guest.check_goes_on()[-1]
    image = tmp_path / "image"
    toolstack.xl("save", "-c", guest.name, image).saved()
    assert guest.domid == domid
    assert guest.state == "running"
    after = guest.check_goes_on(reports=3)[-1]

    # What was saved is the guest as it was then, whatever it did since.
    guest.destroy()
    guest.go_back_to(before)
    toolstack.xl("restore", image, helper="stock").ok()
    restored = guest.check_goes_on()[0]
    assert restored.n <= after.n


def test_restored_paused(pvh_guest: Guest, toolstack: Toolstack, tmp_path: Path) -> None:
    image = tmp_path / "image"
    toolstack.xl("save", pvh_guest.name, image).saved()
    toolstack.xl("restore", "-p", image).ok()
    assert pvh_guest.state == "paused"
    toolstack.xl("unpause", pvh_guest.name).ok()
    pvh_guest.check_goes_on()


def test_one_wrong_word_would_be_noticed(pvh_guest: Guest, toolstack: Toolstack, tmp_path: Path) -> None:
    image = tmp_path / "image"
    toolstack.xl("save", pvh_guest.name, image).saved()
    with image.open("r+b") as file, mmap.mmap(file.fileno(), 0) as memory:
        page = memory.find(a_page_of_the_workload(image))
        memory[page + PAGE_BYTES // 2] ^= 1
    toolstack.xl("restore", image).ok()
    with pytest.raises(AssertionError, match=r"bad pages in .*bad=1"):
        pvh_guest.check_goes_on()


def a_page_of_the_workload(image: Path) -> bytes:
    """Returns the contents of a page that the workload checks: its words count upwards."""
    with image.open("rb") as file:
        file.seek(len(Frame.of(image).before))
        for record in StreamReader(file):
            for _, contents in record.pages() if isinstance(record, PageData) else ():
                words = struct.unpack(f"<{PAGE_BYTES // 8}Q", contents)
                if words == tuple(range(words[0], words[0] + len(words))) and words[0] > 1 << 32:
                    return bytes(contents)
    raise LookupError(f"no page of the workload is in {image}")
