"""The children of a task as a function sees them: it submits them, waits for them without a worker, and is given their ends."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NoReturn

import msgspec

from supervisord_agents.core.graph import normalise
from supervisord_agents.core.model import Failure, TaskSpec
from supervisord_agents.errors import ErrorCode
from supervisord_agents.wire.frames import DependencyResult, RunTask
from supervisord_agents.workers.agents.base import AgentFailure, Reporter, Wait


class Waiting(BaseException):
    """Ends an attempt that waits; no Exception, for it is no error that a function should handle."""

    def __init__(self, wait: Wait) -> None:
        super().__init__("the attempt waits for its children")
        self.wait = wait


class Children:
    """What the supervisor refuses ends the attempt (AgentFailure). Of its memory only what `wait` is given outlives a wait."""

    def __init__(self, task: RunTask, reporter: Reporter) -> None:
        self.results: dict[str, DependencyResult] = task.children
        """By short id: the ends of the children that were waited for last, whether they succeeded or not."""
        self.state: Any = task.state
        """What the last wait was given; None: there was none yet."""
        self._reporter = reporter
        self._taken: list[TaskSpec] = []

    def submit(self, tasks: Iterable[TaskSpec | Mapping[str, Any]]) -> list[str]:
        """Submit tasks that may depend on one another, all or none; gives their full ids when they are on disk.

        Each is a TaskSpec, or its fields. Their ids are unique within the attempt; those without are `t1`, `t2`, ….
        """
        try:
            given = [msgspec.convert(msgspec.to_builtins(task), TaskSpec) for task in tasks]
        except (msgspec.ValidationError, TypeError) as error:
            failure = Failure(code=ErrorCode.INVALID, message=f"a child is no task: {error}.", retriable=False)
            raise AgentFailure(failure) from error
        self._taken = list(normalise([*self._taken, *given]))
        named = self._taken[len(self._taken) - len(given) :]
        graph = self._reporter.submit([msgspec.to_builtins(task) for task in named])
        return [f"{graph}.{task.id}" for task in named]

    def wait(self, state: Any = None, *, fail_fast: bool = False) -> NoReturn:
        """End the attempt until all children that it has submitted have ended; does not return.

        The function is then called again, in another attempt that costs no retry, and finds `state` (values of JSON, up to
        64 KiB) and the `results` of the children. With `fail_fast` the first that fails ends the others.
        """
        raise Waiting(Wait(state=state, fail_fast=fail_fast))
