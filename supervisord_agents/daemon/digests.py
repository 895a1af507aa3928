"""Digests (core.digest) of a graph, or of all that is open, made of the tasks as they are. Tasks are only read here."""

from __future__ import annotations

import asyncio
import math
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from typing import NamedTuple

from supervisord_agents.core.critical_path import CriticalPath
from supervisord_agents.core.digest import Digest, Note, note_of
from supervisord_agents.core.durations import Prediction
from supervisord_agents.core.eta import USUAL_SPREAD, bounded, eta_of
from supervisord_agents.core.forecast import Forecast as Ahead
from supervisord_agents.core.model import OPEN_STATES, State, TaskSpec
from supervisord_agents.core.picture import Node, Part, Picture
from supervisord_agents.core.task import Task
from supervisord_agents.daemon.engine import Engine
from supervisord_agents.daemon.forecast import Forecast
from supervisord_agents.daemon.pictures import Means, Pictures
from supervisord_agents.daemon.views import Known

MOST_TASKS = 10_000
"""Of a story: of more, whole graphs are only counted. What runs and what is next is looked at first, even of larger ones."""
PART = 1_000
"""Tasks in each state that are looked at of one graph that has more."""
LOOKED_AT = 10_000
"""Tasks of it whose states are counted in one turn."""
NEXT = 100
"""Ready tasks of a pool whose graphs come first then."""
AT_ONCE = 250
"""Notes made, or tasks looked at, in one turn of the loop."""
FEW_NODES = 100
"""A digest of no more is made in the loop, for it takes less than the way to a thread."""
THREADS = 2
"""In which digests are made: the loop has to have its turn."""
Kinds = dict[tuple[str, str], Prediction]
Kept = dict[tuple[str, tuple[str, ...]], tuple[str, bool]]


class About(NamedTuple):
    """What a digest is of, beside the picture."""

    subject: str
    others: Mapping[State, int]
    """Tasks that are only counted."""
    left_s: float
    """Of the time of the graph's budget; infinite: it has none."""
    saga: str
    """As in core.saga.Sagas.about."""


