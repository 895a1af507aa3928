"""What running attempts have consumed so far. The gateway's count is worth more than what a worker says of itself."""

from __future__ import annotations

from supervisord_agents.core.model import State, Usage
from supervisord_agents.core.scheduler import Scheduler
from supervisord_agents.core.task import NO_USAGE
from supervisord_agents.spool.meters import Count, Meters


class Accounts:
    """Open sums by task, until they are taken for an event; and the sum of all since the daemon started."""

    def __init__(self, meters: Meters) -> None:
        self.total = Usage()
        self._meters = meters
        self._counted: dict[str, Usage] = {}
        self._claimed: dict[str, Usage] = {}

    def count(self, task: str, attempt: int, usage: Usage) -> None:
        """The gateway has seen this."""
        self._counted[task] = self._counted.get(task, NO_USAGE) + usage
        self._meters.write(task, Count(attempt, self._counted[task]))

    def reopen(self, scheduler: Scheduler) -> None:
        """Go on with the counts of an earlier daemon, of attempts that are still marked running."""
        for name, count in self._meters.left().items():
            task = scheduler.tasks.get(name)
            if task is not None and task.state is State.RUNNING and task.attempt == count.attempt:
                self._counted[name] = count.usage
            else:
                self._meters.remove(name)

    def claim(self, task: str, usage: Usage) -> bool:
        """The worker says that it is this much by now; whether that is news."""
        news = self._claimed.get(task, NO_USAGE) != usage
        self._claimed[task] = usage
        return news

    def so_far(self, task: str) -> Usage:
        """What the running attempt is known to have consumed."""
        return self._counted.get(task) or self._claimed.get(task, NO_USAGE)

    def take(self, task: str, claimed: Usage = NO_USAGE) -> Usage:
        """What the attempt consumed, with what its last frame claimed; its sums are closed."""
        said = self._claimed.pop(task, NO_USAGE)
        counted = self._counted.pop(task, NO_USAGE)
        if counted is not NO_USAGE:
            self._meters.remove(task)
        return next((usage for usage in (counted, claimed, said) if usage != NO_USAGE), NO_USAGE)
