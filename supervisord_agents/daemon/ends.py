"""The ends of attempts and of tasks: checked, written as result files, fed as events, and answered to those who ask.

A result is on disk, or in the journal's own record, before its `Finished` is durable, and in its file before anybody is told.
What workers say is bounded here, whatever their runtime has done already: the runtime shares its process with the task.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import msgspec
import structlog

from supervisord_agents.core.events import Changed, Finished, Used, Yielded
from supervisord_agents.core.families import MAX_STATE_BYTES
from supervisord_agents.core.model import Failure, Result, State, Usage
from supervisord_agents.core.nesting import MAX_NESTING, too_deep
from supervisord_agents.core.policy import RETRY_AFTER_LIMIT_S
from supervisord_agents.core.task import NO_USAGE, Task
from supervisord_agents.daemon.accounts import Accounts
from supervisord_agents.daemon.clock import iso
from supervisord_agents.daemon.engine import Engine
from supervisord_agents.errors import ErrorCode, JournalError, NotFound, SupervisorError
from supervisord_agents.spool.results import ResultStore
from supervisord_agents.wire import frames
from supervisord_agents.workers.jobs import Jobs

INLINE_OUTPUT_BYTES = 64 * 1024
"""Outputs up to this size ride in the journal; larger ones are synced as files first."""
STATE_LIMIT_BYTES = 8 * MAX_STATE_BYTES
"""As JSON, in which a character may take six bytes."""
RETRY_WRITING_S = 5.0
MESSAGE_CHARACTERS = 4096
_CODES = frozenset(map(str, ErrorCode))
log = structlog.get_logger()


class Ends:
    """Records how attempts ended. `accounts` knows what they consumed."""

    def __init__(self, results: ResultStore, accounts: Accounts) -> None:
        self._results = results
        self._accounts = accounts
        self._engine: Engine
        self._jobs = Jobs("result")
        """Results that are being written by threads."""
        self._retry: asyncio.TimerHandle | None = None

    def attach(self, engine: Engine) -> None:
        """Feed events to this engine."""
        self._engine = engine

    async def recorded(self) -> None:
        """Return when no result is still to be written."""
        self._results.put_all_held()
        await self._jobs.ended()

    # Of attempts

    def ended(self, worker: str, frame: frames.End) -> bool:
        """The worker's last frame: write the result, then feed `Finished`, or `Yielded`. That of another attempt is ignored.

        False: the result is large, and its end is fed only when it is on disk.
        """
        task = self._engine.scheduler.running_attempt(frame.task, frame.attempt)
        if task is None:
            return True
        if isinstance(frame, frames.Yield):
            self._yielded(task, frame)
            return True
        failure = bounded(frame.failure) if isinstance(frame, frames.TaskError) else None
        output, size, refused = _storable(frame.output)
        failure = failure or refused
        usage = self._accounts.take(task.id, frame.usage)
        event = Finished(
            task=task.id, attempt=task.attempt, failure=failure, usage=usage, output=output, truncated=frame.truncated
        )
        status = State.FAILED if failure else State.SUCCEEDED
        result = _result(
            task, status, self._engine.clock.now(), task.usage + usage, output=output, error=failure, truncated=frame.truncated
        )
        if size <= INLINE_OUTPUT_BYTES:
            self._results.hold(result)
            self._feed(event)
            asyncio.get_running_loop().call_soon(self._put_held, task.id)  # while the journal is synced
            return True
        self._jobs.spawn(self._record_large(result, event))
        return False

    def _yielded(self, task: Task, frame: frames.Yield) -> None:
        usage = self._accounts.take(task.id, frame.usage)
        state, size, refused = _storable(frame.state)
        if refused is None and size > STATE_LIMIT_BYTES:
            refused = Failure(ErrorCode.WORKER_FAILED, f"the state of its wait is {size} bytes as JSON.", retriable=False)
        if refused is not None:
            self._feed(Finished(task=task.id, attempt=task.attempt, failure=refused, usage=usage))
            return
        self._feed(Yielded(task=task.id, attempt=task.attempt, state=state, fail_fast=frame.fail_fast, usage=usage))

    def died(self, task_id: str, attempt: int, failure: Failure) -> None:
        """The attempt ended without a word of its own."""
        task = self._engine.scheduler.running_attempt(task_id, attempt)
        if task is not None:
            usage = self._accounts.take(task_id)
            self._feed(Finished(task=task_id, attempt=attempt, failure=failure, usage=usage))

    def stopped(self, frame: frames.End) -> None:
        """Keep what was there of the output of an attempt whose end had been decided, until another attempt takes its place."""
        if isinstance(frame, frames.Yield):
            return
        task = self._engine.scheduler.tasks.get(frame.task)
        output, _, refused = _storable(frame.output)
        if task is None or not _over(task, frame.attempt) or output is None or refused:
            return
        status, at = (task.state, task.ended_at) if task.ended else (State.FAILED, task.history[-1].at)
        result = _result(task, status, at, task.usage, output=output, error=task.failure, truncated=frame.truncated)
        self._jobs.spawn(self._replace(msgspec.structs.replace(result, partial=isinstance(frame, frames.TaskError))))

    def settle_accounts(self, task_id: str) -> None:
        """Journal what an attempt consumed that no `Finished` told of: it was stopped, or the count came late."""
        usage = self._accounts.take(task_id)
        if usage != NO_USAGE:
            self._feed(Used(task=task_id, usage=usage))

    def late_usage(self, task_id: str) -> None:
        """As settle_accounts, for a task that may have ended: its result tells of it too."""
        self.settle_accounts(task_id)
        task = self._engine.scheduler.tasks.get(task_id)
        if task is not None:
            self._rewrite(task)

    async def _record_large(self, result: Result, event: Finished) -> None:
        """On disk first, under a name of its own, so that an attempt whose end was decided meanwhile leaves no trace."""
        try:
            staged = await asyncio.to_thread(self._results.stage, result)
        except SupervisorError as error:
            log.error("result_not_written", task=event.task, error=str(error), kept="in the journal")
            self._put_unless_over(result, event)
            return
        if self._engine.scheduler.running_attempt(event.task, event.attempt) is None:
            self._results.discard(staged)
            return
        if await self._published(event.task, staged):
            event = msgspec.structs.replace(event, output=None, output_file=True)
        self._feed(event)

    async def _published(self, task: str, staged: Path) -> bool:
        try:
            self._results.publish(task, staged)
            await asyncio.to_thread(self._results.sync_names)
        except OSError as error:
            log.error("result_not_written", task=task, error=str(error), kept="in the journal")
            return False
        return True

    def _put_unless_over(self, result: Result, event: Finished) -> None:
        if self._engine.scheduler.running_attempt(event.task, event.attempt) is not None:
            self._put(result)
            self._feed(event)

    def _put(self, result: Result) -> None:
        self._results.put(result)
        self._retry_kept()

    def _put_held(self, task: str) -> None:
        self._results.put_held(task)
        self._retry_kept()

    def _retry_kept(self) -> None:
        if self._results.kept and self._retry is None:
            self._retry = asyncio.get_running_loop().call_later(RETRY_WRITING_S, self._write_kept)

    def _write_kept(self) -> None:
        self._retry = None
        self._results.write_kept()
        self._retry_kept()

    def _feed(self, event: Finished | Yielded | Used) -> None:
        try:
            self._engine.feed(event)
        except JournalError as error:
            log.error("not_recorded", task=event.task, what=type(event).__name__, error=str(error))

    # Of tasks

    def write_end(self, change: Changed) -> None:
        """Make the result file say how the task ended. One that never ran has no file; `answer` tells of it all the same."""
        self._rewrite(self._engine.scheduler.tasks[change.task])

    def _rewrite(self, task: Task) -> None:
        """The file of a task that ran and has ended, unless it has been given another round meanwhile."""
        if not task.attempt or not task.ended:
            return
        kept = self._last(task)
        self._put_again(_end_of(task, kept, task.failure), kept)

    def _put_again(self, result: Result, kept: Result | None) -> None:
        """In place of `kept`, whose output may be nowhere else: that gives way only to a file that is on disk."""
        if kept is None or kept.output is None:
            self._put(result)
        else:
            self._jobs.spawn(self._replace(result))

    async def _replace(self, result: Result) -> None:
        try:
            staged = await asyncio.to_thread(self._results.stage, result)
        except SupervisorError as error:
            log.error("result_not_rewritten", task=result.task_id, error=str(error), kept="the file as it was")
            return
        task = self._engine.scheduler.tasks.get(result.task_id)
        if task is None or not _tells_of(result, task):
            self._results.discard(staged)
            return
        try:
            self._results.publish(result.task_id, staged)
        except OSError as error:
            log.error("result_not_rewritten", task=result.task_id, error=str(error), kept="the file as it was")

    def _last(self, task: Task) -> Result | None:
        """What the file says of the newest attempt."""
        try:
            result = self._results.read(task.id)
        except SupervisorError:
            return None
        return result if result.attempt == task.attempt else None

    def answer(self, task: Task) -> Result:
        """The result of a task that has ended: its file, else what its state alone says. Raises NotFound before its end."""
        if not task.ended:
            raise NotFound(
                f"task {task.id} has no result yet, it is {task.state}.",
                field="task",
                hint=f"Wait for it: agentctl wait {task.id}",
            )
        kept = self._last(task)
        if kept is not None and kept.status == task.state:
            return msgspec.structs.replace(kept, tokens_used=task.usage.tokens, cost_usd=task.usage.cost_usd)
        error = task.failure
        if task.state is State.SUCCEEDED and kept is None:
            message = f"the task succeeded, but its result file is gone or damaged: {self._results.path(task.id)}."
            error = Failure(code=ErrorCode.LOST, message=message, hint="Submit the task anew to have it again.", retriable=False)
        return _end_of(task, kept, error)

    def output(self, task: str, room: int) -> tuple[Any, bool]:
        """The output for a dependent, and whether it was left out because its file is larger than `room`."""
        if self._results.size(task) > room:
            return None, True
        try:
            return self._results.read(task).output, False
        except SupervisorError:
            return None, False

    def restore(self, changed: Iterable[str], finished: dict[str, Finished]) -> int:
        """Write again the results that did not reach the disk before a crash; gives their number.

        `changed` are the tasks that the tail of the journal tells of, `finished` the last end of an attempt of each.
        """
        restored = 0
        for task_id in sorted(changed):
            task = self._engine.scheduler.tasks.get(task_id)
            if task is None or not task.attempt:
                continue
            event = finished.get(task_id)
            if event is not None and event.attempt != task.attempt:
                event = None
            if not task.ended and event is None:
                continue
            restored += self._restored(task, event)
        return restored

    def _restored(self, task: Task, event: Finished | None) -> bool:
        status = task.state if task.ended else State.FAILED
        kept = self._last(task)
        partial = kept is not None and kept.partial
        inline = event is not None and not event.output_file and not partial
        output = event.output if event is not None and inline else kept.output if kept is not None else None
        truncated = event.truncated if event is not None else kept is not None and kept.truncated
        at = task.ended_at if task.ended else task.history[-1].at
        result = _result(task, status, at, task.usage, output=output, error=task.failure, truncated=truncated)
        result = msgspec.structs.replace(result, partial=partial)
        # All of it is compared: after a loss of power any part of a file may be missing.
        if kept is not None and msgspec.structs.replace(kept, completed_at=result.completed_at) == result:
            return False
        self._put_again(result, None if inline else kept)
        return True


def bounded(failure: Failure) -> Failure:
    """A worker's failure, of a length for a message and with a code that there is."""
    return msgspec.structs.replace(
        failure,
        code=failure.code if failure.code in _CODES else str(ErrorCode.WORKER_FAILED),
        message=failure.message[:MESSAGE_CHARACTERS],
        hint=failure.hint[:MESSAGE_CHARACTERS],
        retry_after_s=failure.retry_after_s if 0 < failure.retry_after_s < RETRY_AFTER_LIMIT_S else 0.0,
    )


