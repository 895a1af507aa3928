"""From the tasks that the primary agent writes to the specifications that the supervisor takes."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from supervisord_agents.core.model import Budget, TaskSpec, WorkspaceMode
from supervisord_agents.errors import InvalidInput, NotFound, SupervisorError
from supervisord_agents.mcp_bridge.shapes import Limits, Task

PRIVATE = ("", "none")
"""What `workspace` says for a private empty directory."""
UNKNOWN_HINT = "Use an id that `delegate` returned; `status` shows what runs."
UNFINISHED_HINT = "Call wait with its id first."
_AGENT_OF = {"argv": "command", "function": "python"}
_OWN_FIELDS = ("prompt", "argv", "function")
_FIELD = re.compile(r"(\w*)(.*)", re.DOTALL)


def specs_of(tasks: list[Task], project: Path | None) -> list[TaskSpec]:
    """The specifications of one call.

    `project` is the directory that `workspace` starts from; None if the bridge does not run in one, in which case the default
    workspace is private. Raises InvalidInput naming the field, such as `tasks[1].workspace`.
    """
    specs = []
    for position, task in enumerate(tasks):
        try:
            specs.append(_spec_of(task, project))
        except InvalidInput as error:
            error.field = f"tasks[{position}].{error.field}"
            raise
    return specs


def budget_of(limits: Limits | None) -> Budget:
    """The budget of one call."""
    if limits is None:
        return Budget()
    return Budget(attempts=limits.attempts, tokens=limits.tokens, cost_usd=limits.usd, wall_s=limits.seconds)


def project_of(directory: Path, home: Path) -> Path | None:
    """The directory as a project, or None for one that no worker should be given: a home directory, or one above it."""
    return None if home.is_relative_to(directory) else directory


def in_tool_words(error: SupervisorError, names: dict[str, str]) -> str:
    """What the agent is told; fields are called as the tool calls them, `names` gives its words for fields of the request."""
    head, rest = _FIELD.fullmatch(error.field).groups()  # type: ignore[union-attr]  # it matches everything
    field = names.get(head, head) + rest
    field = field.replace("task[0]", "task", 1)  # the one task of `estimate`
    field = re.sub(r"^(tasks\[\d+\])\.dependencies\b", r"\1.depends_on", field)
    field = re.sub(rf"^(tasks\[\d+\]|task)\.input\.({'|'.join(_OWN_FIELDS)})\b", r"\1.\2", field)
    hint = error.hint
    if isinstance(error, NotFound):
        hint = UNFINISHED_HINT if "agentctl wait" in error.hint else UNKNOWN_HINT
    return str(SupervisorError(error.message, field=field, kept=error.kept, hint=hint))


def _spec_of(task: Task, project: Path | None) -> TaskSpec:
    return TaskSpec(
        id=task.id,
        agent=task.agent or (task.agents[0] if task.agents else _agent_of(task)),
        agents=tuple(task.agents),
        type=task.type,
        input=_input_of(task),
        dependencies=tuple(task.depends_on),
        priority=task.priority,
        workspace=_workspace_of(task, project),
        workspace_mode=WorkspaceMode(task.workspace_mode) if task.workspace_mode else None,
        profile=task.profile,
        timeout_s=task.timeout_s,
        max_retries=task.max_retries,
    )


def _agent_of(task: Task) -> str:
    found = [agent for field, agent in _AGENT_OF.items() if getattr(task, field)]
    if len(found) != 1:
        raise InvalidInput("is missing.", field="agent", hint="Name the agent that should do this task, such as qwen or command.")
    return found[0]


def _input_of(task: Task) -> dict[str, Any]:
    given = {field: value for field in _OWN_FIELDS if (value := getattr(task, field))}
    twice = given.keys() & task.input.keys()
    if twice:
        field = min(twice)
        raise InvalidInput(f"`{field}` is given twice.", field=f"input.{field}", hint=f"Keep only the task's own `{field}`.")
    return {**task.input, **given}


def _workspace_of(task: Task, project: Path | None) -> str:
    if task.workspace in PRIVATE:
        return ""
    if project is None:
        if task.workspace == ".":
            return ""
        if not Path(task.workspace).is_absolute():
            raise InvalidInput("must be an absolute path here.", field="workspace", hint="This bridge does not run in a project.")
        return task.workspace
    return str(project / task.workspace)
