"""Children go to the worker that made them, which has their modules and their workspace at hand; others steal them after a while.

The ready children of a parent, in the order of submission, are a deque of the worker that ran it last. When that is idle it takes
the newest; another worker takes the oldest of a victim, once that has been ready for `affinity_s` (R. D. Blumofe and C. E.
Leiserson, "Scheduling Multithreaded Computations by Work Stealing", 1999). The deques are views of the table, so that nothing in
them can be stale, and no task is in two hands: a task is taken by its `Started`, whose attempt number is the fence.

Locality never comes before order: only tasks of one agent, as urgent and with as long a path, stand in for one another.
"""

from __future__ import annotations

import zlib
from collections.abc import Collection, Mapping, Sequence
from math import inf

import msgspec

from supervisord_agents.core.children import members
from supervisord_agents.core.events import Start
from supervisord_agents.core.model import State
from supervisord_agents.core.table import TaskTable
from supervisord_agents.core.task import Task

SEED = 0x5EED


def home(table: TaskTable, task: Task) -> str:
    """The worker that made a child; empty: it is none, or of an attempt of its parent that is over, or that is not known."""
    parent = table.tasks.get(table.families.parent(task)) if table.families.births else None
    return parent.worker if parent is not None and task.graph in table.families.of[parent.id].graphs else ""


class Affinity:
    """Sends what may start to workers."""

    def __init__(self, affinity_s: float, seed: int = SEED) -> None:
        """A child is kept for its own worker for at most `affinity_s` seconds after it became ready; 0: not at all."""
        self.affinity_s = affinity_s
        self._seed = seed
        self._steals = 0
        self.again_at = inf
        """When the last answer may become another one merely by the passing of time."""

    def sent(
        self, table: TaskTable, starts: Sequence[Start], idle: Mapping[str, Collection[str]], busy: Collection[str], now: float
    ) -> list[Start]:
        """The starts, those for own workers first, without children that are still kept for one that is `busy`.

        `idle` are the workers of each pool that have nothing to do. Which victim is stolen from is drawn by the seed.
        """
        self.again_at = inf
        turn = _Turn(table)
        own: list[Start] = []
        others: list[Start] = []
        orphans: list[Start] = []
        for start in starts:
            task = table.tasks[start.task]
            worker = home(table, task)
            if not worker:
                others.append(start)
            elif worker in idle.get(start.pool, ()) and worker not in turn.used and (deque := turn.deque(task, task)):
                turn.used.add(worker)
                own.append(turn.taken(start, deque[-1], worker))
            else:
                orphans.append(start)
        for start in orphans:
            others += self._stolen(turn, start, [table.tasks[other.task] for other in orphans], busy, now)
        return [*own, *others]

    def _stolen(self, turn: _Turn, start: Start, victims: Sequence[Task], busy: Collection[str], now: float) -> list[Start]:
        """The oldest of a victim's deque that has waited long enough; a worker that is not busy is not waited for."""
        like = turn.table.tasks[start.task]
        deques = [deque for victim in victims if (deque := turn.deque(victim, like))]
        if not deques:
            return []  # Those for which this one would have stood in have started.
        pick = zlib.crc32(f"{self._seed}:{self._steals}".encode()) % len(deques)
        for deque in deques[pick:] + deques[:pick]:
            oldest, worker = deque[0], home(turn.table, deque[0])
            until = oldest.history[-1].at + self.affinity_s
            if worker not in busy or until <= now:
                self._steals += 1
                stolen = turn.taken(start, oldest, "")
                if worker in busy and not stolen.note:
                    stolen = msgspec.structs.replace(stolen, note=f"stolen from {worker}, which made it and is busy")
                return [stolen]
            self.again_at = min(self.again_at, until)
        return []


class _Turn:
    """One answer: what has been taken in it."""

    def __init__(self, table: TaskTable) -> None:
        self.table = table
        self.used: set[str] = set()
        self._taken: set[str] = set()
        self._ready: dict[str, list[Task]] = {}

    def deque(self, of: Task, like: Task) -> list[Task]:
        """The ready children of the parent of `of` that may stand in for `like`, oldest first."""
        table = self.table
        parent = table.families.parent(of)
        if parent not in self._ready:
            children = members(table, table.families.of[parent].graphs)
            self._ready[parent] = [child for child in children if child.state is State.READY]
        rank, choices = table.ready.rank(like)[:2], (like.pool, like.agent, like.choices)
        return [
            task
            for task in self._ready[parent]
            if task.id not in self._taken
            and (task.pool, task.agent, task.choices) == choices
            and table.ready.rank(task)[:2] == rank
        ]

    def taken(self, start: Start, task: Task, worker: str) -> Start:
        """This task starts in place of the one that was offered."""
        self._taken.add(task.id)
        return msgspec.structs.replace(start, task=task.id, attempt=task.attempt + 1, worker=worker)
