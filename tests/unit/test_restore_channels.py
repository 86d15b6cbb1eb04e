# SPDX-License-Identifier: GPL-3.0-or-later
"""``xenmig.restore``: event channels, the static data's callback, and where the shared pages are."""

from __future__ import annotations

import tempfile
from typing import TYPE_CHECKING, Any

import pytest

import xenmig
from xenmig.sim import Host

if TYPE_CHECKING:
    from collections.abc import Iterator
    from io import BufferedRandom

CHANNELS: dict[str, Any] = {"store_evtchn": 11, "console_evtchn": 12}


@pytest.fixture
def host() -> Host:
    """A simulated host."""
    return Host()


@pytest.fixture
def stream(host: Host) -> Iterator[BufferedRandom]:
    """A stream of a guest, to be read."""
    guest = host.create(memory="64M", seed=5)
    with tempfile.TemporaryFile() as file:
        xenmig.save(guest.domid, file, host=host)
        file.seek(0)
        yield file


def restore(host: Host, stream: BufferedRandom, **keywords: Any) -> Any:  # noqa: ANN401 - those of xenmig.restore
    """Restores the stream into a new domain."""
    copy = host.create(memory="64M", populated=False)
    return xenmig.restore(copy.domid, stream, host=host, **keywords)


def test_the_result_says_where_the_pages_are(host: Host, stream: BufferedRandom) -> None:
    result = restore(host, stream, **CHANNELS, store_domid=3, console_domid=4)
    assert (result.store_gfn, result.console_gfn) == (0xFEFFC, 0xFEFFB)
    assert result.to_dict()["store_gfn"] == result.store_gfn


@pytest.mark.parametrize("name", CHANNELS)
def test_one_channel_alone_is_a_mistake(host: Host, stream: BufferedRandom, name: str) -> None:
    with pytest.raises(ValueError, match="give both, or neither"):
        restore(host, stream, **{name: CHANNELS[name]})
    assert stream.tell() == 0


@pytest.mark.parametrize(
    ("wrong", "error", "words"),
    [
        ({"store_evtchn": -1}, ValueError, "less than"),
        ({"console_evtchn": 1 << 32}, ValueError, "less than"),
        ({"store_evtchn": "1"}, TypeError, "integer"),
        ({"store_domid": 0x7FF0}, ValueError, "domid"),
        ({"console_domid": None}, TypeError, "integer"),
        ({"static_data_done": 5}, TypeError, "static_data_done is 5, which cannot be called"),
    ],
)
def test_arguments_that_make_no_sense(
    *, host: Host, stream: BufferedRandom, wrong: dict[str, Any], error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words):
        restore(host, stream, **(CHANNELS | wrong))
    assert stream.tell() == 0


def test_a_grant_table_that_cannot_be_written(host: Host, stream: BufferedRandom) -> None:
    copy = host.create(memory="64M", populated=False)
    copy.inject("errno", verb="seed_grants", errno=95)
    with pytest.raises(xenmig.HypercallError, match="grant table") as caught:
        xenmig.restore(copy.domid, stream, host=host, **CHANNELS)
    assert caught.value.errno == 95


def test_the_static_data_is_told_of(host: Host, stream: BufferedRandom) -> None:
    heard: list[int] = []
    restore(host, stream, static_data_done=heard.append)
    assert heard == [0]


def test_an_exception_of_the_callback_comes_out_unchanged(host: Host, stream: BufferedRandom) -> None:
    raised = RuntimeError("no such policy")

    def refuse(_missing: int) -> None:
        raise raised

    with pytest.raises(RuntimeError) as caught:
        restore(host, stream, static_data_done=refuse)
    assert caught.value is raised
