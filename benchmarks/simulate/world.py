"""A simulated day: the real scheduler, on a clock that jumps from one thing that happens to the next."""

from __future__ import annotations

import heapq
import time
from collections.abc import Callable, Sequence
from math import inf
from typing import NamedTuple

from benchmarks.simulate.workers import Behaviour, Work, Workers
from supervisord_agents.core.events import Advanced, AnyEvent, Finished, Start, Started, Stop, Submitted, Ticked
from supervisord_agents.core.graph import normalise
from supervisord_agents.core.model import State, TaskSpec
from supervisord_agents.core.scheduler import Scheduler
from supervisord_agents.core.task import Task

BEGIN = 1_000_000.0
"""The clock at first: any number that is no special one."""
SHORTEST_WAIT_S = 0.01
"""That of daemon/attempts.py, between two looks at what time alone lets start."""
AGEING_S = 300.0
"""Of config.toml."""


class Run(NamedTuple):
    """One attempt, all times in seconds since the beginning."""

    task: str
    """Its short id."""
    pool: str
    ready: float
    start: float
    """When a worker was told."""
    begun: float
    """When the worker began on it."""
    end: float


class World:
    """Clients submit at given times, workers take theirs, and everything else is the core's doing."""

    def __init__(
        self, workers: Workers, behaviour: Behaviour, *, overhead_s: float = 0.0, scheduler: Scheduler | None = None
    ) -> None:
        """`overhead_s`: between an attempt's start and the worker's first step (spawn, sandbox, frames)."""
        self.scheduler = scheduler or Scheduler(AGEING_S)
        self.now = 0.0
        self.runs: list[Run] = []
        """In order of their ends."""
        self.cpu_s = 0.0
        """Processor time that the core has taken."""
        self._workers = workers
        workers.attach(self.scheduler)
        self._behaviour = behaviour
        self._overhead_s = overhead_s
        self._agenda: list[tuple[float, int, Callable[[], None]]] = []
        self._count = 0
        self._running: dict[tuple[str, int], Run] = {}

    def submit(self, specs: Sequence[TaskSpec], at: float = 0.0) -> None:
        """A client will submit this graph then."""
        specs = normalise(specs)
        self._count += 1
        event = Submitted(graph=f"g{self._count}", specs=specs)
        self._at(at, lambda: self._feed(event))

    def run(self) -> World:
        """Until nothing is left to happen."""
        while (due := self._next()) is not None:
            self.now = max(self.now, due)
            while self._agenda and self._agenda[0][0] <= self.now:
                heapq.heappop(self._agenda)[2]()
            ticks = self.scheduler.next_due()
            if ticks is not None and ticks <= BEGIN + self.now:
                self._feed(Ticked())
            self._start_some()
        return self

    def task(self, short_id: str, graph: str = "g1") -> Task:
        return self.scheduler.tasks[f"{graph}.{short_id}"]

    def succeeded(self) -> int:
        return self.scheduler.counts[State.SUCCEEDED]

    @property
    def makespan_s(self) -> float:
        """From the beginning to the last end of an attempt."""
        return max(run.end for run in self.runs)

    def _at(self, at: float, action: Callable[[], None]) -> None:
        self._count += 1
        heapq.heappush(self._agenda, (at, self._count, action))

    def _next(self) -> float | None:
        """When something is due, if anything is: of the core, of the clients and workers, or because a pool has grown by then."""
        due, again_at = self.scheduler.next_due(), self.scheduler.placement.again_at
        times = [] if due is None else [due - BEGIN]
        if self._agenda:
            times.append(self._agenda[0][0])
        if again_at < inf:
            times.append(max(again_at - BEGIN, self.now + SHORTEST_WAIT_S))
        return min(times, default=None)

    def _feed(self, event: AnyEvent) -> None:
        now = BEGIN + self.now
        self.scheduler.check(event, now)
        begun = time.process_time()
        decisions = self.scheduler.handle(event, now)
        while self.scheduler.busy:
            decisions += self.scheduler.handle(Advanced(), now)
        self.cpu_s += time.process_time() - begun
        for decision in decisions:
            if isinstance(decision, Stop):
                self._over(decision.task, decision.attempt)

    def _start_some(self) -> None:
        begun = time.process_time()
        offers = self._workers.starts(self.scheduler, BEGIN + self.now)
        self.cpu_s += time.process_time() - begun
        for offer in offers:
            self._start(offer)

    def _start(self, offer: Start) -> None:
        task = self.scheduler.tasks[offer.task]
        ready = task.history[-1].at - BEGIN
        pool = offer.pool if offer.pool != task.pool else ""
        started = Started(
            task=offer.task, attempt=offer.attempt, worker="simulated", pool=pool, agent=offer.agent, note=offer.note
        )
        self._feed(started)
        self._workers.taken(offer.pool)
        begun = self.now + self._overhead_s
        self._running[offer.task, offer.attempt] = Run(task.short_id, offer.pool, ready, self.now, begun, 0.0)
        work = self._behaviour(task)
        if work.seconds < inf:
            self._at(begun + work.seconds, lambda: self._done(offer, work))

    def _done(self, offer: Start, work: Work) -> None:
        if (offer.task, offer.attempt) in self._running:
            self._over(offer.task, offer.attempt)
            self._feed(Finished(task=offer.task, attempt=offer.attempt, failure=work.failure))

    def _over(self, task: str, attempt: int) -> None:
        run = self._running.pop((task, attempt))
        self._workers.left(run.pool)
        self.runs.append(run._replace(end=self.now))
