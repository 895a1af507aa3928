"""The agent `command`: any program with any arguments."""

from __future__ import annotations

import fnmatch
from pathlib import Path
from typing import Any, ClassVar

import msgspec

from supervisord_agents.core.model import Failure, TaskSpec
from supervisord_agents.errors import ErrorCode, InvalidInput
from supervisord_agents.wire.frames import RunTask
from supervisord_agents.workers.agents.base import (
    Exit,
    Input,
    Launch,
    Outcome,
    ProgramAgent,
    last_line,
    parse_input,
    refuse_nul,
)
from supervisord_agents.workers.agents.environment import base_environment
from supervisord_agents.workers.agents.options import Options, parse_options


class CommandInput(Input, frozen=True, kw_only=True):
    """`input` of a command task."""

    argv: list[str]
    stdin: str = ""
    env: dict[str, str] = msgspec.field(default_factory=dict)
    ok_codes: list[int] = msgspec.field(default_factory=lambda: [0])
    """Exit codes that are a success."""


class CommandOptions(Options, frozen=True, kw_only=True):
    """Options of a command agent."""

    environment_allow: tuple[str, ...] | None = None
    """Names, or patterns such as `LC_*`, that a task may set by `input.env`; without it, all."""


class CommandAgent(ProgramAgent):
    """Runs `input.argv` in the workspace. Output: `{exit_code, stdout, stderr}`, texts decoded as UTF-8."""

    name: ClassVar[str] = "command"
    reusable: ClassVar[bool] = True
    options: ClassVar[type[Options]] = CommandOptions

    @classmethod
    def check(cls, spec: TaskSpec, settings: dict[str, Any]) -> None:
        given = parse_input(spec, CommandInput)
        if not given.argv or not given.argv[0]:
            raise InvalidInput("names no program.", field="input.argv", hint='Give a list such as ["make", "test"].')
        for number, argument in enumerate(given.argv):
            refuse_nul(f"input.argv[{number}]", argument)
        if given.env:
            allowed = parse_options(settings, CommandOptions).environment_allow
            for name, value in given.env.items():
                _check_variable(name, value, allowed)

    def launch(self, task: RunTask, home: Path) -> Launch:
        given = parse_input(task.spec, CommandInput)
        return Launch(
            argv=tuple(given.argv),
            env={**base_environment(home, task), **given.env},
            cwd=task.workspace,
            stdin=given.stdin.encode("utf-8", "surrogatepass"),
            keep_stdout_bytes=task.output_limit_bytes,
            keep_stderr_bytes=task.output_limit_bytes,
        )

    def read(self, task: RunTask, exit: Exit) -> Outcome:
        stderr = exit.stderr.decode("utf-8", "replace")
        output = {"exit_code": exit.code, "stdout": exit.stdout.decode("utf-8", "replace"), "stderr": stderr}
        if exit.signal:
            output["signal"] = exit.signal
        failure = None
        if exit.signal or exit.code not in parse_input(task.spec, CommandInput).ok_codes:
            said = last_line(stderr)
            failure = Failure(
                code=ErrorCode.WORKER_FAILED,
                message=f"the command {exit.how}" + (f": {said}" if said else "."),
                hint="Its output is in the task's log and result.",
            )
        return Outcome(output=output, failure=failure, truncated=exit.stdout_truncated or exit.stderr_truncated)


def _check_variable(name: str, value: str, allowed: tuple[str, ...] | None) -> None:
    field = f"input.env.{name}"
    if not name or "=" in name:
        raise InvalidInput("is no name of an environment variable.", field=field)
    refuse_nul(field, name)
    refuse_nul(field, value)
    if allowed is not None and not any(fnmatch.fnmatchcase(name, pattern) for pattern in allowed):
        raise InvalidInput(
            "is not allowed by the configuration.",
            field=field,
            hint=f"Allowed: {', '.join(allowed) or 'none'} (options.environment_allow of the agent).",
        )
