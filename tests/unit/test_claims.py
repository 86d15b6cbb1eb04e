# SPDX-License-Identifier: GPL-3.0-or-later
"""One save of a domain at a time: the second is refused, whoever starts it and whatever kind it is."""

from __future__ import annotations

import os
import tempfile
from typing import TYPE_CHECKING

import pytest

import xenmig
from xenmig import Decision

if TYPE_CHECKING:
    from xenmig.sim import Domain, Host


@pytest.mark.parametrize("live", [True, False])
def test_a_save_within_a_save_is_refused(host: Host, domain: Domain, *, live: bool) -> None:
    refused: list[xenmig.SaveInProgress] = []

    def policy(stats: xenmig.PrecopyStats) -> Decision:
        if stats.iteration == 0:
            with tempfile.TemporaryFile() as file, pytest.raises(xenmig.SaveInProgress) as caught:
                xenmig.save(domain.domid, file, host=host, live=live)
            refused.append(caught.value)
            return Decision.CONTINUE
        return Decision.STOP_AND_COPY

    with tempfile.TemporaryFile() as file:
        xenmig.save(domain.domid, file, host=host, policy=policy)
        file.seek(0)
        copy = host.create(memory="64M", populated=False)
        xenmig.restore(copy.domid, file, host=host)
    assert copy.fingerprint() == domain.fingerprint()
    assert refused
    for error in refused:
        assert isinstance(error, xenmig.DomainRefused)
        assert (error.guest_state, error.pid) == ("running", os.getpid())
        assert str(error) == (
            f"domain d{domain.domid} is already being saved in this process: "
            "wait for that save to end, or end it first"
        )


def test_hosts_have_claims_of_their_own(host: Host, domain: Domain) -> None:
    other = xenmig.sim.Host()
    twin = other.create(memory="64M", domid=domain.domid)

    def policy(_stats: xenmig.PrecopyStats) -> Decision:
        if twin.state == "running":
            with tempfile.TemporaryFile() as file:
                xenmig.save(twin.domid, file, host=other)
        return Decision.STOP_AND_COPY

    with tempfile.TemporaryFile() as file:
        xenmig.save(domain.domid, file, host=host, policy=policy)


def test_a_save_that_failed_gives_its_claim_back(host: Host, domain: Domain) -> None:
    for _ in range(2):
        with tempfile.TemporaryFile() as file, pytest.raises(xenmig.PolicyAbort):
            xenmig.save(domain.domid, file, host=host, policy=lambda _stats: Decision.ABORT)
    with tempfile.TemporaryFile() as file:
        xenmig.save(domain.domid, file, host=host)
