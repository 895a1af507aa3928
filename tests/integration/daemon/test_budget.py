"""A graph that uses up its tokens while its attempts run is ended then, not when they end of themselves."""

from __future__ import annotations

from pathlib import Path

from supervisord_agents.core.model import Budget, State, TaskSpec
from tests.support.daemon import DaemonProcess

CONFIG = """
[tasks.budget]
attempts = 50
[pools.standard]
min_workers = 2
max_workers = 2
"""
MODULE = """
import time

def work(context):
    context.usage(input_tokens=60)
    time.sleep(3600)
"""


async def test_running_attempts_end_when_their_graph_has_used_up_its_tokens(daemon: DaemonProcess, tmp_path: Path) -> None:
    daemon.config.write_text(CONFIG)
    workspace = tmp_path / "work"
    workspace.mkdir()
    (workspace / "spender.py").write_text(MODULE)
    spend = {"agent": "python", "input": {"function": "spender:work"}, "workspace": str(workspace)}
    await daemon.start()
    async with daemon.client() as client:
        tasks = [
            TaskSpec(id="a", **spend),
            TaskSpec(id="b", **spend),
            TaskSpec(id="c", input={"argv": ["true"]}, dependencies=("a",)),
        ]
        graph = (await client.submit(tasks, budget=Budget(tokens=100))).graph
        waited = await client.wait([graph], timeout_s=60.0)
        assert [(task.state, task.failure.code if task.failure else "") for task in waited.tasks] == [
            (State.FAILED, "BUDGET_EXCEEDED")
        ] * 3
        budget = (await client.show(f"{graph}.c")).budget
        assert budget is not None
        assert budget.budget == Budget(attempts=50, tokens=100)
        assert (budget.attempts, budget.used_up) == (2, "120 of 100 tokens")
        reasons = (await client.why(f"{graph}.a")).reasons
        assert f"the budget of {graph}: 2 of 50 attempts, 120 of 100 tokens; used up: 120 of 100 tokens" in reasons
        # The sums of the attempts that were stopped are journalled: nothing of them is counted twice, or forgotten.
        assert sum(task.usage.tokens for task in (await client.list(graph=graph)).tasks) == budget.usage.tokens
