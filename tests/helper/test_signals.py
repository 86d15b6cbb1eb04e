# SPDX-License-Identifier: GPL-3.0-or-later
"""libxl ends a save by SIGTERM, at any moment: the helper cleans up, and stays in step with libxl."""

from __future__ import annotations

import array
import errno
import fcntl
import os
import signal
import termios
import threading
import time
from typing import TYPE_CHECKING, Any, NoReturn

import pytest
from tests.helper.messages import EndOfMessages, Message
from tests.helper.pipes import Pipes
from tests.helper.stream_end import Reader, is_whole, to_file
from tests.helper.test_against_stock import IDLE, assert_untouched

from xenmig.helper.arguments import SaveRequest
from xenmig.helper.save import Save
from xenmig.helper.signals import Interrupted, Signals, uninterrupted
from xenmig.helper.start import Start

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.helper.toolstack import Starter, Toolstack

#: How long a helper may take to hear a signal: the engine listens every 100 ms.
SOON_S = 2
INTERRUPTED = (-1, errno.EINTR)


def wait_until_full(pipe: int) -> None:
    """Waits until a pipe takes nothing more."""
    before, size = -1, array.array("i", [0])
    while size[0] != before or not size[0]:
        before = size[0]
        time.sleep(0.1)
        fcntl.ioctl(pipe, termios.FIONREAD, size)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_while_the_other_end_takes_nothing(starter: Starter, helper: Path, number: int) -> None:
    ours, theirs = os.pipe()
    saved = starter.save(helper, IDLE, theirs)
    os.close(theirs)
    saved.answer(saved.until("switch_qemu_logdirty"))
    wait_until_full(ours)
    began_s = time.monotonic()
    saved.signal(number)
    saved.run()
    assert time.monotonic() - began_s < SOON_S
    assert [call.arguments for call in saved.calls] == [(5, 1), (5, 0), INTERRUPTED]
    assert saved.status == 0
    assert_untouched(saved)
    [error] = saved.logged("error")
    assert error.startswith(f"Interrupted: {signal.Signals(number).name} came: the work was to end; ")
    assert error.endswith("the guest was not suspended and runs on")
    assert not Reader(ours).read(SOON_S).endswith(bytes(8))
    os.close(ours)


def test_while_libxl_suspends_the_guest(starter: Starter, helper: Path, tmp_path: Path) -> None:
    with to_file(tmp_path / "stream") as fd:
        saved = starter.save(helper, IDLE, fd)
    suspend = saved.until("suspend")
    saved.signal()
    # Nothing may be said before the reply is there: libxl would take it for the next question.
    with pytest.raises(TimeoutError):
        # Not so long that the engine would report its progress, and hear of the signal there.
        saved.next(0.2)
    saved.answer(suspend)
    saved.run()
    assert [call.name for call in saved.calls[1:]] == ["suspend", "switch_qemu_logdirty", "complete"]
    assert saved.completed == INTERRUPTED
    assert saved.status == 0
    assert saved.logged("error")[0].endswith("the guest is suspended, and the toolstack is to resume it")
    assert saved.at_complete is not None
    assert not saved.at_complete[0]["logdirty_on"]
    assert not is_whole(tmp_path / "stream")


def test_a_second_one_does_not_disturb_the_clean_up(starter: Starter, helper: Path) -> None:
    ours, theirs = os.pipe()
    saved = starter.save(helper, IDLE, theirs)
    os.close(theirs)
    saved.answer(saved.until("switch_qemu_logdirty"))
    wait_until_full(ours)
    saved.signal()
    switch = saved.until("switch_qemu_logdirty")
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGTERM):
        saved.signal(number)
        time.sleep(0.05)
    saved.answer(switch)
    complete = saved.until("complete")
    saved.signal()
    time.sleep(0.05)
    saved.answer(complete)
    saved.run()
    assert saved.completed == INTERRUPTED
    assert saved.status == 0
    assert saved.logged("warning") == []
    assert_untouched(saved)
    os.close(ours)


