"""From a ready task to a recorded result: starts attempts on workers, and turns what workers say into events and files."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
import structlog

from supervisord_agents.config import Config
from supervisord_agents.core.events import Changed, Decision, Finished, Started, Stop
from supervisord_agents.core.graph import edge_of
from supervisord_agents.core.model import END_STATES, Failure, Result, State, Usage
from supervisord_agents.daemon.clock import iso
from supervisord_agents.daemon.engine import Engine
from supervisord_agents.daemon.feed import Feed
from supervisord_agents.daemon.waiters import Waiters
from supervisord_agents.errors import DiskFull, ErrorCode, JournalError, NotFound, SupervisorError
from supervisord_agents.spool.logs import LogStore
from supervisord_agents.spool.results import ResultStore
from supervisord_agents.wire import frames
from supervisord_agents.wire.messages import Item
from supervisord_agents.workers.agents.registry import AgentRegistry
from supervisord_agents.workers.pool import Pools

INLINE_OUTPUT_BYTES = 64 * 1024
"""Outputs up to this size ride in the journal; larger ones are synced as files first."""
DEPENDENCY_OUTPUT_BYTES = 4 * 1024 * 1024
"""All outputs of dependencies that one task frame carries."""
log = structlog.get_logger()


class Attempts:
    """Listens to the pools and to the engine's released decisions."""

    def __init__(
        self,
        config: Config,
        agents: AgentRegistry,
        pools: Pools,
        results: ResultStore,
        logs: LogStore,
        feed: Feed,
        waiters: Waiters,
    ) -> None:
        self._config = config
        self._agents = agents
        self._pools = pools
        self._results = results
        self._logs = logs
        self._feed = feed
        self._waiters = waiters
        self._engine: Engine
        self._dispatch_due = False
        self._draining = False
        self._usage: dict[str, Usage] = {}
        """What the gateway counted for running attempts: worth more than what a worker claims."""
        self._large: set[asyncio.Task[None]] = set()
        self.progress: dict[str, tuple[float, str]] = {}
        self.usage = Usage()
        """Of all attempts since the daemon started."""

    def attach(self, engine: Engine) -> None:
        """Feed events to this engine."""
        self._engine = engine

    def start(self) -> None:
        """Begin to run tasks."""
        self._pools.start(self)
        self.slots_changed()

    def drain(self) -> None:
        """Start nothing more."""
        self._draining = True

    async def recorded(self) -> None:
        """Return when no result is still being written."""
        if self._large:
            await asyncio.wait(self._large)

    # What the engine releases

    def released(self, sequence: int, decision: Decision) -> None:
        """Carry out one durable decision."""
        if isinstance(decision, Stop):
            self._logs.notice(decision.task, f"attempt {decision.attempt} stopped: {decision.code}")
            self._pools.stop(decision.task, decision.attempt, decision.code)
        elif isinstance(decision, Changed):
            self._changed(sequence, decision)

    def _changed(self, sequence: int, change: Changed) -> None:
        if change.after is State.RUNNING:
            self._launch(change)
        elif change.before is State.RUNNING:
            self._attempt_over(change)
        if change.after in END_STATES:
            self._ended(change)
        if change.after in (State.READY, *END_STATES):
            self.slots_changed()
        self._feed.changed(sequence, change)
        if change.after in END_STATES:
            self._waiters.ended(change.task)

    def _attempt_over(self, change: Changed) -> None:
        self.progress.pop(change.task, None)
        self._usage.pop(change.task, None)
        failure = change.failure
        why = f": {failure.code} {failure.message}" if failure else ""
        self._logs.notice(change.task, f"attempt {change.attempt} is over, the task is {change.after}{why}")
        self._logs.close(change.task)

    def _ended(self, change: Changed) -> None:
        failure = change.failure
        log.info(
            "task_ended",
            task=change.task,
            state=str(change.after),
            attempt=change.attempt,
            code=failure.code if failure else "",
        )
        if change.after is not State.SUCCEEDED:
            self.write_end(change)

    def write_end(self, change: Changed) -> None:
        """Make the result file say how the task ended, keeping what the last attempt had put there."""
        task = self._engine.scheduler.tasks[change.task]
        try:
            kept = self._results.read(change.task)
        except SupervisorError:
            kept = Result(task_id=change.task)
        if kept.attempt != change.attempt:
            kept = Result(task_id=change.task)
        result = msgspec.structs.replace(
            kept,
            status=str(change.after),
            attempt=change.attempt,
            worker_id=task.worker,
            started_at=iso(task.started_at),
            completed_at=iso(change.at),
            error=change.failure,
            tokens_used=task.usage.input_tokens + task.usage.output_tokens,
            cost_usd=task.usage.cost_usd,
        )
        try:
            self._results.write(result)
        except SupervisorError as error:
            log.error("result_not_written", task=change.task, error=str(error))

    # Starting

    def slots_changed(self) -> None:
        """Something may be startable now: look once, at the end of this turn of the loop."""
        if not self._dispatch_due and not self._draining:
            self._dispatch_due = True
            asyncio.get_running_loop().call_soon(self._dispatch)

    def _dispatch(self) -> None:
        self._dispatch_due = False
        if self._draining:
            return
        try:
            for start in self._engine.scheduler.starts(self._pools.free()):
                self._start(start.pool, start.task, start.attempt)
        except JournalError as error:
            log.error("dispatch_stopped", error=str(error))

    def _start(self, pool: str, task: str, attempt: int) -> None:
        spec = self._engine.scheduler.tasks[task].spec
        try:
            worker = self._pools.claim(pool, task, attempt, spec)
        except SupervisorError as error:
            self._engine.feed(Started(task=task, attempt=attempt, worker=""))
            self.attempt_died(task, attempt, Failure(code=error.code, message=error.message, hint=error.hint, retriable=False))
            return
        self._engine.feed(Started(task=task, attempt=attempt, worker=worker))

    def _launch(self, change: Changed) -> None:
        task = self._engine.scheduler.tasks[change.task]
        spec = task.spec
        self._logs.notice(change.task, f"attempt {change.attempt} starts on worker {task.worker}")
        log.info("attempt_started", task=change.task, attempt=change.attempt, worker=task.worker, agent=spec.agent)
        if not task.worker:
            return
        agent = self._agents.get(spec.agent)
        message = frames.RunTask(
            task=change.task,
            attempt=change.attempt,
            spec=spec,
            agent_class=f"{agent.__module__}:{agent.__qualname__}",
            settings=self._agents.settings(spec.agent),
            workspace=spec.workspace or frames.WORKSPACE_DIR,
            dependencies=self._dependency_results(change.task),
            gateway_port=self._pools.gateway_port(task.worker),
            output_limit_bytes=self._config.tasks.output_limit_bytes,
        )
        self._pools.launch(task.worker, message)

    def _dependency_results(self, task_id: str) -> dict[str, frames.DependencyResult]:
        task = self._engine.scheduler.tasks[task_id]
        room = DEPENDENCY_OUTPUT_BYTES
        results = {}
        for asked, edge in zip(task.spec.dependencies, task.dependencies, strict=True):
            name, _ = edge_of(asked)
            dependency = edge.before
            output = self._output_of(dependency.id)
            room -= len(msgspec.msgpack.encode(output))
            results[name] = frames.DependencyResult(
                state=str(dependency.state),
                output=output if room >= 0 else None,
                failure=dependency.failure,
                truncated=room < 0,
            )
        if room < 0:
            self._logs.notice(task.id, "outputs of its dependencies were too large to pass; some are left out")
        return results

    def _output_of(self, task: str) -> Any:
        try:
            return self._results.read(task).output
        except SupervisorError:
            return None

    # What the pools say (workers.pool.Listener)

    def attempt_ended(self, worker: str, frame: frames.TaskResult | frames.TaskError) -> None:
        failure = frame.failure if isinstance(frame, frames.TaskError) else None
        usage = self._usage.get(frame.task) or frame.usage
        self.record(worker, frame.task, frame.attempt, frame.output, failure, usage, frame.truncated)

    def record(
        self, worker: str, task: str, attempt: int, output: Any, failure: Failure | None, usage: Usage, truncated: bool
    ) -> None:
        """Write the result, then feed `Finished`: a result exists on disk before its event is journalled."""
        known = self._engine.scheduler.tasks[task]
        result = Result(
            task_id=task,
            worker_id=worker,
            status=str(State.FAILED if failure else State.SUCCEEDED),
            attempt=attempt,
            started_at=iso(known.started_at),
            completed_at=iso(self._engine.clock.now()),
            output=output,
            error=failure,
            tokens_used=usage.input_tokens + usage.output_tokens,
            cost_usd=usage.cost_usd,
            truncated=truncated,
        )
        event = Finished(task=task, attempt=attempt, failure=failure, usage=usage, output=output, truncated=truncated)
        if len(msgspec.msgpack.encode(output)) > INLINE_OUTPUT_BYTES:
            job = asyncio.get_running_loop().create_task(self._record_large(result, event))
            self._large.add(job)
            job.add_done_callback(self._large.discard)
            return
        try:
            self._results.write(result)
        except SupervisorError as error:
            log.error("result_not_written", task=task, error=str(error), kept="in the journal")
        self._finish(event)

    async def _record_large(self, result: Result, event: Finished) -> None:
        event = msgspec.structs.replace(event, output=None, output_file=True)
        try:
            await asyncio.to_thread(self._results.write, result, sync=True)
        except SupervisorError as error:
            code = ErrorCode.DISK_FULL if isinstance(error, DiskFull) else ErrorCode.INTERNAL
            event = msgspec.structs.replace(
                event,
                output_file=False,
                failure=Failure(code=code, message=f"its result could not be written: {error.message}", hint=error.hint),
            )
        self._finish(event)

    def attempt_died(self, task: str, attempt: int, failure: Failure) -> None:
        usage = self._usage.get(task, Usage())
        self._finish(Finished(task=task, attempt=attempt, failure=failure, usage=usage))

    def _finish(self, event: Finished) -> None:
        try:
            self._engine.feed(event)
        except JournalError as error:
            log.error("end_not_recorded", task=event.task, attempt=event.attempt, error=str(error))

    def attempt_said(self, frame: frames.Progress | frames.Log | frames.UsageReport) -> None:
        if isinstance(frame, frames.Log):
            self._logs.append(frame.task, frame.data)
            if self._feed.listened:
                self._tell("log", frame.task, frame.attempt, data=frame.data)
        elif isinstance(frame, frames.Progress):
            self.progress[frame.task] = (frame.fraction, frame.message)
            self._tell("progress", frame.task, frame.attempt, progress=frame.fraction, message=frame.message)

    def _tell(self, kind: str, task: str, attempt: int, **fields: Any) -> None:
        at = self._engine.clock.now()
        self._feed.transient(Item(kind=kind, token=self._feed.token, at=at, task=task, attempt=attempt, **fields))

    async def settled(self) -> None:
        try:
            await self._engine.settled()
        except JournalError:
            log.error("worker_files_kept", reason="the journal is broken")

    # What the gateway says

    def used(self, task: str, usage: Usage) -> None:
        if task:
            self._usage[task] = self._usage.get(task, Usage()) + usage
        self.usage += usage

    def refused(self, task: str, text: str) -> None:
        if task:
            self._logs.notice(task, text)
        log.warning("gateway_refused", task=task, reason=text)


def read_result(results: ResultStore, task: str, state: State) -> Result:
    """The result of a task that ended; a file lost since is answered with what the state alone says."""
    try:
        return results.read(task)
    except NotFound:
        if state in END_STATES:
            return Result(task_id=task, status=str(state))
        raise
