"""Pictures of tasks as they are now (core.picture), and the means that there are to carry them out."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import NamedTuple

from supervisord_agents.core.pauses import Pauses
from supervisord_agents.core.picture import Picture
from supervisord_agents.core.task import Task
from supervisord_agents.daemon.engine import Engine
from supervisord_agents.workers.pool import Pools

RIVALS = 1_000
"""Ready tasks of others that a forecast counts with, of each pool."""


class Means(NamedTuple):
    """What there is to carry a graph out with."""

    workers: dict[str, int]
    """That each pool may have."""
    pauses: Pauses
    ageing_s: float
    crowded: list[str]
    """Pools in which more is ready than a forecast counts with."""


class Pictures:
    """The loop goes on while one is taken."""

    def __init__(self, engine: Engine, pools: Pools) -> None:
        self._engine = engine
        self._scheduler = engine.scheduler
        self._pools = pools

    async def take(self, tasks: Sequence[Task]) -> Picture:
        """Of these tasks, what they wait for, and what competes with them."""
        picture = Picture(self._engine.clock.now(), self._scheduler.table.placed, self._scheduler.open_children)
        for _ in picture.take(tasks):
            await asyncio.sleep(0)
        pools = sorted({node.pool for node in picture.nodes if not node.ended})
        picture.take_rivals(self._scheduler.rivals(pools, RIVALS))
        return picture

    def means(self, picture: Picture) -> Means:
        """For what is open of it."""
        pools = {node.pool for node in picture.nodes if node.open}
        return Means(
            workers={view.name: view.max_workers for view in self._pools.views({})},
            pauses=Pauses(self._scheduler.pauses),
            ageing_s=self._scheduler.table.ready.ageing_s,
            crowded=sorted(pool for pool in pools if self._scheduler.waiting(pool) > RIVALS),
        )
