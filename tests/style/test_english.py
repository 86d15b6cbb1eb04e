# SPDX-License-Identifier: GPL-3.0-or-later
"""Phrases that are never right in this project's text: comments, docstrings, messages, and documents."""

from __future__ import annotations

import re

import pytest
from tests.style.tree import ROOT, sources

ENDINGS = (".rs", ".py", ".pyi", ".md", ".sh", ".toml", ".yml", ".c", "Makefile")
#: Folders whose text is checked.
FOLDERS = ("docs", "rust", "python", "tests", "bench", "scripts", "examples", ".")
#: What is banned, what to write instead, and an example of it.
BANNED = [
    (r"\boctets?\b", "bytes", "four octets"),
    (r"\bshall\b", "must, should, will", "it shall stop"),
    (r"\b(?:no|some)body\b", "name who, or use the passive", "nobody knows"),
    (r"\bof (?:ours|one's own)\b", "our own, your own", "a clock of ours"),
    (r"\bas far as\b", "if, where, unless", "as far as not"),
    (
        r"\bso (?:often|many|much|long|few) (?:pages|times|bytes|rounds|at most)\b(?! that)",
        "a number",
        "so many pages",
    ),
    (
        r"\b(?:at least|at most|exactly) so (?:often|many|much|long|few)\b",
        "every 100 ms, a number",
        "at least so often",
    ),
    (
        r"\bbehind (?:END|(?:the|a|its|their) (?:headers?|records?|stream|pages?|marker))\b",
        "after",
        "behind END",
    ),
    (r"\bso-called\b", "nothing", "the so-called p2m"),
]


def texts() -> list[tuple[str, str]]:
    """Every file that is checked, with its text."""
    found = []
    for path in sources(*ENDINGS):
        name = str(path.relative_to(ROOT))
        top = name.split("/", maxsplit=1)[0] if "/" in name else "."
        if top in FOLDERS and path.name != "test_english.py":
            found.append((name, path.read_text(encoding="utf-8")))
    return found


@pytest.mark.parametrize(("pattern", "instead", "example"), BANNED, ids=[example for _, _, example in BANNED])
def test_a_phrase_is_not_used(pattern: str, instead: str, example: str) -> None:
    phrase = re.compile(pattern, re.IGNORECASE)
    assert phrase.search(example)
    files = texts()
    assert len(files) > 100
    found = [
        f"{name}:{text.count(chr(10), 0, match.start()) + 1}: {match.group()}"
        for name, text in files
        for match in phrase.finditer(text)
    ]
    assert found == [], f"write instead: {instead}"
