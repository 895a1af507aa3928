"""The children of running attempts: submitted for them, and answered when they are on disk."""

from __future__ import annotations

from typing import Protocol

import msgspec
import structlog

from supervisord_agents.core.model import Failure, TaskSpec
from supervisord_agents.core.nesting import MAX_NESTING, too_deep_in
from supervisord_agents.core.task import Task
from supervisord_agents.daemon.refusals import refusal
from supervisord_agents.errors import DiskFull, ErrorCode, InvalidInput, JournalError, SupervisorError
from supervisord_agents.wire import frames
from supervisord_agents.workers.jobs import Jobs

MAX_PENDING = 8
"""Requests of one attempt that have not been answered."""
log = structlog.get_logger()


class Submit(Protocol):
    """Who takes the children of a task; see daemon.submissions."""

    @property
    def stopping(self) -> bool: ...

    async def submit_children(self, parent: Task, tasks: list[TaskSpec], call: int) -> str: ...


class Children:
    """Takes requests from one daemon's workers; answers by `answer`."""

    def __init__(self, pools: Answering) -> None:
        self._pools = pools
        self._submissions: Submit
        self._jobs = Jobs("children")
        self._pending: dict[tuple[str, int], set[int]] = {}

    def attach(self, submissions: Submit) -> None:
        """Submit by these."""
        self._submissions = submissions

    def take(self, parent: Task, frame: frames.SubmitChildren) -> None:
        """The running attempt of `parent` submits children. One that is asked for again meanwhile is answered once."""
        pending = self._pending.setdefault((frame.task, frame.attempt), set())
        if frame.call in pending:
            return
        if len(pending) >= MAX_PENDING:
            failure = Failure(ErrorCode.INVALID, f"more than {MAX_PENDING} requests are being answered.", retriable=False)
            self._answer(frame, failure=failure)
            return
        pending.add(frame.call)
        self._jobs.spawn(self._submit(parent, frame, pending))

    async def _submit(self, parent: Task, frame: frames.SubmitChildren, pending: set[int]) -> None:
        try:
            graph = await self._submissions.submit_children(parent, _tasks(frame), frame.call)
        except JournalError as error:
            if not isinstance(error, DiskFull):
                log.error("children_not_recorded", task=frame.task, error=str(error))
                return  # The worker says it again to the next daemon.
            self._answer(frame, failure=refusal(error))
        except SupervisorError as error:
            if not self._submissions.stopping:  # else the worker says it again to the next daemon, or is ended
                self._answer(frame, failure=refusal(error))
        else:
            log.info("children_submitted", task=frame.task, attempt=frame.attempt, graph=graph, tasks=len(frame.tasks))
            self._answer(frame, graph=graph)
        finally:
            pending.discard(frame.call)
            if not pending:
                self._pending.pop((frame.task, frame.attempt), None)

    def _answer(self, frame: frames.SubmitChildren, *, graph: str = "", failure: Failure | None = None) -> None:
        self._pools.answer(
            frames.ChildrenSubmitted(task=frame.task, attempt=frame.attempt, call=frame.call, graph=graph, failure=failure)
        )


class Answering(Protocol):
    """The pools, as far as they are needed here."""

    def answer(self, answer: frames.Answer) -> None: ...


def _tasks(frame: frames.SubmitChildren) -> list[TaskSpec]:
    try:
        tasks = msgspec.convert(frame.tasks, list[TaskSpec])
    except msgspec.ValidationError as error:
        message, _, where = str(error).partition(" - at `$")
        raise InvalidInput(f"{message}.", field=f"tasks{where.rstrip('`')}") from error
    for index, spec in enumerate(tasks):
        if deep := too_deep_in(spec):
            raise InvalidInput(f"is nested deeper than {MAX_NESTING} levels.", field=f"tasks[{index}].{deep}")
    return tasks
