"""Graphs from files: JSON or TOML, checked field by field before anything is sent."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

import msgspec

from supervisord_agents.core.model import Budget, Compensation, Dependency, Limits, TaskSpec
from supervisord_agents.errors import InvalidInput

STDIN = "-"
_PLACE = re.compile(r" - at `\$\.?(.*)`$")
_LOOKS_LIKE_JSON = re.compile(r"\s*(\{|\[\s*[{\]])")
"""An object, or a list of objects; `[[tasks]]` is TOML."""


class Graph(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What such a file holds."""

    tasks: list[TaskSpec]
    key: str = ""
    budget: Budget = Budget()


def read(name: str) -> Graph:
    """The graph in a file, or on standard input for `-`.

    A list is a graph too: that of its tasks. A relative workspace is taken from where the file lies, from standard input from the
    current directory. Raises InvalidInput naming the file and the field.
    """
    source = "standard input" if name == STDIN else name
    text = text_of(name)
    if not text.strip():
        raise InvalidInput("is empty.", field=source, hint="See examples/graph.json.")
    raw = _parse(text, source, Path(name).suffix)
    if isinstance(raw, list):
        raw = {"tasks": raw}
    try:
        graph = msgspec.convert(raw, Graph)
    except msgspec.ValidationError as error:
        raise _refusal(error, source) from error
    return _with_workspaces(graph, Path.cwd() if name == STDIN else Path(name).resolve().parent)


def _refusal(error: msgspec.ValidationError, source: str) -> InvalidInput:
    """The error of a conversion with its field where a user looks for it: `graph.json: tasks[0].priority`."""
    message = str(error)
    place = _PLACE.search(message)
    field = f"{source}: {place[1]}" if place and place[1] else source
    known = ", ".join(_struct_at(place[1] if place else "").__struct_fields__)
    hint = f"Known fields here: {known}." if "unknown field" in message else ""
    return InvalidInput(f"{_PLACE.sub('', message)}.", field=field, hint=hint)


def _struct_at(place: str) -> type[msgspec.Struct]:
    """What lies at such a place as `tasks[0].limits`."""
    if not place:
        return Graph
    last = place.rpartition(".")[2].partition("[")[0]
    known: dict[str, type[msgspec.Struct]] = {
        "budget": Budget,
        "compensate": Compensation,
        "dependencies": Dependency,
        "limits": Limits,
    }
    return known.get(last, TaskSpec)


def text_of(name: str) -> str:
    """The text of a file, or of standard input for `-`; raises InvalidInput naming it."""
    try:
        data = sys.stdin.buffer.read() if name == STDIN else Path(name).read_bytes()
    except OSError as error:
        raise InvalidInput(
            f"cannot be read: {error.strerror}.", field=name, hint="Check the path and its permissions."
        ) from error
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise InvalidInput(f"is not UTF-8: {error.reason} at byte {error.start}.", field=name) from error


def _parse(text: str, source: str, suffix: str) -> Any:
    toml = suffix == ".toml" or (suffix != ".json" and not _LOOKS_LIKE_JSON.match(text))
    try:
        return _toml(text) if toml else json.loads(text)
    except ValueError as error:
        raise InvalidInput(f"not valid {'TOML' if toml else 'JSON'}: {error}.", field=source) from error
    except RecursionError as error:
        raise InvalidInput("is nested too deeply.", field=source) from error


def _toml(text: str) -> Any:
    import tomllib

    return tomllib.loads(text)


def _with_workspaces(graph: Graph, base: Path) -> Graph:
    tasks = []
    for task in graph.tasks:
        undo = task.compensate
        if undo is not None and undo.workspace:
            undo = msgspec.structs.replace(undo, workspace=str(base / undo.workspace))
        workspace = str(base / task.workspace) if task.workspace else ""
        tasks.append(msgspec.structs.replace(task, workspace=workspace, compensate=undo))
    return msgspec.structs.replace(graph, tasks=tasks)
