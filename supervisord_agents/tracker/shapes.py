"""A JSON schema as servers take it: none takes all of JSON Schema, and each refuses something else.

Sources: OpenAI guide "Structured outputs" (supported schemas; enum sizes), Gemini API guide "Structured outputs" (supported
keywords; complexity), Anthropic guide "Structured outputs" (limitations). What a schema leaves out is checked in the answer
(tracker.story), so that less of a schema costs a second question at worst.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

BOUNDS = frozenset({"minLength", "maxLength", "minItems", "maxItems"})
"""Refused by one provider or another, or counted against how complex a schema may be."""
ENUM_VALUES = 100
"""Of one list. OpenAI takes 250 of any length and 1,000 in all; Gemini refuses lists not much longer."""


def whole(schema: Any) -> Any:
    """For servers of one's own, which know all of it. Their `enum` is of texts: what else is given becomes a form like it."""
    if isinstance(schema, list):
        return [whole(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    values = schema.get("enum")
    if isinstance(values, list):
        return {"type": "string", "enum": values} if all(isinstance(value, str) for value in values) else _given(values[0])
    return {key: whole(value) for key, value in schema.items()}


def _given(value: Any) -> Any:
    """What a given value fits: of a list of ids, as many of them; of one of objects, any of them."""
    if isinstance(value, dict):
        inner = {name: _given(one) for name, one in value.items()}
        return {"type": "object", "properties": inner, "required": [*inner], "additionalProperties": False}
    if not isinstance(value, list):
        return {"type": "string", "enum": [value]}
    items: Any = {"type": "string", **({"enum": value} if value else {})}
    if value and isinstance(value[0], dict):
        return {"type": "array", "items": {"anyOf": [_given(one) for one in value]}, "maxItems": len(value)}
    return {"type": "array", "items": items, "minItems": len(value), "maxItems": len(value)}


def plain(schema: Any) -> Any:
    """Without bounds, long lists of values, and alternatives, of which one provider wants that their first keys differ."""
    return _plain(whole(schema))


def loose(schema: Any) -> Any:
    """The form alone: any text may stand for an id."""
    return _without(plain(schema), {"enum"})


def _plain(schema: Any) -> Any:
    if not isinstance(schema, dict):
        return schema
    if "anyOf" in schema:
        return _merged([_plain(option) for option in schema["anyOf"]])
    kept = {key: value for key, value in schema.items() if key not in BOUNDS}
    if len(kept.get("enum", ())) > ENUM_VALUES:
        del kept["enum"]
    if "items" in kept:
        kept["items"] = _plain(kept["items"])
    if "properties" in kept:
        kept["properties"] = {name: _plain(inner) for name, inner in kept["properties"].items()}
    return kept


def _merged(options: Sequence[Any]) -> Any:
    """What fits all of some schemas of the same form, and a little more."""
    first = dict(options[0])
    if "items" in first:
        first["items"] = _merged([option["items"] for option in options])
    if "properties" in first:
        first["properties"] = {name: _merged([option["properties"][name] for option in options]) for name in first["properties"]}
    values = list(dict.fromkeys(value for option in options for value in option.get("enum", ())))
    return {**first, "enum": values} if values else first


def _without(schema: Any, keys: set[str]) -> Any:
    """No property has the name of a keyword."""
    if isinstance(schema, list):
        return [_without(part, keys) for part in schema]
    if not isinstance(schema, dict):
        return schema
    return {key: _without(value, keys) for key, value in schema.items() if key not in keys}
