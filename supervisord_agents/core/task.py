"""A task as the scheduler holds it, the edges between tasks, and the short history that explains its state.

Lean on purpose: a queued task with its specification is to stay under 1 KiB (see benchmarks/bench_scheduling.py). The
specification is kept packed, with only what scheduling reads unpacked beside it: as objects it alone takes 0.7 KiB, all of which
the garbage collector would walk through again and again. What most tasks share (empty tuples, the first history) is one object,
and an edge is one object known to both of its ends.
"""

from __future__ import annotations

import sys

import msgspec

from supervisord_agents.core.model import END_STATES, Failure, State, TaskSpec, Usage, When

HISTORY_LIMIT = 32
"""Moments kept a task: the first, and the newest. Ten attempts take about thirty."""

UNKNOWN_ESTIMATE_S = 1.0
ID = "[A-Za-z0-9_-]{1,64}"
"""A pattern: of a graph, and of a task within its graph."""
NO_USAGE = Usage()
_spec_encoder = msgspec.msgpack.Encoder()
_spec_decoder = msgspec.msgpack.Decoder(TaskSpec)


class Moment(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A task came into `state` at `at` (seconds, Unix epoch); `code` and `message` say why, where it was not success."""

    at: float
    state: State
    attempt: int = 0
    code: str = ""
    message: str = ""


class Edge(msgspec.Struct, eq=False, gc=False):
    """`after` waits for `before`, and runs if that ends as `when` says."""

    before: Task
    after: Task
    when: When


class Task(msgspec.Struct, eq=False, kw_only=True, gc=False):
    """A task. Only `TaskTable.move` changes its state."""

    id: str
    """`<graph>.<short id>`, unique for ever."""
    graph: str
    packed: bytes
    """The specification, see `spec`."""
    pool: str
    agent: str
    """That of the newest attempt while it runs, else the one to be tried first."""
    priority: int
    timeout_s: float
    """Of one attempt; 0: none."""
    estimate_s: float
    """Expected duration; a task of unknown duration counts as one second."""
    state: State = State.BLOCKED
    attempt: int = 0
    """The number of the newest attempt; it only grows, so that messages of older attempts are known by it."""
    retries: int = 0
    """Used of `spec.max_retries` since the submission, or since a person asked for another round."""
    lost: int = 0
    """Attempts lost with a daemon, counted like `retries`."""
    submitted_at: float = 0.0
    started_at: float = 0.0
    """Start of the newest attempt; 0: none yet."""
    ended_at: float = 0.0
    """0: not ended."""
    retry_at: float = 0.0
    """While backing off: when the task is ready again."""
    deadline_at: float = 0.0
    """0: none. Counted from the submission, anew when a person asks for another round."""
    worker: str = ""
    failure: Failure | None = None
    """Of the last attempt while the task goes on, else why it ended as it did."""
    usage: Usage = NO_USAGE
    """Over all attempts."""
    dependencies: tuple[Edge, ...] = ()
    dependents: list[Edge] | tuple[Edge, ...] = ()
    urgency: int = 0
    """The most urgent priority of this task and of all that wait for it, directly or not (priority inheritance)."""
    unmet: int = 0
    """While blocked: how many dependencies have not ended."""
    ended_by_dependency: bool = False
    """Another task's end, or cancellation, decided this one's; a retry of that other task revives this one."""
    rest_s: float = 0.0
    """Longest remaining path: the estimate of this task and of the longest chain of dependents behind it."""
    client: str = ""
    """The uid that submitted it, as text."""
    order: int = 0
    """Position in the order of submission over all graphs."""
    ready_entry: tuple[int, float, int, Task] | None = None
    """The one valid entry in the ready heap; every other is stale."""
    history: tuple[Moment, ...] = ()
    choices: tuple[str, ...] = ()
    """The agents that may run it, in order of preference, if there are several."""

    @property
    def ended(self) -> bool:
        """Whether the task is in an end state."""
        return self.state in END_STATES

    @property
    def dependency_ids(self) -> list[str]:
        """The full ids of what this task waits for, in the order of its specification."""
        return [edge.before.id for edge in self.dependencies]

    @property
    def dependent_ids(self) -> list[str]:
        """The full ids of what waits for this task, in order of submission; without what is archived."""
        return [edge.after.id for edge in self.dependents if edge.after.id]

    @property
    def spec(self) -> TaskSpec:
        """The specification, unpacked anew each time (about a microsecond): take it once where it is read often."""
        return _spec_decoder.decode(self.packed)

    @property
    def spec_of_attempt(self) -> TaskSpec:
        """The specification with the agent of the newest attempt in it."""
        spec = self.spec
        return msgspec.structs.replace(spec, agent=self.agent) if self.choices else spec

    @property
    def short_id(self) -> str:
        """The id within the graph."""
        return self.id[len(self.graph) + 1 :]

    def remember(self, moment: Moment) -> None:
        """Add to the history; past the limit the second-oldest goes, so that the submission stays."""
        kept = self.history
        if len(kept) >= HISTORY_LIMIT:
            kept = (kept[0], *kept[len(kept) - HISTORY_LIMIT + 2 :])
        self.history = (*kept, moment)


def new_task(graph: str, spec: TaskSpec, order: int, submitted_at: float, client: str) -> Task:
    """A task without edges, blocked."""
    estimate_s = spec.estimate_s or UNKNOWN_ESTIMATE_S
    return Task(
        id=full_id(graph, spec.id),
        graph=graph,
        packed=_spec_encoder.encode(spec),
        pool=sys.intern(spec.pool),
        agent=sys.intern(spec.agent),
        choices=choices_of(spec),
        priority=spec.priority,
        timeout_s=spec.timeout_s,
        estimate_s=estimate_s,
        rest_s=estimate_s,
        urgency=spec.priority,
        client=sys.intern(client),
        order=order,
        submitted_at=submitted_at,
    )


def choices_of(spec: TaskSpec) -> tuple[str, ...]:
    """The field of that name."""
    return tuple(map(sys.intern, spec.agents)) if len(spec.agents) > 1 else ()


def full_id(graph: str, short: str) -> str:
    """The full id of a task."""
    return f"{graph}.{short}"


def graph_of(id: str) -> str:
    """The graph of a full id."""
    return id.partition(".")[0]


def link(before: Task, after: Task, when: When) -> Edge:
    """Make `after` wait for `before`; the caller puts the edge into `after.dependencies`."""
    edge = Edge(before, after, when)
    if isinstance(before.dependents, list):
        before.dependents.append(edge)
    else:
        before.dependents = [edge]
    return edge
