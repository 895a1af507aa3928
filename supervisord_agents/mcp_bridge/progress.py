"""Progress notifications for a call that takes long."""

from __future__ import annotations

import asyncio
from typing import Any

from mcp.server.mcpserver import Context

FIRST_AFTER_S = 1.0
EVERY_S = 10.0
"""Clients drop a silent call after 60 s (OpenCode), and show each notification to a person: neither rarer nor more often."""


class Progress:
    """Tells the client of one call, if it asked for it, how long the call has taken so far; `total_s` is how long it may take."""

    def __init__(self, context: Context[Any, Any], total_s: float) -> None:
        self._context = context
        self._total_s = total_s
        self._clock = asyncio.get_running_loop().time
        self._began = self._clock()
        self._due = self._began + FIRST_AFTER_S

    @property
    def elapsed_s(self) -> float:
        return self._clock() - self._began

    @property
    def due_in_s(self) -> float:
        """How long until something may be said again; 0: now."""
        return max(0.0, self._due - self._clock())

    async def say(self, message: str) -> None:
        """Send a notification, unless it is too early for one."""
        if self.due_in_s == 0.0:
            self._due = self._clock() + EVERY_S
            await self._context.report_progress(round(self.elapsed_s, 1), self._total_s or None, message)
