"""Small functions for the agent `python` that every worker can import: for trying things out, tests and benchmarks."""

from __future__ import annotations

import time
from typing import Any

from supervisord_agents.workers.agents.python import Context


def noop() -> None:
    """Do nothing."""


def echo(value: Any = None) -> Any:
    """Give back the value."""
    return value


def sleep(seconds: float, context: Context | None = None) -> float:
    """Sleep, telling the progress at each tenth; gives the seconds asked for."""
    for tenth in range(1, 11):
        time.sleep(seconds / 10)
        if context is not None:
            context.progress(tenth / 10, f"slept {seconds * tenth / 10:g} of {seconds:g} s")
    return seconds
