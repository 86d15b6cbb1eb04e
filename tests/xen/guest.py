# SPDX-License-Identifier: GPL-3.0-or-later
"""A guest on the real Xen that knows what its memory must hold, and a check that it goes on as it should."""

from __future__ import annotations

import subprocess
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from tests.xen.console import Console, Report, parse

import xenmig

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

__all__ = ["Guest", "GuestKind", "Images"]

GuestKind = Literal["pvh", "hvm", "pv"]

REPORT_MS = 500
"""Time between two reports of the workload, in ms."""
_BOOT_S = 180.0
_REPORT_S = 60.0
_POLL_S = 0.05
_MEMORY_MB = {"pvh": 128, "hvm": 192, "pv": 128}


@dataclass(frozen=True)
class Images:
    """Where a guest comes from, and where it is heard.

    Attributes:
        kernel: A Linux kernel with Xen's guest drivers.
        ramdisk: The workload as an initramfs.
        console_logs: The directory of xenconsoled's logs.
        work: A directory for the guests' configurations.
    """

    kernel: Path
    ramdisk: Path
    console_logs: Path
    work: Path


@dataclass
class Guest:
    """A domain with a workload that writes memory of known content, and compares all of it all the time.

    Attributes:
        name: The domain's name. Domains of that name, and those that a migration makes of it, belong to
            the tests.
        kind: What sort of guest it is.
        images: What it boots.
        dirty_mb: How much memory has known content, in MiB.
        dirty_rate: Pages that are rewritten per second.
        vcpus: Its vCPUs. The workload takes turns on all of them: if one does not run, no more reports come.
        offline_vcpus: vCPUs that it could have beside these, and that it does not start.
    """

    name: str
    kind: GuestKind
    images: Images
    dirty_mb: int = 32
    dirty_rate: int = 5000
    vcpus: int = 1
    offline_vcpus: int = 0
    _console: Console = field(init=False, repr=False)
    _last: Report | None = field(default=None, init=False, repr=False)

    def __post_init__(self) -> None:
        self._console = Console(self.images.console_logs, self.name)

    def write_config(self) -> Path:
        """Writes the domain's configuration for ``xl create``, and returns where."""
        load = f"dirty_mb={self.dirty_mb} dirty_rate={self.dirty_rate}"
        parameters = f"{load} cpus={self.vcpus} report_ms={REPORT_MS}"
        settings = {
            "name": self.name,
            "type": self.kind,
            "kernel": str(self.images.kernel),
            "ramdisk": str(self.images.ramdisk),
            "memory": _MEMORY_MB[self.kind],
            "vcpus": self.vcpus,
            "maxvcpus": self.vcpus + self.offline_vcpus,
            "on_crash": "preserve",
            "on_reboot": "destroy",
            "extra": f"console=hvc0 quiet loglevel=4 mitigations=off {parameters}",
        }
        if self.kind == "hvm":
            settings |= {"vga": "none", "vnc": 0}
        path = self.images.work / f"{self.name}.cfg"
        path.write_text("".join(f"{key} = {_quoted(value)}\n" for key, value in settings.items()))
        return path

    @property
    def memory_pages(self) -> int:
        """The guest's memory, in pages of 4 KiB."""
        return _MEMORY_MB[self.kind] * 256

    @property
    def domid(self) -> int:
        """The domain's number now: a migration and a restore change it."""
        return int(_xl("domid", self.name))

    @property
    def state(self) -> str:
        """What the hypervisor says of the domain; ``"gone"`` if there is none."""
        try:
            return str(xenmig.Xen().domain_info(self.domid)["state"])
        except (subprocess.CalledProcessError, xenmig.HypercallError):
            return "gone"

    @property
    def names(self) -> list[str]:
        """The names of all domains that are this guest, or what a migration left of it."""
        rows = [line.split() for line in _xl("list").splitlines()[1:]]
        return [row[0] for row in rows if row[0] == self.name or row[0].startswith(f"{self.name}--")]

    def ready(self) -> None:
        """Makes sure that the guest runs and is well; one that is not is made anew."""
        if self.names == [self.name]:
            if self.state == "paused":
                # To leave the processor to others.
                _xl("unpause", self.name)
            if self.state == "running":
                try:
                    self.check_goes_on(reports=1)
                except AssertionError:
                    pass
                else:
                    return
        self.create()

    def create(self) -> None:
        """Starts the guest, in place of any that there is, and waits until the workload reports."""
        self.destroy()
        self._console.new_lines()
        self._last = None
        _xl("create", "-q", str(self.write_config()))
        self.check_goes_on(reports=2, timeout_s=_BOOT_S)

    def pause(self) -> None:
        """Stops the guest's processor, if it runs."""
        # Xen counts: a guest that is paused twice must be unpaused twice.
        if self.state == "running":
            _xl("pause", self.name)

    def destroy(self) -> None:
        """Ends all domains of this guest."""
        for name in self.names:
            _xl("destroy", name)

    def go_back_to(self, report: Report) -> None:
        """Expects the guest to go on from an earlier report: an image of that time will be restored.

        Call it when the guest has been destroyed; what that one still said is dropped.
        """
        self._console.new_lines()
        self._last = report

    def check_goes_on(self, *, reports: int = 2, timeout_s: float = _REPORT_S) -> list[Report]:
        """Waits for new reports, and checks every report since the last check.

        It must be called at least once between two moves of the guest.

        Args:
            reports: How many must come from now on.
            timeout_s: How long to wait for them, in seconds.

        Returns:
            All reports since the last check, the newest last.

        Raises:
            AssertionError: A page is bad, a counter went back, or no reports come.
        """
        seen = self._check(self._console.new_lines())
        wanted = len(seen) + reports
        until_s = time.monotonic() + timeout_s
        while len(seen) < wanted:
            assert time.monotonic() < until_s, (
                f"{self.name}: {len(seen)} of {wanted} reports within {timeout_s:.0f} s, "
                f"the domain is {self.state}\n{self._console.tail()}"
            )
            time.sleep(_POLL_S)
            seen += self._check(self._console.new_lines())
        return seen

    def _check(self, lines: Iterable[str]) -> list[Report]:
        seen = []
        for line in lines:
            assert "workload failed" not in line, f"{self.name}: {line}"
            # Of a bad page there is a report as well: that says how many there are.
            report = parse(line)
            if report is None:
                continue
            last, self._last = self._last, report
            assert report.bad == 0, f"{self.name}: bad pages in {report}\n{self._console.tail()}"
            if last is not None:
                assert report.n > last.n, f"{self.name} went back from {last} to {report}"
                assert report.writes >= last.writes, f"{self.name} lost writes from {last} to {report}"
                assert report.up_ms >= last.up_ms, f"{self.name}: uptime went back from {last} to {report}"
            seen.append(report)
        return seen


def _quoted(value: object) -> str:
    return f'"{value}"' if isinstance(value, str) else str(value)


def _xl(*arguments: str) -> str:
    """Runs ``xl``, for what is not tested here."""
    return subprocess.run(
        ["xl", *arguments],
        check=True,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        text=True,
        timeout=120,
    ).stdout
