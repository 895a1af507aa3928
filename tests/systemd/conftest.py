"""One machine for all tests here: it takes a while to boot, and the project a while to be installed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.guest import ROOT, Guest
from tests.support.service import Service

GIVEN = ("systemd", "build/wheels", "config.toml", "constraints.txt")
"""What systemd/install takes from a clone."""
SUITE = ("tests/escape", "tests/support")
SITE = ("_pytest", "iniconfig", "packaging", "pluggy", "py.py", "pygments", "pytest")
"""What the escape suite needs beside the program."""
USER = "dev"


@pytest.fixture(scope="session")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guest]:
    """A booted machine with what can be installed in /given; nothing is installed yet."""
    packages = Path(pytest.__file__).parents[1]
    given = {name: ROOT / name for name in (*GIVEN, *SUITE)}
    given |= {f"site/{name}": packages / name for name in SITE}
    guest = Guest(tmp_path_factory.mktemp("guest"), given)
    try:
        guest.boot()
        yield guest
    finally:
        guest.close()


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
