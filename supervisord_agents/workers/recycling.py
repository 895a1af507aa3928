"""When a worker that could take another task is replaced instead: after many tasks, a long time, or when it has grown."""

from __future__ import annotations

import resource

from supervisord_agents.config import Pool

PAGE_BYTES = resource.getpagesize()


def own_memory_bytes(pid: int) -> int:
    """What a process has in memory of its own, without files and what it shares (proc(5), statm); 0 if that cannot be read."""
    try:
        with open(f"/proc/{pid}/statm", "rb") as file:
            _, resident, shared, *_ = map(int, file.read().split())
    except (OSError, ValueError):
        return 0
    return (resident - shared) * PAGE_BYTES


class Wear:
    """Of one worker, born at `born` (seconds, any clock)."""

    def __init__(self, born: float) -> None:
        self.born = born
        self.tasks = 0
        self.first_bytes = 0
        """Its memory when it had cleared up behind its first task; 0: not known."""
        self.grown_bytes = 0
        """Since then."""

    def measured(self, memory_bytes: int) -> None:
        """It has cleared up behind a task, and has so much memory of its own; 0: that is not known."""
        self.first_bytes = self.first_bytes or memory_bytes
        self.grown_bytes = max(0, memory_bytes - self.first_bytes)

    def out(self, pool: Pool, now: float) -> str:
        """Why it is to be replaced; empty: it is not."""
        if self.tasks >= pool.recycle_after_tasks:
            return f"it has run {self.tasks} tasks"
        if now - self.born > pool.recycle_after_s:
            return f"it is {now - self.born:.0f} s old"
        if pool.recycle_memory_bytes and self.grown_bytes > pool.recycle_memory_bytes:
            return f"it has grown by {self.grown_bytes >> 20} MiB since its first task"
        return ""
