"""What supervised sandboxes tell of their workers: lines in the logs of the tasks, a bounded number of them."""

from __future__ import annotations

import socket
from collections.abc import Callable

from sandbox.notify_events import Event, Follower, line
from supervisord_agents.gateway.telling import Telling
from supervisord_agents.workers.worker import Worker

DRAIN_S = 2.0
"""For what the supervisor of a dead worker still has to say."""


class Violations:
    """Knows how to listen to a worker's supervisor."""

    def __init__(self, tell: Callable[[str, str], None]) -> None:
        """`tell(task, line)` must return at once and not raise; `task` is empty for what a worker tries between tasks."""
        self._tell = tell

    def attach(self, events: socket.socket, worker: Worker) -> Hearing:
        """Listen from now on; `events` is the hearing's own."""
        return Hearing(events, worker, self._tell)


class Hearing:
    """The events of one worker."""

    def __init__(self, events: socket.socket, worker: Worker, tell: Callable[[str, str], None]) -> None:
        self._worker = worker
        self._telling = Telling(tell)
        self._follower = Follower(events, self._heard)

    def catch_up(self) -> None:
        """Hear what has come until now: it belongs to the task that the worker still has."""
        self._follower.read()
        self._telling.flush()

    async def close(self) -> None:
        """Hear the rest, of a worker that has ended."""
        await self._follower.drained(DRAIN_S)
        self._telling.flush()

    def _heard(self, event: Event) -> None:
        self._telling.tell(self._worker.task, line(event))
