"""Why a task is where it is, in sentences."""

from __future__ import annotations

from collections.abc import Iterator

from supervisord_agents.core import affinity, stuck
from supervisord_agents.core.graph import name_cycle
from supervisord_agents.core.model import END_STATES, Failure, State
from supervisord_agents.core.pauses import Scope
from supervisord_agents.core.scheduler import Scheduler
from supervisord_agents.core.stuck import Hold, Kind
from supervisord_agents.core.task import Task
from supervisord_agents.errors import ErrorCode
from supervisord_agents.wire.messages import BudgetView
from supervisord_agents.workers.pool import Pools

COUNTED = 200
"""Of the tasks before one in its pool: more are "200 or more"."""
DEEPEST = 20
"""Tasks of a chain of dependencies that are told."""
TOLD = 10
"""Failures of earlier attempts."""
_LOST = "a wake-up was lost, and they are offered again"
_FORGOTTEN = "waits for nothing: all that it waited for has ended, but it was not told; a bug, please report it with the journal"


class Reasons:
    """As of `now`, in seconds since the epoch."""

    def __init__(self, scheduler: Scheduler, pools: Pools, now: float, budget: BudgetView | None = None) -> None:
        self._scheduler = scheduler
        self._pools = pools
        self._now = now
        self._budget = budget

    def of(self, task: Task) -> Iterator[str]:
        """The nearest reason first, then those behind it, then the failures of earlier attempts."""
        told: list[Task] = []
        for link in self._chain(task):
            if link in told:
                cycle = name_cycle([member.id for member in told[told.index(link) :]])
                yield f"these wait for each other, and none of them can ever run: {cycle}"
                break
            if len(told) == DEEPEST:
                yield "and so on"
                break
            told.append(link)
            yield from self._of_one(link)
        yield from self._saga(task)
        if self._budget is not None:
            yield f"the budget of {self._budget.graph}: {self._budget.in_words(self._now)}"
        yield from self._steps(task)
        yield from _failures(task)

    def of_hold(self, hold: Hold) -> str:
        """What holds tasks while nothing goes on by itself."""
        some = f"{hold.tasks:,} ready {'tasks are' if hold.tasks > 1 else 'task is'}"
        match hold.kind:
            case Kind.PAUSE:
                return f"{some} held: {self._of_pause(hold.scope)}"
            case Kind.NO_POOL:
                return f"{some} of the pool {hold.name}, which the configuration does not have"
            case Kind.NO_WORKERS:
                return f"{some} of the pool {hold.name}, which may have no workers"
            case Kind.NOT_STARTED:
                return f"{some} not started though workers of the pool {hold.name} are free: {_LOST}"
            case Kind.CYCLE:
                return f"{hold.tasks:,} tasks wait for each other: {hold.name}"
            case Kind.FORGOTTEN:
                return f"{hold.name} {_FORGOTTEN}"

    def _of_one(self, task: Task) -> Iterator[str]:
        match task.state:
            case State.BLOCKED:
                count = self._scheduler.waits_for_count(task)
                waits = (
                    f"waits for {_children(count)} and holds no worker:" if self._scheduler.families.waits(task) else "waits for"
                )
                first = stuck.waits_for(self._scheduler, task)
                others = f" and {count - 1} more" if count > 1 else ""
                busy = self._scheduler.busy
                nothing = "is about to be told of the end of what it waited for" if busy else _FORGOTTEN
                yield f"{task.id} {waits} {first.id}{others}" if first else f"{task.id} {nothing}"
            case State.READY:
                yield f"{task.id} is ready: {self._why_not_started(task)}"
            case State.RUNNING:
                why_here = f" ({task.history[-1].message})" if task.history[-1].message else ""
                taken = f"attempt {task.attempt} on worker {task.worker}, for {self._since(task.started_at)}{why_here}"
                yield f"{task.id} is running: {taken}{_bounds(task)}"
                if slept_s := self._scheduler.slept_s(task):
                    yield f"the machine slept for {slept_s:.0f} s of that, which do not count towards its timeout"
            case State.BACKING_OFF:
                left = f"retry {task.retries} of {task.spec.max_retries} in {max(0.0, task.retry_at - self._now):.0f} s"
                yield f"{task.id} is tried again: {left}; the last attempt failed with {_text(task.failure)}"
            case State.SUCCEEDED:
                yield f"{task.id} succeeded in attempt {task.attempt}, {self._since(task.ended_at)} ago"
            case _:
                yield f"{task.id} is {task.state}: {_text(task.failure)}"

    def _saga(self, task: Task) -> Iterator[str]:
        sagas = self._scheduler.sagas
        undone, undone_by = sagas.undoes(task), sagas.undone_by(task.graph)
        if undone:
            yield f"it undoes {undone}, for the graph {sagas.origins[task.graph]} failed"
        if undone_by:
            yield f"{task.graph} failed: what had succeeded of it is undone by {undone_by}"

    def _steps(self, task: Task) -> Iterator[str]:
        """What another attempt need not do again, and what it may do twice."""
        steps = self._scheduler.steps(task.id)
        done = [step for step in steps if step.done]
        if done:
            count = "1 step is" if len(done) == 1 else f"{len(done)} steps are"
            when = "after its retry, it resumes" if task.ended else "it resumes"
            yield f"{when} after step {max(done, key=lambda step: step.done_at).name}: {count} done, with results kept"
        for step in [
            step for step in steps if not step.done and (step.attempt < task.attempt or task.state is not State.RUNNING)
        ][:TOLD]:
            yield f"step {step.name} was begun in attempt {step.attempt} and not finished: it may have happened"

    def _why_not_started(self, task: Task) -> str:
        scope = self._scheduler.pauses.over(task)
        if scope is not None:
            return self._of_pause(scope)
        free = self._pools.free()
        if task.pool not in free:
            return f"the configuration has no pool {task.pool}"
        held = self._scheduler.why_not(task, self._now)
        if held:
            return held
        count = self._scheduler.before_it(task, COUNTED)
        before = f"{count} or more" if count == COUNTED else str(count)
        pool = next(view for view in self._pools.views({}) if view.name == task.pool)
        size = self._scheduler.placement.size(task.pool, self._now) or pool.max_workers
        if count < min(free[task.pool], size - self._scheduler.running(task.pool)):
            return f"a worker of the pool {task.pool} is free for it, it is about to be started"
        grows = f", and it grows to {pool.max_workers} while tasks wait" if size < pool.max_workers else ""
        busy = f"{pool.busy} of {size} workers of the pool {task.pool} are busy{grows}"
        made_by = affinity.home(self._scheduler.table, task)
        prefers = f"; it prefers the worker {made_by}, which made it" if made_by else ""
        return f"{before} come before it (by priority, inherited and grown with age, then by longest path); {busy}{prefers}"

    def _of_pause(self, scope: Scope) -> str:
        pause = self._scheduler.pauses[scope]
        reason = f" ({pause.reason})" if pause.reason else ""
        return (
            f"{scope} has been paused for {self._since(pause.at)}, by uid {pause.client}{reason}; agentctl resume lets go of it"
        )

    def _chain(self, task: Task) -> Iterator[Task]:
        """The task, and what it waits for or was ended by, one behind the other."""
        link: Task | None = task
        while link is not None:
            yield link
            link = stuck.waits_for(self._scheduler, link) if link.state is State.BLOCKED else _behind(link)

    def _since(self, at: float) -> str:
        return f"{max(0.0, self._now - at):.0f} s"


def _children(count: int) -> str:
    return "1 child" if count == 1 else f"{count} children"


def _behind(task: Task) -> Task | None:
    """What ended a task."""
    if task.failure and task.failure.code == ErrorCode.DEPENDENCY_FAILED:
        befores = [edge.before for edge in task.dependencies]
        return next((before for before in befores if before.ended and before.state is not State.SUCCEEDED), None)
    return None


def _failures(task: Task) -> Iterator[str]:
    """Of attempts that were not the last word."""
    told = [moment for moment in task.history if moment.code and moment.state not in END_STATES]
    for moment in told[-TOLD:]:
        yield f"attempt {moment.attempt} of {task.id}: {Failure(moment.code, moment.message).text}"


def _text(failure: Failure | None) -> str:
    return failure.text if failure else "no reason was kept"


def _bounds(task: Task) -> str:
    """What it is expected to take, and what it may take."""
    estimate_s = task.spec.estimate_s
    said = [f"it is expected to take about {estimate_s:.3g} s"] if estimate_s else []
    said += [f"it may take {task.timeout_s:.3g} s"] if task.timeout_s else []
    return "".join(f"; {part}" for part in said)
