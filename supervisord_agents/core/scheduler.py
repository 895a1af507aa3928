"""The scheduler: events in, decisions out.

`check` refuses what must not be journalled; the shell then journals the event and gives it to `handle`, which alone changes the
state. Replaying the journal through `handle` therefore gives the same state, and the same decisions, every time. The clock is the
caller's `now` (seconds, Unix epoch, never running backwards).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any

from supervisord_agents.core import admission, attempts, children, closing, compensations, dependents
from supervisord_agents.core.archive import archived, candidates
from supervisord_agents.core.backlog import Work
from supervisord_agents.core.budgets import Budgets
from supervisord_agents.core.cancel import cancelled
from supervisord_agents.core.checkpoints import Step
from supervisord_agents.core.descent import Limits, check_limits
from supervisord_agents.core.durations import Durations
from supervisord_agents.core.events import (
    Advanced,
    AnyEvent,
    Archived,
    BreakerReset,
    BudgetSpent,
    CancelRequested,
    Checkpointed,
    Decision,
    Dropped,
    Finished,
    Paced,
    PauseRequested,
    Restarted,
    ResumeRequested,
    RetryRequested,
    Slept,
    Start,
    Started,
    Submitted,
    Ticked,
    Used,
    Yielded,
)
from supervisord_agents.core.families import Families
from supervisord_agents.core.graph import edge_of
from supervisord_agents.core.graphs import Graph
from supervisord_agents.core.letters import dropped
from supervisord_agents.core.model import OPEN_STATES, State, TaskSpec
from supervisord_agents.core.pauses import Pauses
from supervisord_agents.core.placement import Placement
from supervisord_agents.core.revive import revived
from supervisord_agents.core.saga import Sagas
from supervisord_agents.core.snapshot import Still, decode_table, encode_table
from supervisord_agents.core.submit import submitted
from supervisord_agents.core.table import TaskTable
from supervisord_agents.core.task import Moment, Task, new_task


def _paced(table: TaskTable, event: Paced, now: float) -> None:
    table.step = event.step


def _breaker_reset(table: TaskTable, event: BreakerReset, now: float) -> None:
    table.health.pop(event.agent, None)


HANDLERS: dict[type[Any], Callable[[TaskTable, Any, float], None]] = {
    Submitted: submitted,
    Started: attempts.started,
    Finished: attempts.finished,
    Yielded: children.yielded,
    Checkpointed: attempts.checkpointed,
    Used: attempts.used,
    BudgetSpent: attempts.budget_spent,
    Ticked: attempts.ticked,
    Slept: attempts.slept,
    Restarted: attempts.restarted,
    PauseRequested: attempts.paused,
    ResumeRequested: attempts.resumed,
    BreakerReset: _breaker_reset,
    CancelRequested: cancelled,
    RetryRequested: revived,
    Dropped: dropped,
    Archived: archived,
    Paced: _paced,
    Advanced: dependents.advanced,
}
"""What each event does to the table."""

CHECKS: dict[type[Any], Callable[[TaskTable, Any, float], None]] = {
    CancelRequested: admission.check_cancel,
    RetryRequested: admission.check_retry,
    PauseRequested: admission.check_pause,
    ResumeRequested: admission.check_resume,
    BreakerReset: admission.check_reset,
    Dropped: admission.check_drop,
    Checkpointed: lambda table, event, now: table.checkpoints.check(event),
}
"""What may be asked for; all other events but `Submitted` are facts, of which the attempt number tells what is stale."""


class Scheduler:
    """Tasks, their states, and what is to be done about them."""

    def __init__(self, ageing_s: float = 0.0) -> None:
        """`starts` offers a ready task as if its priority had grown by one in every `ageing_s` seconds; 0: not."""
        self.table = TaskTable(ageing_s)
        self.placement = Placement()
        """What `starts` goes by beside the order of the queue; to be replaced by one with the rules of the configuration."""

    def check(self, event: AnyEvent, now: float) -> None:
        """Raise InvalidInput or NotFound, naming the field, for an event that must not be journalled; change nothing.

        The tasks of a `Submitted` have their ids filled in (core.graph.normalise). `now` is that of the `handle` to come.
        """
        if isinstance(event, Submitted):
            deque(self.checks(event), maxlen=0)
        elif (check := CHECKS.get(type(event))) is not None:
            check(self.table, event, now)

    def checks(self, event: Submitted) -> Iterator[None]:
        """`check` of a large graph, some tasks at a time: nothing is settled before the last, nor after another event."""
        return admission.checks_of_submitted(self.table, event)

    def handle(self, event: AnyEvent, now: float) -> list[Decision]:
        """Change the state by a checked and journalled event; return what follows, in order.

        Never raises for such an event: what is stale (an attempt that is over, a cancel of what ended) changes nothing.
        """
        HANDLERS[type(event)](self.table, event, now)
        if self.placement.rated and isinstance(event, Started):
            self._placed(event, now)
        while self.table.ended or self.table.budgets.pending or self.table.families.stirred:
            closing.close(self.table, now)
            dependents.settle(self.table, now)
            children.settle(self.table, now)
        if self.table.sagas.over:
            compensations.begin(self.table, now)
        return self.table.take_decisions()

    def _placed(self, event: Started, now: float) -> None:
        task = self.table.running.get(event.task)
        if task is not None and task.attempt == event.attempt:
            self.placement.started(task, event.pool or task.pool, now)

    def check_children(self, parent: Task, count: int, limits: Limits) -> None:
        """Raise InvalidInput if a task may not submit `count` more children."""
        check_limits(self.table, parent, count, limits)

    def given(self, task: Task) -> tuple[Any, list[Task]]:
        """What the attempts of a task are given after a wait: the state that it carried, and the children it was for."""
        family = self.table.families.of.get(task.id)
        return (family.state, list(children.members(self.table, family.given))) if family is not None else (None, [])

    def children_of(self, task: Task) -> list[str]:
        """The full ids of all that the task has submitted, without what is archived."""
        family = self.table.families.of.get(task.id)
        graphs = [*family.past, *family.graphs] if family is not None else []
        return [child.id for child in children.members(self.table, graphs)]

    def waits_for(self, task: Task) -> Iterator[Task]:
        """What a blocked task waits for: dependencies, or its children."""
        if task.state is State.BLOCKED:
            family = self.table.families.of.get(task.id)
            befores: Iterator[Task] = (edge.before for edge in task.dependencies)
            if family is not None and family.waits:
                befores = children.members(self.table, family.given)
            yield from (before for before in befores if not before.ended)

    def open_children(self, task: Task) -> Iterator[Task]:
        """Those that it waits for, if it waits for children."""
        return self.waits_for(task) if self.table.families.waits(task) else iter(())

    def waits_for_count(self, task: Task) -> int:
        """How many tasks those are."""
        if task.state is not State.BLOCKED:
            return 0
        family = self.table.families.of.get(task.id)
        return family.open if family is not None and family.waits else task.unmet

    @property
    def families(self) -> Families:
        """Who submitted whom; to be read only."""
        return self.table.families

    def starts(self, free: Mapping[str, int], now: float = 0.0) -> list[Start]:
        """For each pool at most `free[pool]` ready tasks, best first. A question only: `Started` is what takes a task."""
        return self.placement.starts(self.table, free, now)

    def next_due(self) -> float | None:
        """When the next `Ticked` has something to do; None: not before another event."""
        times = [at for at in (self.table.timers.next_due(), self.table.budgets.next_due()) if at is not None]
        return min(times, default=None)

    @property
    def busy(self) -> bool:
        """Whether an `Advanced` has something to do."""
        return bool(self.table.backlog)

    @property
    def step(self) -> int:
        """About how many edges one event may look at; 0: all."""
        return self.table.step

    @property
    def newest_work(self) -> Work | None:
        """The cancellation or revival that was begun last, if it is not over."""
        works = self.table.backlog.works
        return works[-1] if works else None

    @property
    def tasks(self) -> dict[str, Task]:
        """All tasks by full id, in order of submission; to be read only."""
        return self.table.tasks

    @property
    def counts(self) -> dict[State, int]:
        """How many tasks are in each state; to be read only."""
        return self.table.counts

    @property
    def pending(self) -> int:
        """How many tasks have not ended."""
        return sum(map(self.table.counts.__getitem__, OPEN_STATES))

    def graphs(self) -> list[str]:
        """All graph ids, in order of submission."""
        return list(self.table.graphs)

    def has_graph(self, graph: str) -> bool:
        """Whether there is a graph of exactly this id."""
        return graph in self.table.graphs

    def graph_tasks(self, graph: str) -> list[str]:
        """The full ids of the tasks of a graph, in its order; empty for an unknown graph."""
        return [task.id for task in self.table.graphs.tasks(graph)]

    @property
    def next_order(self) -> int:
        """All tasks so far have a smaller order."""
        return self.table.next_order

    def before(self, order: int, count: int, graph: str = "") -> list[Task]:
        """At most `count` tasks of an order below `order`, newest first: of all, or of one graph."""
        if not graph:
            return self.table.graphs.before(order, count)
        tasks = self.table.graphs.tasks(graph)
        end = min(max(order - tasks[0].order, 0), len(tasks)) if tasks else 0
        return tasks[max(end - count, 0) : end][::-1]

    def to_archive(self, keep: int, older_than: float, limit: int, letters: int = 0) -> list[Graph]:
        """The graphs to archive next: beyond `keep` ended tasks, or ended before `older_than`; about `limit` tasks.

        None with one of the newest `letters` dead letters.
        """
        return candidates(self.table, keep, older_than, limit, letters)

    def unknown(self, specs: Sequence[TaskSpec]) -> set[str]:
        """What these depend on that is neither among them nor in memory."""
        own = {spec.id for spec in specs}
        names = {edge_of(dependency)[0] for spec in specs for dependency in spec.dependencies}
        return {name for name in names - own if name not in self.table.tasks and name not in self.table.stubs}

    def graph_of_key(self, key: str) -> str | None:
        """The graph that was submitted with this idempotency key."""
        return self.table.keys.get(key)

    def waiting(self, pool: str) -> int:
        """How many tasks of the pool are ready."""
        return self.table.ready.waiting(pool)

    def pools_waiting(self) -> list[str]:
        """The pools that have ready tasks."""
        return [pool for pool in self.table.ready.pools() if self.waiting(pool)]

    @property
    def pauses(self) -> Pauses:
        """All that is paused; to be read only."""
        return self.table.pauses

    @property
    def budgets(self) -> Budgets:
        """What graphs may use and have used; to be read only."""
        return self.table.budgets

    @property
    def sagas(self) -> Sagas:
        """The graphs that can be undone; to be read only."""
        return self.table.sagas

    @property
    def letters(self) -> dict[str, None]:
        """Full ids of the dead letters, in the order of their ends; to be read only."""
        return self.table.letters

    @property
    def durations(self) -> Durations:
        """How long tasks have taken; to be asked only."""
        return self.table.durations

    def before_it(self, task: Task, limit: int) -> int:
        """How many ready tasks of its pool are better than a ready one; `limit`: as many or more."""
        first = self.table.ready.first(task.pool, limit)
        return next((position for position, other in enumerate(first) if other is task), limit)

    def why_not(self, task: Task, now: float) -> str:
        """What keeps the agents of a ready task from starting anything, in words; empty: nothing."""
        return self.placement.why_not(self.table, task, now)

    def hindrance(self, task: Task, now: float) -> tuple[str, bool]:
        """The same in a word, for a task that no pause holds; and whether its agent is merely busy."""
        return self.placement.hindrance(self.table, task.pool, task.choices or (task.agent,), now)

    def ahead_of(self, spec: TaskSpec, now: float, limit: int) -> tuple[list[Task], str]:
        """The first `limit` ready tasks that would come before such a one, submitted now; and what would hold it, in words."""
        new = new_task("", spec, self.table.next_order, now, "")
        new.history = (Moment(now, State.READY),)
        ready, pauses = self.table.ready, self.table.pauses
        rank, held = ready.rank(new), pauses.agents(spec.pool)
        ahead = [task for task in ready.first(spec.pool, limit) if task.agent not in held and ready.rank(task) < rank]
        scope = pauses.over(new)
        return ahead, self.why_not(new, now) if scope is None else f"{scope} is paused: nobody begins it before that is resumed"

    def size(self, pool: str, now: float) -> int:
        """How many tasks the pool runs at once, as it is now."""
        return self.placement.size(pool, now)

    def room(self, pool: str, free: int, now: float) -> int:
        """How many more tasks the pool may run now, if it could have `free` more workers."""
        return self.placement.room(self.table, pool, free, now)

    def rivals(self, pools: Collection[str], limit: int) -> list[Task]:
        """All that runs on workers of these pools, and the first `limit` ready tasks of each."""
        placed = self.table.placed
        running = [task for task in self.table.running.values() if placed.get(task.id, task.pool) in pools]
        return running + [task for pool in pools for task in self.table.ready.first(pool, limit)]

    def running(self, pool: str) -> int:
        """How many tasks of the pool are running."""
        return self.table.running_in.get(pool, 0)

    def running_attempt(self, task: str, attempt: int) -> Task | None:
        """The task, if this attempt of it is the one that runs."""
        return attempts.running_attempt(self.table, task, attempt)

    def running_tasks(self) -> list[Task]:
        """All running tasks, in order of submission."""
        return self.table.running_in_order()

    def steps(self, task: str) -> tuple[Step, ...]:
        """What the attempts of the task have begun and finished, in order; those of one that succeeded are not kept."""
        return self.table.checkpoints.of(task)

    def slept_s(self, task: Task) -> float:
        """How much of its running attempt the machine slept."""
        return self.table.timers.asleep.get(task.id, 0.0)

    def resolve(self, prefix: str) -> list[str]:
        """The full ids that a person may mean; an id that matches exactly is the only answer.

        Without a dot: graphs whose id begins so. With one: `ab.t1` is the task t1 (else those beginning with t1) of each graph
        whose id begins with `ab`. Of very many only some are given.
        """
        if prefix in self.table.tasks or prefix in self.table.graphs:
            return [prefix]
        head, dot, short = prefix.partition(".")
        graphs = sorted(self.table.graphs.meant(head), key=lambda graph: graph.first) if prefix else []
        if not dot:
            return [graph.id for graph in graphs]
        meant = [task for graph in graphs for task in graph.tasks if task.short_id.startswith(short)]
        exact = [task for task in meant if task.short_id == short]
        return [task.id for task in exact or meant]

    def snapshot(self, now: float = 0.0) -> bytes:
        """The whole state; `restore` of it behaves the same from here on. core.snapshot.taken_at gives `now` back.

        Raises ValueError while the scheduler is busy: no snapshot holds a backlog.
        """
        return encode_table(self.table, now)

    def still(self, now: float) -> Still:
        """The same, to be had piece by piece while events go on."""
        return Still(self.table, now)

    @classmethod
    def restore(cls, snapshot: bytes, ageing_s: float = 0.0) -> Scheduler:
        """The scheduler of a snapshot; raises JournalCorrupt for bytes that are none."""
        scheduler = cls()
        scheduler.table = decode_table(snapshot, ageing_s)
        return scheduler
