"""Real CLIs end to end: OpenCode delegates over MCP, a worker CLI does it in the sandbox, its model calls leave by the gateway.

Only the model is ours: tests/support/scripted_model.py answers in the providers' own dialects.
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from supervisord_agents.core.model import State, TaskSpec
from tests.support.clis import cli
from tests.support.daemon import DaemonProcess
from tests.support.scripted_model import INPUT_TOKENS, OUTPUT_TOKENS, ScriptedModel

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]
KEY = "a-key-that-no-worker-may-see"
INPUT_PRICE, OUTPUT_PRICE = 3.0, 15.0
"""US dollars per million tokens."""
ANSWERING = ("/chat/completions", ":generateContent", ":streamGenerateContent")
BIN = Path(sys.executable).parent


@pytest.fixture
async def model() -> AsyncIterator[tuple[ScriptedModel, str]]:
    scripted = ScriptedModel()
    async with scripted.serve() as url:
        yield scripted, url


@pytest.fixture
async def daemon(tmp_path: Path, model: tuple[ScriptedModel, str]) -> AsyncIterator[DaemonProcess]:
    """A daemon whose providers are the scripted model, and whose agents are the real CLIs."""
    _, url = model
    key_file = tmp_path / "key"
    key_file.write_text(KEY)
    key_file.chmod(0o600)
    process = DaemonProcess(
        tmp_path,
        f"""
[gateway.providers.openai]
base_url = "{url}/v1"
api_key_file = "{key_file}"
input_usd_per_mtok = {INPUT_PRICE}
output_usd_per_mtok = {OUTPUT_PRICE}
[gateway.providers.gemini]
base_url = "{url}"
dialect = "gemini"
api_key_file = "{key_file}"
input_usd_per_mtok = {INPUT_PRICE}
output_usd_per_mtok = {OUTPUT_PRICE}
[agents.qwen]
executable = "{cli("qwen")}"
provider = "openai"
model = "fake"
[agents.gemini]
executable = "{cli("gemini")}"
provider = "gemini"
model = "gemini-2.5-flash"
[agents.opencode]
executable = "{cli("opencode")}"
provider = "openai"
model = "fake"
""",
    )
    await process.start()
    yield process
    process.close()


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A git repository to work in."""
    path = tmp_path / "project"
    path.mkdir()
    subprocess.run(["git", "init", "-q", str(path)], check=True)
    return path


@pytest.mark.parametrize("agent", ["qwen", "gemini", "opencode"])
async def test_a_real_cli_works_in_the_sandbox_through_the_gateway(
    daemon: DaemonProcess, model: tuple[ScriptedModel, str], project: Path, agent: str
) -> None:
    scripted, _ = model
    async with daemon.client() as client:
        spec = TaskSpec(
            id="t", agent=agent, input={"prompt": "SAY:forty-two"}, workspace=str(project), timeout_s=120, max_retries=0
        )
        reply = await client.submit([spec])
        waited = await client.wait(reply.tasks, mode="all", timeout_s=150)
        result = (await client.result(reply.tasks[0])).result
        log = (await client.logs(reply.tasks[0])).data.decode(errors="replace")
        assert waited.tasks[0].state is State.SUCCEEDED, f"{waited.tasks[0].failure}\n{log}"
        assert "forty-two" in json.dumps(result.output)
        answers = sum(request.path.endswith(ANSWERING) for request in scripted.requests)
        assert answers > 0
        assert result.tokens_used == answers * (INPUT_TOKENS + OUTPUT_TOKENS)
        cost = answers * (INPUT_TOKENS * INPUT_PRICE + OUTPUT_TOKENS * OUTPUT_PRICE) / 1e6
        assert result.cost_usd == pytest.approx(cost)
        # Whatever a CLI calls home for is refused, but its model calls never are.
        assert "/openai/" not in log
        assert "127.0.0.1" not in log
        assert KEY not in json.dumps(result.output) + log


@pytest.mark.parametrize("worker", ["qwen", "gemini"])
async def test_opencode_delegates_to_a_worker_and_receives_its_result(
    daemon: DaemonProcess, model: tuple[ScriptedModel, str], project: Path, worker: str
) -> None:
    _, url = model
    _configure_opencode(project, url, daemon)
    task = {"id": "job", "agent": worker, "prompt": "SAY:the worker did it", "workspace": str(project), "max_retries": 0}
    delegate = "CALL:supervisor_delegate:" + json.dumps({"tasks": [task]})
    wait = "CALL:supervisor_wait:" + json.dumps({"ids": ["{{last:graph}}"], "timeout_s": 50})
    result = "CALL:supervisor_result:" + json.dumps({"id": "{{1:graph}}.job"})
    code, output = await _run_opencode(project, f"{delegate} {wait} {result}")
    assert code == 0, output
    answer = [json.loads(line) for line in output.splitlines() if line.startswith("{")]
    said = " ".join(event["part"]["text"] for event in answer if event.get("type") == "text")
    assert "the worker did it" in said, output
    async with daemon.client() as client:
        tasks = (await client.list()).tasks
        assert [(view.agent, view.state) for view in tasks] == [(worker, State.SUCCEEDED)]


def _configure_opencode(project: Path, url: str, daemon: DaemonProcess) -> None:
    configuration = {
        "provider": {
            "scripted": {
                "npm": "@ai-sdk/openai-compatible",
                "options": {"baseURL": f"{url}/v1", "apiKey": "x"},
                "models": {"fake": {"name": "fake", "tool_call": True}},
            }
        },
        "model": "scripted/fake",
        "small_model": "scripted/fake",
        "mcp": {
            "supervisor": {
                "type": "local",
                "command": [str(BIN / "agentctl"), "--socket", str(daemon.socket), "mcp"],
                "enabled": True,
            }
        },
    }
    (project / "opencode.json").write_text(json.dumps(configuration))


async def _run_opencode(project: Path, prompt: str) -> tuple[int, str]:
    home = project.parent / "opencode-home"
    home.mkdir()
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(home),
        "OPENCODE_DISABLE_MODELS_FETCH": "1",
        "OPENCODE_DISABLE_AUTOUPDATE": "1",
    }
    process = await asyncio.create_subprocess_exec(
        cli("opencode"),
        "run",
        "--format",
        "json",
        prompt,
        cwd=project,
        env=environment,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    output, _ = await asyncio.wait_for(process.communicate(), 200)
    assert process.returncode is not None
    return process.returncode, output.decode(errors="replace")
