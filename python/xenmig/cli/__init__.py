# SPDX-License-Identifier: GPL-3.0-or-later
"""The command line: ``xenmig demo``, ``xenmig inspect``, ``xenmig verify``.

Each command is a function of the module of its name; here they are only put together.
"""

from __future__ import annotations

from typing import Annotated

import typer

from xenmig import __version__
from xenmig.cli import demo, inspect, receiver, verify

__all__ = ["app", "main"]

app = typer.Typer(
    name="xenmig",
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


def _print_version(wanted: bool) -> None:  # noqa: FBT001 - typer calls it
    if wanted:
        typer.echo(f"xenmig {__version__}")
        raise typer.Exit


@app.callback()
def _program(
    *,
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Live migration of Xen domains, steered from Python."""


app.command()(demo.demo)
app.command()(inspect.inspect)
app.command()(verify.verify)
app.command(hidden=True)(receiver.receive)


def main() -> None:
    """Runs the command that the program's arguments name."""
    app()
