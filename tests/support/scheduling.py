"""A scheduler with a clock, driven as the shell drives it: check, keep the event, handle, look at the invariants."""

from __future__ import annotations

from collections.abc import Sequence

from supervisord_agents.core import invariants
from supervisord_agents.core.events import (
    AnyEvent,
    CancelRequested,
    Decision,
    Finished,
    Restarted,
    RetryRequested,
    Started,
    Submitted,
    Ticked,
    decode_event,
    encode_event,
)
from supervisord_agents.core.graph import normalise
from supervisord_agents.core.model import Budget, Dependency, Failure, State, TaskSpec, Usage, When
from supervisord_agents.core.scheduler import Scheduler
from supervisord_agents.core.task import Task

POOL = "pool"


def a_task(name: str = "", *after: str | Dependency, **fields: object) -> TaskSpec:
    """A specification: its id, its dependencies, and what differs from the defaults."""
    return TaskSpec(id=name, dependencies=after, **{"pool": POOL, **fields})  # type: ignore[arg-type]


def on_failure(name: str) -> Dependency:
    """An edge that is satisfied by a failure."""
    return Dependency(name, When.ON_FAILURE)


def always(name: str) -> Dependency:
    """An edge that is satisfied by any end."""
    return Dependency(name, When.ALWAYS)


class Driven:
    """A scheduler and the journal of what it was given."""

    def __init__(self, ageing_s: float = 0.0) -> None:
        self.scheduler = Scheduler(ageing_s)
        self.now = 1000.0
        self.journal: list[bytes] = []

    def feed(self, event: AnyEvent) -> list[Decision]:
        """Check, journal and handle; then all invariants must hold."""
        self.scheduler.check(event, self.now)
        self.journal.append(encode_event(event, self.now))
        decisions = self.scheduler.handle(event, self.now)
        invariants.check(self.scheduler)
        return decisions

    def submit(self, *specs: TaskSpec, graph: str = "g", key: str = "", budget: Budget | None = None) -> list[Decision]:
        return self.feed(Submitted(graph=graph, specs=normalise(specs), key=key, budget=budget or Budget()))

    def start(self, task: str) -> list[Decision]:
        """Start the task, which must be on offer."""
        offers = {offer.task: offer for offer in self.scheduler.starts({POOL: len(self.scheduler.tasks)})}
        return self.feed(Started(task=task, attempt=offers[task].attempt, worker="w1"))

    def finish(self, task: str, failure: Failure | str | None = None, usage: Usage | None = None) -> list[Decision]:
        """End the newest attempt; a failure may be given by its code."""
        if isinstance(failure, str):
            failure = Failure(failure)
        attempt = self.scheduler.tasks[task].attempt
        return self.feed(Finished(task=task, attempt=attempt, failure=failure, usage=usage or Usage()))

    def run(self, task: str, failure: Failure | str | None = None) -> list[Decision]:
        self.start(task)
        return self.finish(task, failure)

    def fail(self, task: str) -> list[Decision]:
        """Run the task to a failure that is not retried."""
        return self.run(task, Failure("WORKER_FAILED", "no", retriable=False))

    def cancel(self, task: str, subtree: bool = True, reason: str = "") -> list[Decision]:
        return self.feed(CancelRequested(task=task, subtree=subtree, reason=reason))

    def retry(self, task: str) -> list[Decision]:
        return self.feed(RetryRequested(task=task))

    def restart(self) -> list[Decision]:
        return self.feed(Restarted())

    def wait(self, seconds: float) -> list[Decision]:
        """Let time pass, then tick."""
        self.now += seconds
        return self.feed(Ticked())

    def wait_until_due(self) -> list[Decision]:
        """Let time pass until the next thing is due."""
        due = self.scheduler.next_due()
        assert due is not None
        return self.wait(due - self.now)

    def task(self, name: str) -> Task:
        return self.scheduler.tasks[name]

    def state(self, name: str) -> State:
        return self.task(name).state

    def states(self, graph: str = "g") -> dict[str, str]:
        """The states of a graph by short id."""
        tasks = (self.task(name) for name in self.scheduler.graph_tasks(graph))
        return {task.short_id: str(task.state) for task in tasks}

    def code(self, name: str) -> str:
        failure = self.task(name).failure
        return failure.code if failure else ""

    def message(self, name: str) -> str:
        failure = self.task(name).failure
        return failure.message if failure else ""

    def offered(self, count: int = 1000) -> list[str]:
        return [offer.task for offer in self.scheduler.starts({POOL: count})]

    def replayed(self) -> Scheduler:
        """A fresh scheduler that was given the whole journal."""
        return replay(self.journal)


def replay(journal: Sequence[bytes], ageing_s: float = 0.0) -> Scheduler:
    """A scheduler given the events of a journal, decisions dropped."""
    scheduler = Scheduler(ageing_s)
    for record in journal:
        now, event = decode_event(record)
        scheduler.handle(event, now)
    return scheduler
