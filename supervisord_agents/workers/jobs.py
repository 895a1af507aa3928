"""Work that goes on beside its caller, kept until it has ended: the loop itself holds tasks weakly."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine

import structlog

log = structlog.get_logger()


class Jobs:
    """Of one owner. One that fails is logged as `<owner>_job_failed`, and costs the others nothing."""

    def __init__(self, owner: str) -> None:
        self._failure = f"{owner}_job_failed"
        self._tasks: set[asyncio.Task[None]] = set()

    def spawn(self, job: Coroutine[object, object, None]) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(job)
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    def cancel(self) -> None:
        """Ask all to end."""
        for task in self._tasks:
            task.cancel()

    async def ended(self, timeout_s: float | None = None) -> set[asyncio.Task[None]]:
        """Return when all that are under way now have ended, or the time is over; gives those that have not."""
        if not self._tasks:
            return set()
        _, late = await asyncio.wait(self._tasks, timeout=timeout_s)
        return late

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            log.error(self._failure, exc_info=task.exception())
