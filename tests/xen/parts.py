# SPDX-License-Identifier: GPL-3.0-or-later
"""The tests in parts, for testbeds side by side: an emulated machine keeps only one processor busy."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["one_part"]

T = TypeVar("T")


def one_part(tests: Sequence[T], part: str) -> list[T]:
    """Returns one part of the tests. Neighbours, which take about as long, go to different parts.

    Args:
        tests: All of them.
        part: Which part of how many: ``1/2`` is the first half.
    """
    number, _, parts = part.partition("/")
    if not 1 <= int(number) <= int(parts):
        raise ValueError(f"{part} is not a part, such as 1/2")
    return list(tests[int(number) - 1 :: int(parts)])
