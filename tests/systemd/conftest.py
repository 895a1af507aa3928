"""One machine for all tests here: it takes a while to boot, and the project a while to be installed."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.guest import Guest, booted
from tests.support.service import Service

USER = "dev"


@pytest.fixture(scope="session")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guest]:
    """The one that most tests share."""
    with booted(tmp_path_factory.mktemp("guest")) as guest:
        yield guest


@pytest.fixture(scope="session")
def installed(machine: Guest) -> Service:
    """The service of the machine, installed as a user does it and not started."""
    machine.check("/given/systemd/install", timeout_s=900)
    return Service(machine)


@pytest.fixture
def service(installed: Service) -> Iterator[Service]:
    """The service of the machine, running."""
    installed.control("start")
    yield installed
    installed.control("stop agent-supervisor.socket")
    installed.machine.run("systemctl reset-failed agent-supervisor")


@pytest.fixture(scope="session")
def user_service(machine: Guest) -> Service:
    """The service of an ordinary user, installed and not started."""
    machine.check(f"useradd --create-home --shell /bin/sh {USER} && loginctl enable-linger {USER}")
    service = Service(machine, user=USER)
    machine.wait_for(f"systemctl -q is-active user@$(id -u {USER}).service")
    service.check("/given/systemd/install --user", timeout_s=900)
    return service
