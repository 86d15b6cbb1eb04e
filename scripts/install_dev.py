# SPDX-License-Identifier: GPL-3.0-or-later
"""Installs the package and a freshly built extension into this virtual environment, without a wheel.

Arguments: the extension, then a command that builds a wheel into a folder given as its last argument.
`make dev` runs this.

The Python sources are linked, so editing one needs no second run. The extension is copied into the
environment and never into the source tree, where a stale copy would be imported later.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[1]


def main() -> None:
    """Replaces the xenmig that is installed."""
    extension, *wheel_command = sys.argv[1:]
    site = Path(sysconfig.get_path("purelib"))
    package = site / "xenmig"
    # From here on the release wheel is out of date.
    (ROOT / ".venv" / "installed").unlink(missing_ok=True)
    # Removes links, not what they point to.
    shutil.rmtree(package, ignore_errors=True)
    if not list(site.glob("xenmig-*.dist-info")):
        install_wheel(wheel_command)
        shutil.rmtree(package)
    package.mkdir()
    for source in (ROOT / "python" / "xenmig").iterdir():
        if source.name != "__pycache__" and source.suffix != ".so":
            (package / source.name).symlink_to(source)
    shutil.copy2(extension, package / "_native.abi3.so")


def install_wheel(command: list[str]) -> None:
    """Installs a wheel: only a wheel brings the metadata, the commands and the dependencies."""
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run([*command, folder], check=True)
        wheels = map(str, Path(folder).glob("*.whl"))
        subprocess.run([sys.executable, "-m", "pip", "install", "--quiet", *wheels], check=True)


if __name__ == "__main__":
    main()
