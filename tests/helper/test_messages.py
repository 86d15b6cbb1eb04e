# SPDX-License-Identifier: GPL-3.0-or-later
"""What goes to libxl: every text arrives as one string of bounded length, whatever is in it."""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING

import hypothesis
import pytest
from hypothesis import strategies
from tests.helper.messages import Message
from tests.helper.pipes import Pipes

from xenmig.helper.arguments import NotOurs, RestoreRequest, SaveRequest, parse
from xenmig.helper.channel import LibxlGone
from xenmig.helper.libxl import Level, LibxlRefused

if TYPE_CHECKING:
    from collections.abc import Iterator

NO_ERRNO = 0xFFFF_FFFF


@pytest.fixture(scope="module")
def pipes() -> Iterator[Pipes]:
    """Pipes for a module."""
    pipes = Pipes()
    yield pipes
    pipes.close()


@hypothesis.given(strategies.text(strategies.characters(), max_size=100))
@hypothesis.example("x" * 70_000)
@hypothesis.example("\N{SNOWMAN}" * 30_000)
@hypothesis.example("a\0b\r\nc\udc80")
@hypothesis.example("")
def test_any_text(pipes: Pipes, text: str) -> None:
    pipes.libxl.log(Level.WARN, text)
    name, (level, number, context, logged) = pipes.read()
    assert (name, level, number, context) == ("log", 7, NO_ERRNO, "xenmig")
    assert len(str(logged).splitlines()) <= 1
    assert len(str(logged).encode()) < 8100
    pipes.libxl.progress(text, 3, 2**40)
    assert pipes.read() == Message("progress", ("xenmig", logged, 3, 2**40))


def test_questions_and_their_answers(pipes: Pipes) -> None:
    pipes.reply(1)
    pipes.libxl.suspend()
    assert pipes.read() == Message("suspend")
    pipes.reply(0)
    with pytest.raises(LibxlRefused, match="could not suspend"):
        pipes.libxl.suspend()
    pipes.read()
    for on in (True, False):
        pipes.reply(0)
        pipes.libxl.switch_device_model_logdirty(7, on=on)
        assert pipes.read() == Message("switch_qemu_logdirty", (7, int(on)))
        pipes.reply(-1)
        with pytest.raises(LibxlRefused, match=f"log-dirty mode {'on' if on else 'off'}"):
            pipes.libxl.switch_device_model_logdirty(7, on=on)
        pipes.read()
    for errno, wanted in ((0, (0, 0)), (5, (-1, 5))):
        pipes.reply(0)
        pipes.libxl.complete(errno)
        assert pipes.read() == Message("complete", wanted)


def test_nobody_there() -> None:
    pipes = Pipes()
    os.close(pipes.answers)
    with pytest.raises(LibxlGone, match="closed the pipe without a reply"):
        pipes.libxl.suspend()
    os.close(pipes.messages)
    with pytest.raises(LibxlGone, match="takes no messages any more: Broken pipe"):
        pipes.libxl.log(Level.INFO, "")
    os.close(pipes.channel_end)
    os.close(pipes.replies)


SAVE = ["--save-domain", "15", "11", "3", "1", "136", "0"]


def test_what_libxl_asks_for() -> None:
    assert parse(SAVE) == SaveRequest(15, 11, 3, live=True, verify=False, device_model=True)
    assert parse([*SAVE[:4], "3", "8", "0"]) == SaveRequest(
        15, 11, 3, live=True, verify=True, device_model=False
    )
    assert parse([*SAVE[:4], "2", "136", "0"]) == SaveRequest(
        15, 11, 3, live=False, verify=False, device_model=True
    )


def test_what_libxl_asks_for_when_it_restores() -> None:
    numbers = (12, -1, 3, 31, 1, 32, 2)
    for cbflags, static_data in (("768", True), ("512", False)):
        arguments = ["--restore-domain", *map(str, numbers), cbflags, "0"]
        assert parse(arguments) == RestoreRequest(*numbers, static_data=static_data)


@hypothesis.given(strategies.lists(strategies.text(max_size=8) | strategies.sampled_from(SAVE), max_size=8))
def test_any_other_arguments_are_the_stock_helpers(arguments: list[str]) -> None:
    with contextlib.suppress(NotOurs):
        parse(arguments)
        assert arguments[0] == "--save-domain"
        assert len(arguments) == 7
