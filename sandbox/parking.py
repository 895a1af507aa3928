"""The parked children of the fork server: which of them are still true to the host, and when there should be more."""

from __future__ import annotations

import os
import select
import time
from collections.abc import Iterator

from sandbox.child import Child
from sandbox.plan import Host, Plan, has

IDLE_S = 0.02
"""New ones are made when nothing has happened for so long: whoever wants a sandbox does not wait for the next one's."""

LOOK_S = 1.0


class Parking:
    """Children that wait to be ordered, the oldest first.

    Each has its own copy of the host's mounts, which would grow old and keep what the host has unmounted busy: whenever the host
    mounts something, all are to go (proc_pid_mountinfo(5), poll). So they are when a file that they show has been replaced.
    """

    def __init__(self, host: Host, wanted: int) -> None:
        self._wanted = wanted
        self._files = tuple(path for path in host.system if not os.path.isdir(path))
        self._mounts = _watch_of_mounts()
        self.mounts = _watch_of_mounts()
        """Readable once when the host has mounted or unmounted something, upon which all are to go."""
        self._seen = self._look()
        self._look_at = 0.0
        self._waiting: list[Child] = []
        self._due: float | None = 0.0 if wanted else None

    def any(self) -> bool:
        """Whether there is one."""
        return bool(self._waiting)

    def take(self, plan: Plan) -> Child | None:
        """One out of which a sandbox of this plan can be made."""
        for child in self._waiting:
            if child.alive() and has(plan, child.made):
                self._waiting.remove(child)
                return child
        return None

    def put(self, child: Child) -> None:
        self._waiting.append(child)

    def lose(self, child: Child) -> None:
        """It has ended by itself: so could the next, for ever, and there are no more until something happens."""
        if child in self._waiting:
            self._waiting.remove(child)
            self.rest()

    def rest(self) -> None:
        """Make no more until something happens."""
        self._due = None

    def outdated(self) -> list[Child]:
        """Those that are not to be used any more; they have been taken out."""
        return self.clear() if self._mounts.poll(0) or self._replaced() else []

    def _replaced(self) -> bool:
        """Whether one of the files has been replaced; looked at once in LOOK_S, for a sandbox that runs shows the old one too."""
        now = time.monotonic()
        if now < self._look_at:
            return False
        self._look_at = now + LOOK_S
        before, self._seen = self._seen, self._look()
        return before != self._seen

    def clear(self) -> list[Child]:
        """All of them."""
        cleared, self._waiting = self._waiting, []
        self.touch()
        return cleared

    def touch(self) -> None:
        """Something happens: more are made when it is over."""
        self._due = time.monotonic() + IDLE_S if self._wanted else None

    @property
    def due(self) -> float | None:
        """When another is to be made."""
        return self._due if len(self._waiting) < self._wanted else None

    def close(self) -> None:
        """Make no more."""
        self._wanted = 0

    def _look(self) -> list[tuple[int, int]]:
        return list(_identities(self._files))


def _watch_of_mounts() -> select.epoll:
    """Each change is told once to each open file; this one is never closed."""
    watch = select.epoll()
    watch.register(os.open("/proc/self/mountinfo", os.O_RDONLY | os.O_CLOEXEC), select.EPOLLPRI)
    return watch


def _identities(paths: tuple[str, ...]) -> Iterator[tuple[int, int]]:
    for path in paths:
        try:
            found = os.stat(path)
        except OSError:
            yield 0, 0
        else:
            yield found.st_dev, found.st_ino
