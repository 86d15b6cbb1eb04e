# SPDX-License-Identifier: GPL-3.0-or-later
"""Who does what libxl asks for, xenmig or libxl's own helper, and what is told in the end.

::

    arguments ──> a plain stream? ─┬─> configuration ──> Xen ──┬─> policy ──> save ──┬──> complete
                                   │ no                        └─> restore ──────────┘
                                   └──> libxl's own helper

Whatever is a plain stream is done here, of every kind of guest, or it fails.

A policy that was asked for is used, or nothing is done: of a checkpointed stream, one named by
``XENMIG_POLICY`` makes the save fail. One named by the file is the host's default for what xenmig does: there
libxl's own helper takes care of it, with a warning.
"""

from __future__ import annotations

import contextlib
import errno
import os
import sys
from typing import TYPE_CHECKING, Any, NoReturn

from xenmig._native import RestoreResult, SaveResult, __version__
from xenmig.errors import TransportError, XenmigError
from xenmig.helper import arguments as libxl_arguments
from xenmig.helper import configuration as operator
from xenmig.helper import orphan, stock
from xenmig.helper.arguments import NotOurs, RestoreRequest
from xenmig.helper.channel import LibxlGone
from xenmig.helper.configuration import Configuration
from xenmig.helper.libxl import Level, Libxl
from xenmig.helper.outcome import Failure, restored, saved
from xenmig.helper.restore import Restore
from xenmig.helper.save import Save
from xenmig.helper.signals import uninterrupted
from xenmig.helper.trust import check_file
from xenmig.xen import Xen

if TYPE_CHECKING:
    from xenmig.helper.channel import Channel
    from xenmig.helper.signals import Signals
    from xenmig.policy import Policy

__all__ = ["Start"]


