# SPDX-License-Identifier: GPL-3.0-or-later
"""Checks the numbers that policies are made with, when they are given rather than at the first consult."""

from __future__ import annotations

import math


def positive(name: str, value: float) -> float:
    """Returns `value` if it is a finite number above 0."""
    number = _number(name, value)
    if number <= 0:
        raise ValueError(f"{name} is {value:g}: give more than 0")
    return number


def at_least(least: float, name: str, value: float) -> float:
    """Returns `value` if it is a finite number of at least `least`."""
    number = _number(name, value)
    if number < least:
        raise ValueError(f"{name} is {value:g}: give at least {least:g}")
    return number


def whole_number(least: int, name: str, value: int) -> int:
    """Returns `value` if it is an integer of at least `least`."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{name} is an integer, not {type(value).__name__}")
    if value < least:
        raise ValueError(f"{name} is {value}: give at least {least}")
    return value


def _number(name: str, value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"{name} is a number, not {type(value).__name__}")
    if not math.isfinite(value):
        raise ValueError(f"{name} is {value:g}: give a finite number")
    return float(value)
