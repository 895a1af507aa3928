"""The gateway as a worker of a real daemon meets it: what is refused, and where that can be read."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

from msgspec import structs

from supervisord_agents.core.model import State, TaskSpec
from supervisord_agents.gateway.telling import FIRST
from tests.support.daemon import DaemonProcess
from tests.support.gateway import KEY, KEY_ENV
from tests.support.scripted_model import INPUT_TOKENS, OUTPUT_TOKENS, ScriptedModel

FETCH = "import sys, urllib.request; print(urllib.request.urlopen(sys.argv[1]).read())"
FLOOD = """
import http.client, os
connection = http.client.HTTPConnection("127.0.0.1", int(os.environ["HTTP_PROXY"].rpartition(":")[2]))
for _ in range(500):
    connection.request("GET", "/nobody/x")
    assert connection.getresponse().read()
"""
ASK = """
import json, os, urllib.request
url = os.environ["HTTP_PROXY"] + "/openai/chat/completions"
body = json.dumps({"model": "m", "messages": [{"role": "user", "content": "SAY:hello"}]}).encode()
print(urllib.request.urlopen(urllib.request.Request(url, body)).read().decode())
"""


def a_program(source: str, *arguments: str) -> TaskSpec:
    return TaskSpec(id="t", input={"argv": ["/usr/bin/env", "python3", "-c", source, *arguments]}, max_retries=0)


async def run(daemon: DaemonProcess, spec: TaskSpec) -> tuple[State, str, dict[str, str]]:
    """The task's end, its log as agentctl shows it, and its output."""
    async with daemon.client() as client:
        reply = await client.submit([spec])
        waited = await client.wait(reply.tasks, mode="all", timeout_s=60)
        result = (await client.result(reply.tasks[0])).result
    shown = await asyncio.to_thread(daemon.agentctl, "logs", reply.tasks[0])
    assert shown.returncode == 0, shown.stderr
    assert isinstance(result.output, dict)
    return waited.tasks[0].state, shown.stdout, result.output


async def test_a_refused_host_is_named_in_the_tasks_log_with_what_to_configure(daemon: DaemonProcess) -> None:
    await daemon.start()
    state, log, output = await run(daemon, a_program(FETCH, "https://example.com/"))
    assert state is State.FAILED
    assert "403" in output["stderr"]
    line = next(line for line in log.splitlines() if "the gateway refused" in line)
    assert "host example.com:443 is not allowed" in line
    assert 'add "example.com" to gateway.allowed_hosts' in line


async def test_a_plain_http_address_is_refused_in_the_same_place(daemon: DaemonProcess) -> None:
    daemon.config.write_text('[gateway]\nallowed_hosts = ["example.com"]\nport = 8181\n')
    await daemon.start()
    state, log, output = await run(daemon, a_program(FETCH, "http://example.com/page?secret=1"))
    assert state is State.FAILED
    assert "403" in output["stderr"]
    line = next(line for line in log.splitlines() if "the gateway refused" in line)
    assert "host example.com:80 is not reached by plain http://" in line
    assert "secret" not in line


async def test_an_agents_hosts_are_for_its_own_workers_alone(daemon: DaemonProcess) -> None:
    command = "supervisord_agents.workers.agents.command:CommandAgent"
    daemon.config.write_text(
        '[gateway]\nallowed_hosts = ["all.example.org"]\n'
        f'[agents.first]\nadapter = "{command}"\nhosts = ["one.example.org"]\n[agents.second]\nadapter = "{command}"\n'
    )
    await daemon.start()
    look = """
import socket
for name in ("all", "one"):
    try:
        print(name, socket.gethostbyname(f"{name}.example.org").startswith("127."))
    except OSError:
        print(name, False)
"""
    for agent, known in (("first", True), ("second", False), ("first", True)):
        state, log, output = await run(daemon, structs.replace(a_program(look), agent=agent))
        assert state is State.SUCCEEDED, log
        assert output["stdout"].splitlines() == ["all True", f"one {known}"]
        assert ("refused to look up one.example.org" in log) is not known


async def test_a_flood_of_refusals_fills_neither_log(daemon: DaemonProcess) -> None:
    await daemon.start()
    state, log, _ = await run(daemon, a_program(FLOOD))
    assert state is State.SUCCEEDED
    told = [line for line in log.splitlines() if "the gateway refused" in line]
    assert len(told) < 2 * FIRST
    assert sum("more; the last" in line for line in told) >= 1
    assert daemon.log_text().count("gateway_refused") == len(told)


async def test_a_model_call_beside_the_proxy_variables_is_counted_exactly(daemon: DaemonProcess, tmp_path: Path) -> None:
    daemon.environment[KEY_ENV] = KEY
    model = ScriptedModel()
    async with model.serve() as url:
        daemon.config.write_text(
            f'[gateway.providers.openai]\nbase_url = "{url}/v1"\napi_key_env = "{KEY_ENV}"\n'
            "input_usd_per_mtok = 10.0\noutput_usd_per_mtok = 1000.0\n"
        )
        await daemon.start()
        state, log, output = await run(daemon, a_program(ASK))
        assert state is State.SUCCEEDED, log
        assert json.loads(output["stdout"])["choices"][0]["message"]["content"] == "hello"
        async with daemon.client() as client:
            (task,) = (await client.list()).tasks
            result = (await client.result(task.id)).result
    assert model.requests[0].headers["Authorization"] == f"Bearer {KEY}"
    assert (result.tokens_used, result.cost_usd) == (INPUT_TOKENS + OUTPUT_TOKENS, 0.008)
    assert KEY not in log + json.dumps(output) + daemon.log_text()
