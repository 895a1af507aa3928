"""What must hold, whatever happens: the supervisor's promises, held by somebody who remembers all that was said and done."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from supervisord_agents.core import invariants
from supervisord_agents.core.events import Changed, Finished, decode_event
from supervisord_agents.core.model import END_STATES, State
from supervisord_agents.core.scheduler import Scheduler
from supervisord_agents.core.task import HISTORY_LIMIT
from supervisord_agents.journal.recovery import Recovered
from supervisord_agents.wire import frames
from supervisord_agents.wire import messages as m
from supervisord_agents.wire.story import StoryTask


class Violation(Exception):
    """A promise was broken."""


class Witness:
    """Remembers what was recorded, acknowledged, told and done; raises Violation for a contradiction."""

    def __init__(self) -> None:
        self.appended: dict[int, bytes] = {}
        """Every record that may be in the journal, by sequence; what was never acknowledged may turn out not to be."""
        self.acknowledged = 0
        """Sequence of the last record that anybody was told of."""
        self.truth = Scheduler()
        """The state after the records up to `applied`, replayed here from the beginning: never from a snapshot."""
        self.applied = 0
        self.changes: dict[int, list[Changed]] = {}
        self.told_items: dict[tuple[int, int], tuple[str, State, int]] = {}
        self.graphs: dict[str, list[str]] = {}
        """Acknowledged: the tasks of each."""
        self.owners: dict[str, str] = {}
        self.keys: dict[str, str] = {}
        self.launches: set[tuple[str, int]] = set()
        self.ends: dict[tuple[str, int], frames.TaskResult | frames.TaskError] = {}
        """What each attempt came to, as its worker knows."""
        self.results: dict[str, Any] = {}
        """The output that was told of each task that succeeded."""
        self.steps: set[str] = set()
        """Tasks of which a step was acknowledged."""

    # While it runs

    def launched(self, task: str, attempt: int) -> None:
        if (task, attempt) in self.launches:
            raise Violation(f"attempt {attempt} of {task} was started twice")
        self.launches.add((task, attempt))
        known = self.truth.tasks.get(task)
        if task in self.results or (known is not None and known.state is State.SUCCEEDED):
            raise Violation(f"{task} had succeeded for all to see, and attempt {attempt} of it was started")

    def done(self, end: frames.TaskResult | frames.TaskError) -> None:
        self.ends[end.task, end.attempt] = end

    def submitted(self, reply: m.SubmitReply, key: str, client: str, count: int) -> None:
        """A submit was acknowledged."""
        if key:
            before = self.keys.setdefault(key, reply.graph)
            if before != reply.graph:
                raise Violation(f"the key {key} stood for graph {before}, and now for {reply.graph}")
        known = self.graphs.setdefault(reply.graph, reply.tasks)
        if known != reply.tasks:
            raise Violation(f"graph {reply.graph} had the tasks {known}, and now {reply.tasks}")
        if not reply.duplicate:
            self.owners[reply.graph] = client
            if len(known) != count:
                raise Violation(f"graph {reply.graph} of {count} tasks has {len(known)}")

    def saw(self, views: Iterable[m.TaskView]) -> None:
        """A client was told of these tasks: what it was told must be on disk by now."""
        self.apply(self.acknowledged)
        for view in views:
            task = self.truth.tasks.get(view.id)
            if task is None:
                raise Violation(f"{view.id} was told of before it was on disk")
            known = {(moment.state, moment.attempt) for moment in task.history}
            if (view.state, view.attempt) not in known and len(task.history) < HISTORY_LIMIT:
                raise Violation(f"{view.id} was said to be {view.state} in attempt {view.attempt} before that was on disk")

    def told(self, tasks: Iterable[StoryTask]) -> None:
        """A client was told a story: what it says of these tasks must be on disk by now."""
        self.apply(self.acknowledged)
        for told in tasks:
            task = self.truth.tasks.get(told.id)
            if task is None:
                raise Violation(f"a story tells of {told.id} before it was on disk")
            if told.status not in {moment.state for moment in task.history} and len(task.history) < HISTORY_LIMIT:
                raise Violation(f"a story says that {told.id} is {told.status} before that was on disk")

    def heard(self, token: str, item: m.Item) -> None:
        sequence, index = map(int, token.split("."))
        assert item.state is not None
        told = (item.task, item.state, item.attempt)
        before = self.told_items.setdefault((sequence, index), told)
        if before != told:
            raise Violation(f"the item {token} was {before}, and now is {told}")

    def kept(self, answer: frames.Checkpointed) -> None:
        """A worker was told that its step is on disk."""
        self.apply(self.acknowledged)
        self.steps.add(answer.task)
        self._check_steps({answer.task})

    def answered(self, result: Any) -> None:
        """A client was given the result of a task."""
        if result.status != State.SUCCEEDED:
            return
        known = self.results.setdefault(result.task_id, result.output)
        if known != result.output:
            raise Violation(f"the result of {result.task_id} was {known!r}, and now is {result.output!r}")
        end = self.ends.get((result.task_id, result.attempt))
        if not isinstance(end, frames.TaskResult) or end.output != result.output:
            raise Violation(f"{result.task_id}#{result.attempt} is said to have given {result.output!r}, but did not: {end}")

    # After a crash

    def recovered(self, found: Recovered, scheduler: Scheduler) -> None:
        """The journal was opened: nothing acknowledged is missing, nothing is there that was never written, in order."""
        if found.sequence < self.acknowledged:
            raise Violation(f"record {self.acknowledged} was acknowledged, the journal ends at {found.sequence}")
        if found.holes:
            raise Violation(f"the journal has holes: {found.holes}")
        expected = [sequence for sequence in sorted(self.appended) if found.snapshot_sequence < sequence <= found.sequence]
        there = [sequence for sequence, _ in found.records]
        if expected != there:
            missing = sorted(set(expected) - set(there))
            raise Violation(f"records {missing} are missing, or out of order: {there[:20]}")
        for sequence, payload in found.records:
            if self.appended[sequence] != payload:
                raise Violation(f"record {sequence} is another than was written")
        for sequence in [sequence for sequence in self.appended if sequence > found.sequence]:
            del self.appended[sequence]
        self.acknowledged = found.sequence
        self.apply(found.sequence)
        self._check_told()
        if self.truth.snapshot() != scheduler.snapshot():
            raise Violation(f"the state after record {found.sequence} is not what its records lead to")
        invariants.check(scheduler)

    def apply(self, until: int) -> None:
        """Take these records for certain, and hold what was told against them."""
        for sequence in sorted(sequence for sequence in self.appended if self.applied < sequence <= until):
            at, event = decode_event(self.appended[sequence])
            if isinstance(event, Finished):
                self._check_finished(sequence, event)
            decisions = self.truth.handle(event, at)
            self.changes[sequence] = [decision for decision in decisions if isinstance(decision, Changed)]
        self.applied = max(self.applied, until)

    def _check_finished(self, sequence: int, event: Finished) -> None:
        task = self.truth.tasks.get(event.task)
        if task is None or task.state is not State.RUNNING or task.attempt != event.attempt:
            return  # it comes too late, and changes nothing
        end = self.ends.get((event.task, event.attempt))
        if (
            event.failure is None
            and not event.output_file
            and (not isinstance(end, frames.TaskResult) or end.output != event.output)
        ):
            raise Violation(f"record {sequence} says that {event.task}#{event.attempt} gave {event.output!r}, it did not: {end}")

    def _check_told(self) -> None:
        for (sequence, index), told in self.told_items.items():
            if sequence > self.applied:
                raise Violation(f"item {sequence}.{index} was told, and is not in the journal")
            changes = self.changes.get(sequence, [])
            if index > len(changes) or told != _facts(changes[index - 1]):
                raise Violation(f"item {sequence}.{index} was {told}, the journal says {changes}")
        self.told_items.clear()
        self._check_steps(self.steps)
        for graph, tasks in self.graphs.items():
            if self.truth.graph_tasks(graph) != tasks:
                raise Violation(f"the acknowledged graph {graph} is not in the journal")
            if self.truth.tasks[tasks[0]].client != self.owners.get(graph, self.truth.tasks[tasks[0]].client):
                raise Violation(f"the graph {graph} has changed hands")
        for key, graph in self.keys.items():
            if self.truth.graph_of_key(key) != graph:
                raise Violation(f"the key {key} was acknowledged for {graph}, the journal says {self.truth.graph_of_key(key)}")

    def _check_steps(self, tasks: Iterable[str]) -> None:
        for name in tasks:
            task = self.truth.tasks.get(name)
            if task is None or task.state is State.SUCCEEDED:
                continue
            steps = self.truth.steps(name)
            if not steps or steps[0].result != f"{name}#{steps[0].attempt}":
                raise Violation(f"a step of {name} was acknowledged, and on disk are {steps}")


def _facts(change: Changed) -> tuple[str, State, int]:
    return change.task, change.after, change.attempt


def unended(scheduler: Scheduler) -> list[str]:
    return [f"{task.id} is {task.state}" for task in scheduler.tasks.values() if task.state not in END_STATES]
