# SPDX-License-Identifier: GPL-3.0-or-later
"""The tests on the real Xen run in parts: each test is in exactly one."""

from __future__ import annotations

import pytest
from tests.xen.parts import one_part


@pytest.mark.parametrize("parts", [1, 2, 3])
def test_each_test_is_in_one_part(parts: int) -> None:
    tests = list(range(10))
    found = [one_part(tests, f"{number}/{parts}") for number in range(1, parts + 1)]
    assert sorted(test for part in found for test in part) == tests
    assert max(map(len, found)) - min(map(len, found)) <= 1


@pytest.mark.parametrize("part", ["0/2", "3/2", "1", "half"])
def test_what_is_not_a_part_is_refused(part: str) -> None:
    with pytest.raises(ValueError, match=r"part|invalid literal"):
        one_part([1, 2, 3], part)
