# SPDX-License-Identifier: GPL-3.0-or-later
"""Saves: equal domains give equal streams, what the guest dirties is sent again, callbacks come in order."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

import pytest
from tests.parity.protocol import DomainSpec, SaveOptions
from tests.parity.shapes import BUSY

if TYPE_CHECKING:
    from pathlib import Path

    from tests.parity.client import Worker
    from tests.parity.protocol import EngineName
    from tests.parity.verify import Verifier

#: An END record: type 0, no body.
END = struct.pack("<II", 0, 0)


@pytest.mark.parametrize("options", [SaveOptions(live=False), SaveOptions()], ids=["non-live", "live"])
def test_equal_domains_give_equal_streams(
    xen: Worker, tmp_path: Path, engine: EngineName, options: SaveOptions
) -> None:
    streams = [tmp_path / "one", tmp_path / "other"]
    for stream in streams:
        domid = xen.create(DomainSpec(memory_pages=2000, holes=[(7, 90)], steps=BUSY))
        assert not xen.save(engine, domid, stream, options).failed
    assert streams[0].read_bytes() == streams[1].read_bytes()


def test_the_guest_dirties_pages_that_are_sent_again(xen: Worker, tmp_path: Path, engine: EngineName) -> None:
    quiet, busy = (xen.create(DomainSpec(steps=steps)) for steps in ([], BUSY))
    sizes = []
    for domid in (quiet, busy):
        assert not xen.save(engine, domid, tmp_path / "stream").failed
        sizes.append((tmp_path / "stream").stat().st_size)
    # Three rounds, the last of one page because a STOP is obeyed after it; and in the final pass 0 to 4,
    # besides the two pages that Xen keeps mapped, of which 1023 is one.
    page, word, record = 4096, 8, 16
    assert sizes[1] - sizes[0] == (700 + 101 + 1 + 5) * (page + word) + 3 * record


def test_the_verifier_refuses_a_stream_that_is_not_right(
    xen: Worker, verifier: Verifier, tmp_path: Path
) -> None:
    stream = tmp_path / "stream"
    assert not xen.save("libxc", xen.create(DomainSpec()), stream).failed
    verifier.check(stream)
    assert verifier.run_script(stream).returncode == 0
    contents = stream.read_bytes()
    stream.write_bytes(contents.removesuffix(END))
    with pytest.raises(AssertionError, match="Stream truncated"):
        verifier.check(stream)
    done = verifier.run_script(stream)
    assert (done.returncode, "Stream truncated" in done.stderr) == (1, True)
    stream.write_bytes(contents + b"\0")
    with pytest.raises(AssertionError, match="something follows"):
        verifier.check(stream)


def test_callbacks_come_in_order(xen: Worker, tmp_path: Path, engine: EngineName) -> None:
    domid = xen.create(DomainSpec())
    live = xen.save(engine, domid, tmp_path / "stream")
    consults = ["consult"] * 3
    assert live.events == ["qemu_logdirty 1", *consults, "suspend", "qemu_logdirty 0"]
    xen.resume(domid)
    non_live = xen.save(engine, domid, tmp_path / "stream", SaveOptions(live=False))
    # xenmig does not let the device model log: the log would not be read.
    logged = engine == "libxc"
    assert non_live.events == ["qemu_logdirty 1"] * logged + ["suspend"] + ["qemu_logdirty 0"] * logged
