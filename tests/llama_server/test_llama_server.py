"""The tracker with a server of models that is no double: llama.cpp's own, over HTTP through the gateway.

`make test-llama-server` builds it first. The model is too small to name what matters, so it is asked of work in which nothing
does: nothing runs, waits for others or has failed.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest

from supervisord_agents.core.model import TaskSpec
from supervisord_agents.tracker import rules
from tests.support.daemon import DaemonProcess
from tests.support.ggufs import smollm2

SERVER = Path(__file__).parents[2] / "build" / "llama-server" / "llama-server"
TRIES = 3
ONE_WORKER = """
[pools.standard]
max_workers = 1
min_workers = 0
"""
TRACKER = """
[breakers]
failures = 0
[tracker]
backends = ["served"]
deadline_s = 120.0
every_s = 0.1
[tracker.models.served]
provider = "server"
model = "smollm2"
context_tokens = 4096
[gateway]
read_timeout_s = 120.0
[gateway.providers.server]
base_url = "{url}/v1"
input_usd_per_mtok = 0.1
output_usd_per_mtok = 0.2
"""
pytestmark = [
    pytest.mark.timeout(900),
    pytest.mark.skipif(not SERVER.exists(), reason="make test-llama-server builds it"),
]


@pytest.fixture
async def url(tmp_path: Path) -> AsyncIterator[str]:
    """Of a server with a model loaded."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    argv = [SERVER, "--model", smollm2(), "--port", str(port), "--ctx-size", "4096", "--parallel", "1", "--no-webui"]
    with (tmp_path / "server.log").open("wb") as log:
        process = await asyncio.create_subprocess_exec(*argv, stdout=log, stderr=log)
    try:
        await _ready(f"http://127.0.0.1:{port}/health", process)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        await process.wait()


async def _ready(health: str, process: asyncio.subprocess.Process) -> None:
    async with aiohttp.ClientSession() as session:
        while process.returncode is None:
            with contextlib.suppress(aiohttp.ClientError):
                async with session.get(health) as answer:
                    if answer.status == 200:
                        return
            await asyncio.sleep(0.1)
    raise AssertionError(f"llama-server ended with {process.returncode}")


async def test_story_and_answer_are_in_the_words_of_a_model_at_a_real_server(url: str, tmp_path: Path) -> None:
    daemon = DaemonProcess(tmp_path, ONE_WORKER + TRACKER.format(url=url))
    await daemon.start()
    try:
        async with daemon.client() as client:
            await client.submit([TaskSpec(id="first", input={"argv": ["sleep", "3600"]})])
            ready = await client.submit([TaskSpec(id=name, input={"argv": ["true"]}) for name in ("build", "lint")])
            graph = ready.tasks[0].partition(".")[0]
            for _ in range(TRIES):
                story = await client.story(graph, wait_s=250.0)
                if story.by != rules.NAME:
                    break
            assert story.by == "served (smollm2)"
            assert story.summary
            assert sorted(story.next_actionable) == sorted(ready.tasks)
            for question in ("sing me a song of it", "make a rhyme of it", "put it into one sentence"):
                answer = await client.ask(question, graph)
                if answer.by != rules.NAME:
                    break
            assert answer.by == "served (smollm2)"
            assert answer.answer
            assert set(answer.citations) <= set(ready.tasks)
            tracker = (await client.status()).tracker
            assert tracker is not None
            assert tracker.usage.input_tokens > 100 < tracker.usage.output_tokens
            assert tracker.spent_usd > 0
    finally:
        daemon.close()
    log = daemon.log_text()
    assert "tracker_request_not_taken" not in log
    assert "answered, but with no text" not in log
