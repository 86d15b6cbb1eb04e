#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-3.0-or-later
"""Installs a wheel and what the tests need into a folder for dom0's Python, which finds it as ``/in/py``.

``environment.py DIR REQUIREMENT...``, where a requirement is the path of a wheel, or what pip takes.

It runs under any Python that has pip; the folder is for dom0's version. ``DIR/bin`` has the console scripts
of all that was installed. They need no environment variable and no virtual environment: they find the folder
that they are in, so that libxl can start them as well.
"""

from __future__ import annotations

import configparser
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

DOM0_PYTHON = (3, 11)
"""Debian 12's."""
MARK = ".for-dom0"

LAUNCHER = """\
#!/usr/bin/python3
import os
import sys

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.realpath(__file__))))
from {module} import {top}

sys.exit({function}())
"""


def install(folder: Path, requirements: list[str]) -> None:
    """Makes `folder` anew, with these requirements in it.

    Args:
        folder: Replaced as a whole, and only when all was installed.
        requirements: What pip is to install.

    Raises:
        subprocess.CalledProcessError: pip failed; it has said why.
        FileExistsError: `folder` exists and was not made by this program.
    """
    if folder.exists() and not (folder / MARK).exists() and any(folder.iterdir()):
        raise FileExistsError(f"{folder} was not made by this program: remove it, or name another")
    folder.parent.mkdir(parents=True, exist_ok=True)
    # Code that this Python compiles is of use to dom0 if it is the same version.
    compiled = "--compile" if sys.version_info[:2] == DOM0_PYTHON else "--no-compile"
    version = "{}.{}".format(*DOM0_PYTHON)
    options = f"--quiet --disable-pip-version-check --python-version {version} --only-binary=:all: {compiled}"
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f"{folder.name}.") as temporary:
        new = Path(temporary) / "new"
        pip = [sys.executable, "-m", "pip", "install", *options.split(), "--target", str(new)]
        subprocess.run([*pip, *requirements], check=True)
        (new / MARK).touch()
        write_launchers(new)
        shutil.rmtree(folder, ignore_errors=True)
        new.rename(folder)


def write_launchers(folder: Path) -> list[Path]:
    """Replaces pip's scripts, which start the Python of this machine, by such that start dom0's.

    Args:
        folder: What ``pip install --target`` has made.

    Returns:
        The scripts, one for each entry of ``console_scripts``.
    """
    scripts = folder / "bin"
    shutil.rmtree(scripts, ignore_errors=True)
    scripts.mkdir()
    written = []
    for file in sorted(folder.glob("*.dist-info/entry_points.txt")):
        for name, target in console_scripts(file.read_text()).items():
            # "module:function [extra]"; the function may be an attribute of an attribute.
            module, _, function = target.split("[")[0].strip().partition(":")
            script = scripts / name
            script.write_text(LAUNCHER.format(module=module, top=function.split(".")[0], function=function))
            script.chmod(0o755)
            written.append(script)
    return written


def console_scripts(text: str) -> dict[str, str]:
    """Returns names and targets of the console scripts in an ``entry_points.txt``."""
    entries = configparser.ConfigParser(delimiters=("=",), interpolation=None)
    # Case counts in a name; configparser documents this as the way to keep it.
    entries.optionxform = str  # type: ignore[assignment,method-assign]
    entries.read_string(text)
    return dict(entries["console_scripts"]) if "console_scripts" in entries else {}


if __name__ == "__main__":
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    try:
        install(Path(sys.argv[1]), sys.argv[2:])
    except FileExistsError as error:
        sys.exit(f"testbed: {error}")
    except subprocess.CalledProcessError as error:
        sys.exit(f"testbed: pip ended with status {error.returncode}, see above; {sys.argv[1]} is as it was")
