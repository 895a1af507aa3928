"""A task as clients see it."""

from __future__ import annotations

from supervisord_agents.core.model import Failure, State
from supervisord_agents.daemon import views
from supervisord_agents.wire.messages import TaskView
from tests.support.scheduling import Driven, a_task

LAYER = [f"a{number}" for number in range(views.MAX_WAITS_FOR + 2)]


def seen(driven: Driven, name: str) -> TaskView:
    return views.view(driven.scheduler.tasks[name], {})


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


def test_why_tasks_failed_is_told_in_brief_of_many() -> None:
    failure = Failure("WORKER_FAILED", "x" * 4096, hint="Look.", retriable=False)
    driven = Driven()
    driven.submit(a_task("a"), *(a_task(f"b{number}") for number in range(views.MAX_ROWS_IN_FULL)))
    driven.run("g.a", failure)
    tasks = list(driven.scheduler.tasks.values())
    assert views.rows(tasks[: views.MAX_ROWS_IN_FULL], {})[0].failure == failure
    brief = views.rows(tasks, {})[0].failure
    assert brief is not None
    assert (brief.code, brief.hint, len(brief.message)) == ("WORKER_FAILED", "", views.BRIEF_CHARACTERS)


def test_a_task_that_ended_waits_for_nothing() -> None:
    driven = Driven()
    driven.submit(a_task("a"), a_task("b", "a"))
    driven.cancel("g.b")
    ended = seen(driven, "g.b")
    assert (ended.state, ended.waits_for, ended.waits_for_count) == (State.CANCELLED, [], 0)
