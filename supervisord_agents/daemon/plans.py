"""The handler of `graph`: how a graph is planned, with a page of its tasks."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Sequence

from supervisord_agents.core.critical_path import CriticalPath
from supervisord_agents.core.forecast import Forecast
from supervisord_agents.core.graph import edge_of
from supervisord_agents.core.picture import Part, Picture
from supervisord_agents.core.task import Task, graph_of
from supervisord_agents.daemon.engine import Engine
from supervisord_agents.daemon.pictures import RIVALS, Means, Pictures
from supervisord_agents.daemon.views import MAX_PAGE
from supervisord_agents.errors import InvalidInput
from supervisord_agents.rpc.peer import Peer
from supervisord_agents.wire.graph import GraphReply, ShowGraph, TaskTimes

MAX_PATH = 1_000
"""Tasks of a critical path that an answer names."""
MAX_EDGE_BYTES = 2 * 1024 * 1024
"""Of the names of dependencies in one answer."""


class Plans:
    """`target` finds the graph or task behind a name, `names` the tasks of a graph, `tasks` those of full ids."""

    def __init__(
        self,
        engine: Engine,
        pictures: Pictures,
        target: Callable[[str, str], Awaitable[str]],
        names: Callable[[str, str], Awaitable[list[str]]],
        tasks: Callable[[Sequence[str]], Awaitable[list[Task]]],
    ) -> None:
        self._engine = engine
        self._pictures = pictures
        self._target = target
        self._names = names
        self._tasks = tasks

    async def graph(self, request: ShowGraph, peer: Peer) -> GraphReply:
        if not 1 <= request.limit <= MAX_PAGE:
            raise InvalidInput(f"must be from 1 to {MAX_PAGE}.", field="limit")
        graph = graph_of(await self._target(request.graph, "graph"))
        tasks = await self._tasks(await self._names(graph, "graph"))
        first = _first(tasks, request.after)
        picture = await self._pictures.take(tasks)
        means = self._pictures.means(picture)
        # That of ten thousand tasks takes a tenth of a second, which the loop does not have.
        plan = await asyncio.to_thread(Plan, picture, means)
        rows = list(plan.page(tasks[first : first + request.limit], first, edges=request.edges))
        reply = plan.reply(graph, rows, more=first + len(rows) < len(tasks))
        await self._engine.settled_for([node.id for node in picture.nodes])
        return reply


def _first(tasks: list[Task], after: str) -> int:
    """The place of the task behind the one that is named; raises InvalidInput."""
    if not after:
        return 0
    found = next((place for place, task in enumerate(tasks) if task.id == after), None)
    if found is None:
        raise InvalidInput("names no task of this graph.", field="after", hint="Use the `next` of the page before.")
    return found + 1


class Plan:
    """What is reckoned of a graph, and how clients see it."""

    def __init__(self, picture: Picture, means: Means) -> None:
        self._picture = picture
        self._means = means
        self._path = CriticalPath(picture.nodes)
        self._forecast = Forecast(self._path, means.workers, means.pauses, picture.now, means.ageing_s)
        self._end = self._forecast.end
        self._work = self._path.work()
        self._bound = self._path.bound(means.workers)
        still = [node for node in picture.nodes if node.open]
        self._open = len(still)
        self._unknown = sum(not node.estimated for node in still)
        self._total = sum(node.part is Part.INSIDE for node in picture.nodes)

    def reply(self, graph: str, rows: list[TaskTimes], *, more: bool) -> GraphReply:
        path, workers = self._path, self._means.workers
        return GraphReply(
            graph=graph,
            at=self._picture.now,
            tasks=rows,
            total=self._total,
            open=self._open,
            next=rows[-1].id if more else "",
            critical_path=[path.nodes[place].id for place in path.path[:MAX_PATH]],
            critical_count=len(path.path),
            critical_s=path.end,
            work_s=sum(self._work.values()),
            bound_s=self._bound,
            end_s=self._end,
            workers={pool: workers[pool] for pool in sorted(self._work) if pool in workers},
            unknown=self._unknown,
            notes=list(self._notes()),
        )

    def _notes(self) -> Iterator[str]:
        path, missing = self._path, self._picture.not_followed
        if path.cyclic:
            yield f"{len(path.nodes) - len(path.order)} tasks are on a cycle of waits, or behind one: agentctl why tells which"
        if missing:
            yield f"{missing} dependencies on other graphs are taken to have ended: there are too many"
        for pool in self._means.crowded:
            yield f"of what is ready in the pool {pool} only the first {RIVALS:,} tasks are counted with"

    def page(self, tasks: list[Task], first: int, *, edges: bool) -> Iterator[TaskTimes]:
        """Of the tasks from place `first` on: as many as their named dependencies leave room for."""
        room = MAX_EDGE_BYTES
        for place, task in enumerate(tasks, start=first):
            dependencies = [edge_of(dependency)[0] for dependency in task.spec.dependencies] if edges else []
            room -= sum(map(len, dependencies))
            if room < 0 and place > first:
                return
            yield self._row(place, task.priority, dependencies)

    def _row(self, place: int, priority: int, dependencies: list[str]) -> TaskTimes:
        node, times, slot = self._path.nodes[place], self._path.times[place], self._forecast.slots[place]
        return TaskTimes(
            id=node.id,
            state=node.state,
            pool=node.pool,
            priority=priority,
            estimate_s=node.estimate_s,
            estimated=node.estimated,
            est_s=times.est,
            lst_s=times.lst,
            slack_s=times.slack,
            critical=times.critical,
            needed=times.needed,
            start_s=slot.start if slot else None,
            end_s=slot.end if slot else None,
            dependencies=dependencies,
        )
