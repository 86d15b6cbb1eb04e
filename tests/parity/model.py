# SPDX-License-Identifier: GPL-3.0-or-later
"""libxc's precopy loop as a model: what a policy is asked, given how much is dirtied before each CLEAN."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.parity.protocol import CONTINUE, Consult
from tests.parity.recorder import answer

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tests.parity.protocol import Policy


def consults(p2m_pages: int, dirtied: Sequence[int], policy: Policy = "libxc") -> list[Consult]:
    """Returns the questions, and the policy's answers.

    Args:
        p2m_pages: Size of the p2m: what the first round is said to have dirty.
        dirtied: Pages that are dirtied before each CLEAN; none before later ones.
        policy: Who answers.
    """
    asked: list[Consult] = []

    def ask(iteration: int, total_written: int, dirty_count: int) -> bool:
        given = answer(policy, len(asked), iteration, dirty_count)
        asked.append(Consult(iteration, total_written, dirty_count, given))
        return given == CONTINUE

    total_written, dirty_count, iteration = 0, p2m_pages, 0
    while ask(iteration, total_written, dirty_count):
        iteration += 1
        total_written += dirty_count
        if not ask(iteration, total_written, -1):
            break
        dirty_count = dirtied[iteration - 1] if iteration <= len(dirtied) else 0
    return asked
