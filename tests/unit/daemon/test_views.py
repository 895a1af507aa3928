"""A task as clients see it."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import pytest

from supervisord_agents.core.model import Failure, State
from supervisord_agents.core.task import Task
from supervisord_agents.daemon import views
from supervisord_agents.errors import InvalidInput
from supervisord_agents.wire.messages import ListTasks, TaskView
from tests.support.scheduling import Driven, a_task

LAYER = [f"a{number}" for number in range(views.MAX_WAITS_FOR + 2)]


class NoArchive:
    """Everything is in memory."""

    async def task_of(self, id: str) -> Task | None:
        return None

    async def page(self, before: int, count: int, graph: str, states: Sequence[State]) -> list[Task]:
        return []

    async def count(self, graph: str, states: Sequence[State]) -> int:
        return 0


NO_ARCHIVE = NoArchive()


def seen(driven: Driven, name: str) -> TaskView:
    return views.view(driven.scheduler.tasks[name], {}, driven.scheduler)


def test_of_many_dependencies_the_first_that_have_not_ended_are_named_and_all_counted() -> None:
    driven = Driven()
    driven.submit(*map(a_task, LAYER), a_task("b", *LAYER))
    waiting = seen(driven, "g.b")
    assert waiting.waits_for == [f"g.{name}" for name in LAYER[: views.MAX_WAITS_FOR]]
    assert waiting.waits_for_count == len(LAYER)
    driven.run("g.a0")
    waiting = seen(driven, "g.b")
    assert waiting.waits_for == [f"g.{name}" for name in LAYER[1 : views.MAX_WAITS_FOR + 1]]
    assert waiting.waits_for_count == len(LAYER) - 1


async def test_why_tasks_failed_is_told_in_brief_of_many() -> None:
    failure = Failure("WORKER_FAILED", "x" * 4096, hint="Look.", retriable=False)
    driven = Driven()
    driven.submit(a_task("a"), *(a_task(f"b{number}") for number in range(views.MAX_ROWS_IN_FULL)))
    driven.run("g.a", failure)
    tasks = list(driven.scheduler.tasks.values())
    assert (await views.rows(tasks[: views.MAX_ROWS_IN_FULL], {}, driven.scheduler))[0].failure == failure
    brief = (await views.rows(tasks, {}, driven.scheduler))[0].failure
    assert brief is not None
    assert (brief.code, brief.hint, len(brief.message)) == ("WORKER_FAILED", "", views.BRIEF_CHARACTERS)


async def test_pages_are_the_list_newest_first_whatever_they_are_filtered_by() -> None:
    driven = Driven()
    for graph in ("g1", "g2", "g3"):
        driven.submit(*(a_task(f"t{number}") for number in range(5)), graph=graph)
    driven.cancel("g2")
    every = list(reversed(driven.scheduler.tasks))
    for request in (
        ListTasks(limit=2),
        ListTasks(limit=2, graph="g2"),
        ListTasks(limit=2, states=[State.READY]),
        ListTasks(limit=5, states=[State.CANCELLED], graph="g1"),
        ListTasks(limit=15),
    ):
        wanted = [
            name
            for name in every
            if (not request.graph or name.startswith(request.graph))
            and (not request.states or driven.state(name) in request.states)
        ]
        pages, after = [], ""
        while True:
            reply = await views.page(driven.scheduler, NO_ARCHIVE, msgspec.structs.replace(request, after=after), {})
            assert reply.total == len(wanted)
            pages += [task.id for task in reply.tasks]
            after = reply.next
            if not after:
                break
            assert len(reply.tasks) == request.limit
        assert pages == wanted


async def test_a_page_after_a_task_of_another_graph_is_refused() -> None:
    driven = Driven()
    driven.submit(a_task("a"), graph="g1")
    driven.submit(a_task("a"), graph="g2")
    with pytest.raises(InvalidInput, match="names no task of this list"):
        await views.page(driven.scheduler, NO_ARCHIVE, ListTasks(graph="g1", after="g2.a"), {})


def test_a_task_that_ended_waits_for_nothing() -> None:
    driven = Driven()
    driven.submit(a_task("a"), a_task("b", "a"))
    driven.cancel("g.b")
    ended = seen(driven, "g.b")
    assert (ended.state, ended.waits_for, ended.waits_for_count) == (State.CANCELLED, [], 0)