def test_when_the_stream_is_whole_it_is_too_late(starter: Starter, helper: Path, tmp_path: Path) -> None:
    def late(toolstack: Toolstack, message: Message) -> None:
        if message.arguments[1] == 0:
            toolstack.signal()
            time.sleep(0.1)
        toolstack.answer(message)

    with to_file(tmp_path / "stream") as fd:
        saved = starter.save(helper, IDLE, fd).run({"switch_qemu_logdirty": late})
    assert saved.completed == (0, 0)
    assert is_whole(tmp_path / "stream")


def test_before_the_program_has_begun(starter: Starter, helper: Path, tmp_path: Path) -> None:
    with to_file(tmp_path / "stream") as fd:
        saved = starter.save(helper, IDLE, fd, go=False)
    saved.signal()
    assert saved.status == -signal.SIGTERM
    with pytest.raises(EndOfMessages):
        saved.next()
    assert (tmp_path / "stream").stat().st_size == 0


POLICIES = """
import time
from xenmig import Decision

def sleeps(stats):
    print("asleep", flush=True)
    time.sleep(60)
    return Decision.CONTINUE

def deaf(stats):
    print("asleep", flush=True)
    try:
        time.sleep(60)
    except Exception:
        pass
    return Decision.STOP_AND_COPY
"""


@pytest.mark.parametrize(
    ("policy", "calls"),
    [
        ("sleeps", ["switch_qemu_logdirty", "switch_qemu_logdirty", "complete"]),
        ("deaf", ["switch_qemu_logdirty", "switch_qemu_logdirty", "complete"]),
        ("import", ["complete"]),
    ],
)
def test_while_a_policy_sleeps(starter: Starter, helper: Path, policy: str, calls: list[str]) -> None:
    source = POLICIES if policy != "import" else POLICIES + "\nsleeps(None)\n"
    name = policy if policy != "import" else "sleeps"
    (starter.directory / "policy.py").write_text(source)
    with to_file(starter.directory / "stream") as fd:
        saved = starter.save(helper, IDLE, fd, environment={"XENMIG_POLICY": f"policy.py:{name}"})
    if policy != "import":
        saved.answer(saved.until("switch_qemu_logdirty"))
    deadline_s = time.monotonic() + 10
    while "asleep" not in saved.stderr:
        assert time.monotonic() < deadline_s
        time.sleep(0.02)
    began_s = time.monotonic()
    saved.signal()
    saved.run()
    assert time.monotonic() - began_s < SOON_S
    assert [call.name for call in saved.calls] == calls
    assert saved.completed == INTERRUPTED
    assert_untouched(saved)
    # It is no failure of the policy.
    assert saved.logged("error")[0].startswith("Interrupted: SIGTERM came")


def test_a_killed_helper_leaves_no_whole_stream(starter: Starter, helper: Path) -> None:
    ours, theirs = os.pipe()
    saved = starter.save(helper, IDLE, theirs)
    os.close(theirs)
    saved.answer(saved.until("switch_qemu_logdirty"))
    wait_until_full(ours)
    saved.signal(signal.SIGKILL)
    saved.run()
    assert saved.status == -signal.SIGKILL
    assert saved.completed is None
    stream = Reader(ours).read(SOON_S)
    assert stream
    assert not stream.endswith(bytes(8))
    os.close(ours)


@pytest.fixture
def signals() -> Iterator[Signals]:
    """Signals of this process, which a test gets for its length."""
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)}
    signals = Signals()
    yield signals
    for number, handler in before.items():
        signal.signal(number, handler)


def test_what_nohup_ignores_stays_ignored(signals: Signals) -> None:
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signals.install()
    assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    with pytest.raises(Interrupted, match="SIGTERM"):
        signal.raise_signal(signal.SIGTERM)


