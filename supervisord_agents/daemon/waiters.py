"""Who waits for which tasks to end."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Iterable, Iterator
from contextlib import contextmanager


class Waiters:
    """Wakes every waiter of a task when it ends. A waiter looks at the state itself before and after it sleeps."""

    def __init__(self) -> None:
        self._by_task: defaultdict[str, set[asyncio.Event]] = defaultdict(set)

    def ended(self, task: str) -> None:
        for event in self._by_task.get(task, ()):
            event.set()

    @contextmanager
    def watch(self, tasks: Iterable[str]) -> Iterator[asyncio.Event]:
        """An event that is set whenever one of the tasks ends."""
        event = asyncio.Event()
        names = list(tasks)
        for task in names:
            self._by_task[task].add(event)
        try:
            yield event
        finally:
            for task in names:
                self._by_task[task].discard(event)
                if not self._by_task[task]:
                    del self._by_task[task]
