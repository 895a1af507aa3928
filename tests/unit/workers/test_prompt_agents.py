"""The coding CLIs: what they are started with, and how their recorded outputs are read (tests/data/cli holds real ones)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest

from supervisord_agents.core.model import Failure, TaskSpec, Usage
from supervisord_agents.errors import InvalidInput
from supervisord_agents.wire.frames import DependencyResult, RunTask
from supervisord_agents.workers.agents import prompt
from supervisord_agents.workers.agents.base import AgentFailure, Exit
from supervisord_agents.workers.agents.gemini import GeminiAgent
from supervisord_agents.workers.agents.opencode import OpenCodeAgent
from supervisord_agents.workers.agents.prompt import DEPENDENCY_CHARACTERS, PromptAgent, full_prompt, refused
from supervisord_agents.workers.agents.qwen import QwenAgent

DATA = Path(__file__).resolve().parents[2] / "data" / "cli"
SETTINGS = {"provider": "acme", "model": "big", "executable": "/opt/clis/x", "search_path": ["/opt/node/bin"]}
AGENTS = [QwenAgent, GeminiAgent, OpenCodeAgent]
HOME = Path("/home/worker")


def a_task(**values: object) -> RunTask:
    defaults = {"task": "g.t", "attempt": 1, "agent_class": "", "settings": SETTINGS, "gateway_port": 8080}
    spec = TaskSpec(agent="qwen", input=values.pop("input", {"prompt": "do it"}))  # type: ignore[arg-type]
    return RunTask(spec=spec, **{**defaults, **values})  # type: ignore[arg-type]


def an_exit(name: str = "", *, code: int = 0, stdout: bytes = b"", stderr: bytes = b"", signal: int = 0) -> Exit:
    def recorded(ending: str) -> bytes:
        path = DATA / f"{name}.{ending}"
        return path.read_bytes() if name and path.exists() else b""

    return Exit(
        code=code,
        signal=signal,
        stdout=stdout or recorded("stdout"),
        stderr=stderr or recorded("stderr"),
        stdout_truncated=False,
        stderr_truncated=False,
        duration_s=1.0,
    )


@pytest.mark.parametrize(
    ("agent", "name", "text", "usage"),
    [
        (QwenAgent, "qwen-answer", "done: hello from fake", Usage(100, 7)),
        (GeminiAgent, "gemini-answer", "hello from fake gemini", Usage(50, 5)),
        (OpenCodeAgent, "opencode-answer", "done: hello from fake", Usage(100, 7)),
        (OpenCodeAgent, "opencode-tool", "done: (no output)", Usage(200, 14)),
    ],
)
def test_a_recorded_answer_is_read_with_its_tokens(agent: type[PromptAgent], name: str, text: str, usage: Usage) -> None:
    outcome = agent().read(a_task(), an_exit(name))
    assert (outcome.output, outcome.usage, outcome.failure) == ({"text": text}, usage, None)


def test_qwen_counts_the_tokens_of_all_turns() -> None:
    outcome = QwenAgent().read(a_task(), an_exit("qwen-tool"))
    assert outcome.failure is None
    assert outcome.usage == Usage(200, 14)


@pytest.mark.parametrize(
    ("agent", "name", "code"),
    [(QwenAgent, "qwen-refused", 0), (GeminiAgent, "gemini-refused", 145), (OpenCodeAgent, "opencode-refused", 1)],
)
def test_a_recorded_refusal_of_the_key_is_not_retried(agent: type[PromptAgent], name: str, code: int) -> None:
    outcome = agent().read(a_task(), an_exit(name, code=code))
    assert outcome.output is None
    assert outcome.failure is not None
    assert not outcome.failure.retriable
    assert "(401)" in outcome.failure.message
    assert "scripted refusal" in outcome.failure.message
    assert "api_key_env" in outcome.failure.hint


@pytest.mark.parametrize("status", [429, 500, 503, 0])
def test_limits_and_outages_are_retried(status: int) -> None:
    assert refused(QwenAgent, status, "later").retriable


@pytest.mark.parametrize("status", [400, 401, 403, 404, 422])
def test_requests_that_can_never_work_are_not_retried(status: int) -> None:
    assert not refused(QwenAgent, status, "never").retriable


@pytest.mark.parametrize("agent", AGENTS)
@pytest.mark.parametrize("stdout", [b"", b"{", b"null\n", b'{"type": 1}\n', b"\xff\xfe{}", b'[{"type":"system"}]', b"{}\n{}"])
def test_output_that_is_no_answer_is_a_failure_with_the_last_words(agent: type[PromptAgent], stdout: bytes) -> None:
    outcome = agent().read(a_task(), an_exit(code=1, stdout=stdout, stderr=b"warming up\nout of luck\n"))
    assert outcome.failure is not None
    assert "exited with code 1" in outcome.failure.message
    assert "out of luck" in outcome.failure.message


QWEN = {"type": "result", "result": "ok"}
GEMINI_STATS = {"models": {"m": {"tokens": {"prompt": 3, "candidates": 2, "thoughts": 1}}}}
ODD_COUNTS = (None, "7", -1, 2.5, True, 2**70, [], float("nan"))


def printed(*items: dict[str, Any]) -> Exit:
    return an_exit(stdout=b"".join(json.dumps(item).encode() + b"\n" for item in items))


@pytest.mark.parametrize("odd", ODD_COUNTS)
def test_an_odd_count_costs_the_count_and_never_the_answer(odd: object) -> None:
    outcomes = [
        QwenAgent().read(a_task(), printed({**QWEN, "usage": {"input_tokens": odd, "output_tokens": 2}})),
        GeminiAgent().read(
            a_task(), printed({"response": "ok", "stats": {"models": {"m": {"tokens": {"prompt": odd, "candidates": 2}}}}})
        ),
        OpenCodeAgent().read(
            a_task(),
            printed(
                {"type": "text", "part": {"text": "ok"}},
                {"type": "step_finish", "part": {"tokens": {"input": odd, "output": 2, "cache": {"read": odd}}, "cost": -0.5}},
            ),
        ),
    ]
    for outcome in outcomes:
        assert (outcome.output, outcome.failure, outcome.usage) == ({"text": "ok"}, None, Usage(0, 2))


@pytest.mark.parametrize("odd", [None, 3, "x", []])
def test_a_table_that_is_none_costs_the_counts_and_never_the_answer(odd: object) -> None:
    step = {"type": "step_finish", "part": {"tokens": {"input": 1, "cache": odd}, "cost": None}}
    text = {"type": "text", "part": {"text": "ok"}}
    for outcome, usage in (
        (QwenAgent().read(a_task(), printed({**QWEN, "usage": odd})), Usage()),
        (GeminiAgent().read(a_task(), printed({"response": "ok", "stats": odd})), Usage()),
        (GeminiAgent().read(a_task(), printed({"response": "ok", "stats": {"models": odd}})), Usage()),
        (GeminiAgent().read(a_task(), printed({"response": "ok", "stats": {"models": {"m": odd}}})), Usage()),
        (GeminiAgent().read(a_task(), printed({"response": "ok", "stats": {"models": {"m": {"tokens": odd}}}})), Usage()),
        (OpenCodeAgent().read(a_task(), printed(text, step)), Usage(1)),
        (OpenCodeAgent().read(a_task(), printed(text, {"type": "step_finish", "part": {"tokens": odd}})), Usage()),
    ):
        assert (outcome.output, outcome.failure, outcome.usage) == ({"text": "ok"}, None, usage)


def test_all_parts_of_a_count_are_summed() -> None:
    assert GeminiAgent().read(a_task(), printed({"response": "ok", "stats": GEMINI_STATS})).usage == Usage(3, 3)
    tokens = {"input": 1, "output": 2, "reasoning": 3, "cache": {"read": 4, "write": 5}}
    step = {"type": "step_finish", "part": {"tokens": tokens, "cost": 0.25}}
    assert OpenCodeAgent().read(a_task(), printed(step, step)).usage == Usage(20, 10, 0.5)


@pytest.mark.parametrize(
    ("value", "expected"), [(0, 0.0), (3, 3.0), (0.5, 0.5), (-0.1, 0.0), (None, 0.0), ("1", 0.0), (True, 0.0), (1e300, 0.0)]
)
def test_a_cost_is_a_finite_number_or_nothing(value: object, expected: float) -> None:
    assert prompt.cost(value) == expected
    assert prompt.cost(float("nan")) == prompt.cost(float("inf")) == 0.0


@pytest.mark.parametrize(("answer", "text"), [(None, ""), ("", ""), ({"a": 1}, '{"a": 1}'), (["ü"], '["ü"]')])
def test_an_answer_that_is_no_text_becomes_one(answer: object, text: str) -> None:
    assert QwenAgent().read(a_task(), printed({**QWEN, "result": answer})).output == {"text": text}
    assert GeminiAgent().read(a_task(), printed({"response": answer})).output == {"text": text}


def test_an_answer_after_the_cut_of_a_long_output_is_read() -> None:
    answers = {
        QwenAgent: json.dumps(QWEN),
        GeminiAgent: json.dumps({"response": "ok", "stats": GEMINI_STATS}, indent=2),
        OpenCodeAgent: '{"type": "text", "part": {"text": "ok"}}\n{"type": "step_finish", "part": {}}',
    }
    for agent, answer in answers.items():
        cut = b'{"cut": "here"}, "half": {"of": "a line"}}\n{"type": "assistant"}\n' + answer.encode() + b"\n"
        outcome = agent().read(a_task(), msgspec.structs.replace(an_exit(stdout=cut), stdout_truncated=True))
        assert outcome.output == {"text": "ok"}


@pytest.mark.parametrize("agent", AGENTS)
def test_a_program_ended_by_a_signal_says_which(agent: type[PromptAgent]) -> None:
    outcome = agent().read(a_task(), an_exit(code=-1, signal=9))
    assert outcome.failure is not None
    assert "signal 9" in outcome.failure.message


@pytest.mark.parametrize("agent", AGENTS)
def test_the_model_is_reached_through_the_gateway_with_a_key_that_is_none(agent: type[PromptAgent]) -> None:
    launch = agent().launch(a_task(), HOME)
    everything = json.dumps(launch.env) + "".join(content.decode() for content in launch.files.values())
    assert "http://127.0.0.1:8080/acme" in everything
    assert "placeholder" in everything
    assert launch.argv[0] == "/opt/clis/x"
    assert launch.stdin == b"do it"
    assert "do it" not in launch.argv
    assert launch.env["PATH"].startswith("/opt/node/bin:")
    assert launch.env["HOME"] == "/home/worker"
    assert launch.env["XDG_DATA_HOME"].startswith("/home/worker/")


@pytest.mark.parametrize("agent", AGENTS)
@pytest.mark.parametrize("lacking", [{"gateway_port": 0}, {"settings": {**SETTINGS, "provider": ""}}])
def test_without_a_gateway_or_a_provider_nothing_is_started(agent: type[PromptAgent], lacking: dict) -> None:
    with pytest.raises(AgentFailure, match="no way to a model"):
        agent().launch(a_task(**lacking), HOME)


@pytest.mark.parametrize("agent", AGENTS)
def test_other_connections_are_led_to_the_gateway_too(agent: type[PromptAgent]) -> None:
    env = agent().launch(a_task(), HOME).env
    assert env["https_proxy"] == env["HTTPS_PROXY"] == env["http_proxy"] == env["ALL_PROXY"] == "http://127.0.0.1:8080"
    assert env["NO_PROXY"] == env["no_proxy"] == "127.0.0.1,localhost,::1"


@pytest.mark.parametrize("agent", AGENTS)
def test_the_end_of_the_output_is_kept_because_the_answer_comes_last(agent: type[PromptAgent]) -> None:
    assert agent().launch(a_task(), HOME).keep_stdout_tail


@pytest.mark.parametrize("agent", AGENTS)
def test_a_model_named_by_the_task_wins(agent: type[PromptAgent]) -> None:
    launch = agent().launch(a_task(input={"prompt": "p", "model": "small"}), HOME)
    everything = " ".join((*launch.argv, *launch.env.values()))
    assert "small" in everything
    assert "big" not in everything


@pytest.mark.parametrize("agent", AGENTS)
def test_configured_variables_win(agent: type[PromptAgent]) -> None:
    settings = {**SETTINGS, "environment": {"LANG": "de_DE.UTF-8"}}
    assert agent().launch(a_task(settings=settings), HOME).env["LANG"] == "de_DE.UTF-8"


def test_results_of_dependencies_follow_the_prompt_bounded() -> None:
    dependencies = {
        "text": DependencyResult(state="succeeded", output={"text": "from a CLI"}),
        "data": DependencyResult(state="succeeded", output={"n": 1}),
        "bad": DependencyResult(state="failed", failure=Failure(code="TIMEOUT", message="took too long")),
        "long": DependencyResult(state="succeeded", output="x" * (DEPENDENCY_CHARACTERS + 1)),
    }
    given = full_prompt(a_task(dependencies=dependencies)).decode()
    assert given.startswith("do it\n\nResults of the tasks this one depends on:\n\n## text (succeeded)\nfrom a CLI\n\n")
    assert '## data (succeeded)\n{"n": 1}' in given
    assert "(it failed: took too long)" in given
    assert given.endswith("x […cut]")
    assert given.count("x") < DEPENDENCY_CHARACTERS + 10


@pytest.mark.parametrize(
    ("given", "settings", "field"),
    [
        ({}, SETTINGS, "input.prompt"),
        ({"prompt": 3}, SETTINGS, "input.prompt"),
        ({"prompt": " \n"}, SETTINGS, "input.prompt"),
        ({"prompt": "a\0"}, SETTINGS, "input.prompt"),
        ({"prompt": "a", "promt": "b"}, SETTINGS, "input"),
        ({"prompt": "a"}, {**SETTINGS, "provider": ""}, "agent"),
        ({"prompt": "a"}, {**SETTINGS, "model": ""}, "input.model"),
    ],
)
def test_a_task_that_cannot_work_is_refused_naming_the_field(given: dict, settings: dict, field: str) -> None:
    with pytest.raises(InvalidInput) as refusal:
        QwenAgent.check(TaskSpec(agent="qwen", input=given), settings)
    assert refusal.value.field == field
    assert refusal.value.hint


def test_a_task_that_can_work_is_accepted() -> None:
    QwenAgent.check(TaskSpec(agent="qwen", input={"prompt": "a"}), SETTINGS)


@pytest.mark.parametrize("agent", AGENTS)
def test_the_files_for_the_home_are_json_on_relative_paths(agent: type[PromptAgent]) -> None:
    for name, content in agent().launch(a_task(), HOME).files.items():
        assert not Path(name).is_absolute()
        msgspec.json.decode(content)
