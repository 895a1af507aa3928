"""What a person may ask of the daemon as a whole: to start nothing more of something, to go on, and why a task is where it is."""

from __future__ import annotations

import structlog

from supervisord_agents.core.events import PauseRequested, ResumeRequested, Stop
from supervisord_agents.core.pauses import Scope
from supervisord_agents.core.scheduler import Scheduler
from supervisord_agents.daemon import views
from supervisord_agents.daemon.admission import Admission
from supervisord_agents.daemon.attempts import Attempts
from supervisord_agents.daemon.engine import Engine
from supervisord_agents.daemon.outcomes import Resolve
from supervisord_agents.daemon.reasons import Reasons
from supervisord_agents.rpc.peer import Peer
from supervisord_agents.wire import messages as m
from supervisord_agents.workers.pool import Pools

log = structlog.get_logger()


class Control:
    """The handlers of `pause`, `resume` and `why`; `resolve` finds the one task behind a name."""

    def __init__(self, engine: Engine, admission: Admission, attempts: Attempts, pools: Pools, resolve: Resolve) -> None:
        self._engine = engine
        self._scheduler = engine.scheduler
        self._admission = admission
        self._attempts = attempts
        self._pools = pools
        self._resolve = resolve

    async def pause(self, request: m.Pause, peer: Peer) -> m.PauseReply:
        self._admission.check_scope(request.pool, request.agent)
        event = PauseRequested(
            pool=request.pool, agent=request.agent, stop=request.stop, reason=request.reason, client=str(peer.uid)
        )
        self._scheduler.check(event, self._engine.clock.now())
        fed = self._engine.feed(event)
        scope = Scope(request.pool, request.agent)
        stopped = [decision.task for decision in fed.decisions if isinstance(decision, Stop)]
        running = sum(map(scope.holds, self._scheduler.running_tasks()))
        reply = m.PauseReply(paused=pauses(self._scheduler), stopped=stopped, running=running)
        self._attempts.slots_changed()  # another agent may take what this one would have
        await self._engine.released(fed.sequence)
        log.warning("paused", scope=str(scope), reason=request.reason, stopped=len(stopped), uid=peer.uid)
        return reply

    async def resume(self, request: m.Unpause, peer: Peer) -> m.UnpauseReply:
        event = ResumeRequested(pool=request.pool, agent=request.agent, everything=request.everything)
        self._scheduler.check(event, self._engine.clock.now())
        fed = self._engine.feed(event)
        reply = m.UnpauseReply(paused=pauses(self._scheduler))
        self._attempts.slots_changed()
        await self._engine.released(fed.sequence)
        scope = "everything" if request.everything else str(Scope(request.pool, request.agent))
        log.warning("resumed", scope=scope, uid=peer.uid)
        return reply

    async def why(self, request: m.Why, peer: Peer) -> m.WhyReply:
        task = (await self._resolve(request.task)).task
        budget = self._attempts.spending.view(task.graph)
        reasons = Reasons(self._scheduler, self._pools, self._engine.clock.now(), budget)
        reply = m.WhyReply(task=views.view(task, self._attempts.signs, self._scheduler), reasons=list(reasons.of(task)))
        await self._engine.settled_for([task.id])
        return reply


def pauses(scheduler: Scheduler) -> list[m.PauseView]:
    """All that is paused."""
    return [
        m.PauseView(pool=scope.pool, agent=scope.agent, at=pause.at, client=pause.client, reason=pause.reason)
        for scope, pause in sorted(scheduler.pauses.items())
    ]
