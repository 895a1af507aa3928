"""What a task is: its specification, its states, and the one table that says which state may follow which.

Pure data. Times are seconds on the supervisor's clock (Unix epoch, never running backwards); durations end in `_s`.

    blocked ──► ready ──► running ──► succeeded
       │  ▲        │  ▲      ├──────► failed ◄── blocked (a dependency failed)
       │  │        │  │      ├──────► blocked    (the attempt waits for children of the task)
       │  └────────┼──┼──────┼──────► dead       (attempts used up: it needs a person)
       │           │  └── backing_off ◄── running (a retry is due later)
       └───────────┴─────────┴──────► cancelled  (from every state that is not an end)

`retry` by a person leads from an end state other than `succeeded` back to `blocked`.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Any

import msgspec

HIGHEST_PRIORITY = 0
LOWEST_PRIORITY = 9
DEFAULT_PRIORITY = 5
MAX_TOKENS = 2**48
MAX_COST_USD = 1e9


class State(StrEnum):
    """The state of a task."""

    __hash__ = str.__hash__  # That of Enum is a Python function: every look into a table would call it.

    BLOCKED = "blocked"
    READY = "ready"
    RUNNING = "running"
    BACKING_OFF = "backing_off"
    PAUSED = "paused"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"
    DEAD = "dead"


END_STATES = frozenset({State.SUCCEEDED, State.FAILED, State.CANCELLED, State.DEAD})
OPEN_STATES = tuple(state for state in State if state not in END_STATES)

TRANSITIONS: dict[State, frozenset[State]] = {
    State.BLOCKED: frozenset({State.READY, State.PAUSED, State.FAILED, State.CANCELLED}),
    State.READY: frozenset({State.RUNNING, State.PAUSED, State.FAILED, State.CANCELLED}),
    State.RUNNING: frozenset(
        {State.SUCCEEDED, State.FAILED, State.CANCELLED, State.DEAD, State.BACKING_OFF, State.READY, State.BLOCKED}
    ),
    State.BACKING_OFF: frozenset({State.READY, State.PAUSED, State.FAILED, State.CANCELLED}),
    State.PAUSED: frozenset({State.BLOCKED, State.READY, State.FAILED, State.CANCELLED}),
    State.SUCCEEDED: frozenset(),
    State.FAILED: frozenset({State.BLOCKED}),
    State.CANCELLED: frozenset({State.BLOCKED}),
    State.DEAD: frozenset({State.BLOCKED}),
}


class When(StrEnum):
    """What the end of a dependency must be for its dependent to run."""

    __hash__ = str.__hash__

    ON_SUCCESS = "on_success"
    ON_FAILURE = "on_failure"
    ALWAYS = "always"


class Dependency(msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """An edge: this task waits for `task`, and runs if that ends as `when` says."""

    task: str
    when: When = When.ON_SUCCESS


class WorkspaceMode(StrEnum):
    """How an attempt sees its workspace."""

    __hash__ = str.__hash__

    DIR = "dir"
    """The directory itself."""
    COPY = "copy"
    """A private copy."""
    OVERLAY = "overlay"
    """A copy-on-write view."""
    GIT_WORKTREE = "git-worktree"
    """A checkout of its last commit, on a branch of its own."""


class Limits(msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """Resource limits of one attempt; 0 means the profile's own limit."""

    memory_bytes: int = 0
    pids: int = 0
    cpu_percent: int = 0
    """Of one core: 150 is one and a half."""


class Compensation(msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True, kw_only=True):
    """What undoes a task that has succeeded, if its graph fails; fields that are not described are those of TaskSpec.

    It is run as a task of its own, which is given the output of the task that it undoes.
    """

    agent: str = "command"
    type: str = ""
    input: dict[str, Any] = {}
    timeout_s: float = 0.0
    max_retries: int = 3
    backoff_s: float = 0.0
    workspace: str = ""
    """Empty: that of the task, in its mode too unless one is named."""
    workspace_mode: WorkspaceMode | None = None
    pool: str = ""
    profile: str = ""
    """Empty: that of the task."""
    limits: Limits = Limits()
    """None named: those of the task."""


