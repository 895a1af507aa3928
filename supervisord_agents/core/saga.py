"""Sagas: graphs whose work is undone when they fail (H. Garcia-Molina, K. Salem, "Sagas", 1987).

A task may say what undoes it. Once all tasks of its graph have ended and one of them failed or is dead, what undoes those that
succeeded is run, the last that ended first, one after the other: as another graph, made by the very event that ended the first,
so that it happens once, whatever dies when (core.compensations).
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from supervisord_agents.core.model import END_STATES, State, TaskSpec
from supervisord_agents.core.policy import Verdict
from supervisord_agents.core.task import Task

_FAILED = frozenset({State.FAILED, State.DEAD})


class Saga(msgspec.Struct, eq=False):
    """A graph in which some task says what undoes it."""

    open: int
    """Tasks that have not ended."""
    done: list[Task]
    """Those that can be undone and have succeeded, in the order of their ends."""
    undone_by: str = ""
    """The graph that undoes them, once it has begun."""


class Sagas(dict[str, Saga]):
    """By graph."""

    def __init__(self) -> None:
        super().__init__()
        self.origins: dict[str, str] = {}
        """By the graph that undoes another: that other."""
        self.over: list[str] = []
        """Graphs whose last open task ended in the event that is being handled."""

    def add(self, graph: str, specs: Sequence[TaskSpec]) -> None:
        """Take up a new graph, if it is a saga; its tasks are open."""
        if any(spec.compensate is not None for spec in specs):
            self[graph] = Saga(len(specs), [])

    def moved(self, task: Task, before: State) -> None:
        """A task has ended, or is open again."""
        saga = self.get(task.graph)
        if saga is None:
            return
        if task.state not in END_STATES:
            saga.open += before in END_STATES
            return
        saga.open -= 1
        if task.state is State.SUCCEEDED and task.spec.compensate is not None:
            saga.done.append(task)
        if not saga.open:
            self.over.append(task.graph)

    def undone_by(self, graph: str) -> str:
        """The graph that undoes this one, if that has begun."""
        saga = self.get(graph)
        return saga.undone_by if saga is not None else ""

    def about(self, graph: str) -> str:
        """In words: which graph undoes this one, or is undone by it; empty: none."""
        if undone_by := self.undone_by(graph):
            return f"What had succeeded of it is undone by {undone_by}"
        origin = self.origins.get(graph)
        return f"It undoes what had succeeded of {origin}" if origin else ""

    def undoes(self, task: Task) -> str:
        """The full id of the task that this one undoes; empty: it undoes none."""
        origin = self.origins.get(task.graph)
        if origin is None:
            return ""
        return next(edge.before.id for edge in task.dependencies if edge.before.graph == origin)

    def is_undoing(self, before: Task, after: Task) -> bool:
        """Whether a dependent is no more than what undoes the task."""
        return self.origins.get(after.graph) == before.graph

    def lasting(self, task: Task, verdict: Verdict) -> Verdict:
        """The verdict on a task: one that undoes another does not fail, it waits for a person to decide about it."""
        undone = self.undoes(task)
        if not undone or verdict.state not in _FAILED:
            return verdict
        failure = verdict.failure
        hint = (
            f"What {undone} did still stands. Undo it by hand, then: agentctl dlq drop {task.id}; "
            f"or mend what is in the way, then: agentctl dlq requeue {task.id}."
        )
        said = f" {failure.hint}" if failure.hint else ""
        message = f"{undone} is not undone: {failure.message or failure.code}"
        lasting = msgspec.structs.replace(failure, message=message, hint=hint + said, retriable=False)
        return Verdict(State.DEAD, lasting)

    def forget(self, graph: str) -> None:
        """The graph leaves memory."""
        self.pop(graph, None)
        self.origins.pop(graph, None)


def failed(tasks: Sequence[Task]) -> bool:
    """Whether one of them did: cancellations alone are what somebody wanted."""
    return any(task.state in _FAILED for task in tasks)