def test_an_uninterrupted_function_only_takes_note(signals: Signals) -> None:
    @uninterrupted
    def works() -> str:
        inner()
        return "done"

    def inner() -> None:
        signal.raise_signal(signal.SIGTERM)

    signals.install()
    assert works() == "done"
    with pytest.raises(Interrupted, match="SIGTERM"):
        signals.check()
    # One that has been raised is not raised again by the next signal.
    signal.raise_signal(signal.SIGINT)


@pytest.mark.parametrize("moment", ["message", "reply"])
def test_a_message_is_not_torn_and_a_reply_is_awaited(signals: Signals, moment: str) -> None:
    pipes = Pipes()
    signals.install()
    # Two of them fill the pipe.
    body = bytes(60_000)

    def interrupt() -> None:
        time.sleep(0.1)
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(0.1)

    def libxl() -> None:
        if moment == "message":
            interrupt()
        for _ in range(3):
            read = b""
            while len(read) < 2 + len(body):
                read += os.read(pipes.messages, 2 + len(body) - len(read))
            assert read[2:] == body
        if moment == "reply":
            interrupt()
        pipes.reply(7)

    thread = threading.Thread(target=libxl, daemon=True)
    thread.start()
    for _ in range(2):
        pipes.channel.send(body)
    assert pipes.channel.ask(body) == 7
    thread.join()
    with pytest.raises(Interrupted):
        signals.check()
    pipes.close()


def test_the_end_is_told_whatever_comes(signals: Signals, monkeypatch: pytest.MonkeyPatch) -> None:
    def prepare(_start: Start) -> NoReturn:
        raise ValueError("no reason")

    pipes = Pipes()
    start = Start([], pipes.channel, signals)
    monkeypatch.setattr(Start, "_prepare", prepare)
    monkeypatch.setattr(Start, "_write_run_log", lambda *_: signal.raise_signal(signal.SIGTERM))
    signals.install()
    pipes.reply(0)
    assert start.run() == 0
    assert pipes.read().name == "log"
    assert pipes.read().arguments[0] == -1
    pipes.close()


@pytest.mark.parametrize(
    ("callback", "arguments", "outcome"),
    [
        ("suspend", (), "Failure"),
        ("device_model_logdirty", (True,), "Failure"),
        ("device_model_logdirty", (False,), "str"),
    ],
)
def test_a_callback_does_all_that_it_has_to(
    signals: Signals,
    monkeypatch: pytest.MonkeyPatch,
    callback: str,
    arguments: tuple[bool, ...],
    outcome: str,
) -> None:
    """A signal comes at its first step, which no test can time in another process."""
    done: list[str] = []

    class Libxl:
        def suspend(self) -> None:
            signal.raise_signal(signal.SIGTERM)
            done.append("suspend")

        def switch_device_model_logdirty(self, domid: int, *, on: bool) -> None:
            signal.raise_signal(signal.SIGTERM)
            done.append(f"d{domid} {on}")

    def fake_save(*_: object, **callbacks: Any) -> str:  # noqa: ANN401 - they differ
        callbacks[callback](*arguments)
        return "saved"

    class Host:
        def domain_info(self, _domid: int) -> dict[str, str]:
            return {"state": "running"}

    monkeypatch.setattr("xenmig.helper.save.xenmig_save", fake_save)
    signals.install()
    request = SaveRequest(9, -1, 5, live=True, verify=False, device_model=True)
    host: Any = Host()
    toolstack: Any = Libxl()
    save = Save(request, host=host, policy=None, consult=None, skip_redirtied=False)
    assert type(save.run(toolstack, signals)).__name__ == outcome
    assert len(done) == 1


def test_what_came_before_another_program_is_not_lost(signals: Signals) -> None:
    @uninterrupted
    def note() -> None:
        signal.raise_signal(signal.SIGTERM)

    signals.install()
    note()
    with pytest.raises(Interrupted):
        signals.give_back()
    assert signal.pthread_sigmask(signal.SIG_BLOCK, ()) == set()
