"""Who waits for which tasks to end."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Iterable, Iterator
from contextlib import contextmanager


class Watch:
    """What one waiter waits for: `open` are the tasks that it has not heard the end of, `event` is set with each end."""

    def __init__(self, tasks: Iterable[str]) -> None:
        self.open = set(tasks)
        self.event = asyncio.Event()


class Waiters:
    """Wakes every waiter of a task when it ends. A waiter looks at the state itself once it watches."""

    def __init__(self) -> None:
        self._by_task: defaultdict[str, set[Watch]] = defaultdict(set)

    def ended(self, task: str) -> None:
        for watch in self._by_task.get(task, ()):
            watch.open.discard(task)
            watch.event.set()

    @contextmanager
    def watch(self, tasks: Iterable[str]) -> Iterator[Watch]:
        """Hear of the ends of these tasks."""
        names = list(tasks)
        watch = Watch(names)
        for task in names:
            self._by_task[task].add(watch)
        try:
            yield watch
        finally:
            for task in names:
                self._by_task[task].discard(watch)
                if not self._by_task[task]:
                    del self._by_task[task]
