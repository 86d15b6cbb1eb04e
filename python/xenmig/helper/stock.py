# SPDX-License-Identifier: GPL-3.0-or-later
"""libxl's own save helper: where it is, and how this process becomes it."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["HANDED_OVER", "StockHelperError", "become", "find"]

HANDED_OVER = "XENMIG_HANDED_OVER"
"""The environment variable that tells a program that it was started instead of this one."""

_NAME = "libxl-save-helper"
_LIBRARY_DIRECTORY = Path("/usr/lib")
#: Where Xen is installed: Debian's alternative, other distributions, and Xen's own default.
_DIRECTORIES = tuple(
    Path(directory)
    for directory in (
        "/usr/lib/xen/bin",
        "/usr/libexec/xen/bin",
        "/usr/lib64/xen/bin",
        "/usr/local/lib/xen/bin",
        "/usr/local/libexec/xen/bin",
        "/usr/local/lib64/xen/bin",
    )
)
_HYPERVISOR_VERSION = Path("/sys/hypervisor/version")


class StockHelperError(OSError):
    """There is no stock helper, or it cannot be started; the message says what to do."""


def find(named: Path | None) -> Path:
    """Returns where the stock helper is. Debian has one for each Xen; it is that of the running one.

    Args:
        named: The one that the operator names, if any.

    Raises:
        StockHelperError: There is none, or more than one, or it is this program.
    """
    if named is not None:
        if not os.access(named, os.X_OK) or named.is_dir():
            raise StockHelperError(f"the stock helper {named} is no program: correct XENMIG_STOCK_HELPER")
        return _not_this_one(named)
    version = _running_version()
    if version is None:
        ours = list(_LIBRARY_DIRECTORY.glob(f"xen-*/bin/{_NAME}"))
    else:
        ours = [_LIBRARY_DIRECTORY / f"xen-{version[0]}.{version[1]}" / "bin" / _NAME]
    found = _programs(ours) or _programs(directory / _NAME for directory in _DIRECTORIES)[:1]
    if len(found) == 1:
        return _not_this_one(found[0])
    if found:
        raise StockHelperError(
            f"there are stock helpers of several Xens ({', '.join(map(str, sorted(found)))}), and it cannot "
            "be found out which Xen runs: set XENMIG_STOCK_HELPER"
        )
    raise StockHelperError(
        f"libxl's own {_NAME} is in none of the usual places: install it (Debian: xen-utils-N.M), or set "
        "XENMIG_STOCK_HELPER"
    )


def become(helper: Path, arguments: list[str]) -> NoReturn:
    """Goes on as the stock helper, with the same arguments, descriptors and environment.

    Raises:
        StockHelperError: It cannot be started, or it has led back here.
    """
    if HANDED_OVER in os.environ:
        raise StockHelperError(
            f"the stock helper {os.environ[HANDED_OVER]} leads back to xenmig: correct XENMIG_STOCK_HELPER"
        )
    try:
        os.execve(helper, [str(helper), *arguments], os.environ | {HANDED_OVER: str(helper)})  # noqa: S606
    except OSError as error:
        raise StockHelperError(f"the stock helper {helper} cannot be started: {error.strerror}") from None


def _programs(paths: Iterable[Path]) -> list[Path]:
    return [path for path in paths if path.is_file() and os.access(path, os.X_OK)]


def _not_this_one(path: Path) -> Path:
    program = Path(sys.argv[0])
    if program.exists() and path.samefile(program):
        raise StockHelperError(f"{path} is xenmig itself: set XENMIG_STOCK_HELPER to libxl's own {_NAME}")
    return path


def _running_version() -> tuple[int, int] | None:
    try:
        major, minor = (int((_HYPERVISOR_VERSION / part).read_text()) for part in ("major", "minor"))
    except (OSError, ValueError):
        return None
    return major, minor
