"""The way of a graph into the journal, whoever submits it: admitted, checked, fed, and answered when it is on disk."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable

import msgspec

from supervisord_agents.config import Config
from supervisord_agents.core.descent import Limits
from supervisord_agents.core.events import Changed, Submitted
from supervisord_agents.core.model import State, TaskSpec
from supervisord_agents.core.task import Task, full_id
from supervisord_agents.daemon.admission import AT_ONCE, Admission
from supervisord_agents.daemon.archivist import Archivist
from supervisord_agents.daemon.attempts import Attempts
from supervisord_agents.daemon.engine import Engine
from supervisord_agents.daemon.facts import Facts
from supervisord_agents.daemon.graph_ids import GraphIds
from supervisord_agents.errors import InvalidInput, NotFound, QueueFull, Unavailable
from supervisord_agents.journal.journal import SYSTEM_RANDOM
from supervisord_agents.rpc.peer import Peer
from supervisord_agents.wire import messages as m

_READY = State.READY


def limits_of(config: Config) -> Limits:
    """Of children."""
    return Limits(config.tasks.max_depth, config.tasks.max_children, config.tasks.max_descendants)


class Submissions:
    """Of clients, and of running tasks. At most `max_pending` tasks wait or run at a time."""

    def __init__(
        self,
        engine: Engine,
        admission: Admission,
        attempts: Attempts,
        archivist: Archivist,
        facts: Facts,
        max_pending: int,
        limits: Limits,
        dice: random.Random = SYSTEM_RANDOM,
    ) -> None:
        self._engine = engine
        self._scheduler = engine.scheduler
        self._admission = admission
        self._attempts = attempts
        self._archivist = archivist
        self._facts = facts
        self._max_pending = max_pending
        self._limits = limits
        self._ids = GraphIds(engine.scheduler, archivist, dice)

    @property
    def stopping(self) -> bool:
        """Nothing more is accepted by this daemon."""
        return self._facts.stopping

    def submit(self, request: m.Submit, peer: Peer) -> Awaitable[m.SubmitReply]:
        """Done at once, but for the answer: a task for each submit would cost as much as the rest."""
        known = self._scheduler.graph_of_key(request.key) if request.key else None
        if known is not None:
            duplicate = m.SubmitReply(graph=known, tasks=self._scheduler.graph_tasks(known), duplicate=True)
            return self._engine.answer(self._engine.sequence, duplicate)
        if len(request.tasks) > AT_ONCE or (request.key and not self._archivist.empty):
            return self._submit_with_pauses(request, peer)
        self._refuse_if_full(len(request.tasks))
        specs = self._admission.admit(request.tasks, peer.uid)
        graph = self._ids.take()
        if graph is None or (not self._archivist.empty and self._scheduler.unknown(specs)):
            return self._submit_with_pauses(request, peer)
        budget = self._admission.budget(request.budget)
        event = Submitted(graph=graph, specs=specs, key=request.key, client=str(peer.uid), budget=budget)
        self._scheduler.check(event, self._engine.clock.now())
        return self._take(event)

    async def submit_children(self, parent: Task, tasks: list[TaskSpec], call: int) -> str:
        """The graph of what the running attempt of `parent` submits, when it is on disk. Raises SupervisorError."""
        attempt = parent.attempt
        known = self._scheduler.families.graph_of_call(parent.id, attempt, call)
        if known:
            await self._engine.settled()
            return known
        self._refuse_if_full(len(tasks))
        self._scheduler.check_children(parent, len(tasks), self._limits)
        specs = await self._admission.admit_children(tasks, parent, self._engine.clock.now())
        event = Submitted(
            graph=await self._ids.wait(), specs=specs, client=parent.client, parent=parent.id, attempt=attempt, call=call
        )
        return (await self._accept(event)).graph

    async def _submit_with_pauses(self, request: m.Submit, peer: Peer) -> m.SubmitReply:
        """Of very many tasks, or where the archive has to be asked for the key, the dependencies and a free id."""
        known = await self._known(request.key)
        if known is not None:
            return known
        self._refuse_if_full(len(request.tasks))
        specs = await self._admission.admit_many(request.tasks, peer.uid)
        graph, budget = await self._ids.wait(), self._admission.budget(request.budget)
        return await self._accept(Submitted(graph=graph, specs=specs, key=request.key, client=str(peer.uid), budget=budget))

    async def _accept(self, event: Submitted) -> m.SubmitReply:
        while True:
            moves = self._archivist.moves
            past = await self._archivist.past(self._scheduler.unknown(event.specs))
            event = msgspec.structs.replace(event, past=past)
            known = await self._known(event.key)
            if known is not None:
                return known
            try:
                for _ in self._scheduler.checks(event):
                    await asyncio.sleep(0)
            except InvalidInput as error:
                if error.field != "key":
                    raise
                continue  # the same was submitted meanwhile
            if moves == self._archivist.moves:
                break  # else a dependency, or the key, may have left memory since
        self._refuse_if_full(len(event.specs))
        if event.parent:  # it may have submitted more meanwhile
            self._scheduler.check_children(self._scheduler.tasks[event.parent], len(event.specs), self._limits)
        return await self._take(event)

    def _take(self, event: Submitted) -> Awaitable[m.SubmitReply]:
        fed = self._engine.feed(event, urgent=False)
        if any(isinstance(change, Changed) and change.after is _READY for change in fed.decisions):
            self._attempts.slots_changed()
        reply = m.SubmitReply(graph=event.graph, tasks=[full_id(event.graph, spec.id) for spec in event.specs])
        return self._engine.answer(fed.sequence, reply)

    async def _known(self, key: str) -> m.SubmitReply | None:
        """The answer for a key that was used before."""
        if not key:
            return None
        graph = self._scheduler.graph_of_key(key) or await self._archivist.graph_of_key(key)
        if graph is None:
            return None
        await self._engine.settled()
        tasks = self._scheduler.graph_tasks(graph) or await self._archivist.names(graph)
        if not tasks:
            raise NotFound(f"the graph {graph}, submitted with this key, has just been removed from the archive.", field="key")
        return m.SubmitReply(graph=graph, tasks=tasks, duplicate=True)

    def _refuse_if_full(self, count: int) -> None:
        if self._facts.stopping:
            raise Unavailable(
                "the supervisor is stopping.", kept="Nothing of this graph was accepted.", hint="Try again when it is back."
            )
        pending = self._scheduler.pending
        if pending + count > self._max_pending:
            raise QueueFull(
                f"this graph of {count} would make {pending + count} pending tasks, the limit is {self._max_pending}.",
                kept="Nothing of this graph was accepted.",
                hint="Wait for some to end, or raise daemon.max_pending_tasks.",
            )
