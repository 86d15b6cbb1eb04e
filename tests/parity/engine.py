# SPDX-License-Identifier: GPL-3.0-or-later
"""The engines that parity tests hold against each other. Each saves and restores over the same fake kernel.

An engine is loaded in the worker process by its name. To add one, write a class with the methods of
:class:`Engine` and put its module into :data:`MODULES`: every test with the fixture ``engine`` then runs with
it, too.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Protocol, cast

if TYPE_CHECKING:
    from tests.parity.fakexen import Fakexen
    from tests.parity.protocol import EngineName, RestoreOptions, RestoreOutcome, SaveOptions, SaveOutcome

#: The module of each engine. It has a function ``engine(fakexen)``.
MODULES: dict[EngineName, str] = {"libxc": "tests.parity.libxc", "xenmig": "tests.parity.xenmig_engine"}


class Engine(Protocol):
    """Saves and restores domains of the fake host."""

    def save(self, domid: int, fd: int, options: SaveOptions) -> SaveOutcome:
        """Saves a domain to a file descriptor. Failures are outcomes."""

    def restore(self, domid: int, fd: int, options: RestoreOptions) -> RestoreOutcome:
        """Restores from a file descriptor into an empty domain. Failures are outcomes."""


def load(name: EngineName, fakexen: Fakexen) -> Engine:
    """Loads an engine."""
    return cast("Engine", import_module(MODULES[name]).engine(fakexen))
