"""What running attempts have consumed so far. The gateway's count is worth more than what a worker says of itself."""

from __future__ import annotations

from supervisord_agents.core.model import Usage
from supervisord_agents.core.task import NO_USAGE


class Accounts:
    """Open sums by task, until they are taken for an event; and the sum of all since the daemon started."""

    def __init__(self) -> None:
        self.total = Usage()
        self._counted: dict[str, Usage] = {}
        self._claimed: dict[str, Usage] = {}

    def count(self, task: str, usage: Usage) -> None:
        """The gateway has seen this."""
        self._counted[task] = self._counted.get(task, NO_USAGE) + usage

    def claim(self, task: str, usage: Usage) -> None:
        """The worker says that it is this much by now."""
        self._claimed[task] = usage

    def take(self, task: str, claimed: Usage = NO_USAGE) -> Usage:
        """What the attempt consumed, with what its last frame claimed; its sums are closed."""
        said = self._claimed.pop(task, NO_USAGE)
        counted = self._counted.pop(task, NO_USAGE)
        return next((usage for usage in (counted, claimed, said) if usage != NO_USAGE), NO_USAGE)
