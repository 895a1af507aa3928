"""The service of the machine on a real systemd, with cgroup v2."""

from __future__ import annotations

import re

import pytest

from tests.support.guest import Guest
from tests.support.service import LAYERS, Service

pytestmark = [pytest.mark.systemd, pytest.mark.slow, pytest.mark.timeout(1200)]

MIB = 1024 * 1024
UNIT_CGROUPS = "/sys/fs/cgroup/system.slice/agent-supervisor.service /sys/fs/cgroup/system.slice/agent-supervisor-spawner.service"
MEMORY_HOG = "b=[]\nwhile True: b.append(bytearray(1<<20))"
FORKS = """
import os, signal
try:
    for number in range(100):
        if os.fork() == 0:
            signal.pause()
except BlockingIOError:
    print("refused")
"""
MOST_EXPOSED = {"agent-supervisor": 5.2, "agent-supervisor-spawner": 5.6}
"""What `systemd-analyze security` may say; docs/systemd.md tells why it is no less."""
DROP_IN = "/run/systemd/system/agent-supervisor.service.d"
TELL_THE_END = "[Service]\nExecStopPost=/bin/echo the end: ${SERVICE_RESULT} ${EXIT_CODE} ${EXIT_STATUS}\n"
LONGEST_STOP_S = 20
"""The machine is emulated: some ten times slower than what it runs on."""


def test_the_machine_is_what_it_should_be(machine: Guest) -> None:
    assert machine.run("systemctl is-system-running --wait").stdout == "running\n"
    assert machine.check("stat -fc %T /sys/fs/cgroup") == "cgroup2fs\n"


