# SPDX-License-Identifier: GPL-3.0-or-later
"""Puts the package and a freshly built extension into this virtual environment, without a wheel.

Argument: the extension. The Python sources are linked, so an edit of one needs no second run; the extension stays out of
the source tree, where a stale one would be picked up. `make test` installs the wheel again.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

ROOT = Path(__file__).parents[1]


def main() -> None:
    """Replaces whatever xenmig is installed."""
    extension = Path(sys.argv[1])
    site = Path(sysconfig.get_path("purelib"))
    if not list(site.glob("xenmig-*.dist-info")):
        # The metadata and the commands of the project come with a wheel; its dependencies as well.
        subprocess.run(["make", ".venv/installed"], cwd=ROOT, check=True)
        (ROOT / ".venv" / "installed").unlink()
    package = site / "xenmig"
    shutil.rmtree(package, ignore_errors=True)
    package.mkdir()
    for source in (ROOT / "python" / "xenmig").iterdir():
        if source.name != "__pycache__":
            (package / source.name).symlink_to(source)
    shutil.copy2(extension, package / "_native.abi3.so")


if __name__ == "__main__":
    main()
