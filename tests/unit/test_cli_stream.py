# SPDX-License-Identifier: GPL-3.0-or-later
"""``xenmig inspect`` and ``xenmig verify``: text, JSON, exit status, pipes."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest
import typer
from tests.stream.make_stream import NOTAB, XTAB, Domain, Entry, hvm_stream, page, pv_stream
from typer.testing import CliRunner

from xenmig.cli.inspect import inspect
from xenmig.cli.verify import verify
from xenmig.stream.output import reading_progress

if TYPE_CHECKING:
    from pathlib import Path


FULL: list[Entry] = [(pfn, NOTAB, page(1)) for pfn in range(1020)]
FULL += [(pfn, XTAB, None) for pfn in range(1020, 1024)]
DOMAIN = Domain(batches=[FULL, [(0x10, NOTAB, page(2)), (0x2000, NOTAB, page(3))]])

app = typer.Typer()
app.command()(inspect)
app.command()(verify)
runner = CliRunner()

# A debug build of the extension warns when it is imported.
QUIET = ["-W", "ignore::RuntimeWarning"]
# Only with buffers is there something left to flush when the program ends.
BUFFERED = {**os.environ, "PYTHONUNBUFFERED": ""}

# The same two commands as a program of its own.
PROGRAM = """
import typer
from xenmig.cli.inspect import inspect
from xenmig.cli.verify import verify
app = typer.Typer()
app.command()(inspect)
app.command()(verify)
app()
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """The path of a good stream."""
    path = tmp_path / "stream"
    path.write_bytes(hvm_stream(DOMAIN))
    return path


@pytest.fixture
def bad(tmp_path: Path) -> Path:
    """The path of a stream that breaks off in its second PAGE_DATA record."""
    path = tmp_path / "bad"
    stream = hvm_stream(DOMAIN)
    path.write_bytes(stream[: 40 + 56 + 24 + 8 + 8 + 8 + 8192 + 1020 * 4096 + 100])
    return path


class Ran(NamedTuple):
    """What a command said."""

    stdout: str
    stderr: str


def run(*arguments: str | Path, status: int = 0, stdin: bytes | None = None) -> Ran:
    result = runner.invoke(app, [str(argument) for argument in arguments], input=stdin)
    assert result.exit_code == status, result.output
    assert "Traceback" not in result.output
    return Ran(result.stdout, result.stderr)


def one_object(text: str) -> dict[str, Any]:
    assert text.count("\n") == 1
    found = json.loads(text)
    assert isinstance(found, dict)
    return found


def one_line(text: str) -> str:
    assert text.endswith("\n")
    assert text.count("\n") == 1
    return text


def test_verify_good(path: Path) -> None:
    result = run("verify", path)
    line = one_line(result.stdout)
    assert line.startswith(
        "ok: version 3, x86 HVM, 4096-byte pages, Xen 4.17; 4.0 MiB, 9 records, 1022 pages"
    )
    assert "1021 distinct, 1 resent" in line
    assert result.stderr == ""


def test_verify_from_standard_input(path: Path) -> None:
    assert run("verify", "-", stdin=path.read_bytes()).stdout == run("verify", path).stdout


def test_verify_bad(bad: Path) -> None:
    result = run("verify", bad, status=1)
    assert result.stdout == ""
    line = one_line(result.stderr)
    offset = bad.stat().st_size
    assert line.startswith(
        f"xenmig: {bad}: bad stream at byte {offset} ({offset:#x}): the stream ends inside"
    )


def test_verify_json(path: Path) -> None:
    found = one_object(run("verify", path, "--json").stdout)
    assert found["ok"] is True
    assert found["stream_bytes"] == path.stat().st_size
    assert found["headers"] == {
        "version": 3, "guest_type": "x86 HVM", "page_bytes": 4096, "xen_major": 4, "xen_minor": 17,
    }  # fmt: skip
    assert found["totals"]["pages_by_type"] == {"NOTAB": 1022, "XTAB": 4}
    assert (found["warnings"], found["warning_count"]) == ([], 0)


def test_verify_json_bad(bad: Path) -> None:
    result = run("verify", bad, "--json", status=1)
    found = one_object(result.stdout)
    assert found["ok"] is False
    assert found["error"]["kind"] == "stream_bad"
    assert found["error"]["offset"] == bad.stat().st_size
    assert found["error"]["message"] in one_line(result.stderr)


