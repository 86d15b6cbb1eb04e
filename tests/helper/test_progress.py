# SPDX-License-Identifier: GPL-3.0-or-later
"""What an operator sees: ``xl save`` shows progress messages, ``xl migrate`` only what is logged."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest
from tests.helper.stream_end import to_file
from tests.helper.test_against_stock import IDLE
from tests.helper.toolstack import LIVE
from tests.parity.protocol import DomainSpec, Step

if TYPE_CHECKING:
    from pathlib import Path

    from tests.helper.toolstack import Starter

#: What xl puts around the text of a progress message, of a guest with less than 4 TiB.
AROUND = len("xenmig: ") + len(": 1000000000/1000000000  100%")
TERMINAL_COLUMNS = 80
PATIENT = """
import time
from xenmig import Decision

def patient(stats):
    time.sleep(0.3)
    done = stats.iteration >= 3
    return Decision.STOP_AND_COPY.because("three rounds are enough") if done else Decision.CONTINUE
"""


def test_a_live_save_logs_how_it_goes(starter: Starter, helper: Path) -> None:
    (starter.directory / "policy.py").write_text(PATIENT)
    steps = [Step("before_clean", n, write=[(0, 700)]) for n in range(4)]
    spec = DomainSpec(memory_pages=1500, steps=steps, domid=5)
    with to_file(starter.directory / "stream") as fd:
        saved = starter.save(helper, spec, fd, environment={"XENMIG_POLICY": "policy.py:patient"}).run()
    assert saved.completed == (0, 0)
    shown = [message.arguments for message in saved.messages if message.name == "progress"]
    assert len(shown) >= 4
    for context, _, done, total in shown:
        assert context == "xenmig"
        assert 0 <= int(done) <= int(total) == 1500
    lines = saved.logged("progress")
    pattern = (
        r"(iteration \d|stop-and-copy), [\d,]+ pages, [\d.]+ .?i?B/s, guest dirties (\?|[\d,]+) pages/s, "
        r"expected downtime (\?|[\d,]+ ms|\d+ ms), (ETA [\d.,]+ s|ETA \?|no convergence)"
    )
    assert lines
    assert [line for line in lines if not re.fullmatch(pattern, line)] == []
    places = [line.partition(",")[0] for line in lines]
    assert len(set(places)) == len(places) >= 3, "once for each iteration, if it is a short one"
    first, last = saved.logged("info")
    assert re.fullmatch(r"xenmig \S+, live, policy policy.py:patient, consult batch", first)
    assert re.match(r"saved: 3 rounds, [\d,]+ pages, [\d.]+ MiB in [\d.]+ s \(", last)
    assert last.endswith("the precopy ended because three rounds are enough")


def test_progress_of_a_save_fits_into_a_line(starter: Starter, helper: Path) -> None:
    with to_file(starter.directory / "stream") as fd:
        saved = starter.save(
            helper,
            IDLE,
            fd,
            flags=0,
            before=lambda door: door.inject(fault="cost", map_ns_per_page=800_000),
        ).run()
    assert saved.completed == (0, 0)
    texts = [str(message.arguments[1]) for message in saved.messages if message.name == "progress"]
    assert len(texts) >= 2
    assert re.fullmatch(r"stop-and-copy, [\d.]+ .iB/s, ETA [\d.,]+ s", texts[-1])
    assert max(map(len, texts)) + AROUND <= TERMINAL_COLUMNS
    # xl shows them itself.
    assert saved.logged("progress") == []


@pytest.mark.parametrize("flags", [LIVE, 0])
def test_a_short_save_says_what_it_is_and_what_it_was(starter: Starter, helper: Path, flags: int) -> None:
    with to_file(starter.directory / "stream") as fd:
        saved = starter.save(helper, IDLE, fd, flags=flags).run()
    assert [len(saved.logged(level)) for level in ("info", "warning", "error")] == [2, 0, 0]
    assert ("consult round" in saved.logged("info")[0]) == bool(flags & LIVE)
    assert saved.stderr == ""
