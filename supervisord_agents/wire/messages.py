"""The client protocol: requests, replies and stream items; methods.py has the one table that pairs them.

A frame (see framing.py) from a client is a `Call`, one from the daemon is an `Answer`. Calls may be pipelined; answers carry the
call's id and may come in any order. The first call on a connection is `hello`. A `subscribe` is answered by a stream: any number
of answers with `item` set, then one with `more` False.
"""

from __future__ import annotations

from typing import Any

import msgspec

from supervisord_agents.core.model import END_STATES, Budget, Failure, Result, State, TaskSpec, Usage
from supervisord_agents.wire.framing import DEFAULT_MAX_FRAME_BYTES
from supervisord_agents.wire.tracker import TrackerView

PROTOCOL_VERSION = 2


class Request(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True, tag_field="type"):
    """A call's body; its tag is the method's name."""


class Reply(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The body of a successful answer."""


class ErrorReply(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A refused call: see SupervisorError for the fields."""

    code: str
    message: str
    field: str = ""
    kept: str = ""
    hint: str = ""


class Hello(Request, tag="hello", frozen=True):
    """Version handshake; `client` names the program, for the log."""

    version: int
    """Without a default, since those are left out on the wire: it must always be told."""
    client: str = ""


class HelloReply(Reply, frozen=True):
    version: int
    daemon: str
    """Version of the daemon."""
    pid: int
    epoch: str
    """Changes with every start of the daemon."""
    max_frame_bytes: int = DEFAULT_MAX_FRAME_BYTES
    """What this daemon takes and sends."""


class Submit(Request, tag="submit", frozen=True):
    """Submit one graph, all or nothing. Acknowledged when it is on disk."""

    tasks: list[TaskSpec]
    key: str = ""
    """Idempotency: a key seen before returns the first graph, whatever `tasks` says."""
    budget: Budget = Budget()
    """Of all tasks together; what is 0 is as configured."""


class SubmitReply(Reply, frozen=True):
    graph: str
    tasks: list[str]
    """Full ids, in the order of the request."""
    duplicate: bool = False


class TaskView(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A task as clients see it. Times are Unix seconds; 0: not yet."""

    id: str
    graph: str
    agent: str
    type: str
    state: State
    priority: int
    attempt: int
    max_retries: int
    submitted_at: float
    started_at: float = 0.0
    """Of the current or last attempt."""
    ended_at: float = 0.0
    retry_at: float = 0.0
    worker: str = ""
    pool: str = ""
    parent: str = ""
    """The task that submitted this one; empty: a client did."""
    waits_for: list[str] = []
    """Full ids of the first dependencies, or children, that have not ended; all of a dense graph would fill many frames."""
    waits_for_count: int = 0
    """Of all that have not ended."""
    failure: Failure | None = None
    usage: Usage = Usage()
    progress: float = -1.0
    """0 to 1; -1: the worker has not said."""
    progress_message: str = ""
    progress_at: float = 0.0
    """When the running attempt last made progress: output, a report, tokens, a step."""

    @property
    def ended(self) -> bool:
        return self.state in END_STATES


class ListTasks(Request, tag="list", frozen=True):
    """A page of tasks, newest first."""

    states: list[State] = []
    graph: str = ""
    limit: int = 100
    after: str = ""
    """The `next` of the page before."""


class ListReply(Reply, frozen=True):
    tasks: list[TaskView]
    total: int
    """Of all that match, on every page."""
    next: str = ""


class Show(Request, tag="show", frozen=True):
    """One task, whole. An unambiguous prefix of an id will do, here and wherever a task is named."""

    task: str


class StepView(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A step of a task that has not succeeded."""

    name: str
    attempt: int
    """That finished it, else the last that began it."""
    begun_at: float
    done_at: float = 0.0
    """0: it was begun, and may have happened."""
    result_bytes: int = 0


class BudgetView(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a graph may use and has used."""

    graph: str
    """Which holds it."""
    budget: Budget
    attempts: int = 0
    """Started."""
    usage: Usage = Usage()
    """Of running attempts too, so far."""
    until: float = 0.0
    """When its time is over, in Unix seconds; 0.0: never."""
    used_up: str = ""
    """What is used up, in words."""

    def in_words(self, now: float) -> str:
        """What is used of what there is, at that time, and what is used up."""
        most, usage = self.budget, self.usage
        passed_s = min(max(0.0, most.wall_s - (self.until - now)), most.wall_s)
        parts = {
            f"{self.attempts:,} of {most.attempts:,} attempts": most.attempts,
            f"{usage.tokens:,} of {most.tokens:,} tokens": most.tokens,
            f"${usage.cost_usd:.4f} of ${most.cost_usd:g}": most.cost_usd,
            f"{passed_s:.0f} of {most.wall_s:g} s": most.wall_s,
        }
        used = ", ".join(text for text, bound in parts.items() if bound)
        return f"{used}; used up: {self.used_up}" if self.used_up else used


class ShowReply(Reply, frozen=True):
    task: TaskView
    spec: TaskSpec
    dependencies: dict[str, State]
    dependents: list[str]
    history: list[dict[str, Any]]
    """What happened: `{at, state, attempt, code, message}`, oldest first."""
    result_path: str
    log_path: str
    undoes: str = ""
    """The task that this one undoes."""
    undone_by: str = ""
    """The graph that undoes what had succeeded of this task's graph."""
    budget: BudgetView | None = None
    """That of its graph, if it has one."""
    steps: list[StepView] = []
    """In the order in which they were first begun."""
    children: list[str] = []
    """Full ids of the tasks that this one has submitted while it ran, over all its rounds."""


class Wait(Request, tag="wait", frozen=True):
    """Block until any or all of `tasks` have ended, or `timeout_s` is over. A graph id stands for all its tasks."""

    tasks: list[str]
    mode: str = "all"
    """`all` or `any`."""
    timeout_s: float = 60.0


class WaitReply(Reply, frozen=True):
    done: bool
    """The condition was met (False: the time was over)."""
    tasks: list[TaskView]


class GetResult(Request, tag="result", frozen=True):
    task: str


class ResultReply(Reply, frozen=True):
    result: Result
    path: str


class Cancel(Request, tag="cancel", frozen=True):
    """Cancel a task (with all that depend on it, unless `subtree` is False), or a whole graph."""

    task: str
    subtree: bool = True
    reason: str = ""


class CancelReply(Reply, frozen=True):
    cancelled: list[str]
    """Those that this call ended, the first 10,000 of very many; empty: all had ended before."""
    count: int = 0
    """How many this call ended."""


class Retry(Request, tag="retry", frozen=True):
    """Run a failed, cancelled or dead task again, and what failed or was cancelled only because of it."""

    task: str
    fresh: bool = False
    """Forget its finished steps."""


class RetryReply(Reply, frozen=True):
    tasks: list[str]
    """Those that run again, the first 10,000 of very many."""
    count: int = 0
    """How many run again."""


class PauseView(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Nothing is started of this pool, of this agent, or of this agent in this pool; empty: any."""

    pool: str = ""
    agent: str = ""
    at: float
    """Unix seconds."""
    client: str = ""
    """The uid that asked, as text."""
    reason: str = ""


class StandstillView(msgspec.Struct, frozen=True, kw_only=True):
    """Nothing runs, nothing waits for time, and tasks are open."""

    since: float
    """Unix seconds."""
    tasks: int
    """Open ones."""
    reasons: list[str]
    """Sentences: what holds them."""


class Pause(Request, tag="pause", frozen=True):
    """Start nothing more of a pool, of an agent, or of an agent in a pool (empty: any) until it is resumed.

    It outlives the daemon. What runs goes on, unless `stop` ends it: then it is ready again, and has used no retry.
    """

    pool: str = ""
    agent: str = ""
    stop: bool = False
    reason: str = ""


class PauseReply(Reply, frozen=True):
    paused: list[PauseView]
    """All that is paused now."""
    stopped: list[str]
    """Tasks whose attempts this call ended."""
    running: int
    """Of what this call paused, how much still runs."""


class Unpause(Request, tag="resume", frozen=True):
    """Let go of what a pause of exactly this pool and agent holds, or of all."""

    pool: str = ""
    agent: str = ""
    everything: bool = False


class UnpauseReply(Reply, frozen=True):
    paused: list[PauseView]
    """What is paused still."""


class Why(Request, tag="why", frozen=True):
    """Why a task is where it is: what it waits for, what it was tried for again, why it ended so."""

    task: str


class WhyReply(Reply, frozen=True):
    task: TaskView
    reasons: list[str]
    """Sentences, the nearest reason first."""


class GetLogs(Request, tag="logs", frozen=True):
    """A piece of a task's log, from byte `offset`."""

    task: str
    offset: int = 0
    limit_bytes: int = 262_144


class LogsReply(Reply, frozen=True):
    data: bytes
    offset: int
    """Where the next piece begins."""
    ended: bool
    """The task has ended and `data` reaches the end of the log."""


class Status(Request, tag="status", frozen=True):
    """The daemon's state in numbers."""


class PoolView(msgspec.Struct, frozen=True, kw_only=True):
    name: str
    min_workers: int
    max_workers: int
    busy: int
    idle: int
    waiting: int
    """Ready tasks of this pool."""
    size: int = 0
    """How many tasks it runs at once at present; it grows to `max_workers` as they wait."""


class Recovery(msgspec.Struct, frozen=True, kw_only=True):
    """What the last start found."""

    at: float
    clean: bool
    """The daemon before had stopped in order."""
    records: int
    tasks: int
    requeued: int
    """Attempts that were running and are run again."""
    adopted: int
    """Attempts that had finished unseen: their results were kept."""
    torn_bytes: int
    """Cut from the tail of the journal; never acknowledged."""
    seconds: float
    resumed: int = 0
    """Attempts that went on meanwhile: their workers outlived the daemon before."""


class StatusReply(Reply, frozen=True):
    version: str
    pid: int
    epoch: str
    started_at: float
    state_dir: str
    counts: dict[str, int]
    """Tasks by state."""
    pools: list[PoolView]
    recovery: Recovery
    journal_bytes: int
    journal_sequence: int
    disk_free_bytes: int
    accepting: bool
    """False: new submits are refused; `notes` says why."""
    cpu_seconds: float
    rss_bytes: int
    enforcement: dict[str, str]
    """Each layer of the sandbox: `on`, or why not."""
    usage: Usage
    notes: list[str] = []
    archived: int = 0
    """Tasks that have ended and left memory; `list` has them too, `counts` has not."""
    stalls: int = 0
    """How often the daemon's loop was held up for longer than `daemon.stall_s`; the log names what held it up."""
    longest_pause_s: float = 0.0
    """The longest that the loop was late by, since the start."""
    paused: list[PauseView] = []
    letters: int = 0
    """Dead letters: tasks that wait for a person's decision."""
    standstill: StandstillView | None = None
    tracker: TrackerView | None = None
    """None: the tracker has no model."""


class Subscribe(Request, tag="subscribe", frozen=True):
    """Stream what happens. `after` is the `token` of the last item seen; empty: from now on."""

    after: str = ""
    graph: str = ""
    """Only this graph, or this task."""
    logs: bool = False
    """Also worker output."""


class Violation(msgspec.Struct, frozen=True, omit_defaults=True):
    """A call of a worker's program that its sandbox did not let come far."""

    syscall: str
    path: str = ""
    pid: int = 0
    program: str = ""
    decision: str = ""


class Item(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One item of a stream.

    `kind`: `state`, `progress`, `log`, `violation`, `gap` (older items are gone: list again), `lagged` (this reader was too slow:
    subscribe again after `token`).
    """

    kind: str
    token: str
    at: float
    task: str = ""
    state: State | None = None
    attempt: int = 0
    failure: Failure | None = None
    progress: float = -1.0
    message: str = ""
    data: bytes = b""
    violation: Violation | None = None
