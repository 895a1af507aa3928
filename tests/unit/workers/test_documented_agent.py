"""The agent that docs/agents.md shows is one."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from supervisord_agents.core.model import TaskSpec
from supervisord_agents.errors import InvalidInput
from supervisord_agents.wire.frames import RunTask
from supervisord_agents.workers.agents.base import Exit

DOCUMENT = Path(__file__).parents[3] / "docs" / "agents.md"


@pytest.fixture
def agent() -> Any:
    blocks = re.findall(r"```python\n(.*?)```", DOCUMENT.read_text(), re.DOTALL)
    (block,) = [block for block in blocks if "class WordCount" in block]
    names: dict[str, Any] = {"__name__": "documented"}
    exec(block, names)
    return names["WordCount"]


def ended(code: int, stdout: bytes) -> Exit:
    return Exit(code=code, signal=0, stdout=stdout, stderr=b"", stdout_truncated=False, stderr_truncated=False, duration_s=0.1)


def test_it_can_be_made_and_does_what_the_page_says(agent: Any) -> None:
    spec = TaskSpec(id="a", agent="words", input={"text": "one two"})
    agent.check(spec, {})
    task = RunTask(
        task="g.a", attempt=1, spec=spec, agent_class="documented:WordCount", workspace="/work", output_limit_bytes=100
    )
    launch = agent().launch(task, Path("/home/worker"))
    assert (launch.argv, launch.stdin, launch.env["HOME"]) == (("wc", "-w"), b"one two", "/home/worker")
    assert agent().read(task, ended(0, b"2\n")).output == {"words": 2}
    assert agent().read(task, ended(1, b"")).failure.message == "wc exited with code 1."


def test_it_refuses_bad_input_naming_the_field(agent: Any) -> None:
    with pytest.raises(InvalidInput) as refused:
        agent.check(TaskSpec(agent="words", input={}), {})
    assert refused.value.field == "input.text"
