"""What is wrong with a tool's arguments, in words for the agent that wrote them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pydantic import ValidationError

from supervisord_agents.mcp_bridge.answers import shortened

FAULTS_SHOWN = 5
NAME_CHARACTERS = 100
Path = tuple[int | str, ...]

_WORDS: dict[str, Callable[[dict[str, Any]], str]] = {
    "missing": lambda limits: "is missing",
    "list_type": lambda limits: "must be a list",
    "dict_type": lambda limits: "must be an object",
    "model_type": lambda limits: "must be an object",
    "string_type": lambda limits: "must be a string",
    "int_type": lambda limits: "must be a whole number",
    "int_parsing": lambda limits: "must be a whole number",
    "int_from_float": lambda limits: "must be a whole number",
    "float_type": lambda limits: "must be a number",
    "float_parsing": lambda limits: "must be a number",
    "greater_than_equal": lambda limits: f"must be at least {limits['ge']:g}",
    "less_than_equal": lambda limits: f"must be at most {limits['le']:g}",
    "literal_error": lambda limits: f"must be {limits['expected']}",
}
"""By pydantic's type of fault, from what it knows of the limits."""


def refusal(error: ValidationError, schema: dict[str, Any]) -> str:
    """The first faults, each with its field; `schema` is the tool's, without references."""
    faults = error.errors(include_url=False)
    said = [_fault(fault["loc"], fault["type"], fault["msg"], fault.get("ctx", {}), schema) for fault in faults[:FAULTS_SHOWN]]
    if len(faults) > FAULTS_SHOWN:
        said.append(f"{len(faults) - FAULTS_SHOWN} more faults are not shown.")
    return " ".join(said)


def _fault(path: Path, kind: str, message: str, limits: dict[str, Any], schema: dict[str, Any]) -> str:
    if kind == "extra_forbidden":
        return f"{_field(path)}: there is no such field. Known: {', '.join(_known(schema, path[:-1]))}."
    words = _WORDS[kind](limits) if kind in _WORDS else message
    return f"{_field(path)}: {words}."


def _field(path: Path) -> str:
    """Such as `tasks[0].argv`."""
    parts = [f"[{part}]" if isinstance(part, int) else f".{shortened(part, NAME_CHARACTERS)}" for part in path]
    return "".join(parts).removeprefix(".")


def _known(schema: dict[str, Any], path: Path) -> list[str]:
    for part in path:
        schema = schema["items"] if isinstance(part, int) else schema["properties"][part]
    return list(schema["properties"])