def test_the_units_have_no_faults(installed: Service) -> None:
    done = installed.run(
        "systemd-analyze verify agent-supervisor.service agent-supervisor-spawner.service agent-supervisor.socket"
    )
    assert (done.code, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.parametrize("unit", MOST_EXPOSED)
def test_the_service_is_not_exposed_more_than_it_must_be(installed: Service, unit: str) -> None:
    told = installed.check(f"systemd-analyze security --no-pager {unit}.service")
    exposure = re.search(rf"exposure level for {unit}.service: ([\d.]+)", told)
    assert exposure, told
    assert float(exposure[1]) <= MOST_EXPOSED[unit]


def test_a_start_is_over_when_the_supervisor_says_so(installed: Service) -> None:
    before = installed.now_in_journal()
    installed.control("start --no-block")
    installed.await_shown("ActiveState", "activating")
    installed.control("start")
    assert installed.shows("ActiveState") == "active"
    assert installed.shows("StatusText") == "no task is open"
    first_words = [entry["MESSAGE"].split()[0] for entry in installed.journal(before)]
    assert {"Starting", "recovered", "ready", "Started"} <= set(first_words)
    assert first_words.index("recovered") < first_words.index("Started")
    assert f"pid {installed.shows('MainPID')}" in installed.check("agentctl status")


def test_every_layer_of_the_sandbox_is_on(service: Service) -> None:
    assert service.enforced() >= LAYERS | {"id-mapped mounts"}


def test_a_task_runs_sandboxed_under_its_limits(service: Service) -> None:
    task = service.submit("sleep", "7001", limits={"memory_bytes": 64 * MIB, "pids": 20, "cpu_percent": 50})
    pid = service.process("sleep 7001")
    group = service.cgroup(pid)
    assert group.startswith("/sys/fs/cgroup/system.slice/agent-supervisor-spawner.service")
    limits = service.check(f"cd {group} && cat memory.max memory.oom.group pids.max cpu.max").split()
    assert limits == [str(64 * MIB), "1", "20", "50000", "100000"]
    status = dict(line.split(":\t", 1) for line in service.check(f"cat /proc/{pid}/status").splitlines())
    assert int(status["Uid"].split()[0]) >= 1_900_000_000
    assert int(status["CapEff"], 16) == int(status["CapBnd"], 16) == 0
    assert (status["NoNewPrivs"], status["Seccomp"]) == ("1", "2")
    for kind in ("mnt", "pid", "net", "ipc", "uts", "cgroup"):
        ours, its = service.check(f"readlink /proc/1/ns/{kind} /proc/{pid}/ns/{kind}").split()
        assert ours != its
    service.agentctl(f"cancel {task}")


def test_a_task_that_takes_too_much_memory_is_killed_alone(service: Service) -> None:
    pid = service.shows("MainPID")
    ended = service.ended(service.submit("python3", "-c", MEMORY_HOG, limits={"memory_bytes": 64 * MIB}))
    assert ended["failure"]["code"] == "OUT_OF_MEMORY"
    assert (service.shows("ActiveState"), service.shows("MainPID")) == ("active", pid)
    assert service.ended(service.submit("true"))["state"] == "succeeded"


def test_a_task_has_no_more_processes_than_it_may(service: Service) -> None:
    task = service.submit("python3", "-c", FORKS, limits={"pids": 20})
    assert service.ended(task)["state"] == "succeeded"
    assert service.agentctl(f"result {task}")["result"]["output"]["stdout"] == "refused\n"


def test_the_journal_reads_well_and_keeps_the_priorities(service: Service) -> None:
    before = service.now_in_journal()
    task = service.submit("false")
    service.ended(task)
    said = [entry for entry in service.journal(before) if entry["_TRANSPORT"] == "stdout"]
    # On an emulated machine the loop is held up now and then, which is told too.
    started, ended = (entry for entry in said if not entry["MESSAGE"].startswith("loop_"))
    assert started["MESSAGE"].startswith(f"attempt_started task={task} attempt=1 worker=w-")
    assert ended["MESSAGE"] == f"task_ended task={task} state=failed attempt=1 code=WORKER_FAILED"
    assert {entry["PRIORITY"] for entry in (started, ended)} == {"6"}
    assert {entry["SYSLOG_IDENTIFIER"] for entry in (started, ended)} == {"agent-supervisor"}
    last = service.check("journalctl -u agent-supervisor --no-pager -n 5")
    assert re.search(r"^\w{3} \d\d \d\d:\d\d:\d\d guest agent-supervisor\[\d+\]: task_ended .*$", last, re.MULTILINE)


def test_a_stop_is_orderly_and_leaves_nothing(service: Service) -> None:
    task = service.submit("sh", "-c", "setsid sleep 7002 & sleep 7003")
    service.process("sleep 7002")
    service.machine.write(f"{DROP_IN}/told.conf", TELL_THE_END)
    service.machine.check("systemctl daemon-reload")
    before = service.now_in_journal()
    service.machine.check(f"timeout {LONGEST_STOP_S} systemctl stop agent-supervisor")
    service.machine.check(f"rm -r {DROP_IN} && systemctl daemon-reload")
    assert service.shows("ActiveState") == "inactive"
    assert "the end: success exited 0" in [entry["MESSAGE"] for entry in service.journal(before)]
    service.machine.wait_for(f"! ls -d {UNIT_CGROUPS}")
    service.machine.wait_for("! pgrep -f '/opt/[a]gent-supervisor|[s]leep 700'")
    assert "stopped clean=True" in [entry["MESSAGE"] for entry in service.journal(before)]
    service.control("start")
    recovery = service.status()["recovery"]
    assert (recovery["clean"], recovery["requeued"]) == (True, 1)
    service.agentctl(f"cancel {task}")


COUNT = "for n in $(seq 5000); do echo line $n; done; until [ -e /srv/work/go ]; do sleep 0.2; done; echo end"


@pytest.mark.parametrize("how", ["restart", "kill"])
def test_running_work_goes_on_over_a_restart_and_a_crash(service: Service, how: str) -> None:
    done = service.submit("true")
    assert service.ended(done)["state"] == "succeeded"
    service.check("rm -rf /srv/work && mkdir -m 777 /srv/work")
    task = service.submit("sh", "-c", f"{COUNT}; sleep 7004", workspace="/srv/work", timeout_s=900)
    worker = service.process(f"sh -c {COUNT}; sleep 7004")
    pid = service.shows("MainPID")
    if how == "restart":
        service.control("restart")
    else:
        service.check(f"kill -KILL {pid}")
        service.await_shown("NRestarts", "1")
        service.control("start")
    assert service.shows("MainPID") not in ("0", pid)
    assert service.run(f"[ -e /proc/{worker} ]").code == 0
    recovery = service.status()["recovery"]
    assert (recovery["clean"], recovery["requeued"], recovery["resumed"]) == (how == "restart", 0, 1)
    service.check("touch /srv/work/go")
    service.process("sleep 7004")
    service.machine.wait_for(f"agentctl logs {task} | grep -qx end")
    said = [line for line in service.check(f"agentctl logs {task}").splitlines() if not line.startswith("[supervisor]")]
    assert said == [*(f"line {number}" for number in range(1, 5001)), "end"]
    assert service.agentctl(f"show {task}")["task"]["attempt"] == 1
    assert service.agentctl(f"show {done}")["task"]["state"] == "succeeded"
    service.agentctl(f"cancel {task}")


def test_a_fork_server_that_died_is_started_again_and_its_tasks_run_again(service: Service) -> None:
    task = service.submit("sleep", "7005", max_retries=3)
    service.process("sleep 7005")
    service.check("systemctl kill --kill-whom=main --signal=KILL agent-supervisor-spawner")
    service.await_shown("NRestarts", "1")
    service.control("start")
    service.process("sleep 7005")
    assert service.agentctl(f"show {task}")["task"]["attempt"] == 2
    service.agentctl(f"cancel {task}")


def test_a_supervisor_that_hangs_is_started_again(service: Service) -> None:
    pid = service.shows("MainPID")
    service.check(f"kill -STOP {pid}")
    service.machine.wait_for("journalctl -u agent-supervisor | grep -q 'Watchdog timeout'", timeout_s=120)
    # As if it had hung in itself: a stopped process does not take the signal that ends it.
    service.run(f"kill -CONT {pid}")
    service.await_shown("NRestarts", "1")
    service.control("start")
    assert service.shows("MainPID") not in ("0", pid)


def test_a_refused_configuration_is_said_and_not_tried_again(installed: Service) -> None:
    installed.machine.check("cp /etc/agent-supervisor/config.toml /tmp && echo 'socket = 1' >/etc/agent-supervisor/config.toml")
    before = installed.now_in_journal()
    try:
        assert installed.run("systemctl start agent-supervisor").code != 0
        assert [installed.shows(name) for name in ("ActiveState", "ExecMainStatus", "NRestarts")] == ["failed", "2", "0"]
        (said,) = (entry for entry in installed.journal(before) if entry["_TRANSPORT"] == "stdout")
        assert said["PRIORITY"] == "3"
        assert said["MESSAGE"].startswith("agent-supervisor: /etc/agent-supervisor/config.toml: unknown key `socket`")
    finally:
        installed.machine.check("mv /tmp/config.toml /etc/agent-supervisor/ && systemctl reset-failed agent-supervisor")


def test_the_group_may_use_the_socket_and_nobody_else(service: Service) -> None:
    service.machine.check("useradd member && usermod -aG agent-supervisor member && useradd stranger")
    assert "accepted" in service.check("runuser -u member -- agentctl status")
    refused = service.run("runuser -u stranger -- agentctl status")
    assert refused.code == 6
    assert "agent-supervisor" in refused.stderr


def test_a_client_starts_the_supervisor_through_the_socket(installed: Service) -> None:
    installed.control("stop")
    installed.check("systemctl start agent-supervisor.socket")
    try:
        assert installed.shows("ActiveState") == "inactive"
        installed.run("agentctl status")
        installed.control("start")
        assert installed.ended(installed.submit("true"))["state"] == "succeeded"
        installed.control("stop")
        # The client before the supervisor: it is answered once that is up.
        asked = installed.machine.check("agentctl status || agentctl status || agentctl status || agentctl status")
        assert "after an orderly stop" in asked
    finally:
        installed.check("systemctl stop agent-supervisor.socket agent-supervisor.service")
    assert installed.run("[ -e /run/agent-supervisor/supervisor.sock ]").code != 0


def test_an_installation_over_a_running_one_keeps_it_running(service: Service) -> None:
    task = service.submit("sleep", "7006", timeout_s=900)
    worker = service.process("sleep 7006")
    pid = service.shows("MainPID")
    service.machine.check("/given/systemd/install", timeout_s=900)
    assert service.shows("ActiveState") == "active"
    assert service.shows("MainPID") != pid
    assert service.process("sleep 7006") == worker
    assert service.agentctl(f"show {task}")["task"]["attempt"] == 1
    service.agentctl(f"cancel {task}")
