"""What is due when: the ends of backoffs, the timeouts of attempts, the deadlines of tasks."""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from enum import IntEnum

from supervisord_agents.core.model import END_STATES, State
from supervisord_agents.core.task import Task


class Due(IntEnum):
    """Why a task is looked at when its time has come; at the same moment the smaller comes first."""

    DEADLINE = 0
    TIMEOUT = 1
    BACKOFF = 2


# Class attributes of an enum are ten times slower to read than globals in Python 3.11.
_TIMEOUT, _BACKOFF = Due.TIMEOUT, Due.BACKOFF
_RUNNING, _BACKING_OFF = State.RUNNING, State.BACKING_OFF

_Entry = tuple[float, Due, int, int, Task]
"""Time, reason, order of the task, attempt, task: the first four decide, so that a rebuilt heap fires in the same order."""

_SLACK = 1024


class Timers:
    """A heap with lazy deletion: an entry is stale once its task has moved on, which the task itself shows."""

    def __init__(self) -> None:
        self._heap: list[_Entry] = []
        self._limit = _SLACK
        self.asleep: dict[str, float] = {}
        """Seconds that the machine slept while an attempt ran, by its task: its timeout is so much later."""

    def __len__(self) -> int:
        """Entries held, stale ones too."""
        return len(self._heap)

    def set_deadline(self, task: Task) -> None:
        """Watch `deadline_at`, if the task has one."""
        if task.deadline_at:
            self._push((task.deadline_at, Due.DEADLINE, task.order, 0, task))

    def set_timeout(self, task: Task) -> None:
        """Watch the running attempt, if its specification limits it."""
        if task.timeout_s:
            self._push((self._timeout_at(task), _TIMEOUT, task.order, task.attempt, task))

    def put_off(self, task: Task, seconds: float) -> None:
        """Watch the running attempt so much longer."""
        self.asleep[task.id] = self.asleep.get(task.id, 0.0) + seconds
        self.set_timeout(task)

    def over(self, task: Task) -> None:
        """The attempt runs no longer."""
        self.asleep.pop(task.id, None)

    def _timeout_at(self, task: Task) -> float:
        return task.started_at + task.timeout_s + self.asleep.get(task.id, 0.0)

    def set_backoff(self, task: Task) -> None:
        """Watch `retry_at`."""
        self._push((task.retry_at, Due.BACKOFF, task.order, task.attempt, task))

    def next_due(self) -> float | None:
        """The earliest time at which something is due; None: nothing waits for time."""
        heap = self._heap
        while heap and not self._live(heap[0]):
            heapq.heappop(heap)
        return heap[0][0] if heap else None

    def due(self, now: float) -> Iterator[tuple[Due, Task]]:
        """Take out and yield all that is due at `now`, earliest first; what is set meanwhile and due counts too."""
        heap = self._heap
        while heap and heap[0][0] <= now:
            entry = heapq.heappop(heap)
            if self._live(entry):
                yield entry[1], entry[4]

    def watched(self) -> set[tuple[Due, str]]:
        """All that has a live entry, as reason and task id."""
        return {(entry[1], entry[4].id) for entry in self._heap if self._live(entry)}

    def _push(self, entry: _Entry) -> None:
        heapq.heappush(self._heap, entry)
        if len(self._heap) > self._limit:
            # Attempts mostly end long before their timeout: without this the heap would hold them all until then.
            # In place: `due` may be walking through it.
            self._heap[:] = [kept for kept in self._heap if self._live(kept)]
            heapq.heapify(self._heap)
            self._limit = 2 * len(self._heap) + _SLACK

    def _live(self, entry: _Entry) -> bool:
        at, why, _, attempt, task = entry
        if why is _TIMEOUT:
            return task.state is _RUNNING and task.attempt == attempt and at == self._timeout_at(task)
        if why is _BACKOFF:
            return task.state is _BACKING_OFF and task.attempt == attempt
        return task.deadline_at == at and task.state not in END_STATES