@pytest.mark.parametrize("command", ["inspect", "verify"])
@pytest.mark.parametrize(("name", "text"), [("absent", "No such file"), (".", "Is a directory")])
def test_what_cannot_be_read(command: str, name: str, text: str, tmp_path: Path) -> None:
    result = run(command, tmp_path / name, status=2)
    assert result.stdout == ""
    assert text in one_line(result.stderr)
    found = one_object(run(command, tmp_path / name, "--json", status=2).stdout)
    assert found["ok"] is False
    assert found["error"]["kind"] == "cannot_read"
    assert isinstance(found["error"]["errno"], int)


def test_verify_warns(tmp_path: Path) -> None:
    data = bytearray(hvm_stream())
    data[30] = 1
    path = tmp_path / "odd"
    path.write_bytes(data)
    result = run("verify", path)
    assert one_line(result.stdout).startswith("ok: ")
    assert "warning at byte 30 (0x1e): the reserved field of the domain header" in one_line(result.stderr)
    found = one_object(run("verify", path, "--json").stdout)
    assert [warning["offset"] for warning in found["warnings"]] == [30]
    assert "warnings: 1, see xenmig verify" in run("inspect", path).stdout


def test_inspect_table(path: Path) -> None:
    text = run("inspect", path).stdout
    lines = text.splitlines()
    assert f"{path}: version 3, x86 HVM" in lines[0]
    rows = [[cell.strip() for cell in line.strip("│").split("│")] for line in lines if line.startswith("│")]
    assert rows[0] == ["0x28", "X86_CPUID_POLICY", "48", "2 leaves"]
    assert [row[1] for row in rows] == [
        "X86_CPUID_POLICY", "X86_MSR_POLICY", "STATIC_DATA_END", "PAGE_DATA",
        "X86_TSC_INFO", "HVM_CONTEXT", "HVM_PARAMS", "END",
    ]  # fmt: skip
    assert rows[3][3] == "2 records: 1026 pfns, 1022 pages, pfn 0x0-0x2000"
    assert "pfns by type: NOTAB 1022, XTAB 4" in lines
    assert "1022 pages (4.0 MiB), 1021 distinct, 1 resent" in text


def test_inspect_all_and_limit(path: Path) -> None:
    text = run("inspect", path, "--all").stdout
    assert "1024 pfns, 1020 pages, pfn 0x0-0x3ff" in text
    assert "2 pfns, 2 pages, pfn 0x10-0x2000" in text
    text = run("inspect", path, "--all", "--limit", "4").stdout
    assert "1024 pfns, 1020 pages" in text
    assert "2 pfns, 2 pages" not in text
    assert "5 more rows are not shown" in text
    assert "1022 pages (4.0 MiB)" in text
    assert "more rows" not in run("inspect", path, "--limit", "0").stdout


def test_inspect_json(path: Path) -> None:
    found = one_object(run("inspect", path, "--json").stdout)
    assert (found["ok"], found["error"], found["rows_left_out"]) == (True, None, 0)
    assert found["stream_bytes"] == path.stat().st_size
    (merged,) = [row for row in found["rows"] if row["type"] == "PAGE_DATA"]
    assert merged["records"] == 2
    assert (merged["pfns"], merged["pages"]) == (1026, 1022)
    assert (merged["lowest_pfn"], merged["highest_pfn"]) == (0, 0x2000)
    assert sum(row["records"] for row in found["rows"]) == found["totals"]["records"] == 9
    found = one_object(run("inspect", path, "--json", "--all", "--limit", "5").stdout)
    assert [row["records"] for row in found["rows"]] == [1] * 5
    assert found["rows_left_out"] == 4


def test_inspect_shows_what_stands_before_the_error(bad: Path) -> None:
    result = run("inspect", bad, status=1)
    assert "2 records: 1026 pfns, 1022 pages" in result.stdout
    assert "bad stream at byte" in one_line(result.stderr)
    found = one_object(run("inspect", bad, "--json", status=1).stdout)
    assert found["ok"] is False
    assert found["stream_bytes"] is None
    assert [row["type"] for row in found["rows"]][-1] == "PAGE_DATA"
    assert found["error"]["offset"] == bad.stat().st_size


def test_inspect_names_the_details_of_pv_records(tmp_path: Path) -> None:
    path = tmp_path / "pv"
    path.write_bytes(pv_stream())
    text = run("inspect", path).stdout
    for detail in (
        "64-bit guest, 4 page table levels",
        "2 frames, pfn 0x0-0x3ff",
        "vCPU 1, 5168 bytes",
        "mode 1, 2400000 kHz, 123456789012 ns, incarnation 3",
        "1 MSRs",
    ):
        assert detail in text
    assert run("inspect", "-", stdin=path.read_bytes()).stdout.splitlines()[1:] == text.splitlines()[1:]


