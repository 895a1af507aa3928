"""Bad input: a clear error that names the field or the path, the daemon unharmed, nothing acknowledged lost."""

from __future__ import annotations

import json
import socket
import struct
from pathlib import Path
from typing import Any

import pytest

from supervisord_agents.core.model import TaskSpec
from supervisord_agents.errors import SupervisorError
from tests.support.daemon import DaemonProcess


def command(id: str = "", *after: str, **fields: Any) -> TaskSpec:
    return TaskSpec(**{"id": id, "input": {"argv": ["true"]}, "dependencies": after, **fields})


@pytest.fixture
def project(tmp_path: Path) -> Path:
    path = tmp_path / "file"
    path.write_text("")
    return path


BAD: list[tuple[str, list[TaskSpec], str, str]] = [
    ("a cycle", [command("A", "C"), command("B", "A"), command("C", "B")], "dependencies", "A -> "),
    ("an unknown dependency", [command("A", "nowhere")], "tasks[0].dependencies[0]", "nowhere"),
    ("a duplicate id", [command("A"), command("A")], "tasks[1].id", "A"),
    ("a bad priority", [command("A", priority=10)], "tasks[0].priority", "9"),
    ("a negative timeout", [command("A", timeout_s=-1.0)], "tasks[0].timeout_s", ""),
    ("no task", [], "tasks", ""),
    ("an unknown agent", [command("A", agent="gpt")], "tasks[0].agent", "command"),
    ("no argv", [command("A", input={})], "tasks[0].input.argv", ""),
    ("an unknown pool", [command("A", pool="fast")], "tasks[0].pool", "standard"),
    ("a missing workspace", [command("A", workspace="/nowhere/at/all")], "tasks[0].workspace", "No such file"),
    ("a relative workspace", [command("A", workspace="here")], "tasks[0].workspace", "absolute"),
    ("a system workspace", [command("A", workspace="/etc")], "tasks[0].workspace", "cannot be a workspace"),
    ("a workspace with secrets", [command("A", workspace="/")], "tasks[0].workspace", "cannot be a workspace"),
]


async def test_every_bad_graph_is_refused_whole_and_the_field_is_named(daemon: DaemonProcess) -> None:
    await daemon.start()
    async with daemon.client() as client:
        for what, tasks, field, says in BAD:
            with pytest.raises(SupervisorError) as caught:
                await client.submit(tasks)
            assert field in caught.value.field, f"{what}: {caught.value.field}: {caught.value}"
            assert says in str(caught.value), f"{what}: {caught.value}"
        assert (await client.list()).total == 0
        assert (await client.submit([command("A")])).tasks


async def test_a_missing_cli_is_named_with_the_key_to_set(tmp_path: Path) -> None:
    provider = '[gateway.providers.openai]\nbase_url = "https://api.example.com/v1"\n'
    daemon = DaemonProcess(tmp_path, provider + '[agents.qwen]\nexecutable = "no-such-qwen"\nmodel = "any"\n')
    try:
        await daemon.start()
        async with daemon.client() as client:
            with pytest.raises(SupervisorError, match="no-such-qwen") as caught:
                await client.submit([TaskSpec(agent="qwen", input={"prompt": "hi"})])
            assert "agents.qwen.executable" in str(caught.value)
    finally:
        daemon.close()


async def test_garbage_costs_a_client_its_own_connection_only(daemon: DaemonProcess) -> None:
    await daemon.start()
    async with daemon.client() as client:
        for garbage in (
            b"GET / HTTP/1.1\r\n\r\n",
            struct.pack("<I", 10 * 1024 * 1024) + b"x" * 1024,
            struct.pack("<I", 100_000) + b"\x91" * 100_000,
            struct.pack("<I", 4) + b"\xc1\xc1\xc1\xc1",
        ):
            with socket.socket(socket.AF_UNIX) as rude:
                rude.settimeout(10)
                rude.connect(str(daemon.socket))
                rude.sendall(garbage)
                while rude.recv(65536):
                    pass
        assert (await client.status()).accepting


async def test_agentctl_names_the_field_and_exits_with_its_documented_code(daemon: DaemonProcess) -> None:
    await daemon.start()
    graph = {"tasks": [{"id": "A", "input": {"argv": ["true"]}, "priority": "high"}]}
    wrong = daemon.agentctl("submit", "--file", "-", stdin=json.dumps(graph))
    assert wrong.returncode == 2
    assert "priority" in wrong.stderr
    assert "Traceback" not in wrong.stderr
    unknown = daemon.agentctl("show", "nothing")
    assert unknown.returncode == 4


def test_an_unknown_config_key_stops_the_start_and_names_the_nearest(tmp_path: Path) -> None:
    daemon = DaemonProcess(tmp_path, "[daemon]\nlog_levle = 'info'\n")
    daemon.spawn()
    assert daemon.process is not None
    assert daemon.process.wait(timeout=30) == 2
    assert "Did you mean `log_level`?" in daemon.log_text()
    assert "Traceback" not in daemon.log_text()


async def test_a_second_daemon_on_the_same_state_is_refused(daemon: DaemonProcess, tmp_path: Path) -> None:
    second = DaemonProcess(tmp_path)
    second.socket = tmp_path / "other.sock"
    second.log = tmp_path / "other.log"
    await daemon.start()
    try:
        second.spawn()
        assert second.process is not None
        assert second.process.wait(timeout=30) == 1
        assert "Traceback" not in second.log_text()
        assert str(daemon.process and daemon.process.pid) in second.log_text()
    finally:
        second.close()
