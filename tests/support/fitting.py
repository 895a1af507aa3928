"""Whether a value fits a JSON schema of the kind that tracker.story writes."""

from __future__ import annotations

from typing import Any


def fits(value: Any, schema: Any) -> bool:
    """All properties are required, and there are no others."""
    if "enum" in schema:
        return value in schema["enum"]
    if "anyOf" in schema:
        return any(fits(value, option) for option in schema["anyOf"])
    match schema["type"]:
        case "object":
            inner = schema["properties"]
            return (
                isinstance(value, dict) and value.keys() == inner.keys() and all(fits(value[name], inner[name]) for name in inner)
            )
        case "array":
            return (
                isinstance(value, list) and _many(value, schema, "Items") and all(fits(item, schema["items"]) for item in value)
            )
        case "string":
            return isinstance(value, str) and _many(value, schema, "Length")
        case kind:
            return isinstance(value, {"integer": int, "boolean": bool, "null": type(None)}[kind])


def _many(value: Any, schema: Any, what: str) -> bool:
    return bool(schema.get(f"min{what}", 0) <= len(value) <= schema.get(f"max{what}", len(value)))
