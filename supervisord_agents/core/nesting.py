"""How deep a value is nested. What is accepted must also be journalled, read back and sent on, each of which wraps it further."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import chain

MAX_NESTING = 100
"""Of lists and maps inside a task's `input` and inside an output. Far below what the encoders can do."""


def too_deep(value: object) -> bool:
    """Whether lists and maps are nested in it beyond MAX_NESTING levels. Looks no deeper than that."""
    depth = 0
    level: Iterable[object] = (value,)
    while depth <= MAX_NESTING and (containers := [item for item in level if isinstance(item, (dict, list, tuple))]):
        depth += 1
        level = chain.from_iterable(chain(item, item.values()) if isinstance(item, dict) else item for item in containers)
    return depth > MAX_NESTING
