"""One execution of a task: its start, its end, its timeout, its loss with the daemon.

Attempt numbers are the fence: what arrives about any attempt but the one that is running is ignored.
"""

from __future__ import annotations

import sys
from itertools import islice

from supervisord_agents.core import breakers, policy
from supervisord_agents.core.events import (
    BudgetSpent,
    Checkpointed,
    Finished,
    PauseRequested,
    Restarted,
    ResumeRequested,
    Slept,
    Started,
    Stop,
    Ticked,
    Used,
)
from supervisord_agents.core.model import Failure, State
from supervisord_agents.core.pauses import Pause, Scope
from supervisord_agents.core.table import TaskTable
from supervisord_agents.core.task import NO_USAGE, Task
from supervisord_agents.core.timers import Due
from supervisord_agents.errors import ErrorCode

# Class attributes of an enum are ten times slower to read than globals in Python 3.11.
_READY, _RUNNING, _SUCCEEDED = State.READY, State.RUNNING, State.SUCCEEDED


def started(table: TaskTable, event: Started, now: float) -> None:
    """A worker has the task."""
    task = table.tasks.get(event.task)
    if task is None or task.state is not _READY or event.attempt != task.attempt + 1:
        return
    if table.watched:
        table.change(task)
    task.attempt = event.attempt
    task.started_at = now
    task.worker = event.worker
    if event.cold:
        table.durations.cold.add(task.id)
    if event.agent:
        task.agent = sys.intern(event.agent)
    if event.pool and event.pool != task.pool:
        table.placed[task.id] = event.pool
    table.move(task, _RUNNING, now, note=event.note)


def finished(table: TaskTable, event: Finished, now: float) -> None:
    """The running attempt ended."""
    task = running_attempt(table, event.task, event.attempt)
    if task is None:
        return
    if event.usage != NO_USAGE:
        table.change(task)
        task.usage = task.usage + event.usage
        table.budgets.count(task, event.usage)
    if event.failure is not None or table.health:
        breakers.observe(table.health, task.agent, event.failure, now)
    if event.failure is None:
        if task.attempt == 1 or not table.checkpoints.of(task.id):  # else it went on where another had stopped
            table.durations.succeeded(task, now - table.timers.asleep.get(task.id, 0.0))
        table.move(task, _SUCCEEDED, now)
    else:
        failed(table, task, event.failure, now)


def running_attempt(table: TaskTable, name: str, attempt: int) -> Task | None:
    """The task, if this attempt of it is the one that runs."""
    task = table.tasks.get(name)
    if task is None or task.state is not _RUNNING or attempt != task.attempt:
        return None
    return task


def ticked(table: TaskTable, event: Ticked, now: float) -> None:
    """Fire what is due; what is too much for one step stays due."""
    for why, task in islice(table.timers.due(now), table.step or None):
        table.change(task)
        if why is Due.BACKOFF:
            task.retry_at = 0.0
            table.move(task, State.READY, now)
        elif why is Due.TIMEOUT:
            table.durations.cut_off(task)
            stop(table, task, ErrorCode.TIMEOUT)
            failure = Failure(ErrorCode.TIMEOUT, f"the attempt did not end within {task.timeout_s:g} s")
            breakers.observe(table.health, task.agent, failure, now)
            failed(table, task, failure, now)
        else:
            stop(table, task, ErrorCode.DEADLINE)
            message = f"the task did not end within {task.spec.deadline_s:g} s"
            table.move(task, State.FAILED, now, Failure(ErrorCode.DEADLINE, message, retriable=False))
    table.budgets.due(now)


def used(table: TaskTable, event: Used, now: float) -> None:
    """Add to what the task has consumed, whatever its state."""
    task = table.tasks.get(event.task)
    if task is not None:
        table.change(task)
        task.usage = task.usage + event.usage
        table.budgets.count(task, event.usage)


def budget_spent(table: TaskTable, event: BudgetSpent, now: float) -> None:
    """What runs has used up what was left."""
    account = table.budgets.get(event.graph)
    if account is not None:
        table.budgets.close(event.graph, account.spent(event.usage))


def checkpointed(table: TaskTable, event: Checkpointed, now: float) -> None:
    """The running attempt tells of a step."""
    if running_attempt(table, event.task, event.attempt) is not None:
        table.checkpoints.record(event, now)


def slept(table: TaskTable, event: Slept, now: float) -> None:
    """Move the timeouts of what runs; an attempt cannot have slept for longer than it has run."""
    for task in table.running_in_order():
        table.timers.put_off(task, min(event.seconds, now - task.started_at))


def restarted(table: TaskTable, event: Restarted, now: float) -> None:
    """All that still runs was lost with the daemon, but for what outlived it; that costs no retry."""
    kept = frozenset(event.kept)
    for task in table.running_in_order():
        if task.id in kept:
            continue
        table.change(task)
        if not event.clean:
            task.lost += 1
        table.judge(task, policy.after_loss(task), now)


def paused(table: TaskTable, event: PauseRequested, now: float) -> None:
    """Start no more of it; with `stop`, end what runs of it, which is ready again at once and has used no retry."""
    scope = Scope(event.pool, event.agent)
    table.pauses[scope] = Pause(now, event.client, event.reason)
    if not event.stop:
        return
    why = f": {event.reason}" if event.reason else ""
    failure = Failure(ErrorCode.CANCELLED, f"the attempt was stopped by a pause of {scope}{why}; the task runs when that is over")
    for task in table.running_in_order():
        if scope.holds(task):
            stop(table, task, ErrorCode.CANCELLED)
            table.judge(task, policy.Verdict(State.READY, failure), now)


def resumed(table: TaskTable, event: ResumeRequested, now: float) -> None:
    """Let go of this scope, or of all that is paused."""
    if event.everything:
        table.pauses.clear()
    else:
        table.pauses.pop(Scope(event.pool, event.agent), None)


def stop(table: TaskTable, task: Task, code: ErrorCode) -> None:
    """Have the attempt ended, if one runs."""
    if task.state is State.RUNNING:
        table.decide(Stop(task=task.id, attempt=task.attempt, code=code))


def failed(table: TaskTable, task: Task, failure: Failure, now: float) -> None:
    """The running attempt ended without success: another one later, or the end of the task."""
    verdict = policy.after_failure(task, failure, now)
    if verdict.state is State.BACKING_OFF:
        table.change(task)
        task.retries += 1
    table.judge(task, verdict, now)
