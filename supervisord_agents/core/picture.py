"""The tasks of a graph, what delays them and what competes with them, copied as they are at one moment.

What is reckoned from it (core.critical_path, core.forecast) touches no task, and may go on in a thread while the tasks go on.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from enum import IntEnum

import msgspec

from supervisord_agents.core.model import END_STATES, State, When
from supervisord_agents.core.task import Task

OUTSIDE_LIMIT = 10_000
"""Open tasks of other graphs that are followed; what is behind still more is taken to have ended."""
STEP = 500
"""Tasks and edges copied in one turn."""
_WAITS_FOR_NOTHING = frozenset({*END_STATES, State.READY, State.RUNNING, State.BACKING_OFF})


class Part(IntEnum):
    """Why a task is in the picture."""

    INSIDE = 0
    """It is of the graph."""
    BEHIND = 1
    """The graph waits for it."""
    RIVAL = 2
    """It runs, or is ready, in a pool that the graph needs."""


class Node(msgspec.Struct, eq=False, kw_only=True):
    """A task as it was. Times are seconds from the moment of the picture: what is past is negative."""

    id: str
    part: Part
    state: State
    pool: str
    """Its own; of what runs, that whose worker it has."""
    agents: tuple[str, ...]
    """Those that may run it."""
    estimate_s: float
    estimated: bool = True
    """False: nobody knows how long it takes."""
    urgency: int
    rest_s: float
    order: int
    ready_at: float
    """When it came into its state (seconds, Unix epoch), for its age in the ready queue."""
    start: float = 0.0
    """Of what runs or has ended."""
    end: float = 0.0
    """Of what has ended."""
    not_before: float = 0.0
    """Of what is tried again later."""
    befores: tuple[tuple[int, When], ...] = ()
    """Places in the picture of what it waits for."""
    last: int = -1
    """The place of that dependency within the graph which ended last."""

    @property
    def ended(self) -> bool:
        return self.state in END_STATES

    @property
    def running(self) -> bool:
        return self.state is State.RUNNING

    @property
    def open(self) -> bool:
        """Whether it is yet to start, or runs, and is of the graph."""
        return self.part is Part.INSIDE and not self.ended


class Picture:
    """At `now` (seconds, Unix epoch); `placed` names the pool of what runs on a worker of another than its own."""

    def __init__(
        self,
        now: float,
        placed: Mapping[str, str] | None = None,
        children: Callable[[Task], Iterable[Task]] = lambda task: (),
    ) -> None:
        """`children` gives the open ones that a task waits for."""
        self.now = now
        self._placed = placed or {}
        self._children = children
        self.nodes: list[Node] = []
        self.not_followed = 0
        """Dependencies on other graphs that were too many."""
        self._places: dict[int, int] = {}
        """By order of submission."""
        self._tasks: list[Task] = []

    def take(self, tasks: Iterable[Task]) -> Iterator[None]:
        """Copy the tasks of one graph, first to last, and the open ones of others that they wait for; a step at a time.

        The tasks may change between two steps: then some are older in the picture than others, and that is all.
        """
        for task in tasks:
            self._add(task)
        inside = len(self._tasks)
        left = STEP
        for place, task in enumerate(self._tasks):  # grows meanwhile
            self.nodes.append(self._copied(task, Part.INSIDE if place < inside else Part.BEHIND, inside))
            left -= 1 + len(task.dependencies)
            if left <= 0:
                left = STEP
                yield
        self._tasks.clear()

    def take_rivals(self, tasks: Iterable[Task]) -> None:
        """Copy other tasks, which run or are ready."""
        self.nodes += [self._node(task, Part.RIVAL) for task in tasks if task.order not in self._places]

    def _add(self, task: Task) -> int:
        place = self._places[task.order] = len(self._tasks)
        self._tasks.append(task)
        return place

    def _copied(self, task: Task, part: Part, inside: int) -> Node:
        node = self._node(task, part)
        node.estimated = bool(task.spec.estimate_s)
        if task.state not in _WAITS_FOR_NOTHING:
            found = [(self._place(edge.before, inside), edge.when) for edge in task.dependencies if not edge.before.ended]
            found += [(self._place(child, inside), When.ALWAYS) for child in self._children(task)]
            node.befores = tuple((place, when) for place, when in found if place >= 0)
        ended = [edge.before for edge in task.dependencies if edge.before.ended and edge.before.graph == task.graph]
        if ended and part is Part.INSIDE:
            node.last = self._places.get(max(ended, key=lambda before: before.ended_at).order, -1)
        return node

    def _place(self, before: Task, inside: int) -> int:
        place = self._places.get(before.order)
        if place is not None:
            return place
        if len(self._tasks) - inside >= OUTSIDE_LIMIT:
            self.not_followed += 1
            return -1
        return self._add(before)

    def _node(self, task: Task, part: Part) -> Node:
        now = self.now
        node = Node(
            id=task.id,
            part=part,
            state=task.state,
            pool=task.pool,
            agents=task.choices or (task.agent,),
            estimate_s=task.estimate_s,
            urgency=task.urgency,
            rest_s=task.rest_s,
            order=task.order,
            ready_at=task.history[-1].at if task.history else now,
        )
        if task.ended:
            node.end = task.ended_at - now
            node.start = task.started_at - now if task.started_at else node.end
        elif task.state is State.RUNNING:
            node.pool = self._placed.get(task.id, task.pool)
            node.start = task.started_at - now
        elif task.state is State.BACKING_OFF:
            node.not_before = max(0.0, task.retry_at - now)
        return node
