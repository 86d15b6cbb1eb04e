# SPDX-License-Identifier: GPL-3.0-or-later
"""What is said of the guest after a failure: one sentence, and a true one."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING, Any

import pytest

from xenmig.errors import HypercallError, XenmigError
from xenmig.helper.arguments import SaveRequest
from xenmig.helper.outcome import Failure
from xenmig.helper.save import Save
from xenmig.helper.signals import Signals

if TYPE_CHECKING:
    from xenmig.errors import GuestState

GONE = HypercallError(errno.ESRCH, "getdomaininfo of domain d5 failed: No such process")
REFUSED = HypercallError(errno.EPERM, "getdomaininfo of domain d5 failed: Operation not permitted")


def failed(
    monkeypatch: pytest.MonkeyPatch, error: BaseException, found: dict[str, object] | HypercallError
) -> Failure:
    """Returns how a save ended, after which the hypervisor says this of the domain."""

    def fail(*_: object, **__: object) -> None:
        raise error

    class Host:
        def domain_info(self, _domid: int) -> dict[str, object]:
            if isinstance(found, HypercallError):
                raise found
            return found

    monkeypatch.setattr("xenmig.helper.save.xenmig_save", fail)
    host: Any = Host()
    libxl: Any = None
    request = SaveRequest(9, -1, 5, live=True, verify=False, device_model=True)
    outcome = Save(request, host=host, policy=None, consult=None, skip_redirtied=False).run(libxl, Signals())
    assert isinstance(outcome, Failure)
    return outcome


@pytest.mark.parametrize(
    ("found", "says"),
    [
        ({"state": "shutdown", "shutdown_reason": "crash"}, "the guest has crashed"),
        ({"state": "shutdown", "shutdown_reason": "poweroff"}, "the guest has powered off"),
        ({"state": "shutdown", "shutdown_reason": "reboot"}, "the guest has shut down to reboot"),
        ({"state": "shutdown", "shutdown_reason": None}, "the guest is shutdown"),
        ({"state": "dying", "shutdown_reason": None}, "the guest is dying"),
        (GONE, "the guest is gone"),
        (REFUSED, "what the guest does is not known: look at it with xl list"),
    ],
    ids=str,
)
@pytest.mark.parametrize("known", ["unknown", None])
def test_how_a_guest_ended_is_said_once(
    monkeypatch: pytest.MonkeyPatch,
    found: dict[str, object] | HypercallError,
    says: str,
    known: GuestState | None,
) -> None:
    warnings = () if found is REFUSED else ("the domain is gone", "the guest is gone: Shutdown { reason: 3 }")
    error = XenmigError("it broke", guest_state=known, warnings=warnings)
    outcome = failed(monkeypatch, error, found)
    assert str(outcome) == f"XenmigError: it broke; {says}"
    assert outcome.warnings == []
    assert outcome.to_dict()["guest_state"] == "unknown"


@pytest.mark.parametrize("state", ["running", "paused", "suspended"])
def test_what_the_engine_knows_of_the_guest_is_believed(monkeypatch: pytest.MonkeyPatch, state: str) -> None:
    error = XenmigError("it broke", guest_state="resumed", warnings=["log-dirty mode is still on"])
    outcome = failed(monkeypatch, error, {"state": state})
    assert str(outcome) == "XenmigError: it broke; the guest runs again"
    assert outcome.warnings == ["log-dirty mode is still on"]
    # It could not be resumed, and that it is suspended is no news then.
    outcome = failed(monkeypatch, XenmigError("it broke", guest_state="unknown"), {"state": state})
    assert str(outcome).endswith("what the guest does is not known: look at it with xl list")
