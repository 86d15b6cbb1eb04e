# SPDX-License-Identifier: GPL-3.0-or-later
"""Splits a policy expression, such as ``downtime:ms=300 | "/srv/a|b.py":Patient``, into its terms.

::

    expression = together { "|" together }
    together   = term { "&" term }
    term       = quoted ":" attribute | text without "|" and "&"
    quoted     = a Python string literal in single or double quotes
"""

from __future__ import annotations

import ast
import re
from dataclasses import dataclass

_QUOTED = re.compile(r"""("(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*')""", re.DOTALL)


class PolicyNameError(ValueError):
    """A policy's name, or an argument for it, cannot be understood; the message says why."""


@dataclass(frozen=True)
class Term:
    """One policy of an expression.

    Attributes:
        text: The term as written, without blanks around it.
        place: `` (character N of EXPRESSION)`` for messages; empty if the term is the whole expression.
        source: The file or module in quotes; ``None`` without quotes.
        rest: What follows the quotes and the colon after them; without quotes, the text.
    """

    text: str
    place: str
    source: str | None
    rest: str


def split(expression: str) -> list[list[Term]]:
    """Returns the alternatives of an expression, each a list of the terms that are combined with ``&``.

    Raises:
        PolicyNameError: Quotes are not closed, or not followed by a colon and a name.
    """
    alternatives: list[list[Term]] = [[]]
    start = 0
    while True:
        end = _end_of_term(expression, start)
        alternatives[-1].append(_term(expression, start, end))
        if end == len(expression):
            return alternatives
        if expression[end] == "|":
            alternatives.append([])
        start = end + 1


def _end_of_term(expression: str, start: int) -> int:
    """Returns where the operator after a term is, or the end. Only a term's first character opens quotes."""
    start += len(expression[start:]) - len(expression[start:].lstrip())
    if expression[start : start + 1] in {'"', "'"}:
        quoted = _QUOTED.match(expression, start)
        if quoted is None:
            raise PolicyNameError(
                f"the quotes that open at character {start + 1} of {expression!r} are not closed"
            )
        start = quoted.end()
    operator = re.compile("[|&]").search(expression, start)
    return len(expression) if operator is None else operator.start()


def _term(expression: str, start: int, end: int) -> Term:
    text = expression[start:end].strip()
    at = start + len(expression[start:end]) - len(expression[start:end].lstrip()) + 1
    place = "" if text == expression.strip() else f" (character {at} of {expression!r})"
    quoted = _QUOTED.match(text)
    if quoted is None:
        return Term(text, place, None, text)
    rest = text[quoted.end() :]
    if not rest.startswith(":") or not rest[1:].strip():
        expected = at + quoted.end()
        raise PolicyNameError(
            f"a colon and a name must follow the quotes at character {expected} of {expression!r}: "
            'write "file.py":name'
        )
    try:
        source = ast.literal_eval(quoted[0])
    except (SyntaxError, ValueError) as error:
        raise PolicyNameError(f"{quoted[0]} is not a Python string{place}: {error}") from None
    return Term(text, place, source, rest[1:].strip())
