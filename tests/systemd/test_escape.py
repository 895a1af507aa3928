"""The escape attempts under another kernel and cgroup v2: by root, and by an ordinary user with limits of his own."""

from __future__ import annotations

import pytest

from tests.support.guest import Guest
from tests.support.service import Service

pytestmark = [pytest.mark.systemd, pytest.mark.slow, pytest.mark.timeout(3600)]

USER = "mallory"
AS_USER = f"runuser -u {USER} -- env HOME=/home/{USER} XDG_RUNTIME_DIR=/run/user/$(id -u {USER})"
FAMILIES = "files,paths,mounts,processes,sockets,kernel,privileges,bombs,sharing,cgroups,network,persistence"
SUITE = "cd /given && PYTHONPATH=/given:/given/site $(readlink -f /opt/agent-supervisor/bin)/python -P -m tests.escape"


@pytest.fixture(scope="module")
def host(installed: Service) -> Guest:
    machine = installed.machine
    machine.check(f"useradd --create-home --shell /bin/sh {USER} && loginctl enable-linger {USER}")
    machine.wait_for(f"systemctl -q is-active user@$(id -u {USER}).service")
    return machine


@pytest.mark.parametrize(
    ("jail", "become", "scope"), [("ours", "", ""), ("ours, as a user", AS_USER, "--user")], ids=["root", "user"]
)
def test_ours_lets_nothing_through(host: Guest, jail: str, become: str, scope: str) -> None:
    suite = f"{SUITE} --jails '{jail}' --families {FAMILIES}"
    done = host.run(f'{become} systemd-run {scope} --scope -q -p Delegate=yes sh -c "{suite}"', timeout_s=3000)
    assert done.code == 0, done
    assert "| blocked |" in done.stdout
