#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-3.0-or-later
"""Boots the testbed under QEMU and runs one command in its dom0.

``run.py [--timeout S] [--in [NAME=]PATH]... [--out DIR] -- COMMAND...``

What is in an ``--in`` folder is found in dom0 as ``/in``, or as ``/in/NAME``; a file by its own name, or as
``/in/NAME``. The command starts in ``/in``. Its output comes live. What it leaves in ``/out`` comes back in
the ``--out`` folder, and with it ``output.log``, ``serial.log`` (Xen's console and dom0's), ``qemu.log``, and
the logs of Xen, dom0 and the guests as ``dom0/``.

The exit status is the command's; 124 when it took longer than ``--timeout`` and was ended in dom0, which then
still handed its results back; 125 when dom0 did not come to its end, with the reason. Nothing is kept between
two runs.
"""

from __future__ import annotations

import argparse
import ctypes
import os
import shlex
import shutil
import signal
import subprocess
import sys
import tarfile
import tempfile
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

if TYPE_CHECKING:
    from types import FrameType

HERE = Path(__file__).resolve().parent
QEMU = "qemu-system-x86_64"
TIMED_OUT = 124  # timeout(1)
NO_RESULT = 125
BOOT_S = 120
"""How long dom0 may take, beside the command, to boot and to hand its results back, in seconds."""
BEAT_S = 1.0
"""Time between two interrupts that dom0 gets in any case, in seconds."""
IN_SPARE_BYTES = 64 << 20
SERIAL_LINES = 25
PR_SET_PDEATHSIG = 1  # linux/prctl.h

# Each of these has its reason: README.md, "Pitfalls".
MACHINE = ["-machine", "pc", "-accel", "tcg,thread=multi", "-cpu", "EPYC,-smap,-monitor,-rdtscp"]
BARE = ["-nodefaults", "-no-user-config", "-display", "none", "-monitor", "none", "-no-reboot"]
XEN = (
    "dom0_mem=1536M,max:1536M dom0_max_vcpus=1 com1=115200,8n1 console=com1 no-real-mode watchdog=0 "
    "spec-ctrl=no,eager-fpu xpti=no cpufreq=none cpuidle=0 guest_loglvl=warning loglvl=all"
)
DOM0 = "console=hvc0 root=/dev/vda quiet loglevel=4 mitigations=off clocksource=xen"


class TestbedError(Exception):
    """dom0 did not come to its end. The text says why, and what to do."""


def parsed(arguments: list[str]) -> argparse.Namespace:
    """Returns the arguments, with the command in ``command``."""
    parser = argparse.ArgumentParser(
        prog="run.py", description="Boots Xen under QEMU and runs one command in its dom0."
    )
    option = parser.add_argument
    option("--timeout", type=int, default=900, metavar="S", help="seconds for the command [900]")
    option("--in", dest="sources", action="append", default=[], metavar="[NAME=]PATH", help="for /in")
    option("--out", type=Path, metavar="DIR", help="where the results go [a new folder in /tmp]")
    option("--smp", type=int, default=1, metavar="N", help="CPUs of the machine [1]")
    option("command", nargs="+", metavar="COMMAND", help="what dom0 runs, after --")
    given = parser.parse_args(arguments)
    if given.timeout <= 0:
        parser.error("--timeout must be positive")
    return given


def image_folder() -> Path:
    """Returns the folder of the image, which is built if it is not there or not of these sources."""
    with subprocess.Popen([HERE / "build.sh"], stdout=subprocess.PIPE, text=True) as build:
        try:
            folder, _ = build.communicate()
        except BaseException:
            build.terminate()  # and not kill: it cleans up
            raise
    if build.returncode != 0:
        raise TestbedError("the image could not be built, see above")
    return Path(folder.strip())


