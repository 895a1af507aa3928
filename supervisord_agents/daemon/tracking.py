"""The handlers of `story` and `ask`, and the digests that the tracker makes its words of. Tasks are only read here."""

from __future__ import annotations

import asyncio
import contextlib
import math
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence

from supervisord_agents.config import Tracker
from supervisord_agents.core.critical_path import CriticalPath
from supervisord_agents.core.digest import Digest, Note, note_of
from supervisord_agents.core.durations import Prediction
from supervisord_agents.core.eta import USUAL_SPREAD, bounded, eta_of
from supervisord_agents.core.events import Changed
from supervisord_agents.core.forecast import Forecast as Ahead
from supervisord_agents.core.model import END_STATES, State, TaskSpec
from supervisord_agents.core.picture import Node, Part, Picture
from supervisord_agents.core.task import Task
from supervisord_agents.daemon.engine import Engine
from supervisord_agents.daemon.forecast import Forecast
from supervisord_agents.daemon.pictures import Means, Pictures
from supervisord_agents.daemon.tellers import Tellers
from supervisord_agents.daemon.views import Known
from supervisord_agents.errors import InvalidInput, SupervisorError
from supervisord_agents.rpc.peer import Peer
from supervisord_agents.tracker.backend import Standing
from supervisord_agents.tracker.chain import Chain
from supervisord_agents.tracker.claims import DRAWN
from supervisord_agents.tracker.keeper import ALL, Keeper, Settings, Telling
from supervisord_agents.tracker.questions import names_in
from supervisord_agents.wire.story import Ask, AskReply, StoryReply, StoryTask, TellStory
from supervisord_agents.wire.tracker import ModelView, TrackerView

MOST_TASKS = 10_000
"""Of a story: of more, whole graphs are only counted. What runs and what is next is looked at first, even of larger ones."""
PART = 1_000
"""Tasks in each state that are looked at of one graph that has more."""
LOOKED_AT = 10_000
"""Tasks of it whose states are counted in one turn."""
NEXT = 100
"""Ready tasks of a pool whose graphs come first then."""
MAX_WAIT_S = 300.0
MAX_QUESTION = 2_000
LOOKED_UP = 3
"""Names in a question that are looked for in the archive."""
AT_ONCE = 250
"""Notes made, or tasks looked at, in one turn of the loop."""
FEW_NODES = 100
"""A digest of no more is made in the loop, for it takes less than the way to a thread."""
THREADS = 2
"""In which digests are made: the loop has to have its turn."""
_OPEN = [state for state in State if state not in END_STATES]
Kinds = dict[tuple[str, str], Prediction]
Kept = dict[tuple[str, tuple[str, ...]], tuple[str, bool]]


def settings_of(config: Tracker) -> Settings:
    """What is configured."""
    return Settings(**{name: getattr(config, name) for name in Settings.__struct_fields__})


