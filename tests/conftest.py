# SPDX-License-Identifier: GPL-3.0-or-later
"""What all Python tests share: hypothesis profiles, and fixtures named by the stage of a domain's life.

Run with ``--hypothesis-profile=thorough`` for thousands of examples of each property.
"""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING

import hypothesis
import pytest

import xenmig
from xenmig.sim import Domain, Host

if TYPE_CHECKING:
    from collections.abc import Iterator

MEMORY = "64M"

# A machine shared with others is slow now and then; that is no defect of an example.
hypothesis.settings.register_profile("default", deadline=None)
hypothesis.settings.register_profile("thorough", deadline=None, max_examples=5000)
hypothesis.settings.load_profile("default")

# A job in the background of a shell ignores SIGINT, and so would all programs that a test starts.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session", autouse=True)
def private_claims(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Claims domains in a directory of this session: fake hosts that run beside it have the same domids."""
    os.environ["XENMIG_RUN_DIR"] = str(tmp_path_factory.mktemp("claims"))


@pytest.fixture
def host() -> Iterator[Host]:
    """A host without domains."""
    host = Host()
    yield host
    for domid in host.domids:
        host.destroy(domid)


@pytest.fixture
def domain(host: Host) -> Domain:
    """A running domain, filled with pseudo-random bytes, that writes nothing of itself."""
    domain = host.create(memory=MEMORY)
    domain.fill(1)
    return domain


@pytest.fixture
def busy_domain(host: Host, domain: Domain) -> Domain:
    """A running domain that writes some pages."""
    host.set_workload(domain.domid, xenmig.sim.HotCold(500, 5000.0, 100.0))
    return domain


@pytest.fixture
def suspended_domain(domain: Domain) -> Domain:
    """A domain that has suspended itself."""
    domain.suspend()
    return domain


@pytest.fixture
def empty_domain(host: Host) -> Domain:
    """A domain without memory, to be restored into."""
    return host.create(memory=MEMORY, populated=False)
