"""Who submitted whom: the children of tasks, what they wait for of them, and the state in which they go on afterwards.

Children are a graph of their own, submitted by the running attempt of their parent. A parent waits by ending its attempt: it is
blocked, holds no worker, and when all children of that attempt have ended it is ready again. The next attempt, and every one
after it until the next wait, is given the state that the wait carried and the ends of these children (continuations, as in
R. D. Blumofe et al., "Cilk: An Efficient Multithreaded Runtime System", 1995).

Nearly no task has any, so all of this lies beside the tasks.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec

from supervisord_agents.core.model import END_STATES, State
from supervisord_agents.core.task import Task

MAX_STATE_BYTES = 64 * 1024
"""Of what a wait is given, as msgpack: it stays in memory for as long as the task."""

# Class attributes of an enum are ten times slower to read than globals in Python 3.11.
_RUNNING, _FAILED, _DEAD = State.RUNNING, State.FAILED, State.DEAD


class Birth(msgspec.Struct, frozen=True, array_like=True):
    """Where a graph of children comes from."""

    parent: str
    attempt: int
    call: int
    """The number of the request within the attempt, so that one which is made again has the same answer."""
    depth: int
    """1: the parent was submitted by a client."""


class Family(msgspec.Struct, array_like=True):
    """The graphs of one parent's children, in order of submission, and its wait."""

    past: list[str] = []
    """Of earlier rounds, and of attempts that ended without a wait."""
    spent: list[str] = []
    """Waited for earlier, in this round."""
    given: list[str] = []
    """Waited for now, or last: what the next attempt is given."""
    fresh: list[str] = []
    """Of the running attempt."""
    state: Any = None
    """Of the last wait."""
    waits: bool = False
    fail_fast: bool = False
    """The first failure of a child ends the others."""
    hasty: bool = False
    """That has happened."""
    open: int = 0
    """While it waits: how many children have not ended."""

    @property
    def graphs(self) -> list[str]:
        """All of this round."""
        return [*self.spent, *self.given, *self.fresh]


class Families:
    """All of a table. `moved` is told of every change of a task's state."""

    def __init__(self) -> None:
        self.births: dict[str, Birth] = {}
        """By graph."""
        self.of: dict[str, Family] = {}
        """By parent."""
        self.stirred: list[str] = []
        """Parents to be looked at before the event is over (core.children)."""

    def waits(self, task: Task) -> bool:
        """Whether the task waits for children."""
        family = self.of.get(task.id)
        return family is not None and family.waits

    def depth(self, task: Task) -> int:
        """How many generations above the task there have been."""
        birth = self.births.get(task.graph)
        return birth.depth if birth is not None else 0

    def parent(self, task: Task) -> str:
        """The full id of the task that submitted this one; empty: a client did."""
        birth = self.births.get(task.graph)
        return birth.parent if birth is not None else ""

    def graph_of_call(self, parent: str, attempt: int, call: int) -> str:
        """The graph that this request made; empty: it made none."""
        family = self.of.get(parent)
        for graph in family.fresh if family is not None else ():
            birth = self.births[graph]
            if (birth.attempt, birth.call) == (attempt, call):
                return graph
        return ""

    def born(self, graph: str, birth: Birth) -> None:
        """Take up a graph of children."""
        self.births[graph] = birth
        self.of.setdefault(birth.parent, Family()).fresh.append(graph)

    def again(self, task: Task) -> None:
        """The task begins another round, without children."""
        family = self.of.get(task.id)
        if family is not None:
            family.past += family.graphs
            family.spent, family.given, family.fresh = [], [], []
            family.state, family.waits, family.open = None, False, 0

    def moved(self, task: Task, before: State, after: State) -> None:
        """The state of a task changed."""
        if task.id in self.of and (before is _RUNNING or after in END_STATES):
            self.stirred.append(task.id)
        birth = self.births.get(task.graph)
        family = self.of.get(birth.parent) if birth is not None else None
        if birth is None or family is None or not family.waits or task.graph not in family.given:
            return
        if after in END_STATES:
            family.open -= 1
            family.hasty |= family.fail_fast and (after is _FAILED or after is _DEAD)
            if family.hasty or not family.open:
                self.stirred.append(birth.parent)
        elif before in END_STATES:
            family.open += 1

    def forget(self, graph: str, tasks: list[Task]) -> None:
        """A graph leaves memory."""
        for task in tasks:
            self.of.pop(task.id, None)
        birth = self.births.pop(graph, None)
        family = self.of.get(birth.parent) if birth is not None else None
        if family is not None:
            for graphs in (family.past, family.spent, family.given, family.fresh):
                if graph in graphs:
                    graphs.remove(graph)

    def ancestors(self, task: Task, tasks: dict[str, Task]) -> Iterator[Task]:
        """The parent, its parent, and so on, as far as they are in memory."""
        above = tasks.get(self.parent(task))
        while above is not None:
            yield above
            above = tasks.get(self.parent(above))
