"""What the coding CLIs have in common: a prompt in, a text out, a model behind the gateway."""

from __future__ import annotations

import json
from http import HTTPStatus
from typing import Annotated, Any, ClassVar

import msgspec

from supervisord_agents.core.model import MAX_COST_USD, MAX_TOKENS, Category, Failure, TaskSpec
from supervisord_agents.errors import ErrorCode, InvalidInput
from supervisord_agents.wire.frames import DependencyResult, RunTask
from supervisord_agents.workers.agents import programs
from supervisord_agents.workers.agents.base import (
    AgentFailure,
    Exit,
    Input,
    Outcome,
    ProgramAgent,
    Requirements,
    last_line,
    parse_input,
    refuse_nul,
)
from supervisord_agents.workers.agents.options import Options

DEPENDENCY_CHARACTERS = 64 * 1024
"""Of one dependency's output in a prompt; the whole is in the file named by AGENT_SUPERVISOR_TASK."""
PLACEHOLDER_KEY = "placeholder"
"""The CLIs insist on a key; the gateway puts the real one in its place."""
_PERMANENT_STATUSES = (HTTPStatus.BAD_REQUEST, HTTPStatus.NOT_FOUND, HTTPStatus.UNPROCESSABLE_ENTITY)
_KEY_STATUSES = (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN)


class PromptInput(Input, frozen=True, kw_only=True):
    """`input` of a task for a coding CLI."""

    prompt: str
    model: str = ""
    """Instead of the configured one."""


class ApprovalOptions(Options, frozen=True, kw_only=True):
    """Options of the CLIs that ask before they act."""

    approval: Annotated[str, msgspec.Meta(pattern="^[a-z][a-z_-]*$")] = "yolo"
    """What it may do unasked: one of the CLI's own words. `yolo` is everything: the sandbox is the limit."""


class PromptAgent(ProgramAgent):
    """A CLI that is given a prompt on its standard input, where its length knows no limit. Output: `{text}`."""

    needs_gateway: ClassVar[bool] = True

    @classmethod
    def check(cls, spec: TaskSpec, settings: dict[str, Any]) -> None:
        given = parse_input(spec, PromptInput)
        if not given.prompt.strip():
            raise InvalidInput("is empty.", field="input.prompt", hint="Say what the agent should do.")
        refuse_nul("input.prompt", given.prompt)
        refuse_nul("input.model", given.model)
        if not settings.get("provider"):
            raise InvalidInput(
                f"the agent `{spec.agent}` has no model provider.",
                field="agent",
                hint=f"Set `provider` in [agents.{spec.agent}] to one of [gateway.providers] of the configuration.",
            )
        if not (given.model or settings.get("model")):
            raise InvalidInput(
                f"the agent `{spec.agent}` has no model.",
                field="input.model",
                hint=f"Give it here, or set `model` in [agents.{spec.agent}] of the configuration.",
            )

    @classmethod
    def requirements(cls, settings: dict[str, Any]) -> Requirements:
        return programs.requirements(settings.get("name") or cls.name, cls.program, settings)


def executable(agent: type[PromptAgent], task: RunTask) -> str:
    """The program to start, as the daemon found it."""
    return str(task.settings.get("executable") or agent.program)


def model(task: RunTask) -> str:
    """The model's name: the task's own, else the configured one."""
    return parse_input(task.spec, PromptInput).model or str(task.settings.get("model", ""))


def endpoint(task: RunTask) -> str:
    """The provider's base URL inside the sandbox; raises AgentFailure if there is no gateway, or no provider any more."""
    if not (task.gateway_port and task.settings.get("provider")):
        message = "this worker has no way to a model: no gateway, or no provider."
        hint = "Configure a provider under [gateway.providers]."
        raise AgentFailure(Failure(code=ErrorCode.SANDBOX_DENIED, message=message, hint=hint, retriable=False))
    return f"http://127.0.0.1:{task.gateway_port}/{task.settings['provider']}"


def full_prompt(task: RunTask) -> bytes:
    """The prompt with the results of the task's dependencies after it."""
    parts = [parse_input(task.spec, PromptInput).prompt]
    if task.dependencies:
        parts.append("Result of the task to be undone:" if task.undoes else "Results of the tasks this one depends on:")
        parts += [_dependency(name, result) for name, result in task.dependencies.items()]
    return "\n\n".join(parts).encode("utf-8", "replace")


def _dependency(name: str, result: DependencyResult) -> str:
    output = result.output
    if isinstance(output, dict) and set(output) == {"text"}:
        output = output["text"]
    text = output if isinstance(output, str) else json.dumps(msgspec.to_builtins(output, str_keys=True), ensure_ascii=False)
    cut = result.truncated or len(text) > DEPENDENCY_CHARACTERS
    failed = f"\n(it failed: {result.failure.message})" if result.failure else ""
    return f"## {name} ({result.state})\n{text[:DEPENDENCY_CHARACTERS]}{' […cut]' if cut else ''}{failed}"


def refused(agent: type[PromptAgent], status: int, message: str) -> Failure:
    """The failure for a model call that was answered with an HTTP status; 0: the status is not known."""
    said = message.strip()[:500] or "no reason given"
    if status in _KEY_STATUSES:
        return Failure(
            code=ErrorCode.WORKER_FAILED,
            message=f"the model provider refused the key or the request ({status}): {said}",
            hint="Check api_key_env or api_key_file of the provider under [gateway.providers].",
            retriable=False,
        )
    if status == HTTPStatus.TOO_MANY_REQUESTS:
        message = f"the model provider limits the rate ({status}): {said}"
        return Failure(code=ErrorCode.WORKER_FAILED, message=message, category=Category.RATE_LIMITED)
    where = f" ({status})" if status else ""
    return Failure(
        code=ErrorCode.WORKER_FAILED,
        message=f"the model call of {agent.name} failed{where}: {said}",
        hint="The program's own output is in the task's log.",
        retriable=status not in _PERMANENT_STATUSES,
    )


def unreadable(agent: type[PromptAgent], exit: Exit) -> Outcome:
    """The outcome of a program that ended without the answer it owes."""
    said = last_line(exit.stderr.decode("utf-8", "replace"))
    cut = " Its output was too long to be read." if exit.stdout_truncated else ""
    failure = Failure(
        code=ErrorCode.WORKER_FAILED,
        message=f"{agent.program} {exit.how} without an answer.{cut}" + (f" It said: {said}" if said else ""),
        hint="Its whole output is in the task's log.",
    )
    return Outcome(failure=failure)


def count(value: Any) -> int:
    """A count of tokens as a CLI reports it; 0 for what cannot be one."""
    return value if type(value) is int and 0 <= value <= MAX_TOKENS else 0


def cost(value: Any) -> float:
    """A cost in US dollars as a CLI reports it; 0 for what cannot be one."""
    return float(value) if type(value) in (int, float) and 0 <= value <= MAX_COST_USD else 0.0


def table(value: Any) -> dict[str, Any]:
    """A JSON object; an empty one for anything else."""
    return value if isinstance(value, dict) else {}


def text(value: Any) -> str:
    """An answer's text; null is an empty one, and data is written as JSON."""
    if value is None:
        return ""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def json_lines(data: bytes) -> list[dict[str, Any]]:
    """The JSON objects among the lines of an output; what is none is skipped."""
    found = []
    for line in data.splitlines():
        if line.startswith(b"{"):
            try:
                found.append(json.loads(line))
            except (ValueError, RecursionError):
                continue
    return found
