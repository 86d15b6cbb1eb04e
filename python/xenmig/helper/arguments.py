# SPDX-License-Identifier: GPL-3.0-or-later
"""The arguments that libxl starts its save helper with (``run_helper()`` of ``libxl_save_callout.c``).

::

    --save-domain    io_fd recv_fd domid flags cbflags stream_type
    --restore-domain io_fd send_back_fd domid store_evtchn store_domid console_evtchn console_domid
                     cbflags stream_type

Only plain streams are done here. All else, Remus, COLO and what a later Xen may add, is the stock helper's.
"""

from __future__ import annotations

from dataclasses import dataclass

from xenmig.helper.libxl import DEVICE_MODEL_BIT, STATIC_DATA_BIT, SUSPEND_BIT

__all__ = ["RESTORE", "SAVE", "NotOurs", "RestoreRequest", "SaveRequest", "parse", "subject"]

SAVE, RESTORE = "--save-domain", "--restore-domain"
#: ``XCFLAGS_LIVE``, ``XCFLAGS_DEBUG`` and ``XC_STREAM_PLAIN`` of ``xenguest.h``.
_LIVE, _DEBUG = 1, 2
_PLAIN = 0
#: How many numbers follow.
_ARGUMENTS = {SAVE: 6, RESTORE: 9}
_UINT32_MAX = 0xFFFF_FFFF


class NotOurs(Exception):  # noqa: N818 - it is no failure
    """This is for the stock helper; the message says why."""


@dataclass(frozen=True)
class SaveRequest:
    """A plain save.

    Attributes:
        io_fd: Where the stream goes.
        recv_fd: The back channel, which a plain save does not use.
        domid: The domain.
        live: Whether it runs meanwhile.
        verify: Whether all memory is sent once more at the end (``xl migrate --debug``).
        device_model: Whether libxl can switch the device model's log-dirty mode.
    """

    io_fd: int
    recv_fd: int
    domid: int
    live: bool
    verify: bool
    device_model: bool


@dataclass(frozen=True)
class RestoreRequest:
    """A restore of a plain stream.

    Attributes:
        io_fd: Where the stream comes from.
        back_fd: The back channel, which a plain stream does not use.
        domid: The new domain.
        store_evtchn: Its event channel to xenstore.
        store_domid: The domain that xenstore runs in.
        console_evtchn: Its event channel to the console.
        console_domid: The domain that serves the console.
        static_data: Whether libxl wants to hear when the static data is complete.
    """

    io_fd: int
    back_fd: int
    domid: int
    store_evtchn: int
    store_domid: int
    console_evtchn: int
    console_domid: int
    static_data: bool


def parse(arguments: list[str]) -> SaveRequest | RestoreRequest:
    """Returns what libxl asks for.

    Raises:
        NotOurs: It is neither a plain save nor a restore of a plain stream.
    """
    mode = arguments[0] if arguments else "nothing"
    wanted = _ARGUMENTS.get(mode)
    if wanted is None:
        raise NotOurs(f"{mode} is not known here")
    numbers = [_number(argument) for argument in arguments[1:]]
    if len(numbers) != wanted:
        raise NotOurs(f"{mode} has {len(numbers)} arguments instead of {wanted}")
    return _save(numbers) if mode == SAVE else _restore(numbers)


def subject(arguments: list[str]) -> str:
    """Returns what the work is and on which domain, for log lines; nothing if that cannot be told.

    A colon before and after ``Domain N`` is how libvirt's logger finds the log of the domain that a line is
    about (``libxl_logger.c``, ``libvirt_vmessage()``).

    Example:
        >>> subject(["--save-domain", "15", "11", "3", "1", "136", "0"])
        'save: Domain 3'
    """
    work = {SAVE: "save", RESTORE: "restore"}.get(arguments[0] if arguments else "")
    domid = arguments[3] if len(arguments) > 3 else ""
    return f"{work}: Domain {domid}" if work and domid.isascii() and domid.isdigit() else ""


def _save(numbers: list[int]) -> SaveRequest:
    io_fd, recv_fd, domid, flags, cbflags, stream_type = numbers
    if stream_type != _PLAIN:
        raise NotOurs("Remus and COLO streams are not written by xenmig")
    if flags & ~(_LIVE | _DEBUG):
        raise NotOurs(f"the flags {flags:#x} are not known here")
    if not cbflags & SUSPEND_BIT:
        raise NotOurs("libxl does not offer to suspend the guest")
    live = bool(flags & _LIVE)
    return SaveRequest(
        io_fd,
        recv_fd,
        domid,
        live=live,
        # libxc, too, has nothing to compare in a save that is not live.
        verify=live and bool(flags & _DEBUG),
        device_model=bool(cbflags & DEVICE_MODEL_BIT),
    )


def _restore(numbers: list[int]) -> RestoreRequest:
    io_fd, back_fd, domid, store_evtchn, store_domid, console_evtchn, console_domid, cbflags, stream_type = (
        numbers
    )
    if stream_type != _PLAIN:
        raise NotOurs("Remus and COLO streams are not read by xenmig")
    return RestoreRequest(
        io_fd,
        back_fd,
        domid,
        store_evtchn,
        store_domid,
        console_evtchn,
        console_domid,
        static_data=bool(cbflags & STATIC_DATA_BIT),
    )


def _number(argument: str) -> int:
    digits = argument.removeprefix("-")
    if not (digits.isascii() and digits.isdigit()):
        raise NotOurs(f"the argument {argument!r} is no number")
    number = int(argument)
    if not -1 <= number <= _UINT32_MAX:
        raise NotOurs(f"the argument {argument} is out of range")
    return number
