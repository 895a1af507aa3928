"""The agent `python`: a function that can be imported in the sandbox, called in a fork of a warm worker."""

from __future__ import annotations

import importlib
import inspect
import traceback
from collections.abc import Callable
from types import FunctionType
from typing import Annotated, Any, ClassVar

import msgspec

from supervisord_agents.core.model import Failure, TaskSpec, Usage
from supervisord_agents.errors import ErrorCode, InvalidInput
from supervisord_agents.wire.frames import DependencyResult, RunTask
from supervisord_agents.workers.agents.base import (
    AgentFailure,
    FunctionAgent,
    Input,
    Outcome,
    PermanentError,
    Reporter,
    parse_input,
)
from supervisord_agents.workers.agents.options import Options, parse_options
from supervisord_agents.workers.children import Children, Waiting
from supervisord_agents.workers.steps import Steps


class PythonInput(Input, frozen=True, kw_only=True):
    """`input` of a python task."""

    function: str
    """`package.module:name`."""
    args: list[Any] = msgspec.field(default_factory=list)
    kwargs: dict[str, Any] = msgspec.field(default_factory=dict)


class PythonOptions(Options, frozen=True, kw_only=True):
    """`options` of the agent's table."""

    tasks_per_process: Annotated[int, msgspec.Meta(ge=1)] = 1
    """How many functions of one graph may run in one process, one after the other: quicker, and what one leaves in memory (in
    variables of modules, in the environment) the next one finds. 1: each has a process of its own."""


class Context:
    """What a function gets as its keyword `context`, if it has one."""

    def __init__(self, task: RunTask, reporter: Reporter) -> None:
        self.task_id = task.task
        self.attempt = task.attempt
        self.workspace = task.workspace
        self.dependencies: dict[str, DependencyResult] = task.dependencies
        self.undoes = task.undoes
        """The task that this one undoes; empty: it undoes none."""
        self.steps = Steps(task.steps, reporter)
        """What need not be done again: `context.steps.run("fetch", fetch, url)`."""
        self.children = Children(task, reporter)
        """Tasks of its own: `context.children.submit([...])`, then `context.children.wait(state)`."""
        self._reporter = reporter

    def progress(self, fraction: float, message: str = "") -> None:
        """Say how far it is: 0 to 1, or -1 for unknown."""
        self._reporter.progress(fraction, message)

    def log(self, text: str) -> None:
        """Put lines into the task's log."""
        self._reporter.log(text)

    def usage(self, *, input_tokens: int = 0, output_tokens: int = 0, cost_usd: float = 0.0) -> None:
        """Add to what the attempt has consumed at model providers."""
        self._reporter.usage(Usage(input_tokens, output_tokens, cost_usd))


class PythonAgent(FunctionAgent):
    """Calls `input.function` with `input.args` and `input.kwargs`; its return value is the output."""

    name: ClassVar[str] = "python"
    reusable: ClassVar[bool] = True
    options: ClassVar[type[Options]] = PythonOptions

    @classmethod
    def check(cls, spec: TaskSpec, settings: dict[str, Any]) -> None:
        given = parse_input(spec, PythonInput)
        module, _, name = given.function.partition(":")
        if not all(map(str.isidentifier, (*module.split("."), *name.split(".")))):
            raise InvalidInput(
                f"`{given.function}` is not of the form `package.module:name`.",
                field="input.function",
                hint="For example `supervisord_agents.workers.builtin:echo`.",
            )

    def modules(self, task: RunTask) -> tuple[str, ...]:
        return (parse_input(task.spec, PythonInput).function.partition(":")[0],)

    def tasks_per_process(self, task: RunTask) -> int:
        return parse_options(task.settings, PythonOptions).tasks_per_process

    def call(self, task: RunTask, reporter: Reporter) -> Outcome:
        given = parse_input(task.spec, PythonInput)
        try:
            function = _find(given.function)
            kwargs = dict(given.kwargs)
            if _takes_context(function):
                kwargs["context"] = Context(task, reporter)
            value = function(*given.args, **kwargs)
        except (AgentFailure, Waiting):
            raise
        except SystemExit as error:
            return _exited(error)
        except BaseException as error:
            reporter.log(_traceback_of(error))
            return Outcome(failure=_failure_of(error))
        return Outcome(output=value)


def _find(path: str) -> Callable[..., Any]:
    module_name, _, name = path.partition(":")
    try:
        found: Any = importlib.import_module(module_name)
        for part in name.split("."):
            found = getattr(found, part)
    except (ImportError, AttributeError) as error:
        if isinstance(error, ModuleNotFoundError) and error.name and not f"{module_name}.".startswith(f"{error.name}."):
            raise
        raise AgentFailure(
            Failure(
                code=ErrorCode.INVALID,
                message=f"input.function: `{path}` cannot be imported in the sandbox: {error}.",
                hint="The workspace comes first on the import path, then the packages of the supervisor.",
                retriable=False,
            )
        ) from error
    if not callable(found):
        raise AgentFailure(Failure(code=ErrorCode.INVALID, message=f"input.function: `{path}` is no function.", retriable=False))
    return found  # type: ignore[no-any-return]


def _takes_context(function: Callable[..., Any]) -> bool:
    if isinstance(function, FunctionType) and not hasattr(function, "__wrapped__"):
        # `signature` is thorough, and touches so much that it costs a fork more than all the rest.
        code = function.__code__
        return "context" in code.co_varnames[code.co_posonlyargcount : code.co_argcount + code.co_kwonlyargcount]
    try:
        parameter = inspect.signature(function).parameters.get("context")
    except (TypeError, ValueError):
        return False  # some built-in functions have no signature
    return parameter is not None and parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY)


def _exited(error: SystemExit) -> Outcome:
    if error.code in (None, 0):
        return Outcome()
    return Outcome(failure=Failure(code=ErrorCode.WORKER_FAILED, message=f"the function called sys.exit({error.code!r})."))


def _failure_of(error: BaseException) -> Failure:
    return Failure(
        code=ErrorCode.OUT_OF_MEMORY if isinstance(error, MemoryError) else ErrorCode.WORKER_FAILED,
        message=f"{type(error).__qualname__}: {error}",
        hint="The traceback is in the task's log.",
        retriable=not isinstance(error, PermanentError),
    )


def _traceback_of(error: BaseException) -> str:
    """Without the frames of the runtime."""
    trace = error.__traceback__
    while trace is not None and trace.tb_frame.f_code.co_filename == __file__:
        trace = trace.tb_next
    return "".join(traceback.format_exception(type(error), error, trace))
