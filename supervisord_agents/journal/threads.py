"""Threads, locks and queues, as the journal needs them: one place for tests to put a scheduler of their own."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import AbstractContextManager
from queue import SimpleQueue
from typing import Any, Protocol


class Queue(Protocol):
    """Of any length; `get` waits until there is something."""

    def put(self, item: Any) -> None: ...
    def get(self) -> Any: ...
    def empty(self) -> bool: ...


class Thread(Protocol):
    """One that runs."""

    def join(self) -> None: ...


class Threads:
    """Those of the operating system."""

    def lock(self) -> AbstractContextManager[object]:
        return threading.Lock()

    def queue(self) -> Queue:
        return SimpleQueue()

    def start(self, run: Callable[[], None], name: str) -> Thread:
        """Run it beside the caller; the process does not wait for its end."""
        thread = threading.Thread(target=run, name=name, daemon=True)
        thread.start()
        return thread


REAL_THREADS = Threads()
