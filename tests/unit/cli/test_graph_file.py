"""Graphs from files: JSON and TOML give the same, and what is wrong is named with its file and field."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from supervisord_agents.cli import graph_file
from supervisord_agents.core.model import Dependency, Limits, TaskSpec, When
from supervisord_agents.errors import InvalidInput

TASKS = [
    {"id": "A", "input": {"argv": ["true"]}, "priority": 0, "limits": {"memory_bytes": 1024}},
    {"id": "B", "agent": "qwen", "input": {"prompt": "hello"}, "dependencies": ["A", {"task": "C", "when": "always"}]},
]
TOML = """
key = "k"

[[tasks]]
id = "A"
input.argv = ["true"]
priority = 0
limits = { memory_bytes = 1024 }

[[tasks]]
id = "B"
agent = "qwen"
input = { prompt = "hello" }
dependencies = ["A", { task = "C", when = "always" }]
"""
SPECS = [
    TaskSpec(id="A", input={"argv": ["true"]}, priority=0, limits=Limits(memory_bytes=1024)),
    TaskSpec(id="B", agent="qwen", input={"prompt": "hello"}, dependencies=("A", Dependency(task="C", when=When.ALWAYS))),
]


@pytest.fixture
def stdin(monkeypatch: pytest.MonkeyPatch) -> io.BytesIO:
    buffer = io.BytesIO()
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=buffer))
    return buffer


def put(stdin: io.BytesIO, data: str | bytes) -> None:
    stdin.write(data.encode() if isinstance(data, str) else data)
    stdin.seek(0)


def test_json_and_toml_say_the_same(tmp_path: Path) -> None:
    (tmp_path / "graph.json").write_text(json.dumps({"tasks": TASKS, "key": "k"}))
    (tmp_path / "graph.toml").write_text(TOML)
    expected = graph_file.Graph(tasks=SPECS, key="k")
    assert graph_file.read(str(tmp_path / "graph.json")) == expected
    assert graph_file.read(str(tmp_path / "graph.toml")) == expected


@pytest.mark.parametrize("data", [json.dumps({"tasks": TASKS}), json.dumps(TASKS), "\n " + json.dumps(TASKS, indent=1), TOML])
def test_standard_input_and_files_of_any_name_may_be_either(data: str, stdin: io.BytesIO, tmp_path: Path) -> None:
    put(stdin, data)
    assert graph_file.read("-").tasks == SPECS
    (tmp_path / "graph").write_text(data)
    assert graph_file.read(str(tmp_path / "graph")).tasks == SPECS


def test_a_list_may_be_empty_or_of_something_else_and_is_still_json(stdin: io.BytesIO) -> None:
    put(stdin, "[ ]")
    assert graph_file.read("-").tasks == []


def test_a_relative_workspace_lies_beside_the_file(tmp_path: Path) -> None:
    directory = tmp_path / "deep"
    directory.mkdir()
    (directory / "graph.json").write_text('[{"workspace": "work"}, {"workspace": "/tmp"}, {}]')
    workspaces = [task.workspace for task in graph_file.read(str(directory / "graph.json")).tasks]
    assert workspaces == [str(directory / "work"), "/tmp", ""]


def test_from_standard_input_it_lies_in_the_current_directory(
    stdin: io.BytesIO, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    put(stdin, '[{"workspace": "work"}]')
    assert graph_file.read("-").tasks[0].workspace == str(tmp_path / "work")


@pytest.mark.parametrize(
    ("data", "field", "says"),
    [
        ('{"tasks": [{}, {"priority": "high"}]}', ": tasks[1].priority", "Expected `int`, got `str`"),
        ('{"tasks": [{"argv": ["true"]}]}', ": tasks[0]", "unknown field `argv`"),
        ('{"tasks": [{"dependencies": [{"task": "A", "when": "never"}]}]}', ": tasks[0].dependencies[0].when", "'never'"),
        ('{"tasks": [{"limits": {"memory": 1}}]}', ": tasks[0].limits", "unknown field `memory`"),
        ('{"tasks": "A"}', ": tasks", "Expected `array`, got `str`"),
        ('{"task": []}', "", "unknown field `task`"),
        ("{}", "", "missing required field `tasks`"),
        ('{"tasks": [{"id": "A"', "", "not valid JSON"),
        ('{"tasks": ' + "[" * 100_000, "", "nested too deeply"),
        ("tasks = [", "", "not valid TOML"),
        ("3", "", "not valid TOML"),
        ("", "", "is empty"),
        (" \n", "", "is empty"),
    ],
)
def test_a_mistake_is_named_with_its_place(data: str, field: str, says: str, stdin: io.BytesIO) -> None:
    put(stdin, data)
    with pytest.raises(InvalidInput) as caught:
        graph_file.read("-")
    assert caught.value.field == f"standard input{field}"
    assert says in caught.value.message


@pytest.mark.parametrize(
    ("data", "known"),
    [
        ('{"taks": []}', "tasks, key, budget."),
        ('[{"limits": {"memory": 1}}]', "memory_bytes, pids, cpu_percent."),
        ('[{"dependencies": ["A", {"tsk": "B"}]}]', "task, when."),
        ('{"tasks": [{"argv": []}]}', ", ".join(TaskSpec.__struct_fields__) + "."),
    ],
)
def test_an_unknown_field_comes_with_those_that_are_known_there(data: str, known: str, stdin: io.BytesIO) -> None:
    put(stdin, data)
    with pytest.raises(InvalidInput) as caught:
        graph_file.read("-")
    assert caught.value.hint == f"Known fields here: {known}"


def test_what_is_no_utf_8_is_refused_with_the_byte(stdin: io.BytesIO) -> None:
    put(stdin, b"[{\xff")
    with pytest.raises(InvalidInput, match="is not UTF-8: invalid start byte at byte 2"):
        graph_file.read("-")


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput) as caught:
        graph_file.read(str(tmp_path / "nowhere.json"))
    assert caught.value.field == str(tmp_path / "nowhere.json")
    assert caught.value.message == "cannot be read: No such file or directory."
    with pytest.raises(InvalidInput, match="Is a directory"):
        graph_file.read(str(tmp_path))


@pytest.mark.parametrize(("suffix", "says"), [("json", "not valid JSON"), ("toml", "not valid TOML")])
def test_the_suffix_decides_what_a_file_must_be(suffix: str, says: str, tmp_path: Path) -> None:
    (tmp_path / "graph.json").write_text(TOML)
    (tmp_path / "graph.toml").write_text(json.dumps(TASKS))
    with pytest.raises(InvalidInput, match=says):
        graph_file.read(str(tmp_path / f"graph.{suffix}"))
