"""JSON schemas as small as they can be: every tool's schema stays in the primary agent's context for the whole session."""

from __future__ import annotations

from typing import Any


def lean(schema: dict[str, Any]) -> dict[str, Any]:
    """The schema without generated titles, empty defaults and references.

    References go for a second reason: some model APIs do not follow them. A schema that refers to itself is not supported.
    """
    definitions = schema.get("$defs", {})
    return {key: _lean(value, definitions) for key, value in schema.items() if key != "$defs" and not _says_nothing(key, value)}


def _lean(value: Any, definitions: dict[str, Any]) -> Any:
    if isinstance(value, list):
        return [_lean(item, definitions) for item in value]
    if not isinstance(value, dict):
        return value
    if "$ref" in value:
        named = definitions[value["$ref"].rpartition("/")[2]]
        return _lean({key: inner for key, inner in named.items() if key != "description"}, definitions)
    return {key: _lean(inner, definitions) for key, inner in value.items() if not _says_nothing(key, inner)}


def _says_nothing(key: str, value: Any) -> bool:
    """A title, or an empty default; properties of these names are schemas themselves, and stay."""
    return (key == "title" and isinstance(value, str)) or (key == "default" and not value)
