"""What clients ask about dead letters: to see them, to have them run again, to have them off the list."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from itertools import islice

import structlog

from supervisord_agents.core.events import Dropped, RetryRequested
from supervisord_agents.core.scheduler import Scheduler
from supervisord_agents.core.task import Task
from supervisord_agents.daemon.engine import Engine
from supervisord_agents.daemon.views import MAX_PAGE, MAX_ROWS_IN_FULL, in_brief
from supervisord_agents.errors import InvalidInput, NotFound
from supervisord_agents.rpc.peer import Peer
from supervisord_agents.wire import letters as m

MAX_NAMED = 10_000
"""Tasks that an answer names: more would not fit into a frame."""
MAX_REFUSED = 1_000
DROPPED_AT_ONCE = 500
"""By one record."""
log = structlog.get_logger()
Resolve = Callable[[str], Awaitable[list[str]]]
Retry = Callable[[RetryRequested], Awaitable[list[str]]]


class Letters:
    """The handlers of `dlq`, `requeue` and `drop`; `resolve` finds the tasks behind a name, `retry` carries one out."""

    def __init__(self, engine: Engine, resolve: Resolve, retry: Retry) -> None:
        self._engine = engine
        self._scheduler = engine.scheduler
        self._resolve = resolve
        self._retry = retry

    async def page(self, request: m.ListLetters, peer: Peer) -> m.LettersReply:
        if not 1 <= request.limit <= MAX_PAGE:
            raise InvalidInput(f"must be from 1 to {MAX_PAGE}.", field="limit")
        names = await self._meant([request.task]) if request.task else [*reversed(self._scheduler.letters)]
        start = 0
        if request.after:
            if request.after not in names:
                raise InvalidInput(f"{request.after} is no dead letter any more.", field="after", hint="List from the beginning.")
            start = names.index(request.after) + 1
        page = names[start : start + request.limit]
        letters = [self._letter(self._scheduler.tasks[name], brief=len(page) > MAX_ROWS_IN_FULL) for name in page]
        more = start + len(page) < len(names)
        reply = m.LettersReply(letters=letters, total=len(names), next=page[-1] if more else "")
        await self._engine.settled_for(page)
        return reply

    async def requeue(self, request: m.Requeue, peer: Peer) -> m.RequeueReply:
        await self._engine.idle()
        again: list[str] = []
        refused: list[m.LetterNote] = []
        for name in await self._asked(request.tasks, request.everything):
            if name not in self._scheduler.letters:
                continue  # The round of one before has taken it along.
            event = RetryRequested(task=name)
            try:
                await self._engine.idle()
                self._scheduler.check(event, self._engine.clock.now())
                again += await self._retry(event)
            except (InvalidInput, NotFound) as error:
                refused.append(m.LetterNote(task=name, why=" ".join(filter(None, (f"{error.message}.", error.hint)))))
        log.info("requeued", tasks=len(again), refused=len(refused), uid=peer.uid)
        return m.RequeueReply(tasks=sorted(again)[:MAX_NAMED], count=len(again), refused=(*refused[:MAX_REFUSED],))

    async def drop(self, request: m.Drop, peer: Peer) -> m.DropReply:
        names = await self._asked(request.tasks, request.everything)
        gone: list[str] = []
        for start in range(0, len(names), DROPPED_AT_ONCE):
            some = [name for name in names[start : start + DROPPED_AT_ONCE] if name in self._scheduler.letters]
            event = Dropped(tasks=tuple(some), reason=request.reason, client=str(peer.uid))
            self._scheduler.check(event, self._engine.clock.now())
            await self._engine.released(self._engine.feed(event).sequence)
            gone += some
        log.info("dropped", tasks=len(gone), reason=request.reason, uid=peer.uid)
        return m.DropReply(tasks=gone[:MAX_NAMED], count=len(gone))

    async def _asked(self, names: Sequence[str], everything: bool) -> list[str]:
        """The full ids that a request means; raises SupervisorError, before anything is done, for one that is no letter."""
        if everything == bool(names):
            raise InvalidInput("name some, or say all." if not names else "is empty when all are meant.", field="tasks")
        return [*self._scheduler.letters] if everything else await self._meant(names)

    async def _meant(self, names: Sequence[str]) -> list[str]:
        """The letters behind names of tasks or graphs, each once."""
        found: dict[str, None] = {}
        for name in names:
            letters = [task for task in await self._resolve(name) if task in self._scheduler.letters]
            if not letters:
                raise _no_letter(self._scheduler, name)
            found |= dict.fromkeys(letters)
        return [*found]

    def _letter(self, task: Task, *, brief: bool) -> m.Letter:
        spec = task.spec
        assert task.failure is not None
        return m.Letter(
            task=task.id,
            agent=spec.agent,
            type=spec.type,
            at=task.ended_at,
            attempts=task.attempt,
            failure=in_brief(task.failure) if brief else task.failure,
            undoes=self._scheduler.sagas.undoes(task),
            dependents=len(task.dependents),
        )


def _no_letter(scheduler: Scheduler, name: str) -> NotFound:
    some = ", ".join(islice(reversed(scheduler.letters), 3))
    there = f"The last ones: {some}." if some else "There are none now."
    return NotFound(f"{name} is no dead letter: not dead, or decided about already.", field="tasks", hint=there)
