"""Tasks that work in a view of a workspace."""

from __future__ import annotations

from pathlib import Path

from supervisord_agents.core.model import State, TaskSpec, WorkspaceMode
from supervisord_agents.rpc.client import Client


def shell(workspace: Path, script: str, mode: WorkspaceMode, **fields: object) -> TaskSpec:
    spec = {"workspace": str(workspace), "workspace_mode": mode, "max_retries": 0, **fields}
    return TaskSpec(input={"argv": ["sh", "-ec", script]}, **spec)  # type: ignore[arg-type]


async def ended(client: Client, spec: TaskSpec, state: State = State.SUCCEEDED) -> str:
    """The id of a task that has ended so."""
    task = (await client.submit([spec])).tasks[0]
    waited = await client.wait([task], timeout_s=60)
    assert waited.done
    assert waited.tasks[0].state is state, (await client.result(task)).result
    return task
