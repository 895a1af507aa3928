"""The rules: what follows a failed or lost attempt, and what the end of a dependency means for its dependents."""

from __future__ import annotations

import zlib
from typing import NamedTuple

from supervisord_agents.core.model import Category, Failure, State, When
from supervisord_agents.core.task import Edge, Task
from supervisord_agents.errors import ErrorCode

BACKOFF_LIMIT_S = 300.0
"""No retry waits longer than this, give or take the jitter."""

JITTER = 0.25
DEFAULT_BACKOFF_S = 1.0
LOST_LIMIT = 10
"""A task that was running at the end of this many daemons is taken to be what ends them."""


RETRY_AFTER_LIMIT_S = 24 * 3600.0
"""Of what a provider may ask for."""

_CATEGORIES: dict[str, Category] = {
    ErrorCode.OUT_OF_MEMORY: Category.RESOURCE,
    ErrorCode.DISK_QUOTA: Category.RESOURCE,
    ErrorCode.DISK_FULL: Category.RESOURCE,
    ErrorCode.SANDBOX_DENIED: Category.SANDBOX,
    ErrorCode.CANCELLED: Category.CANCELLED,
}
_FINAL = frozenset({Category.PERMANENT, Category.CANCELLED})


def category_of(failure: Failure) -> Category:
    """The adapter's word, else what the code says, else whether a retry may help."""
    if failure.category is not None:
        return failure.category
    return _CATEGORIES.get(failure.code) or (Category.TRANSIENT if failure.retriable else Category.PERMANENT)


class Verdict(NamedTuple):
    """The state that a task goes to, why, and (for a retry) when it is ready again."""

    state: State
    failure: Failure
    retry_at: float = 0.0


def retry_delay_s(task_id: str, attempt: int, retry: int, backoff_s: float) -> float:
    """Seconds before the `retry`-th retry (from 1): doubled each time, capped, give or take a quarter.

    The jitter keeps tasks that failed together from coming back together. It is a hash of task and attempt, not random, so that
    a replay of the journal decides the same.
    """
    delay_s = min((backoff_s or DEFAULT_BACKOFF_S) * 2.0 ** (retry - 1), BACKOFF_LIMIT_S)
    return delay_s * (1.0 - JITTER + 2.0 * JITTER * _part(task_id, attempt))


def _part(task_id: str, attempt: int) -> float:
    """0 to 1."""
    return zlib.crc32(f"{task_id}:{attempt}".encode()) / 0xFFFFFFFF


def after_failure(task: Task, failure: Failure, now: float) -> Verdict:
    """What becomes of a task whose attempt failed at `now`: another attempt later, or its end."""
    spec = task.spec
    if not failure.retriable or failure.category in _FINAL or spec.max_retries == 0:
        return Verdict(State.FAILED, failure)
    last = failure.text
    if task.retries >= spec.max_retries:
        retries = "1 retry" if spec.max_retries == 1 else f"{spec.max_retries} retries"
        message = f"gave up after {retries}; the last failure was {last}"
        return Verdict(State.DEAD, Failure(ErrorCode.MAX_RETRIES, message, failure.hint, retriable=False))
    delay_s = retry_delay_s(task.id, task.attempt, task.retries + 1, spec.backoff_s)
    # Another of its agents need not wait for that, and the one that is to be left alone is (core.placement).
    asked_s = 0.0 if task.choices else min(failure.retry_after_s, RETRY_AFTER_LIMIT_S)
    if asked_s > delay_s:
        # Never sooner than asked for, and not all at the same moment.
        delay_s = asked_s * (1.0 + JITTER * _part(task.id, task.attempt))
    retry_at = now + delay_s
    if task.deadline_at and retry_at >= task.deadline_at:
        message = f"a retry would start after the deadline of {spec.deadline_s:g} s; the last failure was {last}"
        return Verdict(State.FAILED, Failure(ErrorCode.DEADLINE, message, failure.hint, retriable=False))
    return Verdict(State.BACKING_OFF, failure, retry_at)


def after_loss(task: Task) -> Verdict:
    """What becomes of a task whose attempt was lost with the daemon; `task.lost` already counts it."""
    if task.lost >= LOST_LIMIT:
        message = f"{task.lost} attempts were lost with the daemon"
        hint = "It may be what ends the daemon: look at its log before `agentctl retry`."
        return Verdict(State.DEAD, Failure(ErrorCode.LOST, message, hint, retriable=False))
    return Verdict(State.READY, Failure(ErrorCode.LOST, "the daemon ended during the attempt"))


class Doom(NamedTuple):
    """The end that a dependency's end forces upon a dependent; the message has places for its `id` and its `why`."""

    state: State
    code: ErrorCode
    message: str


_NOT_MET = Doom(State.FAILED, ErrorCode.DEPENDENCY_FAILED, "the dependency {id} did not succeed ({why})")
_GONE = Doom(State.CANCELLED, ErrorCode.CANCELLED, "the dependency {id} was cancelled")
_NOT_NEEDED = Doom(State.CANCELLED, ErrorCode.CANCELLED, "not needed, {id} succeeded")

EDGE_RULES: dict[When, dict[State, Doom | None]] = {
    When.ON_SUCCESS: {State.SUCCEEDED: None, State.FAILED: _NOT_MET, State.DEAD: _NOT_MET, State.CANCELLED: _GONE},
    When.ON_FAILURE: {State.SUCCEEDED: _NOT_NEEDED, State.FAILED: None, State.DEAD: None, State.CANCELLED: _GONE},
    When.ALWAYS: {State.SUCCEEDED: None, State.FAILED: None, State.DEAD: None, State.CANCELLED: None},
}
"""For every kind of edge and end of the dependency: None, the edge is satisfied; else what becomes of the dependent."""


def doomed(edge: Edge) -> Verdict:
    """The verdict on the dependent of an edge that can no longer be satisfied; raises KeyError or ValueError for any other."""
    dependency = edge.before
    doom = EDGE_RULES[edge.when][dependency.state]
    if doom is None:
        raise ValueError(f"{dependency.id} satisfies {edge.after.id}")
    failure = dependency.failure
    why = f"{dependency.state}: {failure.code}" if failure else str(dependency.state)
    return Verdict(doom.state, Failure(doom.code, doom.message.format(id=dependency.id, why=why), retriable=False))
