"""What providers have against a request for JSON of a schema, by their own rules: empty if they take it.

Sources: OpenAI guide "Structured outputs" (the older, smaller limits, which Azure still has) and what its errors have said
("Objects provided via 'anyOf' must not share identical first keys", "Unsupported parameter: 'max_tokens'"); Anthropic guide
"Structured outputs"; Gemini API guide "Structured outputs".
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

LENGTHS = {"minLength", "maxLength"}
COUNTS = {"minItems", "maxItems"}
TAKEN = {"type", "properties", "required", "additionalProperties", "items", "anyOf", "enum"}
GEMINI_CHARACTERS = 10_000
"""Of all values; the guide names no number."""


def openai(body: dict[str, Any], *, thinks: bool = False) -> list[str]:
    """A model that thinks is more particular."""
    form = body["response_format"]["json_schema"]
    assert form["strict"] is True
    wrong = _wrong(form["schema"], TAKEN | COUNTS, alike=False)
    values = [value for schema in nodes(form["schema"]) for value in schema.get("enum", ())]
    if len(values) > 500:
        wrong.append(f"Expected at most 500 enum values in total, but received {len(values)}")
    for schema in nodes(form["schema"]):
        if len(schema.get("enum", ())) > 250 and sum(map(len, schema["enum"])) > 7_500:
            wrong.append("an enum has more than 7500 characters")
    if len(body.keys() & {"max_tokens", "max_completion_tokens"}) != 1:
        wrong.append("one limit of tokens is to be given")
    if thinks and "max_tokens" in body:
        wrong.append("Unsupported parameter: 'max_tokens' is not supported with this model. Use 'max_completion_tokens' instead.")
    if thinks and body.get("temperature", 1) != 1:
        wrong.append("Unsupported value: 'temperature' does not support 0 with this model.")
    return wrong


def anthropic(body: dict[str, Any]) -> list[str]:
    wrong = _wrong(body["output_config"]["format"]["schema"], TAKEN, alike=True)
    return wrong if isinstance(body.get("max_tokens"), int) else [*wrong, "max_tokens: Field required"]


def gemini(body: dict[str, Any]) -> list[str]:
    schema = body["generationConfig"]["responseJsonSchema"]
    values = [value for part in nodes(schema) for value in part.get("enum", ())]
    wrong = _wrong(schema, TAKEN | COUNTS, alike=True)
    if sum(map(len, values)) > GEMINI_CHARACTERS or len(values) > 200:
        wrong.append("The specified schema produces a constraint that has too many states for serving.")
    return wrong


def nodes(schema: Any) -> Iterator[dict[str, Any]]:
    """The schema and all those within it."""
    yield schema
    inner = [*schema.get("properties", {}).values(), *schema.get("anyOf", ()), *([schema["items"]] if "items" in schema else [])]
    for part in inner:
        yield from nodes(part)


def _wrong(root: dict[str, Any], taken: set[str], *, alike: bool) -> list[str]:
    found = [] if root.get("type") == "object" else ["the root is no object"]
    for schema in nodes(root):
        found += [f"{keyword!r} is not permitted" for keyword in schema if keyword not in taken]
        if "anyOf" not in schema and not isinstance(schema.get("type"), str):
            found.append("a schema must have a 'type' key")
        if schema.get("type") == "object":
            if schema.get("additionalProperties") is not False:
                found.append("'additionalProperties' is required to be supplied and to be false")
            if list(schema["required"]) != list(schema["properties"]):
                found.append("'required' is required to be an array including every key in properties")
        if schema.get("type") == "array" and "items" not in schema:
            found.append("array schema missing items")
        if not all(isinstance(value, str) for value in schema.get("enum", ())):
            found.append("complex types in enums")
        firsts = [next(iter(option.get("properties", {"": 0}))) for option in schema.get("anyOf", ())]
        if not alike and len(set(firsts)) < len(firsts):
            found.append("Objects provided via 'anyOf' must not share identical first keys")
    return found
