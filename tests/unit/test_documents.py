# SPDX-License-Identifier: GPL-3.0-or-later
"""The Python in README and in the manual runs as it stands there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def examples() -> list[tuple[str, str]]:
    """Every block of Python, with the document and its number there."""
    found = []
    for document in DOCUMENTS:
        blocks = re.findall(r"^```python\n(.*?)^```", document.read_text(), re.DOTALL | re.MULTILINE)
        found += [(f"{document.name}-{number}", block) for number, block in enumerate(blocks)]
    return found


def test_there_are_examples() -> None:
    assert {name.rsplit("-", 1)[0] for name, _ in examples()} >= {
        "README.md",
        "policies.md",
        "simulated-host.md",
    }


@pytest.mark.parametrize("code", [code for _, code in examples()], ids=[name for name, _ in examples()])
def test_an_example_runs(code: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    exec(compile(code, "example", "exec"), {"__name__": "example"})  # noqa: S102 - it is ours


def test_links_between_documents_lead_somewhere() -> None:
    links = [
        (document, target)
        for document in [*DOCUMENTS, *ROOT.glob("*.md"), ROOT / "tests" / "README.md"]
        for target in re.findall(r"\]\(([^)#:]+)\)", document.read_text())
    ]
    assert links
    assert [
        (document.name, target) for document, target in links if not (document.parent / target).exists()
    ] == []
