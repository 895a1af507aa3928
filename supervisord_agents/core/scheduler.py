"""The scheduler: events in, decisions out.

`check` refuses what must not be journalled; the shell then journals the event and gives it to `handle`, which alone changes the
state. Replaying the journal through `handle` therefore gives the same state, and the same decisions, every time. The clock is the
caller's `now` (seconds, Unix epoch, never running backwards).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import assert_never

from supervisord_agents.core import admission, attempts
from supervisord_agents.core.cancel import cancelled
from supervisord_agents.core.dependents import settle
from supervisord_agents.core.events import (
    AnyEvent,
    CancelRequested,
    Decision,
    Finished,
    Restarted,
    RetryRequested,
    Start,
    Started,
    Submitted,
    Ticked,
    Used,
)
from supervisord_agents.core.model import State
from supervisord_agents.core.revive import revived
from supervisord_agents.core.snapshot import decode_table, encode_table
from supervisord_agents.core.submit import submitted
from supervisord_agents.core.table import TaskTable
from supervisord_agents.core.task import Task


class Scheduler:
    """Tasks, their states, and what is to be done about them."""

    def __init__(self) -> None:
        self.table = TaskTable()

    def check(self, event: AnyEvent, now: float) -> None:
        """Raise InvalidInput or NotFound, naming the field, for an event that must not be journalled; change nothing.

        The tasks of a `Submitted` have their ids filled in (core.graph.normalise). `now` is that of the `handle` to come.
        """
        match event:
            case Submitted():
                admission.check_submitted(self.table, event)
            case CancelRequested():
                admission.check_cancel(self.table, event)
            case RetryRequested():
                admission.check_retry(self.table, event)
            case _:
                pass  # Facts about attempts and time: the attempt number tells what is stale.

    def handle(self, event: AnyEvent, now: float) -> list[Decision]:
        """Change the state by a checked and journalled event; return what follows, in order.

        Never raises for such an event: what is stale (an attempt that is over, a cancel of what ended) changes nothing.
        """
        match event:
            case Started():
                attempts.started(self.table, event, now)
            case Finished():
                attempts.finished(self.table, event, now)
            case Submitted():
                submitted(self.table, event, now)
            case Ticked():
                attempts.ticked(self.table, now)
            case CancelRequested():
                cancelled(self.table, event, now)
            case RetryRequested():
                revived(self.table, event, now)
            case Restarted():
                attempts.restarted(self.table, event, now)
            case Used():
                attempts.used(self.table, event)
            case _:
                assert_never(event)
        if self.table.ended:
            settle(self.table, now)
        return self.table.take_decisions()

    def starts(self, free: Mapping[str, int]) -> list[Start]:
        """For each pool at most `free[pool]` ready tasks, best first. A question only: `Started` is what takes a task."""
        return [
            Start(task=task.id, attempt=task.attempt + 1, pool=pool)
            for pool, count in free.items()
            for task in self.table.ready.first(pool, count)
        ]

    def next_due(self) -> float | None:
        """When the next `Ticked` has something to do; None: not before another event."""
        return self.table.timers.next_due()

    @property
    def tasks(self) -> dict[str, Task]:
        """All tasks by full id, in order of submission; to be read only."""
        return self.table.tasks

    @property
    def counts(self) -> dict[State, int]:
        """How many tasks are in each state; to be read only."""
        return self.table.counts

    def graphs(self) -> list[str]:
        """All graph ids, in order of submission."""
        return list(self.table.graphs)

    def has_graph(self, graph: str) -> bool:
        """Whether there is a graph of exactly this id."""
        return graph in self.table.graphs

    def graph_tasks(self, graph: str) -> list[str]:
        """The full ids of the tasks of a graph, in its order; empty for an unknown graph."""
        return [task.id for task in self.table.graphs.get(graph, ())]

    def graph_of_key(self, key: str) -> str | None:
        """The graph that was submitted with this idempotency key."""
        return self.table.keys.get(key)

    def waiting(self, pool: str) -> int:
        """How many tasks of the pool are ready."""
        return self.table.ready.waiting(pool)

    def pools_waiting(self) -> list[str]:
        """The pools that have ready tasks."""
        return [pool for pool in self.table.ready.pools() if self.waiting(pool)]

    def running(self, pool: str) -> int:
        """How many tasks of the pool are running."""
        return self.table.running_in.get(pool, 0)

    def running_tasks(self) -> list[Task]:
        """All running tasks, in order of submission."""
        return sorted(self.table.running.values(), key=lambda task: task.order)

    def resolve(self, prefix: str) -> list[str]:
        """The full ids that a person may mean; an id that matches exactly is the only answer.

        Without a dot: graphs whose id begins so. With one: `ab.t1` is the task t1 (else those beginning with t1) of each graph
        whose id begins with `ab`. Scans all graphs.
        """
        if prefix in self.table.tasks or prefix in self.table.graphs:
            return [prefix]
        head, dot, short = prefix.partition(".")
        graphs = [graph for graph in self.table.graphs if graph.startswith(head)] if prefix else []
        if not dot:
            return graphs
        meant = [task for graph in graphs for task in self.table.graphs[graph] if task.short_id.startswith(short)]
        exact = [task for task in meant if task.short_id == short]
        return [task.id for task in exact or meant]

    def snapshot(self, now: float = 0.0) -> bytes:
        """The whole state; `restore` of it behaves the same from here on. core.snapshot.taken_at gives `now` back."""
        return encode_table(self.table, now)

    @classmethod
    def restore(cls, snapshot: bytes) -> Scheduler:
        """The scheduler of a snapshot; raises JournalCorrupt for bytes that are none."""
        scheduler = cls()
        scheduler.table = decode_table(snapshot)
        return scheduler