class Digests:
    """`attach` comes before anything else."""

    def __init__(self, engine: Engine, pictures: Pictures, forecast: Forecast, signs: Known) -> None:
        self._engine = engine
        self._scheduler = engine.scheduler
        self._pictures = pictures
        self._forecast = forecast
        self._signs = signs
        self._threads = asyncio.Semaphore(THREADS)
        self._names: Callable[[str, str], Awaitable[list[str]]]
        self._tasks: Callable[[Sequence[str]], Awaitable[list[Task]]]

    def attach(
        self,
        names: Callable[[str, str], Awaitable[list[str]]],
        tasks: Callable[[Sequence[str]], Awaitable[list[Task]]],
    ) -> None:
        """`names` finds the tasks of a graph, `tasks` those of full ids."""
        self._names, self._tasks = names, tasks

    async def of(self, subject: str) -> Digest:
        """Of a graph, or of all that is open; durable when it is given. Raises NotFound for a graph that is gone."""
        others: Mapping[State, int] = {}
        if subject:
            tasks, others = await self._of_graph(subject)
            whole = True
        else:
            tasks, whole = await self._of_open_graphs()
        picture = await self._pictures.take(tasks)
        means = self._pictures.means(picture)
        notes: dict[str, Note] = {}
        for _ in self._take_notes(picture, {task.id: task for task in tasks}, notes, means):
            await asyncio.sleep(0)
        if not whole:
            others = self._others(picture)
        about = self._about(subject, others, picture.now)
        if len(picture.nodes) > FEW_NODES:
            async with self._threads:
                digest = await asyncio.to_thread(_digest, about, picture, means, notes)
        else:
            digest = _digest(about, picture, means, notes)
        await self._engine.settled_for([node.id for node in picture.nodes])
        return digest

    def _about(self, subject: str, others: Mapping[State, int], now: float) -> About:
        account = self._scheduler.budgets.of(subject) if subject else None
        left_s = max(0.0, account.until - now) if account is not None and account.until else math.inf
        return About(subject, others, left_s, self._scheduler.sagas.about(subject))

    async def _of_graph(self, graph: str) -> tuple[Sequence[Task], Mapping[State, int]]:
        """Its tasks; of too many some of those that are told, and how many others there are."""
        found = self._scheduler.table.graphs.tasks(graph) or await self._tasks(await self._names(graph, "graph"))
        if len(found) <= MOST_TASKS:
            return found, {}
        of_state: dict[State, list[Task]] = {state: [] for state in State}
        counts = Counter[State]()
        for start in range(0, len(found), LOOKED_AT):
            for task in found[start : start + LOOKED_AT]:
                counts[task.state] += 1
                if len(of_state[task.state]) < PART and not task.ended_by_dependency:
                    of_state[task.state].append(task)
            await asyncio.sleep(0)
        next_ones = [task for task in self._scheduler.rivals(self._scheduler.pools_waiting(), NEXT) if task.graph == graph]
        chosen = {task.order: task for tasks in (*of_state.values(), next_ones) for task in tasks}
        counts.subtract(task.state for task in chosen.values())
        return [chosen[order] for order in sorted(chosen)], {state: max(0, count) for state, count in counts.items()}

    async def _of_open_graphs(self) -> tuple[list[Task], bool]:
        """All tasks of the graphs that have open ones, in order of submission; of too many graphs only some, and then False."""
        scheduler = self._scheduler
        chosen: dict[str, list[Task]] = {}
        room, whole = MOST_TASKS, True
        parts: dict[int, Task] = {}
        for task in [*scheduler.running_tasks(), *scheduler.rivals(scheduler.pools_waiting(), NEXT)]:
            room, fits = self._choose(task.graph, chosen, room)
            whole &= fits
            if not fits and len(scheduler.table.graphs.tasks(task.graph)) > MOST_TASKS:
                parts[task.order] = task
        cursor, left = scheduler.next_order, scheduler.pending
        while left > 0 and room > 0 and (some := scheduler.before(cursor, AT_ONCE)):
            passed = cursor
            for task in some:
                if task.order < passed and not task.ended:
                    passed = scheduler.table.graphs[task.graph].first
                    room, fits = self._choose(task.graph, chosen, room)
                    whole &= fits
                    left -= sum(not other.ended for other in chosen.get(task.graph, ()))
            cursor = min(passed, some[-1].order)
            await asyncio.sleep(0)
        every = [*parts.values(), *(task for tasks in chosen.values() for task in tasks)]
        found = sorted(every, key=lambda task: task.order)
        return found, whole and (left <= 0 or room > 0)

    def _choose(self, graph: str, chosen: dict[str, list[Task]], room: int) -> tuple[int, bool]:
        """Take a graph in, if there is room for it or none is in; gives the room that is left, and whether it is in."""
        if graph in chosen:
            return room, True
        tasks = self._scheduler.table.graphs.tasks(graph)
        if len(tasks) > room:
            return room, False
        chosen[graph] = tasks
        return room - len(tasks), True

    def _others(self, picture: Picture) -> dict[State, int]:
        """Open tasks that are not in it."""
        seen = dict.fromkeys(OPEN_STATES, 0)
        for node in picture.nodes:
            if node.open:
                seen[node.state] += 1
        return {state: max(0, self._scheduler.counts[state] - seen[state]) for state in OPEN_STATES}

    def _take_notes(self, picture: Picture, tasks: Mapping[str, Task], notes: dict[str, Note], means: Means) -> Iterator[None]:
        """Of every task in it, and what is expected of it by its kind; a step at a time."""
        kinds: Kinds = {}
        kept: Kept = {}
        count = 0
        for node in picture.nodes:
            task = None if node.part is Part.RIVAL else tasks.get(node.id) or self._scheduler.tasks.get(node.id)
            if task is None:
                continue
            notes[node.id] = self._note(node, task, kinds, self._kept(task, kept, means))
            count += 1
            if count % AT_ONCE == 0:
                yield

    def _note(self, node: Node, task: Task, kinds: Kinds, kept: tuple[str, bool]) -> Note:
        kind = task.spec.type
        prediction = kinds.get((task.agent, kind))
        if prediction is None:
            prediction = self._forecast.prediction(TaskSpec(agent=task.agent, type=kind))
            kinds[task.agent, kind] = prediction
        usual_s = prediction.seconds
        if not node.estimated and usual_s > 0:
            node.estimate_s, node.estimated = usual_s, True
        spread = (prediction.low_s / usual_s, prediction.high_s / usual_s) if usual_s > 0 else USUAL_SPREAD
        sign = self._signs.get(task.id) if task.state is State.RUNNING else None
        fraction, message = (sign.fraction, sign.message) if sign else (-1.0, "")
        return note_of(task, kind, fraction, message, self._held(task), spread, kept)

    def _kept(self, task: Task, known: Kept, means: Means) -> tuple[str, bool]:
        """What keeps a ready task from being given a worker, beside pauses and other tasks (Note)."""
        if task.state is not State.READY:
            return "", False
        kind = task.pool, task.choices or (task.agent,)
        if kind not in known:
            missing = f"the configuration has no pool {task.pool}", False
            there = task.pool in means.workers
            known[kind] = self._scheduler.hindrance(task, self._engine.clock.now()) if there else missing
        return known[kind]

    def _held(self, task: Task) -> str:
        pauses = self._scheduler.pauses
        if not pauses or task.state is not State.READY:
            return ""
        scope = pauses.holding_all(task.pool, task.choices or (task.agent,))
        return f"{scope} is paused" if scope is not None else ""


def _digest(about: About, picture: Picture, means: Means, notes: Mapping[str, Note]) -> Digest:
    plan = CriticalPath(picture.nodes)
    ahead = Ahead(plan, means.workers, means.pauses, picture.now, means.ageing_s)
    eta = None
    # Of tasks that are only counted nobody knows when they end.
    if not any(about.others.values()):
        eta = eta_of(plan, ahead, lambda node: notes[node.id].spread if node.id in notes else USUAL_SPREAD)
        eta = bounded(eta, about.left_s) if math.isfinite(about.left_s) else eta
    return Digest(
        picture,
        notes,
        subject=about.subject,
        eta=eta,
        ageing_s=means.ageing_s,
        others=about.others,
        slots=ahead.open_slots(),
        saga=about.saga,
    )
