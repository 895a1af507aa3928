"""What an attempt asks for is answered once, by what became of it; not by a daemon that stops."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from supervisord_agents.core.model import TaskSpec
from supervisord_agents.core.task import Task, new_task
from supervisord_agents.daemon.children import MAX_PENDING, Children
from supervisord_agents.errors import InvalidInput, Unavailable
from supervisord_agents.wire import frames

PARENT = new_task("g", TaskSpec(id="p"), 0, 0.0, "1000")


class Desk:
    """The pools and the submissions in one."""

    def __init__(self, error: Exception | None = None, stopping: bool = False) -> None:
        self.answers: list[Any] = []
        self.calls: list[int] = []
        self.error = error
        self.stopping = stopping
        self.children = Children(self)
        self.children.attach(self)

    def answer(self, answer: frames.Answer) -> None:
        self.answers.append(answer)

    async def submit_children(self, parent: Task, tasks: list[TaskSpec], call: int) -> str:
        self.calls.append(call)
        await asyncio.sleep(0)
        if self.error is not None:
            raise self.error
        return f"c{call}"

    async def ask(self, *calls: int, tasks: list[Any] | None = None) -> None:
        for call in calls:
            self.children.take(PARENT, frames.SubmitChildren(task="g.p", attempt=1, call=call, tasks=tasks or [{"id": "a"}]))
        await self.children._jobs.ended()


async def test_each_request_is_answered_once() -> None:
    desk = Desk()
    await desk.ask(1, 2, 1)
    assert [(answer.call, answer.graph) for answer in desk.answers] == [(1, "c1"), (2, "c2")]
    assert not desk.children._pending


async def test_requests_in_hand_are_limited() -> None:
    desk = Desk()
    await desk.ask(*range(MAX_PENDING + 1))
    refused = [answer for answer in desk.answers if answer.failure is not None]
    assert [answer.call for answer in refused] == [MAX_PENDING]


@pytest.mark.parametrize(
    ("tasks", "message"),
    [
        ([{"id": "a", "colour": 1}], "tasks[0]: Object contains unknown field `colour`."),
        ([{"priority": "high"}], "tasks[0].priority: Expected `int`, got `str`."),
        ([{"input": {"a": eval("[" * 101 + "]" * 101)}}], "tasks[0].input: is nested deeper than 100 levels."),
    ],
)
async def test_what_is_no_task_is_refused_by_name(tasks: list[Any], message: str) -> None:
    desk = Desk()
    await desk.ask(1, tasks=tasks)
    assert (desk.answers[0].failure.message, desk.answers[0].failure.retriable, desk.calls) == (message, False, [])


async def test_a_refusal_that_will_not_last_may_be_retried() -> None:
    desk = Desk(Unavailable("full"))
    await desk.ask(1)
    assert desk.answers[0].failure.retriable
    desk = Desk(InvalidInput("wrong", field="tasks"))
    await desk.ask(1)
    assert (desk.answers[0].failure.message, desk.answers[0].failure.retriable) == ("tasks: wrong", False)


async def test_a_daemon_that_stops_leaves_the_answer_to_the_next() -> None:
    desk = Desk(Unavailable("stopping"), stopping=True)
    await desk.ask(1)
    assert desk.answers == []
