"""Looks whether everything stands still; tells the log and `status` what holds it, and offers again what was forgotten."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import structlog

from supervisord_agents.core import stuck
from supervisord_agents.core.stuck import Hold, Kind
from supervisord_agents.daemon.engine import Engine
from supervisord_agents.daemon.facts import Facts
from supervisord_agents.daemon.reasons import Reasons
from supervisord_agents.wire.messages import StandstillView
from supervisord_agents.workers.pool import Pools

LOOK_S = 2.0
MAX_REASONS = 5
log = structlog.get_logger()


class Watch:
    """`look` is called often, and looks every LOOK_S seconds; `dispatch` offers the ready tasks to the pools again."""

    def __init__(self, engine: Engine, pools: Pools, facts: Facts, dispatch: Callable[[], None]) -> None:
        self._engine = engine
        self._scheduler = engine.scheduler
        self._pools = pools
        self._facts = facts
        self._dispatch = dispatch
        self._look_at = 0.0
        self._sequence = -1
        """Of the last record, as a look has seen it, and when it saw it first."""
        self._seen_at = 0.0
        self._blocked: list[Hold] = []
        self._scan: Iterator[Hold | None] | None = None
        """Through the blocked tasks, a step a turn; as of `_sequence`."""

    def look(self, now: float) -> None:
        """In no time while anything runs or waits for time."""
        if now >= self._look_at:
            self._look_at = now + LOOK_S
            holds = self._ready_holds(now)
            if holds is None:
                self._over(now)
                return
            if self._engine.sequence != self._sequence:
                self._sequence, self._seen_at = self._engine.sequence, now
                self._blocked, self._scan = [], stuck.blocked_holds(self._scheduler)
            if now - self._seen_at < LOOK_S:
                # What has only just become ready is about to be started.
                holds = [hold for hold in holds if hold.kind is not Kind.NOT_STARTED]
            self._tell([*holds, *self._blocked], now)
        elif self._scan is not None and self._scanned():
            self._look_at = now

    def _ready_holds(self, now: float) -> list[Hold] | None:
        """None: nothing stands still, or it is clear why."""
        if not stuck.standing(self._scheduler):
            return None
        if self._facts.stopping or not self._facts.journal_accepting() or self._engine.waiting[0]:
            return None
        workers = {view.name: view.max_workers for view in self._pools.views({})}
        return stuck.ready_holds(self._scheduler, workers, self._pools.free(), now)

    def _scanned(self) -> bool:
        """Go on with the scan; whether it has found out all that it is going to."""
        assert self._scan is not None
        if self._engine.sequence != self._sequence:
            self._scan = None
            return False
        for hold in self._scan:
            if hold is None:
                return False
            self._blocked.append(hold)
            if len(self._blocked) == MAX_REASONS:
                break
        self._scan = None
        return True

    def _tell(self, holds: list[Hold], now: float) -> None:
        if not holds:
            return
        reasons = Reasons(self._scheduler, self._pools, now)
        told = self._facts.standstill
        view = StandstillView(
            since=told.since if told else now,
            tasks=self._scheduler.pending,
            reasons=[reasons.of_hold(hold) for hold in holds[:MAX_REASONS]],
        )
        self._facts.standstill = view
        if told is None:
            log.warning("standstill", tasks=view.tasks, reasons=view.reasons)
        missed = [hold for hold in holds if hold.kind is Kind.NOT_STARTED]
        if missed:
            log.error("lost_wakeup", pools=[hold.name for hold in missed], note="their ready tasks are offered again")
            self._dispatch()

    def _over(self, now: float) -> None:
        self._sequence, self._blocked, self._scan = -1, [], None
        if self._facts.standstill is not None:
            log.info("standstill_over", seconds=round(now - self._facts.standstill.since, 1))
            self._facts.standstill = None
