# SPDX-License-Identifier: GPL-3.0-or-later
"""What ``import xenmig`` gives."""

from __future__ import annotations

import importlib
import subprocess
import sys
from importlib import metadata, resources

import pytest

import xenmig
from xenmig import _native


def test_everything_that_is_exported_is_there_once() -> None:
    assert len(set(xenmig.__all__)) == len(xenmig.__all__) > 20
    assert all(hasattr(xenmig, name) for name in xenmig.__all__)
    # The functions, not the modules of the same name.
    assert callable(xenmig.save)
    assert callable(xenmig.restore)


def test_it_is_typed_and_of_one_version() -> None:
    assert resources.files(xenmig).joinpath("py.typed").is_file()
    assert xenmig.__version__ == metadata.version("xenmig")


def test_a_debug_build_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    importlib.reload(xenmig)
    monkeypatch.setattr(_native, "DEBUG_BUILD", True)
    with pytest.warns(RuntimeWarning, match="debug build"):
        importlib.reload(xenmig)


def test_the_command_lines_libraries_are_not_imported_with_it() -> None:
    program = "import sys, xenmig; print(*(name for name in ('typer', 'rich') if name in sys.modules))"
    result = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=30, check=True
    )
    assert result.stdout.split() == []
