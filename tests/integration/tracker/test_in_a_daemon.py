"""Models in a daemon: their words stand in the story, and whatever becomes of them, the daemon and its tasks go on."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import psutil
import pytest

from supervisord_agents.core.model import State, TaskSpec
from supervisord_agents.errors import NotFound
from supervisord_agents.tracker import rules
from tests.support.daemon import AT_ONCE, DaemonProcess
from tests.support.ggufs import smollm2
from tests.support.scripted_model import ScriptedModel

REMOTE = """
[breakers]
failures = 1
[tracker]
backends = ["gone", "mini"]
[tracker.models.gone]
provider = "nobody"
model = "none"
[tracker.models.mini]
provider = "scripted"
model = "some-model"
[gateway.providers.nobody]
base_url = "http://127.0.0.1:1/v1"
[gateway.providers.scripted]
base_url = "{url}/v1"
"""
DEAR = """
[tracker]
backends = ["mini"]
cost_usd_per_day = 0.41
[tracker.models.mini]
provider = "scripted"
model = "some-model"
[gateway.providers.scripted]
base_url = "{url}/v1"
input_usd_per_mtok = 100.0
"""
LOCAL = """
[tracker]
backends = ["local"]
stale_s = 0.001
[tracker.local]
model = "{model}"
context_tokens = 4096
threads = 1
"""
WAITS = TaskSpec(id="waits", input={"argv": ["sleep", "60"]})


@asynccontextmanager
async def serving(directory: Path, config: str) -> AsyncIterator[tuple[ScriptedModel, DaemonProcess]]:
    """A daemon whose tracker has a scripted model, at a place that is put into the configuration."""
    model = ScriptedModel()
    async with model.serve() as url:
        daemon = DaemonProcess(directory, AT_ONCE + config.format(url=url))
        await daemon.start()
        try:
            yield model, daemon
        finally:
            daemon.close()


async def test_the_first_model_that_works_finds_the_words(tmp_path: Path) -> None:
    async with serving(tmp_path, REMOTE) as (model, daemon), daemon.client() as client:
        waits, _ = (await client.submit([WAITS, TaskSpec(id="after", dependencies=("waits",), input={"argv": ["true"]})])).tasks
        model.words = f"{waits} is at work."
        story = await client.story(wait_s=20.0)
        assert (story.summary, story.by) == (model.words, "mini (some-model)")
        assert story.blocked_on == [waits]
        asked = await client.ask("sing me a song of it")
        assert (asked.answer, asked.by) == (model.words, "mini (some-model)")
        tracker = (await client.status()).tracker
        assert tracker is not None
        assert [(one.name, one.state) for one in tracker.models] == [("gone", "left_alone"), ("mini", "ready")]
        assert (tracker.failed, tracker.spent_usd) == (0, 0.0)
        assert tracker.answers >= 2
        provider, breaker = (await client.breakers()).breakers
        assert (provider.kind, provider.name) == ("provider", "nobody")
        assert (breaker.kind, breaker.name, breaker.state, breaker.limit) == ("tracker", "gone", "open", 1)
        assert breaker.tried_at == tracker.models[0].until
        assert breaker.last == tracker.models[0].why
        with pytest.raises(NotFound, match="models that have: gone"):
            await client.reset_breaker("tracker", "mini")
        assert (await client.reset_breaker("tracker", "gone")).breakers == [provider]
    system, user = model.requests[0].body["messages"]
    assert "you keep the story" in system["content"].lower()
    assert "waits" in user["content"]


async def test_when_enough_was_spent_the_rules_tell_also_after_a_restart(tmp_path: Path) -> None:
    async with serving(tmp_path, DEAR) as (model, daemon):
        async with daemon.client() as client:
            model.words = f"{(await client.submit([WAITS])).tasks[0]} is at work."
            assert (await client.story(wait_s=20.0)).summary == model.words
        for killed in (False, True):
            if killed:
                daemon.kill()
                await daemon.start()
            async with daemon.client() as client:
                assert (await client.ask("sing me a song of it")).by == rules.NAME
                tracker = (await client.status()).tracker
                assert tracker is not None
                assert 0 < tracker.spent_usd < tracker.limit_usd == 0.41
                (mini,) = tracker.models
                assert mini.state == "over_limit"
                assert mini.until > time.time() + 86_000
    assert len(model.requests) == 1


async def test_a_local_model_that_is_killed_in_mid_generation_costs_nothing_but_its_words(tmp_path: Path) -> None:
    pytest.importorskip("llama_cpp", reason="run .ci/setup llama")
    daemon = DaemonProcess(tmp_path, AT_ONCE + LOCAL.format(model=smollm2()))
    await daemon.start()
    try:
        async with daemon.client() as client:
            host = await _host(daemon)
            (done,) = (await client.submit([TaskSpec(id="done", input={"argv": ["true"]})])).tasks
            telling = asyncio.create_task(client.story(wait_s=60.0))
            while host.cpu_times().user < 1.0 and not telling.done():
                await asyncio.sleep(0.02)
            os.kill(host.pid, signal.SIGKILL)
            assert (await telling).by
            assert (await client.story()).by == rules.NAME
            assert (await client.wait([done], timeout_s=20.0)).tasks[0].state is State.SUCCEEDED
            assert (await _host(daemon, but=host.pid)).pid != host.pid
    finally:
        daemon.close()
    assert "tracker_host_ended" in daemon.log.read_text()


async def test_the_process_of_a_model_ends_with_a_daemon_that_is_killed_even_if_it_can_do_nothing(tmp_path: Path) -> None:
    pytest.importorskip("llama_cpp", reason="run .ci/setup llama")
    daemon = DaemonProcess(tmp_path, AT_ONCE + LOCAL.format(model=smollm2()))
    await daemon.start()
    try:
        host = await _host(daemon)
        host.suspend()
        daemon.kill()
        while host.is_running() and host.status() != psutil.STATUS_ZOMBIE:
            await asyncio.sleep(0.02)
    finally:
        daemon.close()


async def _host(daemon: DaemonProcess, but: int = 0) -> psutil.Process:
    """The process of the model."""
    assert daemon.process is not None
    while True:
        for process in psutil.Process(daemon.process.pid).children(recursive=True):
            try:
                if "supervisord_agents.tracker.host" in process.cmdline() and process.pid != but:
                    return process
            except psutil.NoSuchProcess:
                continue
        await asyncio.sleep(0.02)
