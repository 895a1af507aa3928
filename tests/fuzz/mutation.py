"""Changes to a decoded message that leave it a message: another value, one more, one less, one of another place."""

from __future__ import annotations

import random
from typing import Any

VALUES: tuple[Any, ...] = (
    *(None, True, False, 0, 1, -1, 2**31, 2**32, 2**63 - 1, -(2**63), 2**64 - 1),
    *(0.0, -1.0, 1e308, float("nan"), float("inf")),
    *("", "x", "\0", "a/../b", "/", "é", "x" * 70, b"", b"\xff"),
    *([], [[]], [None], {}, {"": ""}, {"type": "submit"}),
)
"""What bounds and types are about."""


def mutated(message: Any, chance: random.Random) -> Any:
    """A message with one to three changes; the one given may be changed with it."""
    for _ in range(chance.randint(1, 3)):
        places = list(_places(message))
        if not places or chance.random() < 0.02:
            message = chance.choice(VALUES)
            continue
        holder, key = chance.choice(places)
        _change(holder, key, _another(holder[key], places, chance), chance)
    return message


def _places(node: Any) -> list[tuple[Any, Any]]:
    """Every container with each of its keys, at any depth."""
    keys = list(node) if isinstance(node, dict) else range(len(node)) if isinstance(node, list) else ()
    return [place for key in keys for place in ((node, key), *_places(node[key]))]


def _another(value: Any, places: list[tuple[Any, Any]], chance: random.Random) -> Any:
    if chance.random() < 0.4:
        return chance.choice(VALUES)
    if type(value) is int:
        return value + chance.choice((-1, 1, 255, -value * 2))
    if type(value) is str:
        return value[: chance.randint(0, len(value))] + chance.choice(("", ".", "\ud7ff", "0", value))
    holder, key = chance.choice(places)
    return holder[key]


def _change(holder: Any, key: Any, value: Any, chance: random.Random) -> None:
    how = chance.randrange(5)
    if how == 0:
        del holder[key]
    elif how == 1 and isinstance(holder, list):
        holder.insert(key, value)
    elif how == 1:
        holder[f"{key}x"] = value
    else:
        holder[key] = value
