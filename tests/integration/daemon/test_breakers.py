"""An agent that fails again and again is left alone; a task that names another one goes there."""

from __future__ import annotations

import asyncio
import json

from supervisord_agents.core.model import State, TaskSpec
from tests.support.daemon import DaemonProcess

COMMAND = "supervisord_agents.workers.agents.command:CommandAgent"
CONFIG = f"""
[agents.flaky]
adapter = "{COMMAND}"
breaker_failures = 2
[breakers]
open_s = 600.0
"""


def task(*argv: str, **fields: object) -> TaskSpec:
    return TaskSpec(input={"argv": list(argv)}, max_retries=0, **fields)  # type: ignore[arg-type]


async def test_the_breaker_of_an_agent(daemon: DaemonProcess) -> None:
    daemon.config.write_text(CONFIG)
    await daemon.start()
    async with daemon.client() as client:
        failing = await client.submit([task("false", agent="flaky"), task("false", agent="flaky")])
        await client.wait(failing.tasks, mode="all", timeout_s=60)
        chosen = await client.submit([task("true", agents=("flaky", "command")), task("true", agent="flaky")])
        waited = await client.wait(chosen.tasks[:1], mode="all", timeout_s=60)
        assert waited.tasks[0].state is State.SUCCEEDED
        assert any("breaker of agent flaky" in moment["message"] for moment in (await client.show(chosen.tasks[0])).history)
        why = (await client.why(chosen.tasks[1])).reasons
        assert "the breaker of agent flaky is open: 2 failures in a row" in why[0]
        assert any("agentctl breakers" in note for note in (await client.status()).notes)
        # It is on disk.
        daemon.kill()
        await daemon.start()
    async with daemon.client() as client:
        listed = await asyncio.to_thread(daemon.agentctl, "--json", "breakers")
        assert [(view["name"], view["state"]) for view in json.loads(listed.stdout)] == [("flaky", "open")]
        assert (await client.show(chosen.tasks[1])).task.state is State.READY
        reset = await asyncio.to_thread(daemon.agentctl, "breakers", "reset", "agent", "flaky")
        assert reset.returncode == 0, reset.stderr
        waited = await client.wait(chosen.tasks, mode="all", timeout_s=60)
        assert {view.state for view in waited.tasks} == {State.SUCCEEDED}