def _storable(output: Any) -> tuple[Any, int, Failure | None]:
    """The output, its bytes as JSON, and no failure; or None and why it can be neither stored nor read back."""
    try:
        if too_deep(output):
            raise ValueError(f"it is nested deeper than {MAX_NESTING} levels")
        return output, len(msgspec.json.encode(output)), None
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        failure = Failure(
            code=ErrorCode.WORKER_FAILED,
            message=f"its output cannot be stored: {error}.",
            hint="Return None, numbers, text, lists and dictionaries of them.",
            retriable=False,
        )
        return None, 0, failure


def _end_of(task: Task, kept: Result | None, error: Failure | None) -> Result:
    """How the task ended, with what its last attempt had put into the file."""
    output, truncated = (kept.output, kept.truncated) if kept is not None else (None, False)
    result = _result(task, task.state, task.ended_at, task.usage, output=output, error=error, truncated=truncated)
    return msgspec.structs.replace(result, partial=kept is not None and kept.partial)


def _tells_of(result: Result, task: Task) -> bool:
    """Whether nothing has happened to the task since the result was made of it."""
    said = (result.attempt, result.status, result.tokens_used, result.cost_usd)
    return said == (task.attempt, task.state if task.ended else State.FAILED, task.usage.tokens, task.usage.cost_usd)


def _over(task: Task, attempt: int) -> bool:
    """Whether this was the newest attempt, and not the last word."""
    return task.attempt == attempt and task.state not in (State.RUNNING, State.SUCCEEDED)


def _result(task: Task, status: State, at: float, usage: Usage, *, output: Any, error: Failure | None, truncated: bool) -> Result:
    return Result(
        task_id=task.id,
        worker_id=task.worker,
        status=str(status),
        attempt=task.attempt,
        started_at=iso(task.started_at),
        completed_at=iso(at),
        output=output,
        error=error,
        tokens_used=usage.tokens,
        cost_usd=usage.cost_usd,
        truncated=truncated,
    )