def test_inspect_says_who_converted_a_legacy_image(tmp_path: Path) -> None:
    data = bytearray(hvm_stream())
    data[32] = 0
    path = tmp_path / "converted"
    path.write_bytes(data)
    assert "a legacy image converted by version 17" in run("inspect", path).stdout


def start(*arguments: str, stdin: int = subprocess.PIPE) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, *QUIET, "-c", PROGRAM, *arguments],
        stdin=stdin,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=BUFFERED,
    )


def test_a_real_pipe(path: Path) -> None:
    stream = path.read_bytes()
    with start("verify", "-") as process:
        out, err = process.communicate(stream)
    assert (process.returncode, err) == (0, b"")
    assert out.startswith(b"ok: version 3, x86 HVM")
    with start("verify", "-") as process:
        out, err = process.communicate(stream[:-8])
    assert (process.returncode, out) == (1, b"")
    assert err.count(b"\n") == 1
    assert b"before any END record" in err


@pytest.mark.parametrize(
    ("arguments", "status"),
    [(["inspect"], 0), (["inspect", "--json"], 0), (["verify"], 0), (["verify", "--json"], 0)],
)
def test_nobody_listens(arguments: list[str], status: int, path: Path) -> None:
    with start(*arguments, str(path), stdin=subprocess.DEVNULL) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        err = process.stderr.read()
        process.wait()
    assert (err, process.returncode) == (b"", status)


def shell(script: str, *arguments: str | Path) -> subprocess.CompletedProcess[bytes]:
    """Runs the program in a shell, as ``"$@"`` of a script."""
    command = ["/bin/sh", "-c", script, "sh", sys.executable, *QUIET, "-c", PROGRAM, *arguments]
    return subprocess.run(command, capture_output=True, check=False, env=BUFFERED)


def test_standard_input_is_closed() -> None:
    done = shell('exec "$@" <&-', "verify", "-")
    assert (done.returncode, done.stdout) == (2, b"")
    assert done.stderr == b"xenmig: -: cannot read: standard input is closed\n"


def test_standard_output_and_error_are_closed(path: Path, bad: Path) -> None:
    for command in ("verify", "inspect"):
        assert shell('exec "$@" >&-', command, path).returncode == 0
        done = shell('exec "$@" >&-', command, bad)
        assert (done.returncode, done.stderr.count(b"\n")) == (1, 1)
        assert shell('exec "$@" 2>&-', command, bad).returncode == 1
        assert shell('exec "$@" 2>&-', command, path / "absent").returncode == 2


def test_standard_output_is_full(path: Path) -> None:
    for command in ("verify", "inspect"):
        done = shell('exec "$@" > /dev/full', command, path)
        assert done.returncode == 2
        assert done.stderr == b"xenmig: cannot write to standard output: No space left on device\n"


def test_a_name_that_is_no_text(path: Path) -> None:
    name = os.fsencode(path) + b"\xff\n"
    path.rename(os.fsdecode(name))
    done = shell('exec "$@"', "inspect", os.fsdecode(name))
    assert (done.returncode, done.stderr) == (0, b"")
    assert b"stream\\udcff" in done.stdout
    done = shell('exec "$@"', "verify", os.fsdecode(name) + "absent")
    assert (done.returncode, done.stderr.count(b"\n")) == (2, 1)
    assert b"\\udcff absent: cannot read" in done.stderr


def test_json_has_the_same_keys_for_good_and_bad(path: Path, bad: Path, tmp_path: Path) -> None:
    for command in ("verify", "inspect"):
        good = one_object(run(command, path, "--json").stdout)
        assert good["error"] is None
        for other, status in ((bad, 1), (tmp_path / "absent", 2)):
            assert one_object(run(command, other, "--json", status=status).stdout).keys() == good.keys()


@pytest.mark.parametrize("name", ["-", "path"])
def test_progress_is_shown_on_a_terminal_alone(
    name: str, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    stderr = Terminal()
    monkeypatch.setattr(sys, "stderr", stderr)
    with reading_progress(name if name == "-" else str(path)) as progress:
        for read_bytes in range(0, 1 << 20, 4096):
            progress(read_bytes)
    assert "\x1b[" in stderr.getvalue()
    plain = io.StringIO()
    monkeypatch.setattr(sys, "stderr", plain)
    with reading_progress(str(path)) as progress:
        progress(1)
    assert plain.getvalue() == ""
