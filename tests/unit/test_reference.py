# SPDX-License-Identifier: GPL-3.0-or-later
"""docs/reference.md has everything that the package exports, by the inventory of the built manual."""

from __future__ import annotations

import importlib
import os
import pkgutil
import subprocess
import sys
import zlib
from pathlib import Path

import pytest

import xenmig

ROOT = Path(__file__).parents[2]
#: Programs and inner parts, which users do not import; each with its folder or module.
INTERNAL = {
    "xenmig.__main__": "the command line",
    "xenmig._native": "the extension: xenmig exports what is for users",
    "xenmig.cli": "the command line",
    "xenmig.helper": "the save helper, a program",
    "xenmig.policy_arguments": "behind BasePolicy",
    "xenmig.progress_text": "texts of the programs",
    "xenmig.stream.foreign": "what verify says of other files",
    "xenmig.stream.pfn_run": "behind check_stream",
    "xenmig.xen.state": "behind Xen.suspend and the save helper",
    "xenmig.xen.suspension": "behind Xen.suspend",
    "xenmig.xen.xenstore": "behind Xen.suspend",
}
#: Exported by a module for others of the package.
INTERNAL_NAMES = {
    "xenmig.host": {"lifecycle", "native_host"},
    "xenmig.descriptor": {"Descriptor", "opened"},
    "xenmig.sim.pv": {"native_pv"},
    "xenmig.sim.workload": {"native_workload"},
}


def is_internal(module: str) -> bool:
    return any(module == name or module.startswith(f"{name}.") for name in INTERNAL)


def modules() -> list[str]:
    """The package and all its modules."""
    return ["xenmig", *(found.name for found in pkgutil.walk_packages(xenmig.__path__, "xenmig."))]


def exported() -> dict[str, set[str]]:
    """What the manual must have, each with the names that will do: by its own module, or by this one."""
    found = {}
    for name in modules():
        if is_internal(name):
            continue
        # Not by attributes: xenmig.save is the function.
        module = importlib.import_module(name)
        for public in set(getattr(module, "__all__", [])) - INTERNAL_NAMES.get(name, set()):
            full = f"{name}.{public}"
            if full not in modules():
                home = getattr(getattr(module, public), "__module__", name)
                found[full] = {full, f"{home}.{public}"}
    return found


@pytest.fixture(scope="module")
def documented(tmp_path_factory: pytest.TempPathFactory) -> set[str]:
    """The names that the manual has, from the inventory that is built with it."""
    site = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(site)]
    environment = os.environ | {"NO_MKDOCS_2_WARNING": "1"}
    built = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert built.returncode == 0, built.stderr
    inventory = (site / "objects.inv").read_bytes().split(b"\n", 4)[4]
    return {line.split()[0] for line in zlib.decompress(inventory).decode().splitlines()}


def test_everything_that_is_exported_is_in_the_reference(documented: set[str]) -> None:
    names = exported()
    assert len(names) > 80
    assert {name for name, any_of in names.items() if not any_of & documented} == set()


def test_what_is_internal_exists() -> None:
    assert set(INTERNAL) <= set(modules())
    for name, internal in INTERNAL_NAMES.items():
        assert internal <= set(importlib.import_module(name).__all__)
