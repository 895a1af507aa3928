"""How deep a value is nested. What is accepted must also be journalled, read back and sent on, each of which wraps it further."""

from __future__ import annotations

from typing import Any

from supervisord_agents.core.model import TaskSpec

MAX_NESTING = 100
"""Of lists and maps inside a task's `input` and inside an output. Far below what the encoders can do."""
_CONTAINERS = (dict, list, tuple)


def too_deep(value: object) -> bool:
    """Whether lists and maps are nested in it beyond MAX_NESTING levels. Looks no deeper than that."""
    depth = 0
    level: list[Any] = [value] if isinstance(value, _CONTAINERS) else []
    while level and depth <= MAX_NESTING:
        depth += 1
        inner: list[Any] = []
        for container in level:
            items = container
            if isinstance(container, dict):
                items = container.values()
                inner += [key for key in container if isinstance(key, tuple)]
            inner += [item for item in items if isinstance(item, _CONTAINERS)]
        level = inner
    return depth > MAX_NESTING


def too_deep_in(spec: TaskSpec) -> str:
    """The field of a task that is nested too deep; empty: none is."""
    if too_deep(spec.input):
        return "input"
    return "compensate.input" if spec.compensate is not None and too_deep(spec.compensate.input) else ""
