"""The service manager's side channels over real sockets."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from supervisord_agents.observe import notify


@pytest.fixture(autouse=True)
def _no_manager(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for name in notify.VARIABLES:
        monkeypatch.delenv(name, raising=False)
    yield
    for name in notify.VARIABLES:
        monkeypatch.delenv(name, raising=False)
    notify.adopt()


def manager_at(address: str | bytes) -> socket.socket:
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    listener.settimeout(10)
    listener.bind(address)
    return listener


def test_a_manager_at_a_path_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with manager_at(str(tmp_path / "notify")) as listener:
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        notify.adopt()
        notify.ready("3 tasks known")
        notify.watchdog("1 running\n2 ready")
        notify.stopping()
        told = [listener.recv(4096) for _ in range(3)]
    assert told == [b"READY=1\nSTATUS=3 tasks known", b"WATCHDOG=1\nSTATUS=1 running 2 ready", b"STOPPING=1"]


def test_a_manager_at_an_abstract_address_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    name = f"agent-supervisor-test-{uuid.uuid4()}"
    with manager_at(b"\0" + name.encode()) as listener:
        monkeypatch.setenv("NOTIFY_SOCKET", f"@{name}")
        notify.adopt()
        notify.stopping()
        assert listener.recv(4096) == b"STOPPING=1"


def test_a_start_that_takes_its_time_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with manager_at(str(tmp_path / "notify")) as listener:
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        notify.adopt()
        notify.starting("no room", 10.0)
        assert listener.recv(4096) == b"EXTEND_TIMEOUT_USEC=10000000\nSTATUS=no room"


def test_a_status_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with manager_at(str(tmp_path / "notify")) as listener:
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        notify.adopt()
        notify.ready("up\nMAINPID=1")
        assert listener.recv(4096) == b"READY=1\nSTATUS=up MAINPID=1"


def test_without_a_manager_nothing_happens() -> None:
    notify.adopt()
    notify.ready("up")
    assert notify.watchdog_interval_s() == 0.0
    assert notify.listen_sockets() == []


def test_a_manager_that_is_gone_does_not_stop_us(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "nobody"))
    notify.adopt()
    notify.ready("up")


def test_children_do_not_inherit_the_manager(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in notify.VARIABLES:
        monkeypatch.setenv(name, "1")
    notify.adopt()
    listed = subprocess.run([sys.executable, "-c", "import os; print(*os.environ)"], capture_output=True, text=True, check=True)
    assert not set(notify.VARIABLES) & set(listed.stdout.split())


@pytest.mark.parametrize(
    ("usec", "pid", "interval"),
    [("30000000", str(os.getpid()), 30.0), ("1500000", "", 1.5), ("30000000", "1", 0.0), ("", "", 0.0), ("soon", "", 0.0)],
)
def test_the_watchdog_is_for_the_named_process(usec: str, pid: str, interval: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WATCHDOG_USEC", usec)
    monkeypatch.setenv("WATCHDOG_PID", pid)
    notify.adopt()
    assert notify.watchdog_interval_s() == interval


SHOW_SOCKETS = """
import os, sys
from supervisord_agents.observe import notify
notify.adopt()
for each in notify.listen_sockets():
    print(each.fileno(), each.getsockname(), os.get_inheritable(each.fileno()))
print(notify.listen_sockets(), "LISTEN_FDS" in os.environ)
"""


def shown_sockets(listener: socket.socket, shell: str) -> list[str]:
    """Start a process with `listener` as descriptor 3, as sd_listen_fds(3) has it; `shell` sets the environment before exec."""
    script = f'exec 3<&{listener.fileno()}; {shell}; exec "$0" -c "$1"'
    argv = ["bash", "-c", script, sys.executable, SHOW_SOCKETS]
    done = subprocess.run(argv, pass_fds=[listener.fileno()], capture_output=True, text=True, check=True)
    return done.stdout.splitlines()


def test_passed_sockets_are_taken_once_and_closed_on_exec(tmp_path: Path) -> None:
    path = str(tmp_path / "supervisor.sock")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen()
        assert shown_sockets(listener, "export LISTEN_FDS=1 LISTEN_PID=$$") == [f"3 {path} False", "[] False"]


def test_sockets_for_another_process_are_left_alone(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "supervisor.sock"))
        listener.listen()
        assert shown_sockets(listener, "export LISTEN_FDS=1 LISTEN_PID=1") == ["[] False"]
