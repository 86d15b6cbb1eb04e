# SPDX-License-Identifier: GPL-3.0-or-later
"""Builds ``libfakexen.so``, and refuses what was built without optimisation: its times would mean nothing."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import xenmig
from xenmig import _native

__all__ = ["DebugBuildError", "check_extension", "check_profile", "fakexen"]

_ROOT = Path(__file__).parents[1]
_PACKAGE = "xenmig-fakexen"
_FILE = "libfakexen.so"


class DebugBuildError(RuntimeError):
    """Something that would be measured was built without optimisation."""


def check_extension() -> None:
    """Checks the installed extension.

    Raises:
        DebugBuildError: It is a debug build, or that of ``make dev``.
    """
    if _native.DEBUG_BUILD:
        raise DebugBuildError(
            "this is a debug build of the extension: its times mean nothing; build it with make"
        )
    if Path(xenmig.__file__).is_symlink():
        raise DebugBuildError("this is the quick build of make dev: its times mean nothing; run make bench")


def check_profile(artifact: dict[str, Any]) -> None:
    """Checks how cargo says that something was built.

    Args:
        artifact: Cargo's message ``compiler-artifact``.

    Raises:
        DebugBuildError: Not for release.
    """
    profile = artifact["profile"]
    if profile["opt_level"] != "3" or profile["debug_assertions"]:
        name, level = artifact["target"]["name"], profile["opt_level"]
        raise DebugBuildError(f"{name} was built with opt-level {level}: its times mean nothing")


def fakexen(*, release: bool) -> Path:
    """Builds the library unless it is up to date, and returns its path.

    Args:
        release: Whether it is to be measured; else the build that the tests use will do.

    Raises:
        DebugBuildError: Cargo's configuration builds without optimisation even so.
        FileNotFoundError: There is no cargo.
    """
    cargo = shutil.which("cargo")
    if cargo is None:
        raise FileNotFoundError("cargo is needed to build libfakexen.so")
    command = [cargo, "build", "--quiet", "--locked", f"--package={_PACKAGE}", "--message-format=json"]
    command += ["--release"] * release
    built = subprocess.run(command, cwd=_ROOT, check=True, stdout=subprocess.PIPE, text=True).stdout
    for message in map(json.loads, built.splitlines()):
        files = (Path(name) for name in message.get("filenames", []))
        if library := next((file for file in files if file.name == _FILE), None):
            if release:
                check_profile(message)
            return library
    raise FileNotFoundError(f"cargo built no {_FILE}")
