"""A child is given nothing that its parent was not."""

from __future__ import annotations

from typing import Any

import pytest

from supervisord_agents.config import Agent, Config, Sandbox
from supervisord_agents.core.model import Compensation, Limits, TaskSpec, WorkspaceMode
from supervisord_agents.daemon.heritage import Heritage
from supervisord_agents.errors import InvalidInput

CONFIG = Config(
    agents={
        "wide": Agent(hosts=("example.org",), environment={"TOKEN": "t"}),
        "open": Agent(profile="open"),
        "mine": Agent(profile="mine"),
    },
    sandbox=Sandbox(task_profiles=("strict", "agent", "open")),
    profiles={"mine": {"extends": "agent", "memory_bytes": 1 << 30, "pids": 64}},
)
PARENT = TaskSpec(workspace="/w", agent="python")


def child(parent: TaskSpec = PARENT, **fields: Any) -> TaskSpec:
    """As it is kept; completion itself changes nothing here."""
    heritage = Heritage(CONFIG)
    return heritage.kept(heritage.asked(TaskSpec(**fields), parent, "tasks[0]"), parent, "tasks[0]")


@pytest.mark.parametrize(
    ("parent", "fields", "field"),
    [
        (PARENT, {"workspace": "/w/inside"}, "workspace"),
        (PARENT, {"workspace": "/other"}, "workspace"),
        (TaskSpec(), {"workspace": "/w"}, "workspace"),
        (TaskSpec(), {"profile": "open"}, "profile"),
        (TaskSpec(), {"agent": "open"}, "profile"),
        (TaskSpec(profile="strict"), {"profile": "agent"}, "profile"),
        (TaskSpec(agent="mine"), {"profile": "strict"}, "profile"),
        (TaskSpec(), {"agent": "wide"}, "agent"),
        (TaskSpec(), {"agent": "command", "agents": ("command", "wide")}, "agent"),
        (TaskSpec(), {"agent": "command", "agents": ("command", "open")}, "profile"),
        (TaskSpec(limits=Limits(pids=10)), {"limits": Limits(pids=11)}, "limits.pids"),
        (TaskSpec(agent="mine"), {"agent": "mine", "limits": Limits(memory_bytes=1 << 31)}, "limits.memory_bytes"),
        (PARENT, {"compensate": Compensation(workspace="/other")}, "compensate.workspace"),
        (TaskSpec(), {"compensate": Compensation(agent="wide")}, "compensate.agent"),
    ],
)
def test_what_is_more_than_the_parent_has_is_refused_and_named(parent: TaskSpec, fields: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        child(parent, **fields)
    assert caught.value.field == f"tasks[0].{field}"


@pytest.mark.parametrize(
    ("parent", "fields"),
    [
        (PARENT, {"workspace": "/w"}),
        (PARENT, {}),
        (TaskSpec(profile="open"), {"profile": "open"}),
        (TaskSpec(), {"profile": "strict"}),
        (TaskSpec(agent="wide"), {"agent": "wide"}),
        (TaskSpec(agent="wide"), {"agent": "python"}),
    ],
)
def test_as_much_or_less_is_taken(parent: TaskSpec, fields: dict[str, Any]) -> None:
    assert child(parent, **fields) == TaskSpec(**fields)


def test_limits_and_views_are_handed_on() -> None:
    assert child(TaskSpec(limits=Limits(pids=10))).limits == Limits(pids=10)
    view = TaskSpec(workspace="/w", workspace_mode=WorkspaceMode.OVERLAY)
    assert child(view, workspace="/w").workspace_mode is WorkspaceMode.OVERLAY
    with pytest.raises(InvalidInput, match="may not change the directory itself"):
        Heritage(CONFIG).kept(TaskSpec(workspace="/w"), view, "tasks[0]")
