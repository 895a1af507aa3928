"""From the agent's tasks to specifications."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from supervisord_agents.core.model import TaskSpec
from supervisord_agents.errors import InvalidInput, NotFound
from supervisord_agents.mcp_bridge.shapes import Task
from supervisord_agents.mcp_bridge.specs import in_tool_words, project_of, specs_of

PROJECT = Path("/srv/project")


def spec(project: Path | None = PROJECT, **fields: Any) -> TaskSpec:
    return specs_of([Task(**fields)], project)[0]


def test_a_prompt_for_an_agent() -> None:
    made = spec(id="review", agent="qwen", prompt="Review it", depends_on=["A", "g1.B"], priority=2, timeout_s=9, max_retries=1)
    assert made == TaskSpec(
        id="review",
        agent="qwen",
        input={"prompt": "Review it"},
        dependencies=("A", "g1.B"),
        priority=2,
        workspace=str(PROJECT),
        timeout_s=9,
        max_retries=1,
    )


def test_defaults_are_those_of_a_specification() -> None:
    made, plain = spec(argv=["true"]), TaskSpec()
    assert (made.priority, made.timeout_s, made.max_retries) == (plain.priority, plain.timeout_s, plain.max_retries)


@pytest.mark.parametrize(("field", "value", "agent"), [("argv", ["make"], "command"), ("function", "m:f", "python")])
def test_the_agent_follows_from_the_work(field: str, value: Any, agent: str) -> None:
    made = spec(**{field: value})
    assert (made.agent, made.input) == (agent, {field: value})


def test_a_prompt_alone_does_not_say_which_agent() -> None:
    with pytest.raises(InvalidInput, match="Name the agent") as caught:
        spec(prompt="Review it")
    assert caught.value.field == "tasks[0].agent"


def test_more_input_goes_with_the_work() -> None:
    assert spec(argv=["cat"], input={"stdin": "x"}).input == {"stdin": "x", "argv": ["cat"]}


def test_work_given_twice_is_refused() -> None:
    with pytest.raises(InvalidInput) as caught:
        specs_of([Task(argv=["true"]), Task(argv=["cat"], input={"argv": ["rm"]})], PROJECT)
    assert caught.value.field == "tasks[1].input.argv"


@pytest.mark.parametrize(
    ("given", "made"),
    [(".", "/srv/project"), ("docs", "/srv/project/docs"), ("/tmp/x", "/tmp/x"), ("", ""), ("none", "")],
)
def test_a_workspace_starts_from_the_project(given: str, made: str) -> None:
    assert spec(argv=["true"], workspace=given).workspace == made


def test_without_a_project_the_default_workspace_is_private() -> None:
    assert spec(None, argv=["true"]).workspace == ""
    assert spec(None, argv=["true"], workspace="/tmp/x").workspace == "/tmp/x"


def test_without_a_project_a_relative_workspace_is_refused() -> None:
    with pytest.raises(InvalidInput) as caught:
        spec(None, argv=["true"], workspace="docs")
    assert caught.value.field == "tasks[0].workspace"


@pytest.mark.parametrize("directory", ["/", "/home", "/home/ann"])
def test_a_home_or_what_holds_it_is_no_project(directory: str) -> None:
    assert project_of(Path(directory), Path("/home/ann")) is None


def test_a_directory_in_a_home_is_a_project() -> None:
    assert project_of(Path("/home/ann/work"), Path("/home/ann")) == Path("/home/ann/work")


@pytest.mark.parametrize(
    ("names", "field", "words"),
    [
        ({}, "tasks[2].dependencies[0]", "tasks[2].depends_on[0]"),
        ({}, "tasks[0].input.argv[1]", "tasks[0].argv[1]"),
        ({}, "tasks[0].input.env.PATH", "tasks[0].input.env.PATH"),
        ({"task": "id"}, "task", "id"),
        ({"tasks": "ids"}, "tasks", "ids"),
        ({"tasks": "ids"}, "tasks[2]", "ids[2]"),
        ({}, "", ""),
    ],
)
def test_errors_call_fields_as_the_tool_does(names: dict[str, str], field: str, words: str) -> None:
    assert in_tool_words(InvalidInput("wrong.", field=field), names) == (f"{words}: wrong." if words else "wrong.")


def test_a_task_that_has_not_ended_leads_to_wait() -> None:
    error = NotFound("task g1.A has no result yet.", field="task", hint="Wait for it: agentctl wait g1.A")
    assert in_tool_words(error, {"task": "id"}) == "id: task g1.A has no result yet. Call wait with its id first."


def test_an_unknown_task_leads_to_the_tools() -> None:
    error = NotFound("no task is called `x`.", field="task", hint="See: agentctl list")
    assert (
        in_tool_words(error, {"task": "id"})
        == "id: no task is called `x`. Use an id that `delegate` returned; `status` shows what runs."
    )
