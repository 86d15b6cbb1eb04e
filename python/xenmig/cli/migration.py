# SPDX-License-Identifier: GPL-3.0-or-later
"""The demo's migration, from a plan to a report: one guest, two processes, and what to say when it fails.

::

    this process                                     receiver.py
    simulated domain ─> save ─> unix socket or TCP ─> restore ─> simulated domain
         │                                                            │
         └────────────── fingerprint ── identical? ── fingerprint ────┘
"""

from __future__ import annotations

import time
import traceback
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from xenmig.cli.receiver import Receiver, ReceiverError, Transport, started
from xenmig.cli.report import Report
from xenmig.errors import PolicyAbort, TransportError, XenmigError
from xenmig.save import save
from xenmig.sim import Host

if TYPE_CHECKING:
    from collections.abc import Iterator

    from xenmig._native import SaveResult
    from xenmig.cli.progress import ProgressView
    from xenmig.policy import Policy
    from xenmig.save import Consult
    from xenmig.sim import Domain, Workload

__all__ = ["ABORTED", "FAILED", "INTERRUPTED", "WRONG_OPTION", "DemoError", "Plan", "migrate"]

FAILED = 1
WRONG_OPTION = 2
ABORTED = 3
INTERRUPTED = 130

_WARM_UP_S = 0.5


class DemoError(Exception):
    """The demo ends here; the message is what the user reads.

    Attributes:
        status: The exit status.
        details: What the JSON object says besides.
    """

    def __init__(self, message: str, status: int, **details: object) -> None:
        super().__init__(message)
        self.status = status
        self.details = details


@dataclass(frozen=True)
class Plan:
    """A migration that was asked for.

    Attributes:
        memory_bytes: The guest's RAM.
        vcpus: The guest's vCPUs.
        workload: What they write.
        image: What RAM is filled with; random bytes without one.
        map_cost_ns: What mapping a page costs, in nanoseconds.
        transport: How the stream gets across.
        policy: Who decides.
        consult: When it is asked.
        settings: The same as the user said it, for the report.
    """

    memory_bytes: int
    vcpus: int
    workload: Workload
    image: Path | None
    map_cost_ns: int
    transport: Transport
    policy: Policy | None
    consult: Consult
    settings: dict[str, Any]


def migrate(plan: Plan, view: ProgressView) -> Report:
    """Makes a guest, saves it live into a second process, and gets both fingerprints.

    Raises:
        DemoError: Something failed.
    """
    view.say("filling the guest's memory")
    host = Host()
    try:
        guest = host.create(memory=plan.memory_bytes, vcpus=plan.vcpus)
        _fill(guest, plan.image)
        guest.inject("map_cost", ns_per_page=plan.map_cost_ns)
        host.set_workload(guest.domid, plan.workload)
    except (XenmigError, OSError) as error:
        raise DemoError(str(error), FAILED) from error
    with _failures(guest):
        view.say("starting the receiver")
        with started(plan.transport, plan.memory_bytes) as receiver:
            view.say("the guest is running")
            time.sleep(_WARM_UP_S)
            saved = _save(host, guest, receiver, plan, view)
            view.say("comparing the memory")
            return Report(plan.settings, saved, receiver.answer(), guest.fingerprint())


def _fill(guest: Domain, image: Path | None) -> None:
    if image is None:
        guest.fill()
        return
    with image.open("rb") as file:
        guest.load_image(file.fileno())


def _save(host: Host, guest: Domain, receiver: Receiver, plan: Plan, view: ProgressView) -> SaveResult:
    try:
        return save(
            guest.domid,
            receiver.connection,
            host=host,
            policy=plan.policy,
            consult=plan.consult,
            on_progress=view,
        )
    except TransportError:
        # The receiver knows better why it took no more.
        receiver.answer()
        raise


@contextmanager
def _failures(guest: Domain) -> Iterator[None]:
    """Turns whatever goes wrong into the sentence for the user, and sees that the guest goes on."""
    try:
        yield
    except KeyboardInterrupt:
        raise _ended(guest, "interrupted", INTERRUPTED) from None
    except PolicyAbort as abort:
        why = f": {abort.reason}" if abort.reason else ""
        what = f"the policy aborted the migration{why}"
        raise _ended(guest, what, ABORTED, reason=abort.reason) from abort
    except ReceiverError as error:
        raise _ended(guest, f"the receiver failed: {error}", FAILED) from error
    except (XenmigError, OSError) as error:
        raise _ended(guest, str(error), FAILED) from error
    except Exception as error:
        # The user's own: a policy that raises. The place is what its author needs.
        place = traceback.extract_tb(error.__traceback__)[-1]
        where = f"{Path(place.filename).name}:{place.lineno}"
        raise _ended(guest, f"{type(error).__name__}: {error} ({where})", FAILED) from error


def _ended(guest: Domain, what: str, status: int, **details: object) -> DemoError:
    if guest.state == "suspended":
        guest.resume()
    return DemoError(f"{what}; the guest is {guest.state}", status, guest_state=guest.state, **details)