class Tracking:
    """`attach` and `keep` come before anything else."""

    def __init__(self, engine: Engine, pictures: Pictures, forecast: Forecast, signs: Known) -> None:
        self._engine = engine
        self._scheduler = engine.scheduler
        self._pictures = pictures
        self._forecast = forecast
        self._signs = signs
        self._threads = asyncio.Semaphore(THREADS)
        self._keeper: Keeper
        self._tellers: Tellers
        self._target: Callable[[str, str], Awaitable[str]]
        self._names: Callable[[str, str], Awaitable[list[str]]]
        self._tasks: Callable[[Sequence[str]], Awaitable[list[Task]]]

    def attach(
        self,
        target: Callable[[str, str], Awaitable[str]],
        names: Callable[[str, str], Awaitable[list[str]]],
        tasks: Callable[[Sequence[str]], Awaitable[list[Task]]],
    ) -> None:
        """`target` finds the graph or task behind a name, `names` the tasks of a graph, `tasks` those of full ids."""
        self._target, self._names, self._tasks = target, names, tasks

    def keep(self, keeper: Keeper, tellers: Tellers) -> None:
        """Have that one tell, by these models."""
        self._keeper, self._tellers = keeper, tellers

    @property
    def chain(self) -> Chain | None:
        """Of the models, if there are any."""
        return self._tellers.chain

    def view(self) -> TrackerView | None:
        """What has come of the models; None: there are none."""
        tally, chain, purse = self._keeper.tally, self._tellers.chain, self._tellers.purse
        if chain is None:
            return None
        return TrackerView(
            models=[_model_view(name, standing) for name, standing in chain.standings().items()],
            answers=tally.told,
            refused=tally.refused,
            failed=tally.failed,
            late=tally.late,
            usage=tally.usage,
            spent_usd=purse.spent_usd,
            limit_usd=purse.limit_usd,
        )

    def changed(self, change: Changed) -> None:
        """A task has changed its state, durably."""
        self._keeper.changed(change.task.partition(".")[0])

    async def story(self, request: TellStory, peer: Peer) -> StoryReply:
        if not math.isfinite(request.wait_s) or not 0 <= request.wait_s <= MAX_WAIT_S:
            raise InvalidInput(f"must be from 0 to {MAX_WAIT_S:.0f}.", field="wait_s")
        return _reply(await self._keeper.story(await self._subject(request.graph), request.wait_s))

    async def ask(self, request: Ask, peer: Peer) -> AskReply:
        if not 1 <= len(request.question.strip()) <= MAX_QUESTION:
            raise InvalidInput(f"must be of 1 to {MAX_QUESTION} characters.", field="question")
        subject = await (self._subject(request.graph) if request.graph else self._meant(request.question))
        answer, by = await self._keeper.ask(request.question, subject)
        return AskReply(answer=answer.answer, by=by, citations=answer.citations, understood=answer.understood)

    async def _subject(self, name: str) -> str:
        return (await self._target(name, "graph")).partition(".")[0] if name else ALL

    async def _meant(self, question: str) -> str:
        """The graph that a question names, or of which it names tasks; of none or of several: all that is open."""
        found: set[str] = set()
        unknown: list[str] = []
        for name in names_in(question):
            graph, dot, _ = name.partition(".")
            if self._scheduler.has_graph(graph):
                found.add(graph)
            elif dot or DRAWN.fullmatch(graph):
                unknown.append(graph)
        for graph in list(dict.fromkeys(unknown))[:LOOKED_UP]:
            with contextlib.suppress(SupervisorError):
                found |= {await self._subject(graph)} & {graph}
        return found.pop() if len(found) == 1 else ALL

    # Digests

    async def gather(self, subject: str) -> Digest:
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
        account = self._scheduler.budgets.of(subject) if subject else None
        left_s = max(0.0, account.until - picture.now) if account is not None and account.until else math.inf
        if len(picture.nodes) > FEW_NODES:
            async with self._threads:
                digest = await asyncio.to_thread(_digest, subject, picture, means, notes, others, left_s)
        else:
            digest = _digest(subject, picture, means, notes, others, left_s)
        await self._engine.settled_for([node.id for node in picture.nodes])
        return digest

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
        seen = dict.fromkeys(_OPEN, 0)
        for node in picture.nodes:
            if node.open:
                seen[node.state] += 1
        return {state: max(0, self._scheduler.counts[state] - seen[state]) for state in _OPEN}

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


def _digest(
    subject: str,
    picture: Picture,
    means: Means,
    notes: Mapping[str, Note],
    others: Mapping[State, int],
    left_s: float,
) -> Digest:
    """`left_s` is what is left of the time of the graph's budget."""
    plan = CriticalPath(picture.nodes)
    ahead = Ahead(plan, means.workers, means.pauses, picture.now, means.ageing_s)
    eta = None
    # Of tasks that are only counted nobody knows when they end.
    if not any(others.values()):
        eta = eta_of(plan, ahead, lambda node: notes[node.id].spread if node.id in notes else USUAL_SPREAD)
        eta = bounded(eta, left_s) if math.isfinite(left_s) else eta
    return Digest(picture, notes, subject=subject, eta=eta, ageing_s=means.ageing_s, others=others, slots=ahead.open_slots())


def _model_view(name: str, standing: Standing) -> ModelView:
    return ModelView(
        name=name,
        state=str(standing.stands),
        since=standing.since,
        until=standing.until,
        why=standing.why,
        about=standing.about,
    )


def _reply(telling: Telling) -> StoryReply:
    digest, story = telling.digest, telling.story
    return StoryReply(
        graph=digest.subject,
        at=digest.now,
        summary=story.summary,
        by=telling.by,
        told_at=telling.at,
        behind=telling.behind,
        counts={str(state): count for state, count in digest.counts.items()},
        open=digest.open_count + sum(digest.others.values()),
        blocked_on=story.blocked_on,
        next_actionable=story.next_actionable,
        tasks=[StoryTask(id=entry.id, status=State(entry.status), waits_for=entry.waits_for) for entry in story.tasks],
        eta=digest.eta if digest.open_count else None,
    )
