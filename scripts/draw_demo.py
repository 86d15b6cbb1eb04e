# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs `xenmig demo` and draws what it prints: the picture in README. `make picture` runs this.

Argument: the SVG file.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

from rich.console import Console
from rich.text import Text

_COLUMNS = 108


def main() -> None:
    """Draws the picture."""
    command = ["xenmig", "demo"]
    environment = os.environ | {"FORCE_COLOR": "1", "COLUMNS": str(_COLUMNS)}
    program = Path(sys.executable).with_name(command[0])
    # The live view of the progress goes to standard error.
    run = subprocess.run(
        [program, *command[1:]], env=environment, capture_output=True, text=True, check=False
    )
    if run.returncode != 0:
        sys.exit(run.stderr)
    with Path(os.devnull).open("w") as nowhere:
        console = Console(record=True, width=_COLUMNS, file=nowhere)
        console.print(Text.assemble(("$ ", "bold"), " ".join(command)))
        console.print(Text.from_ansi(run.stdout))
        picture = console.export_svg(title="xenmig demo", unique_id="demo")
    # No font from elsewhere: a viewer's own will do.
    picture = re.sub(r"@font-face \{.*?\}\s*", "", picture, flags=re.DOTALL)
    lines = [line.rstrip() for line in picture.replace("Fira Code, monospace", "monospace").splitlines()]
    Path(sys.argv[1]).write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
