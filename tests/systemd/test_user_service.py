"""The service of an ordinary user on a real systemd, without root."""

from __future__ import annotations

import pytest

from tests.support.service import LAYERS, Service

pytestmark = [pytest.mark.systemd, pytest.mark.slow, pytest.mark.timeout(1200)]

MIB = 1024 * 1024
MEMORY_HOG = "b=[]\nwhile True: b.append(bytearray(1<<20))"


def test_the_unit_has_no_faults(user_service: Service) -> None:
    done = user_service.run("systemd-analyze --user verify agent-supervisor.service agent-supervisor-spawner.service")
    assert (done.code, done.stdout, done.stderr) == (0, "", "")


def test_a_user_has_a_service_of_his_own_with_the_same_limits(user_service: Service) -> None:
    user_service.control("start")
    assert user_service.enforced() >= {"user namespace", *LAYERS}
    user_service.submit("sleep", "7011", limits={"memory_bytes": 64 * MIB, "pids": 20, "cpu_percent": 50})
    group = user_service.cgroup(user_service.process("sleep 7011"))
    assert "/user@" in group
    assert user_service.check(f"cd {group} && cat memory.max pids.max").split() == [str(64 * MIB), "20"]
    hog = user_service.submit("python3", "-c", MEMORY_HOG, limits={"memory_bytes": 64 * MIB})
    assert user_service.ended(hog)["failure"]["code"] == "OUT_OF_MEMORY"
    assert user_service.journal()[-1]["MESSAGE"] == f"task_ended task={hog} state=failed attempt=1 code=OUT_OF_MEMORY"
    user_service.control("restart")
    assert user_service.status()["recovery"]["resumed"] == 1
    user_service.control("stop")
    assert "stopped clean=True" in [entry["MESSAGE"] for entry in user_service.journal()]
    user_service.machine.wait_for("! pgrep -f '[s]leep 7011'")


def test_what_a_user_installed_can_be_taken_away(user_service: Service) -> None:
    user_service.control("start")
    user_service.check("/given/systemd/uninstall --user")
    left = user_service.check("find ~/.local -name '*agent*'").split()
    assert left == ["/home/dev/.local/state/agent-supervisor"]
    assert user_service.run("pgrep -u dev -f '[a]gent-supervisor/venv'").stdout == ""


def test_what_the_machine_had_can_be_taken_away(installed: Service) -> None:
    installed.control("start")
    installed.check("/given/systemd/uninstall")
    assert installed.check("find /opt /usr/local /run/agent-supervisor /etc/sysusers.d -name '*agent*' 2>/dev/null || true") == ""
    assert installed.run("systemctl cat agent-supervisor").code != 0
    assert installed.check("ls /etc/agent-supervisor /var/lib/agent-supervisor/journal")
