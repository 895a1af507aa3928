"""What an agent is: how to check a task's input, what its sandbox must hold, and how to do the work inside.

The class methods `check` and `requirements` run in the daemon; everything else runs in the sandbox. Agents keep no state between
tasks. docs/agents.md shows how to write one; the `settings` they are given are described in registry.py.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any, ClassVar, Protocol, TypeVar

import msgspec

from supervisord_agents.core.model import Failure, TaskSpec, Usage
from supervisord_agents.errors import InvalidInput
from supervisord_agents.wire.frames import RunTask
from supervisord_agents.workers.agents.options import Options

KEEP_STDOUT_BYTES = 64 * 1024 * 1024
KEEP_STDERR_BYTES = 64 * 1024
LAST_LINE_CHARACTERS = 300
_MISSING = re.compile(r"Object missing required field `(\w+)`")


class PermanentError(Exception):
    """Raised by a task's own code: the same input will fail again, so do not retry."""


class AgentFailure(Exception):
    """Ends an attempt with a failure of the agent's choosing."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure.message)
        self.failure = failure


class Input(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Base of the typed forms of `TaskSpec.input`, one an agent."""


class Requirements(msgspec.Struct, frozen=True):
    """What of the host an agent needs to see in its sandbox, all absolute paths."""

    read_only_paths: tuple[str, ...] = ()
    """Directories to show read-only, beside the system ones."""


class Launch(msgspec.Struct, frozen=True, kw_only=True):
    """A program to start."""

    argv: tuple[str, ...]
    env: dict[str, str]
    """The whole environment of the program."""
    cwd: str
    stdin: bytes = b""
    files: dict[str, bytes] = {}
    """Laid in the private home before the start, by relative path."""
    keep_stdout_bytes: int = KEEP_STDOUT_BYTES
    """How much of stdout `read` is given: of its beginning, unless `keep_stdout_tail`."""
    keep_stdout_tail: bool = False
    """Give `read` the end of stdout, for programs whose answer comes last."""
    keep_stderr_bytes: int = KEEP_STDERR_BYTES
    """How much of the end of stderr `read` is given."""


class Exit(msgspec.Struct, frozen=True, kw_only=True):
    """How a program ended; exactly one of `code` and `signal` means something."""

    code: int
    """-1 if a signal ended it."""
    signal: int
    """0 if it exited."""
    stdout: bytes
    stderr: bytes
    stdout_truncated: bool
    stderr_truncated: bool
    duration_s: float

    @property
    def how(self) -> str:
        """In words."""
        return f"was ended by signal {self.signal}" if self.signal else f"exited with code {self.code}"


class Wait(msgspec.Struct, frozen=True, kw_only=True):
    """An attempt ends until the children that it has submitted have ended."""

    state: Any = None
    """For the next attempt: values of JSON."""
    fail_fast: bool = False


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """What an attempt came to. `output` may be there beside a failure; a failure counts for more than a wait."""

    wait: Wait | None = None

    output: Any = None
    usage: Usage = Usage()
    failure: Failure | None = None
    truncated: bool = False


class Reporter(Protocol):
    """Where a running attempt speaks to."""

    def progress(self, fraction: float, message: str = "") -> None: ...
    def log(self, text: str) -> None: ...
    def usage(self, usage: Usage) -> None: ...
    def submit(self, tasks: list[Any]) -> str:
        """Submit children, each a TaskSpec as plain values; gives their graph when it is on disk, raises AgentFailure if they are
        refused."""

    def checkpoint(self, step: str, *, done: bool, result: Any = None) -> None:
        """A step begins, or is done; returns when that is on disk, raises AgentFailure if it is refused."""


class Agent(ABC):
    """Base of all agents; derive from ProgramAgent or FunctionAgent."""

    name: ClassVar[str]
    reusable: ClassVar[bool] = False
    """A worker may run many tasks of it, one after the other."""
    needs_gateway: ClassVar[bool] = False
    """It calls a model."""
    split: ClassVar[str] = ""
    """How a long task of it is split into several, in a phrase for whoever delegates; empty: it cannot be."""
    program: ClassVar[str] = ""
    """The executable it runs, looked for on the daemon's PATH unless the settings name another; empty: none of the host."""
    options: ClassVar[type[Options]] = Options
    """The form of the table `options` in its settings."""

    @classmethod
    @abstractmethod
    def check(cls, spec: TaskSpec, settings: dict[str, Any]) -> None:
        """Refuse a task that cannot work, before it is accepted: raises InvalidInput naming the field."""

    @classmethod
    def requirements(cls, settings: dict[str, Any]) -> Requirements:
        """What the sandbox must show; raises SandboxRefused if a program is not on this host."""
        return Requirements(read_only_paths=tuple(settings.get("read_only_paths", ())))


class ProgramAgent(Agent):
    """An agent that starts a program and reads what it printed."""

    @abstractmethod
    def launch(self, task: RunTask, home: Path) -> Launch:
        """What to start; `home` is the task's private home. Raises AgentFailure if nothing can be."""

    @abstractmethod
    def read(self, task: RunTask, exit: Exit) -> Outcome:
        """What the program's end means."""


class FunctionAgent(Agent):
    """An agent that works inside a fork of the worker's own process."""

    def modules(self, task: RunTask) -> tuple[str, ...]:
        """Installed modules that a worker which is used again keeps imported for the next task of the kind."""
        return ()

    def tasks_per_process(self, task: RunTask) -> int:
        """How many tasks of one graph a fork may do in turn; 1: each has a process of its own."""
        return 1

    @abstractmethod
    def call(self, task: RunTask, reporter: Reporter) -> Outcome:
        """Do the task; an exception becomes a failure that may be retried."""


InputT = TypeVar("InputT", bound=Input)


def parse_input(spec: TaskSpec, form: type[InputT]) -> InputT:
    """The task's input in the agent's form; raises InvalidInput naming the field, such as `input.argv[0]`."""
    try:
        return msgspec.convert(spec.input, form)
    except msgspec.ValidationError as error:
        message, _, where = str(error).partition(" - at `$")
        field = f"input{where.rstrip('`')}"
        if (missing := _MISSING.fullmatch(message)) is not None:
            message, field = "is missing", f"{field}.{missing[1]}"
        known = ", ".join(form.__struct_fields__)
        raise InvalidInput(f"{message}.", field=field, hint=f"The agent `{spec.agent}` takes: {known}.") from error


def refuse_nul(field: str, text: str) -> None:
    """Raises InvalidInput if a text cannot be an argument or a variable of a program."""
    if "\0" in text:
        raise InvalidInput("holds a NUL character, which no program can be given.", field=field, hint="Remove it.")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise InvalidInput("holds a lone surrogate, which is no text.", field=field, hint="Remove it.") from error


def last_line(text: str) -> str:
    """The last line that says something, cut to a message's length."""
    line = next((line.strip() for line in reversed(text.splitlines()) if line.strip()), "")
    return line[:LAST_LINE_CHARACTERS]
