"""What the tools take and give, as pydantic models: their JSON schemas are what the primary agent sees, so they are short.

Times are seconds. Answers leave out what is empty.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from supervisord_agents.core.model import DEFAULT_PRIORITY, HIGHEST_PRIORITY, LOWEST_PRIORITY

MAX_WAIT_S = 600.0
DEFAULT_WAIT_S = 50.0
"""Several clients give up on a call after 60 s."""

Mode = Literal["all", "any"]
Action = Literal["show", "apply", "discard"]
WaitSeconds = Annotated[float, Field(ge=0, le=MAX_WAIT_S)]


class Work(BaseModel):
    """What is to be done, and by whom."""

    model_config = ConfigDict(extra="forbid")

    agent: Annotated[str, Field(description="qwen, gemini, opencode (need prompt), command (argv), python (function)")] = ""
    type: Annotated[str, Field(description="Label of tasks that are alike, such as code_review")] = ""
    prompt: str = ""
    argv: list[str] = []
    function: Annotated[str, Field(description="module:name, importable in the workspace")] = ""
    input: Annotated[dict[str, Any], Field(description="More agent input: args, kwargs, stdin, env, model")] = {}


class Task(Work):
    """A task as the primary agent writes it; `specs.py` makes a TaskSpec of it."""

    id: Annotated[str, Field(description="Short name, unique in this call")] = ""
    agents: Annotated[list[str], Field(description="Instead of agent: several, by preference")] = []
    depends_on: Annotated[list[str], Field(description="Ids that must succeed first; their outputs are given to this task")] = []
    priority: Annotated[int, Field(ge=HIGHEST_PRIORITY, le=LOWEST_PRIORITY, description="0 runs first")] = DEFAULT_PRIORITY
    workspace: Annotated[
        str, Field(description="What the worker may change; default: the project; 'none': private and empty")
    ] = "."
    workspace_mode: Annotated[
        Literal["", "dir", "copy", "overlay", "git-worktree"],
        Field(description="dir: changed in place; others: kept for `changes`; default: as configured"),
    ] = ""
    profile: Annotated[str, Field(description="Sandbox profile; default: the agent's")] = ""
    timeout_s: Annotated[float, Field(ge=0, description="Of one attempt; 0: default")] = 0.0
    max_retries: Annotated[int, Field(ge=0)] = 3


class Limits(BaseModel):
    """What all tasks of a call may use together; 0: as configured."""

    model_config = ConfigDict(extra="forbid")

    attempts: Annotated[int, Field(ge=0)] = 0
    tokens: Annotated[int, Field(ge=0)] = 0
    usd: Annotated[float, Field(ge=0)] = 0.0
    seconds: Annotated[float, Field(ge=0)] = 0.0


class Delegated(BaseModel):
    graph: str
    tasks: list[str]
    note: str = ""


class TaskLine(BaseModel):
    """One task in an answer about several."""

    id: str
    state: str
    agent: str
    seconds: float = 0.0
    attempt: int = 0
    waits_for: str = ""
    progress: str = ""
    error: str = ""
    output: Any = None
    output_cut: bool = False


class Waited(BaseModel):
    done: bool
    note: str = ""
    counts: dict[str, int]
    tasks: list[TaskLine]


class StatusNow(BaseModel):
    story: str = ""
    """With a question: the answer to it."""
    cites: list[str] = []
    """Ids that the answer rests on."""
    counts: dict[str, int]
    blocked_on: list[str] = []
    next: list[str] = []
    running: list[TaskLine] = []
    failed: list[TaskLine] = []
    notes: list[str] = []


class TaskResult(BaseModel):
    id: str
    state: str
    note: str
    output: Any = None
    error: str = ""
    seconds: float = 0.0
    attempt: int = 0
    tokens: int = 0
    cost_usd: float = 0.0
    path: str
    """The file that holds the whole result."""


class Changed(BaseModel):
    id: str
    state: str
    """`kept`, `applied`, `discarded`."""
    count: int
    changes: list[str] = []
    """Such as `modified src/a.py`."""
    conflicts: list[str] = []
    diff: str = ""
    note: str = ""


class Estimated(BaseModel):
    """What is not known is left out."""

    advice: str
    reason: str
    seconds: float = 0.0
    low_s: float = 0.0
    high_s: float = 0.0
    method: str
    error: float = 0.0
    observations: int = 0
    overhead_s: float = 0.0
    copy_s: float = 0.0
    idle: int = 0
    before: int = 0
    wait_s: float = 0.0


class Cancelled(BaseModel):
    cancelled: int
    tasks: list[str] = []
    note: str = ""