class TaskSpec(msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True, kw_only=True):
    """What a client asks for. A task's full id is `<graph id>.<id>`.

    `dependencies` name tasks of the same graph by their short id, or any earlier task by its full id.
    """

    id: str = ""
    """Short id, unique in its graph: letters, digits, `_` and `-`, at most 64. Empty: `t1`, `t2`, … by position."""
    agent: str = "command"
    agents: tuple[str, ...] = ()
    """Several, in order of preference: the first runs it that may start something; `agent` is the first of them."""
    type: str = ""
    """A free label that per-type policies go by, such as `code_review`."""
    input: dict[str, Any] = {}
    """What the agent needs: `argv` for command, `function` and `args` for python, `prompt` for the CLIs."""
    dependencies: tuple[Dependency | str, ...] = ()
    priority: int = DEFAULT_PRIORITY
    timeout_s: float = 0.0
    """Of one attempt; 0: the configured default of the type."""
    deadline_s: float = 0.0
    """Over all attempts, from submission; 0: none."""
    max_retries: int = 3
    backoff_s: float = 0.0
    """Before the first retry, doubled for each further one, give or take a quarter; 0: the configured default."""
    workspace: str = ""
    """An absolute directory that the worker may write; empty: a private empty one."""
    workspace_mode: WorkspaceMode | None = None
    """How the worker sees it; None: as configured, and once accepted, the directory itself. What is changed in another view is
    kept, to be applied or discarded."""
    pool: str = ""
    """Empty: the agent's own."""
    profile: str = ""
    """What its sandbox grants; empty: the agent's own."""
    limits: Limits = Limits()
    estimate_s: float = 0.0
    """Expected duration, for the critical path; 0: unknown, counted as 1."""
    compensate: Compensation | None = None
    """What undoes it, if its graph fails."""


class Budget(msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True, kw_only=True):
    """What all tasks of a graph together may use; 0: without bound."""

    attempts: int = 0
    tokens: int = 0
    """Input and output together."""
    cost_usd: float = 0.0
    wall_s: float = 0.0
    """From the submission."""


class Category(StrEnum):
    """What kind of failure it is, whatever its code: what follows is decided by this (core.policy)."""

    __hash__ = str.__hash__

    TRANSIENT = "transient"
    """The same again may succeed."""
    RATE_LIMITED = "rate_limited"
    """The same again later may succeed: a provider said so."""
    PERMANENT = "permanent"
    """The same again would fail again."""
    RESOURCE = "resource"
    """Memory or disk was not enough."""
    SANDBOX = "sandbox"
    """The sandbox did not grant, or could not give, what was needed."""
    CANCELLED = "cancelled"


class Failure(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
    """Why an attempt, or a task, did not succeed."""

    code: str
    message: str = ""
    hint: str = ""
    retriable: bool = True
    category: Category | None = None
    """As the adapter sees it; None: what the code says (core.policy.category_of)."""
    retry_after_s: float = 0.0
    """No retry before this; 0: when the backoff is over."""

    @property
    def text(self) -> str:
        """Code and message."""
        return f"{self.code}: {self.message}" if self.message else self.code


class Usage(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
    """What an attempt consumed at model providers. The bounds keep what a worker claims within what can be added and stored."""

    input_tokens: Annotated[int, msgspec.Meta(ge=0, le=MAX_TOKENS)] = 0
    output_tokens: Annotated[int, msgspec.Meta(ge=0, le=MAX_TOKENS)] = 0
    cost_usd: Annotated[float, msgspec.Meta(ge=0, le=MAX_COST_USD)] = 0.0

    def __add__(self, other: Usage) -> Usage:
        return Usage(
            min(self.input_tokens + other.input_tokens, MAX_TOKENS),
            min(self.output_tokens + other.output_tokens, MAX_TOKENS),
            min(self.cost_usd + other.cost_usd, MAX_COST_USD),
        )

    @property
    def tokens(self) -> int:
        """Input and output together."""
        return self.input_tokens + self.output_tokens


class Past(msgspec.Struct, frozen=True, array_like=True):
    """What is left of a task that is archived, for those that depend on it."""

    task: str
    state: State
    code: str = ""
    """Of its failure."""


class Result(msgspec.Struct, frozen=True, kw_only=True):
    """The outcome of a task as clients read it, and as it lies in `results/task_<id>.json` (research, section 3)."""

    task_id: str
    worker_id: str = ""
    status: str = ""
    """The end state of the task, or of the attempt while the task goes on: succeeded, failed, cancelled, dead."""
    attempt: int = 0
    started_at: str = ""
    """ISO 8601, UTC."""
    completed_at: str = ""
    output: Any = None
    error: Failure | None = None
    tokens_used: int = 0
    """Over all attempts of the task, as is `cost_usd`."""
    cost_usd: float = 0.0
    truncated: bool = False
    """True if `output` was cut at the configured size."""
    partial: bool = False
    """True if `output` is what was there of it when the attempt was stopped."""
