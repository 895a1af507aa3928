"""A daemon whose user may make no namespaces: it refuses to start, or has its workers held by Landlock and a filter."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from sandbox import landlock
from supervisord_agents.core.model import State, TaskSpec
from tests.support import forbidding
from tests.support.ordinary_daemon import OrdinaryDaemon
from tests.support.sandbox import Maker, maker

pytestmark = pytest.mark.skipif(
    landlock.version() < landlock.MINIMUM, reason=f"this kernel has version {landlock.version()} of Landlock"
)
ECHO = "supervisord_agents.workers.builtin:echo"
ALLOWED = 'optional_layers = ["cgroup", "namespaces"]\n'


@pytest.fixture(scope="module")
def by() -> Iterator[Maker]:
    with maker("ordinary") as found:
        yield found


@pytest.fixture
def daemon(by: Maker) -> Iterator[OrdinaryDaemon]:
    """Not started yet."""
    process = OrdinaryDaemon(by, ALLOWED, lacking=forbidding.USER_NAMESPACES)
    yield process
    process.close()


def test_it_does_not_start_unless_namespaces_may_be_missing(by: Maker) -> None:
    process = OrdinaryDaemon(by, "", lacking=forbidding.USER_NAMESPACES)
    process.spawn()
    assert process.process is not None
    assert process.process.wait(60) == 1
    last = process.log_text().splitlines()[-1]
    assert last.startswith("agent-supervisor: user namespace: this host does not let user ")
    assert 'put "namespaces" into sandbox.optional_layers' in last
    process.close()


async def test_its_workers_do_their_work_and_nothing_else(by: Maker, daemon: OrdinaryDaemon) -> None:
    work, secret = by.directory("work"), by.directory("secret") / "key"
    secret.write_text("secret")
    os.chown(secret, by.uid, by.uid)
    script = f'cat {secret}; echo made >made; echo x >"$TMPDIR/left"; setsid sleep 7{os.getpid()}3 & ls "$TMPDIR"; exit 3'
    await daemon.start()
    async with daemon.client() as client:
        tasks = [
            TaskSpec(id="f", agent="python", input={"function": ECHO, "args": ["said"]}),
            TaskSpec(id="c", input={"argv": ["sh", "-c", script]}, workspace=str(work), max_retries=0),
            TaskSpec(id="b", input={"argv": ["sh", "-c", 'echo x >"$TMPDIR/left"']}),
            TaskSpec(id="d", input={"argv": ["sh", "-c", 'ls "$TMPDIR" "$HOME"; pwd']}, dependencies=("b",)),
        ]
        reply = await client.submit(tasks)
        waited = await client.wait(reply.tasks, mode="all", timeout_s=60)
        ended = {view.id.split(".")[1]: view.state for view in waited.tasks}
        results = {task.split(".")[1]: (await client.result(task)).result for task in reply.tasks}
        assert ended == {"f": State.SUCCEEDED, "c": State.FAILED, "b": State.SUCCEEDED, "d": State.SUCCEEDED}, results
    assert results["f"].output == "said"
    assert results["c"].output["exit_code"] == 3
    assert results["c"].output["stdout"] == "left\n"
    assert "Permission denied" in results["c"].output["stderr"]
    assert (work / "made").read_text() == "made\n"
    assert "left" not in results["d"].output["stdout"]
    assert "without_namespaces" in daemon.log_text()


async def test_an_agent_with_a_model_is_refused_in_words(daemon: OrdinaryDaemon) -> None:
    daemon.config.write_text(
        daemon.config.read_text()
        + "[gateway.providers.p]\nbase_url = 'http://127.0.0.1:9'\n[agents.qwen]\nexecutable = '/bin/true'\nprovider = 'p'\n"
    )
    await daemon.start()
    async with daemon.client() as client:
        reply = await client.submit([TaskSpec(id="q", agent="qwen", input={"prompt": "x", "model": "m"}, max_retries=0)])
        await client.wait(reply.tasks, mode="all", timeout_s=60)
        view = (await client.result(reply.tasks[0])).result
    assert view.error is not None
    assert "sandboxes have no network here" in view.error.message
