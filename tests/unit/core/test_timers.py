"""The heap of what is due, which throws out what is stale while somebody walks through it."""

from __future__ import annotations

from typing import cast

from supervisord_agents.core.model import State
from supervisord_agents.core.task import Task
from supervisord_agents.core.timers import Timers


class Waiting:
    """As much of a task as timers look at: one that is backing off."""

    def __init__(self, order: int, retry_at: float) -> None:
        self.id = f"t{order}"
        self.order = order
        self.attempt = 1
        self.state = State.BACKING_OFF
        self.retry_at = retry_at


def test_what_is_set_while_the_heap_is_cleaned_up_is_due_too() -> None:
    timers = Timers()
    stale = [Waiting(order, 100.0) for order in range(1023)]
    timers.set_backoff(cast("Task", Waiting(5000, 1.0)))
    for task in stale:
        timers.set_backoff(cast("Task", task))
        task.state = State.CANCELLED
    due = timers.due(10.0)
    assert next(due)[1].id == "t5000"
    before = len(timers)
    for order in (6000, 6001, 6002):
        timers.set_backoff(cast("Task", Waiting(order, 2.0)))
    assert len(timers) < before, "it was cleaned up meanwhile"
    assert [task.id for _, task in due] == ["t6000", "t6001", "t6002"]
    assert timers.next_due() is None