def pack(work: Path, sources: list[str], command: list[str], timeout_s: int) -> None:
    """Writes in.img, the file system that dom0 mounts as /in: what was given and the command.

    It is a file system and not an archive because unpacking some thousand small files takes seconds in dom0.
    """
    staged = work / "in"
    staged.mkdir()
    for source in sources:
        _stage(staged, source)
    line = shlex.join(["timeout", "--kill-after=10", str(timeout_s), *command])
    (staged / ".command.sh").write_text(f"exec {line}\n")
    # Each file takes whole blocks and an inode; the rest is room for what the command writes there.
    files = sum(1 for _ in staged.rglob("*"))
    used = sum(-(-file.lstat().st_size // 4096) * 4096 for file in staged.rglob("*"))
    image = work / "in.img"
    with image.open("wb") as file:
        file.truncate(used + files * 1024 + IN_SPARE_BYTES)
    options = f"-q -F -t ext4 -O ^has_journal -m 0 -b 4096 -N {files + 4096} -E root_owner=0:0".split()
    made = subprocess.run(
        ["mke2fs", *options, "-d", str(staged), str(image)],
        env={**os.environ, "PATH": f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"},
        stderr=subprocess.PIPE,
        text=True,
        check=False,
    )
    if made.returncode != 0:
        raise TestbedError(f"mke2fs could not make the file system for /in: {made.stderr.strip()}")
    shutil.rmtree(staged)


def _stage(staged: Path, source: str) -> None:
    name, equals, given = source.partition("=")
    path = Path(given if equals else source)
    if equals and (Path(name).is_absolute() or ".." in Path(name).parts):
        raise TestbedError(f"--in: {name} is not below /in")
    if path.is_dir():
        shutil.copytree(path, staged / name if equals else staged, symlinks=True, dirs_exist_ok=True)
    elif path.is_file():
        target = staged / (name if equals else path.name)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(path, target)
    else:
        raise TestbedError(f"--in: there is no file or folder {path}")


def qemu_command(image: Path, work: Path, smp: int) -> list[str]:
    """Returns the command line of QEMU: its stdout is the command's output, `work` has the other files."""
    # QEMU separates the modules by commas.
    dom0 = DOM0.replace(",", ",,")
    modules = f"{_escaped(image / 'dom0-vmlinux')} {dom0},{_escaped(image / 'dom0-initrd.img')}"
    root = f"if=none,id=root,format=raw,snapshot=on,file={_escaped(image / 'root.img')}"
    handed_in = f"if=none,id=in,format=raw,cache=unsafe,file={_escaped(work / 'in.img')}"
    result = f"file,id=result,path={_escaped(work / 'result.tar')}"
    return [
        *[QEMU, *MACHINE, "-m", "4096", "-smp", str(smp), *BARE],
        *["-kernel", str(image / "xen"), "-append", XEN, "-initrd", modules],
        *["-serial", f"file:{work / 'serial.log'}"],
        *["-drive", root, "-device", "virtio-blk-pci,drive=root"],
        *["-drive", handed_in, "-device", "virtio-blk-pci,drive=in"],
        # Not QEMU's "stdio": a port whose chardev has come to the end of its input blocks who writes to it.
        *["-device", "virtio-serial-pci", "-chardev", "file,id=output,path=/dev/stdout"],
        *["-device", "virtserialport,chardev=output,name=output"],
        *["-chardev", result, "-device", "virtserialport,chardev=result,name=result"],
        *["-chardev", f"pipe,id=beat,path={_escaped(work / 'beat')}"],
        *["-device", "virtserialport,chardev=beat,name=beat"],
    ]


def _escaped(path: Path) -> str:
    return str(path).replace(",", ",,")


def boot(command: list[str], work: Path, limit_s: float) -> None:
    """Runs QEMU until dom0 has powered off; passes the command's output on.

    Raises:
        TestbedError: It took longer than `limit_s` seconds, or QEMU failed.
    """
    ended = threading.Event()
    os.mkfifo(work / "beat")
    with (work / "qemu.log").open("wb") as log, (work / "output.log").open("wb") as copy:
        qemu = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=log,
            start_new_session=True,
            preexec_fn=_die_with_parent,  # noqa: PLW1509 - no threads yet
        )
        killed = threading.Event()

        def too_long() -> None:
            killed.set()
            qemu.kill()

        clock = threading.Timer(limit_s, too_long)
        heart = threading.Thread(target=_beat, args=(work / "beat", ended))
        try:
            clock.start()
            heart.start()
            assert qemu.stdout is not None
            while chunk := os.read(qemu.stdout.fileno(), 65536):
                copy.write(chunk)
                copy.flush()
                sys.stdout.buffer.write(chunk)
                sys.stdout.buffer.flush()
            status = qemu.wait()
        finally:
            clock.cancel()
            ended.set()
            qemu.kill()
            qemu.wait()
    if killed.is_set():
        raise TestbedError(f"dom0 was not done after {limit_s:.0f} s, and QEMU was killed")
    if status != 0:
        raise TestbedError(f"QEMU ended with status {status}: {(work / 'qemu.log').read_text().strip()}")


def _beat(fifo: Path, ended: threading.Event) -> None:
    """Sends dom0 a byte at intervals, and with it an interrupt: README.md, "Pitfalls"."""
    # Open for both, so that neither end waits for the other.
    with fifo.open("r+b", buffering=0) as file:
        while not ended.wait(BEAT_S):
            file.write(b".")


def _die_with_parent() -> None:
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def unpack(result: Path, out: Path) -> int:
    """Unpacks what dom0 handed back into `out`, and returns the command's status.

    Raises:
        TestbedError: It is not whole: dom0 crashed, or powered off too early.
    """
    if result.stat().st_size == 0:
        raise TestbedError("dom0 ended without handing back a result")
    status, has_out = b"", False
    try:
        with tarfile.open(result, "r:") as tar:
            # Not every 3.11 has it.
            tar.extraction_filter = getattr(tarfile, "data_filter", None)
            for member in tar:
                if member.name == "status":
                    file = tar.extractfile(member)
                    status = file.read() if file else b""
                elif member.name == "out":
                    has_out = True
                elif member.name.startswith(("out/", "dom0/")):
                    member.name = member.name.removeprefix("out/")
                    _extract(tar, member, out)
    except (tarfile.TarError, OSError) as error:
        raise TestbedError(f"what dom0 handed back is not whole: {error}") from error
    if not (has_out and status.strip().isdigit()):
        raise TestbedError("dom0 ended before it had handed back all results")
    return int(status)


def _extract(tar: tarfile.TarFile, member: tarfile.TarInfo, out: Path) -> None:
    try:
        tar.extract(member, out)
    except tarfile.TarError as error:
        # A link that leads out of the folder, a device.
        say(f"left out of the results: {member.name}: {error}")


def run(given: argparse.Namespace, out: Path) -> int:
    """Does it all and returns the exit status."""
    image = image_folder()
    if shutil.which(QEMU) is None:
        raise TestbedError(f"there is no {QEMU} here: on Debian, apt-get install qemu-system-x86 seabios")
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="testbed-") as temporary:
        work = Path(temporary)
        try:
            pack(work, given.sources, given.command, given.timeout)
            boot(qemu_command(image, work, given.smp), work, given.timeout + BOOT_S)
            status = unpack(work / "result.tar", out)
        finally:
            for name in ("serial.log", "qemu.log", "output.log"):
                if (work / name).exists():
                    shutil.copy(work / name, out / name)
    say(f"status {status} after {time.monotonic() - started:.1f} s, results in {out}")
    if status == TIMED_OUT:
        say(f"the command was ended after {given.timeout} s (--timeout)")
    return status


def say(text: str) -> None:
    """Says something about the run, apart from the command's output."""
    sys.stderr.write(f"testbed: {text}\n")
    sys.stderr.flush()


def _signalled(number: int, _frame: FrameType | None) -> NoReturn:
    sys.exit(128 + number)


def main(arguments: list[str]) -> int:
    """Runs it; returns the exit status."""
    signal.signal(signal.SIGTERM, _signalled)
    signal.signal(signal.SIGINT, _signalled)
    given = parsed(arguments)
    out = Path(given.out or tempfile.mkdtemp(prefix="testbed-out-")).resolve()
    out.mkdir(parents=True, exist_ok=True)
    try:
        return run(given, out)
    except (TestbedError, OSError, shutil.Error) as error:
        serial = out / "serial.log"
        if serial.exists():
            lines = serial.read_text(errors="replace").splitlines()[-SERIAL_LINES:]
            say("the end of serial.log:\n" + "\n".join(lines))
        say(f"{error}")
        say(f"logs are in {out}")
        return NO_RESULT


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
