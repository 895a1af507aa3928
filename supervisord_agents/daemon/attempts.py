"""From a ready task to a running attempt: claims workers, launches, stops, and passes on what workers say meanwhile."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Container, Iterable
from math import inf
from typing import Any, Protocol

import msgspec
import structlog

from sandbox.notify_events import Attempt, line
from sandbox.spawner import Sandbox
from supervisord_agents.config import Config
from supervisord_agents.core.affinity import Affinity
from supervisord_agents.core.events import Changed, Compensating, Decision, Start, Started, Stop
from supervisord_agents.core.graph import edge_of
from supervisord_agents.core.model import END_STATES, Category, Failure, State, TaskSpec, Usage
from supervisord_agents.core.task import Task
from supervisord_agents.daemon.accounts import Accounts
from supervisord_agents.daemon.children import Children, Submit
from supervisord_agents.daemon.ends import Ends
from supervisord_agents.daemon.engine import Engine
from supervisord_agents.daemon.feed import Feed
from supervisord_agents.daemon.outputs import Outputs
from supervisord_agents.daemon.signs import Signs, failure_of
from supervisord_agents.daemon.spending import Spending
from supervisord_agents.daemon.steps import Steps, past_steps
from supervisord_agents.daemon.waiters import Waiters
from supervisord_agents.errors import ErrorCode, JournalError, SupervisorError
from supervisord_agents.spool.logs import LogStore
from supervisord_agents.wire import frames
from supervisord_agents.wire.messages import Item, Violation
from supervisord_agents.workers.agents.registry import AgentRegistry
from supervisord_agents.workers.listener import Running
from supervisord_agents.workers.pool import Pools
from supervisord_agents.workers.profiles import TaskProfiles

DEPENDENCY_OUTPUT_BYTES = 3 * 1024 * 1024
"""All outputs of dependencies and children, and results of steps, in one frame: the largest specification fits in beside."""
PROGRESS_CHARACTERS = 1000
SHORTEST_WAIT_S = 0.01
"""Between two looks at what time alone lets start."""
TRANSIENT = frozenset({ErrorCode.DISK_FULL, ErrorCode.UNAVAILABLE, ErrorCode.INTERNAL})
"""Why a worker could not be had, where the next attempt may find one."""
# Class attributes of an enum are ten times slower to read than globals in Python 3.11.
_READY, _RUNNING = State.READY, State.RUNNING
log = structlog.get_logger()


class ProviderWaits(Protocol):
    """Who knows what providers have asked for."""

    def asked_to_wait_s(self, provider: str) -> float:
        """How long a provider wants to be left alone; 0: it did not say."""


class Attempts:
    """Listens to the pools and to the engine's released decisions. Nothing is started while `accepting` says no."""

    def __init__(
        self,
        config: Config,
        agents: AgentRegistry,
        pools: Pools,
        ends: Ends,
        accounts: Accounts,
        logs: LogStore,
        feed: Feed,
        waiters: Waiters,
        accepting: Callable[[], bool],
        providers: ProviderWaits,
    ) -> None:
        self._config = config
        self._agents = agents
        self._pools = pools
        self._ends = ends
        self._accounts = accounts
        self.spending = Spending(accounts)
        self._logs = logs
        self._feed = feed
        self._waiters = waiters
        self._accepting = accepting
        self._providers = providers
        self._profiles = TaskProfiles(config)
        self._steps = Steps(pools.answer)
        self._children = Children(pools)
        self._affinity = Affinity(config.tasks.affinity_s)
        self._engine: Engine
        self._dispatch_due = False
        self._again: asyncio.TimerHandle | None = None
        """The next dispatch that time alone makes due."""
        self._starting = False
        """Not before recovery is over: what starts then is taken for an attempt of the daemon before, queued again, and run
        twice. And not while stopping."""
        self.signs = Signs(config.tasks)

    @property
    def consumed(self) -> Usage:
        """By all attempts since the daemon started."""
        return self._accounts.total

    def attach(self, engine: Engine) -> None:
        """Feed events to this engine."""
        self._engine = engine
        self.spending.attach(engine)
        self._steps.attach(engine)
        self.signs.attach(engine.clock)

    def take_children(self, submissions: Submit) -> None:
        """Submit what running attempts ask for by these."""
        self._children.attach(submissions)

    async def adopt(self, found: Iterable[Sandbox]) -> set[str]:
        """Go on with the attempts of an earlier daemon whose workers were found; gives their tasks."""
        self._accounts.reopen(self._engine.scheduler)
        running = {
            task.worker: Running(task.id, task.attempt, self._reusable(task.spec_of_attempt))
            for task in self._engine.scheduler.running_tasks()
            if task.worker
        }
        kept = await self._pools.adopt(self, found, running)
        self._logs.forget_positions(kept)
        for name in kept:
            self.signs.begun(self._engine.scheduler.tasks[name])
        return kept

    @property
    def workers(self) -> Container[str]:
        """Those that there are, by id."""
        return self._pools.workers

    def _reusable(self, spec: TaskSpec) -> bool:
        try:
            return self._agents.get(spec.agent).reusable
        except SupervisorError:  # not configured any more
            return False

    def start(self) -> None:
        """Begin to run tasks."""
        self._pools.start(self)
        self._starting = True
        self.slots_changed()

    def drain(self) -> None:
        """Start nothing more."""
        self._starting = False

    # What the engine releases

    def released(self, sequence: int, decision: Decision) -> None:
        """Carry out one durable decision."""
        if isinstance(decision, Stop):
            self._logs.notice(decision.task, f"attempt {decision.attempt} stopped: {decision.code}")
            self._pools.stop(decision.task, decision.attempt, decision.code)
        elif isinstance(decision, Changed):
            self._changed(sequence, decision)
        elif isinstance(decision, Compensating):
            log.warning("compensating", graph=decision.graph, by=decision.by)

    def _changed(self, sequence: int, change: Changed) -> None:
        ended = change.after in END_STATES
        if change.after is _RUNNING:
            self._launch(change)
        elif change.before is _RUNNING:
            self._attempt_over(change)
        if ended:
            self._ended(change)
        if ended or change.after is _READY:
            self.slots_changed()
        self._feed.changed(sequence, change)
        if ended:
            self._waiters.ended(change.task)

    def _attempt_over(self, change: Changed) -> None:
        self.signs.over(change.task)
        self._ends.settle_accounts(change.task)
        failure = change.failure
        why = f": {failure.code} {failure.message}" if failure else ""
        self._logs.notice(change.task, f"attempt {change.attempt} is over, the task is {change.after}{why}")
        self._logs.close(change.task)

    def _ended(self, change: Changed) -> None:
        if not change.attempt:
            return  # It never ran. A cancellation ends such by the thousand; who asked for it is logged.
        failure = change.failure
        log.info(
            "task_ended",
            task=change.task,
            state=str(change.after),
            attempt=change.attempt,
            **({"code": failure.code} if failure else {}),
        )
        if change.after is not State.SUCCEEDED:
            self._ends.write_end(change)

    # Starting

    def slots_changed(self) -> None:
        """Something may be startable now: look once, at the end of this turn of the loop."""
        if self._starting and not self._dispatch_due:
            self._dispatch_due = True
            asyncio.get_running_loop().call_soon(self._dispatch)

    def _dispatch(self) -> None:
        self._dispatch_due = False
        if not self._starting or not self._accepting():
            return
        scheduler, now = self._engine.scheduler, self._engine.clock.now()
        try:
            starts = scheduler.starts(self._pools.free(), now)
            self._affinity.again_at = inf
            if starts and scheduler.families.births:
                starts = self._affinity.sent(scheduler.table, starts, *self._pools.hands(), now)
            for start in starts:
                self._start(start)
        except JournalError as error:
            log.error("dispatch_stopped", error=str(error))
            return
        self._dispatch_again(min(scheduler.placement.again_at, self._affinity.again_at) - now)

    def _dispatch_again(self, wait_s: float) -> None:
        """At the latest in `wait_s`: a pool has grown then, or a breaker lets a probe through."""
        if self._again is not None:
            self._again.cancel()
            self._again = None
        if wait_s < inf:
            self._again = asyncio.get_running_loop().call_later(max(wait_s, SHORTEST_WAIT_S), self.slots_changed)

    def _start(self, start: Start) -> None:
        task = self._engine.scheduler.tasks[start.task]
        if task.state is not _READY:
            return  # The start of another has used up their graph's budget.
        spec = task.spec
        if start.agent:
            spec = msgspec.structs.replace(spec, agent=start.agent)
        worker, failure = "", None
        try:
            worker = self._pools.claim(start.pool, start.task, start.attempt, spec, task.client, start.worker)
        except SupervisorError as error:
            failure = Failure(code=error.code, message=error.message, hint=error.hint, retriable=error.code in TRANSIENT)
        except Exception as error:
            failure = _broken(spec, error)
        cold = self._pools.cold(worker)
        pool = start.pool if start.pool != task.pool else ""
        self._engine.feed(
            Started(
                task=start.task, attempt=start.attempt, worker=worker, pool=pool, agent=start.agent, note=start.note, cold=cold
            )
        )
        if failure is not None:
            self._ends.died(start.task, start.attempt, failure)

    def _launch(self, change: Changed) -> None:
        task = self._engine.scheduler.tasks[change.task]
        self.signs.begun(task)
        if task.worker:
            self._tell_worker(task)
        note = task.history[-1].message
        self._logs.notice(
            change.task, f"attempt {change.attempt} starts on worker {task.worker}" + (f" ({note})" if note else "")
        )
        log.info("attempt_started", task=change.task, attempt=change.attempt, worker=task.worker, agent=task.agent)

    def _tell_worker(self, task: Task) -> None:
        try:
            message = self._message(task, task.spec_of_attempt, task.attempt)
        except Exception as error:
            self._ends.died(task.id, task.attempt, _broken(task.spec_of_attempt, error))
            self._pools.stop(task.id, task.attempt, ErrorCode.INTERNAL)
            return
        self._pools.launch(task.worker, message)

    def _message(self, task: Task, spec: TaskSpec, attempt: int) -> frames.RunTask:
        agent = self._agents.get(spec.agent)
        settings = self._agents.settings(spec.agent)
        environment = self._profiles.environment(spec) | settings.get("environment", {})
        steps = past_steps(self._engine.scheduler, task.id)
        state, children = self._engine.scheduler.given(task)
        room = DEPENDENCY_OUTPUT_BYTES - sum(len(frames.encoder.encode(given)) for given in (steps, state) if given)
        outputs = Outputs(self._ends, self._logs, task.id, room)
        return frames.RunTask(
            task=task.id,
            attempt=attempt,
            # A worker may be of an older version, and has no use for it.
            spec=spec if spec.compensate is None else msgspec.structs.replace(spec, compensate=None),
            agent_class=f"{agent.__module__}:{agent.__qualname__}",
            settings={**settings, "environment": environment},
            workspace=spec.workspace or frames.WORKSPACE_DIR,
            dependencies=self._dependency_results(task, spec, outputs),
            children={child.short_id: outputs.of(child) for child in children},
            state=state,
            steps=steps,
            gateway_port=self._pools.gateway_port(task.worker),
            output_limit_bytes=self._config.tasks.output_limit_bytes,
            undoes=self._engine.scheduler.sagas.undoes(task),
        )

    def _dependency_results(self, task: Task, spec: TaskSpec, outputs: Outputs) -> dict[str, frames.DependencyResult]:
        undone = self._engine.scheduler.sagas.undoes(task)
        results = {}
        for asked, edge in zip(spec.dependencies, task.dependencies, strict=True):
            name, _ = edge_of(asked)
            if undone and edge.before.id != undone:
                continue  # What was undone before it is no concern of it.
            results[name] = outputs.of(edge.before)
        return results

    # What the pools say (workers.pool.Listener)

    def attempt_ended(self, worker: str, frame: frames.End) -> bool:
        if isinstance(frame, frames.TaskError) and frame.failure.category is Category.RATE_LIMITED:
            frame = msgspec.structs.replace(frame, failure=self._told_when(frame.task, frame.failure))
        return self._ends.ended(worker, frame)

    def _told_when(self, task_id: str, failure: Failure) -> Failure:
        """The failure with the time that the provider has asked to wait, where the program has not passed it on."""
        task = self._engine.scheduler.tasks.get(task_id)
        if task is None:
            return failure
        wait_s = self._providers.asked_to_wait_s(self._engine.scheduler.placement.agent(task.agent).provider)
        return msgspec.structs.replace(failure, retry_after_s=max(failure.retry_after_s, wait_s))

    def attempt_died(self, task: str, attempt: int, failure: Failure) -> None:
        self._ends.died(task, attempt, failure)

    def attempt_stopped(self, frame: frames.End) -> None:
        self._ends.stopped(frame)

    def time_passed(self, unheard_s: float) -> None:
        for found in self.signs.stalled(unheard_s):
            failure = failure_of(found)
            log.warning("attempt_stalled", task=found.task, attempt=found.attempt, seconds=round(found.idle_s))
            self._ends.died(found.task, found.attempt, failure)
            self._pools.stop(found.task, found.attempt, failure.code)

    def attempt_found(self, task: str, attempt: int, *, told: bool) -> int:
        running = self._engine.scheduler.tasks[task]
        log.info("attempt_resumed", task=task, attempt=attempt, worker=running.worker, told=told)
        self._logs.notice(task, f"the supervisor was restarted; attempt {attempt} {'goes on' if told else 'begins'}")
        if not told:
            self._tell_worker(running)
        return self._logs.heard(task, attempt)

    def attempt_said(self, frame: frames.Progress | frames.Log | frames.UsageReport | frames.Question) -> None:
        """What an attempt says after its end was decided is not heard: it would open its log again."""
        task = self._engine.scheduler.running_attempt(frame.task, frame.attempt)
        if task is None:
            return
        if isinstance(frame, frames.Log):
            self.signs.moved(frame.task)
            new = self._logs.hear(frame.task, frame.attempt, frame.offset, frame.data)
            if new and self._feed.listened:
                self._tell("log", frame.task, frame.attempt, data=new)
        elif isinstance(frame, frames.Progress):
            message = frame.message[:PROGRESS_CHARACTERS]
            self.signs.said(frame.task, frame.fraction, message)
            self._tell("progress", frame.task, frame.attempt, progress=frame.fraction, message=message)
        elif isinstance(frame, frames.Checkpoint):
            self.signs.moved(frame.task)
            self._steps.take(frame)
        elif isinstance(frame, frames.SubmitChildren):
            self._children.take(task, frame)
        else:
            if self._accounts.claim(frame.task, frame.usage):
                self.signs.moved(frame.task)
            self.spending.look(task)

    def _tell(self, kind: str, task: str, attempt: int, **fields: Any) -> None:
        at = self._engine.clock.now()
        self._feed.transient(Item(kind=kind, token=self._feed.token, at=at, task=task, attempt=attempt, **fields))

    async def settled(self) -> bool:
        """Return when everything told so far is durable; False if the journal broke before that."""
        await self._ends.recorded()  # a large one is told to the journal when its file is written
        try:
            await self._engine.settled()
        except JournalError:
            log.error("worker_files_kept", reason="the journal is broken")
            return False
        return True

    # What the gateway says

    def used(self, task: str, usage: Usage) -> None:
        self._accounts.total += usage
        known = self._engine.scheduler.tasks.get(task)
        if known is None:
            return
        self._accounts.count(task, known.attempt, usage)
        self.signs.moved(task)
        if known.state is not State.RUNNING:
            self._ends.late_usage(task)
        else:
            self.spending.look(known)

    def refused(self, task: str, text: str) -> None:
        if task:
            self._logs.notice(task, text)
        log.warning("gateway_refused", task=task, reason=text)

    # What the supervisor of a sandbox says

    def violated(self, task: str, text: str) -> None:
        if task:
            self._logs.notice(task, text)
        log.warning("sandbox_violation", task=task, what=text)

    def tried(self, task: str, attempt: int, what: Attempt) -> None:
        if self._feed.listened:
            violation = Violation(what.syscall, what.path, what.pid, what.program, what.decision)
            self._tell("violation", task, attempt, message=line(what), violation=violation)


def _broken(spec: TaskSpec, error: Exception) -> Failure:
    """The failure for an adapter's own exception, which must cost no more than this attempt."""
    log.error("agent_broken", agent=spec.agent, exc_info=error)
    message = f"the agent `{spec.agent}` is broken: {type(error).__qualname__}: {error}"
    return Failure(code=ErrorCode.INTERNAL, message=message, hint="See the log of the supervisor.", retriable=False)
