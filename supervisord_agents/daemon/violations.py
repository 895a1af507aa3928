"""What supervised sandboxes tell of their workers: items of the stream, and a bounded number of lines in the logs of tasks."""

from __future__ import annotations

import socket
from collections.abc import Callable

from sandbox.notify_events import Attempt, Event, Follower, line
from supervisord_agents.gateway.telling import Telling
from supervisord_agents.workers.worker import Worker

Tell = Callable[[str, str], None]
Publish = Callable[[str, int, Attempt], None]
DRAIN_S = 2.0
"""For what the supervisor of a dead worker still has to say."""


class Violations:
    """Knows how to listen to a worker's supervisor."""

    def __init__(self, tell: Tell, publish: Publish) -> None:
        """`tell(task, line)` and `publish(task, attempt, what)` must return at once and not raise.

        `task` is empty for what a worker tries between tasks, which is not published. No more comes than a supervisor tells:
        notify.A_SECOND.
        """
        self._tell = tell
        self._publish = publish

    def attach(self, events: socket.socket, worker: Worker) -> Hearing:
        """Listen from now on; `events` is the hearing's own."""
        return Hearing(events, worker, self._tell, self._publish)


class Hearing:
    """The events of one worker."""

    def __init__(self, events: socket.socket, worker: Worker, tell: Tell, publish: Publish) -> None:
        self._worker = worker
        self._telling = Telling(tell)
        self._publish = publish
        self._follower = Follower(events, self._heard)

    def catch_up(self) -> None:
        """Hear what has come until now: it belongs to the task that the worker still has. The next is told all of its own."""
        self._follower.read()
        self._follower.begin_anew()
        self._telling.flush()

    async def close(self) -> None:
        """Hear the rest, of a worker that has ended."""
        await self._follower.drained(DRAIN_S)
        self._telling.flush()

    def _heard(self, event: Event) -> None:
        task = self._worker.task
        self._telling.tell(task, line(event))
        if task and isinstance(event, Attempt):
            self._publish(task, self._worker.attempt, event)
