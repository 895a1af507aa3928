"""How deep a value is nested. What is accepted must also be journalled, read back and sent on, each of which wraps it further."""

from __future__ import annotations

from itertools import chain

MAX_NESTING = 100
"""Of lists and maps inside a task's `input` and inside an output. Far below what the encoders can do."""
_CONTAINERS = (dict, list, tuple)


def too_deep(value: object) -> bool:
    """Whether lists and maps are nested in it beyond MAX_NESTING levels. Looks no deeper than that."""
    depth = 0
    level = [value] if isinstance(value, _CONTAINERS) else []
    while level and depth <= MAX_NESTING:
        depth += 1
        level = [
            item
            for container in level
            for item in (chain(container, container.values()) if isinstance(container, dict) else container)
            if isinstance(item, _CONTAINERS)
        ]
    return depth > MAX_NESTING
