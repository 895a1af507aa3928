"""The handlers of `story` and `ask`, and what `status` tells of the tracker's models."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Awaitable, Callable, Sequence

from supervisord_agents.config import Tracker
from supervisord_agents.core.events import Changed
from supervisord_agents.core.model import State
from supervisord_agents.core.task import Task, graph_of
from supervisord_agents.daemon.digests import Digests
from supervisord_agents.daemon.engine import Engine
from supervisord_agents.daemon.tellers import Tellers
from supervisord_agents.errors import InvalidInput, SupervisorError
from supervisord_agents.rpc.peer import Peer
from supervisord_agents.tracker.backend import Standing
from supervisord_agents.tracker.chain import Chain
from supervisord_agents.tracker.claims import DRAWN
from supervisord_agents.tracker.keeper import ALL, Keeper, Settings, Telling
from supervisord_agents.tracker.questions import names_in
from supervisord_agents.wire.story import Ask, AskReply, StoryReply, StoryTask, TellStory
from supervisord_agents.wire.tracker import ModelView, TrackerView

MAX_WAIT_S = 300.0
MAX_QUESTION = 2_000
LOOKED_UP = 3
"""Names in a question that are looked for in the archive."""


def settings_of(config: Tracker) -> Settings:
    """What is configured."""
    return Settings(**{name: getattr(config, name) for name in Settings.__struct_fields__})


class Tracking:
    """`attach` and `keep` come before anything else."""

    def __init__(self, engine: Engine, digests: Digests) -> None:
        self._scheduler = engine.scheduler
        self.digests = digests
        self._keeper: Keeper
        self._tellers: Tellers
        self._target: Callable[[str, str], Awaitable[str]]

    def attach(
        self,
        target: Callable[[str, str], Awaitable[str]],
        names: Callable[[str, str], Awaitable[list[str]]],
        tasks: Callable[[Sequence[str]], Awaitable[list[Task]]],
    ) -> None:
        """`target` finds the graph or task behind a name; the others are for the digests."""
        self._target = target
        self.digests.attach(names, tasks)

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
        self._keeper.changed(graph_of(change.task))

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
        return graph_of(await self._target(name, "graph")) if name else ALL

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
        open=digest.open_count + digest.only_counted,
        blocked_on=story.blocked_on,
        next_actionable=story.next_actionable,
        tasks=[StoryTask(id=entry.id, status=State(entry.status), waits_for=entry.waits_for) for entry in story.tasks],
        eta=digest.eta if digest.open_count else None,
    )
