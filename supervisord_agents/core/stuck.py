"""Whether everything stands still, and what holds it.

Nothing runs, nothing is tried again later, no work is left over from an event, and yet tasks are open: then only a person, or a
bug, is in the way. A pause, a pool without workers and one that is not configured are a person's; a cycle of waits (admission
refuses them), a task that waits for nothing and a ready one that nobody starts are bugs.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from enum import StrEnum
from math import inf
from typing import NamedTuple

from supervisord_agents.core.graph import name_cycle
from supervisord_agents.core.model import State
from supervisord_agents.core.pauses import Scope
from supervisord_agents.core.ready import Lane
from supervisord_agents.core.scheduler import Scheduler
from supervisord_agents.core.task import Task

STEP = 2_000
"""Tasks looked at in one turn."""


class Kind(StrEnum):
    """What holds tasks."""

    PAUSE = "pause"
    NO_POOL = "no_pool"
    NO_WORKERS = "no_workers"
    NOT_STARTED = "not_started"
    """They are ready, workers are free, and nobody has started them."""
    CYCLE = "cycle"
    FORGOTTEN = "forgotten"
    """Blocked, though all that it waited for has ended."""


class Hold(NamedTuple):
    """What holds `tasks` tasks; `name` is a pool, the id of a task, or a cycle of ids."""

    kind: Kind
    name: str
    tasks: int = 1
    scope: Scope = Scope()
    """Of a pause."""


def standing(scheduler: Scheduler) -> bool:
    """Whether no task will go on by itself, though some are open; in no time, however many there are."""
    counts = scheduler.counts
    waits_for_time = counts[State.RUNNING] or counts[State.BACKING_OFF]
    return not scheduler.busy and not waits_for_time and bool(scheduler.pending)


def ready_holds(scheduler: Scheduler, workers: Mapping[str, int], room: Mapping[str, int], now: float) -> list[Hold] | None:
    """What holds the ready tasks, given each pool's workers and how many more tasks it may take now.

    None: some only wait until a pool takes tasks again, or the scheduler offers them later.
    """
    holds: dict[Scope, Hold] = {}
    found: list[Hold] = []
    for pool in scheduler.pools_waiting():
        if pool not in workers:
            found.append(Hold(Kind.NO_POOL, pool, scheduler.waiting(pool)))
            continue
        left: list[Lane] = []
        for choices, lane in scheduler.table.ready.lanes(pool):
            scope = scheduler.pauses.holding_all(pool, (choices,) if isinstance(choices, str) else choices)
            if scope is None:
                left.append(lane)
            elif lane.waiting:
                before = holds[scope].tasks if scope in holds else 0
                holds[scope] = Hold(Kind.PAUSE, str(scope), before + lane.waiting, scope)
        count = sum(lane.waiting for lane in left)
        if not count:
            continue
        if not workers[pool]:
            found.append(Hold(Kind.NO_WORKERS, pool, count))
        elif room.get(pool, 0) > 0 and _startable(scheduler, left, now):
            found.append(Hold(Kind.NOT_STARTED, pool, count))
        else:
            return None
    return [*holds.values(), *found]


def _startable(scheduler: Scheduler, lanes: Sequence[Lane], now: float) -> bool:
    """Whether the first of some lane may start, and nothing is to happen that will have it started."""
    if now < scheduler.placement.again_at < inf:
        return False
    firsts = [entry[3] for lane in lanes for entry in lane.best(1)]
    return any(not scheduler.why_not(task, now) for task in firsts)


def blocked_holds(scheduler: Scheduler) -> Iterator[Hold | None]:
    """What holds blocked tasks and is not behind a ready one; None after every STEP tasks. Valid while nothing changes."""
    seen: set[int] = set()
    for count, task in enumerate(scheduler.tasks.values(), start=1):
        walk: list[Task] = []
        link = task if task.state is State.BLOCKED else None
        while link is not None and link.order not in seen:
            seen.add(link.order)
            walk.append(link)
            link = waits_for(scheduler, link)
            if len(walk) % STEP == 0:
                yield None
        if link is None and walk and walk[-1].state is State.BLOCKED:
            yield Hold(Kind.FORGOTTEN, walk[-1].id)
        elif link is not None and link in walk:
            cycle = [member.id for member in walk[walk.index(link) :]]
            yield Hold(Kind.CYCLE, name_cycle(cycle), len(cycle))
        if count % STEP == 0:
            yield None


def waits_for(scheduler: Scheduler, task: Task) -> Task | None:
    """The first that a blocked task waits for."""
    return next(scheduler.waits_for(task), None)