class Start:
    """One run of the helper."""

    def __init__(self, arguments: list[str], channel: Channel, signals: Signals) -> None:
        """Takes what libxl has started it with."""
        self._arguments = arguments
        self._channel = channel
        self._libxl = Libxl(channel, libxl_arguments.subject(arguments))
        self._signals = signals
        self._configuration = Configuration()
        self._restoring: int | None = None
        self._entry: dict[str, Any] = {"xenmig": __version__, "started": None, "arguments": arguments}

    def run(self) -> int:
        """Does what libxl asks for, and returns the exit status: 0 if libxl was told how it ended."""
        try:
            task = self._prepare()
            self._announce(task)
            outcome: SaveResult | RestoreResult | Failure = task.run(self._libxl, self._signals)
        except BaseException as error:  # noqa: BLE001 - libxl is to hear of it, whatever it is
            if not isinstance(error, (XenmigError, ValueError, OSError)):
                sys.excepthook(type(error), error, error.__traceback__)
            outcome = Failure(error, restoring=self._restoring)
        return self._finish(outcome)

    def _prepare(self) -> Save | Restore:
        """Returns what is to be done, or goes on as libxl's own helper."""
        try:
            request = libxl_arguments.parse(self._arguments)
        except NotOurs as why:
            self._hand_over(str(why))
        if isinstance(request, RestoreRequest):
            return self._prepare_restore(request)
        self._entry |= {"domid": request.domid, "live": request.live, "verify": request.verify}
        configuration = self._read_configuration()
        host = Xen()
        _keep(request.io_fd, request.recv_fd)
        return Save(
            request,
            host,
            self._policy(),
            configuration.consult,
            configuration.skip_redirtied,
            configuration.stall_timeout_s or None,
        )

    def _prepare_restore(self, request: RestoreRequest) -> Restore:
        self._restoring = request.domid
        self._read_what_makes_sense()
        host = Xen()
        _keep(request.io_fd, request.back_fd)
        return Restore(request, host, host.domain_info(request.domid)["max_pages"])

    def _read_configuration(self) -> Configuration:
        # Should the rest make no sense, the run log is to say so, and restores go on.
        self._configuration = operator.paths_only(os.environ)
        self._configuration = operator.load(os.environ)
        if self._configuration.log is not None:
            # Now rather than when the guest is suspended.
            from xenmig.helper import run_log  # noqa: PLC0415 - time counts at the start, and few have a log

            self._entry["started"] = run_log.now()
        return self._configuration

    def _policy(self) -> Policy | None:
        if self._configuration.policy is None:
            return None
        from xenmig.policies.named import load_policy  # noqa: PLC0415 - time counts at the start

        try:
            return load_policy(
                self._configuration.policy,
                keywords=self._configuration.policy_args,
                working_directory=False,
                check_file=check_file,
            )
        finally:
            self._signals.check()

    def _announce(self, task: Save | Restore) -> None:
        if isinstance(task, Restore):
            self._libxl.log(Level.INFO, f"xenmig {__version__}")
            return
        save = task
        policy = self._configuration.policy or "libxc's own"
        how = "live" if save.request.live else "not live"
        consult = save.consult or ("round" if save.policy is None else "batch")
        self._entry |= {"policy": self._configuration.policy, "consult": consult}
        asked = f", policy {policy}, consult {consult}" if save.request.live else ""
        self._libxl.log(Level.INFO, f"xenmig {__version__}, {how}{asked}")

    def _read_what_makes_sense(self) -> None:
        """Reads the configuration for a restore: a file that is wrong must not stop guests from coming in."""
        try:
            self._read_configuration()
        except operator.ConfigurationError as error:
            self._libxl.log(Level.WARN, f"{error}; this restore does without it")

    def _hand_over(self, why: str) -> NoReturn:
        """Goes on as libxl's own helper, unless a policy was asked for, which no restore has."""
        if self._arguments[:1] == [libxl_arguments.RESTORE]:
            self._read_what_makes_sense()
        else:
            self._read_configuration()
            named_by = self._configuration.policy_from
            if named_by == "environment":
                raise ValueError(
                    f"XENMIG_POLICY is set, but {why}: unset it to have libxl's own helper do it"
                )
            if named_by == "file":
                without = f"without the policy {self._configuration.policy}"
                self._libxl.log(Level.WARN, f"{why}; libxl's own helper does it, {without}")
            self._write_run_log({"outcome": "handed_over", "reason": why})
        helper = stock.find(self._configuration.stock_helper)
        self._signals.give_back()
        self._channel.give_back()
        stock.become(helper, self._arguments)

    @uninterrupted
    def _finish(self, outcome: SaveResult | RestoreResult | Failure) -> int:
        """Tells the run log and libxl how it ended."""
        warnings = [] if isinstance(outcome, RestoreResult) else outcome.warnings
        lines = [(Level.WARN, warning) for warning in warnings]
        number, entry = 0, {}
        if isinstance(outcome, SaveResult):
            lines.append((Level.INFO, saved(outcome)))
            entry = {"outcome": "saved", "result": outcome.to_dict()}
        elif isinstance(outcome, RestoreResult):
            lines.append((Level.INFO, restored(outcome)))
        else:
            lines.append((Level.ERROR, str(outcome)))
            number, entry = outcome.errno, {"outcome": "failed", "error": outcome.to_dict()}
        try:
            if self._restoring is None:
                self._write_run_log(entry | {"warnings": list(warnings)})
            for level, text in lines:
                self._libxl.log(level, text)
            if self._restoring is not None:
                self._send_results(outcome)
            self._libxl.complete(number)
        except LibxlGone as gone:
            self._print(f"{gone}; {self._libxl.line('; '.join(text for _, text in lines))}")
            if self._restoring is not None:
                self._print(orphan.destroy(self._restoring))
            elif not isinstance(outcome, RestoreResult) and outcome.guest_state == "suspended":
                self._print(orphan.resume(self._entry["domid"]))
            return 1
        return 0

    def _send_results(self, outcome: SaveResult | RestoreResult | Failure) -> None:
        """Sends the results that libxl waits for after every restore. Of one that failed they mean nothing.

        0 is what libxl's own helper says of a page that it does not know.
        """
        store_gfn = console_gfn = None
        if isinstance(outcome, RestoreResult):
            store_gfn, console_gfn = outcome.store_gfn, outcome.console_gfn
        self._libxl.restore_results(store_gfn or 0, console_gfn or 0)

    @staticmethod
    def _print(text: str) -> None:
        print(f"xenmig-save-helper: {text}", file=sys.stderr)  # noqa: T201 - the only way to report it

    def _write_run_log(self, entry: dict[str, Any]) -> None:
        """Appends to the run log, if there is one. A failure is a warning: the save matters more."""
        if self._configuration.log is None:
            return
        from xenmig.helper import run_log  # noqa: PLC0415 - it was imported when the configuration was read

        try:
            run_log.append(self._configuration.log, self._entry | {"ended": run_log.now()} | entry)
        except OSError as error:
            self._libxl.log(Level.WARN, f"the run log {self._configuration.log} cannot be written: {error}")


def _keep(io_fd: int, back_fd: int) -> None:
    """Makes sure that programs that a policy starts do not hold the stream open.

    Raises:
        TransportError: It is closed.
        ValueError: It is none of libxl's.
    """
    if io_fd <= 2:
        raise ValueError(f"the stream cannot be descriptor {io_fd}")
    try:
        os.set_inheritable(io_fd, False)  # noqa: FBT003 - it takes no keyword
    except OSError as error:
        raise TransportError(error.errno or errno.EBADF, f"descriptor {io_fd} is not open") from None
    with contextlib.suppress(OSError):
        # It has no use in a plain stream, and may be none.
        os.set_inheritable(back_fd, False)  # noqa: FBT003 - it takes no keyword
