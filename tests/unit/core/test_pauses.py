"""What is paused is not started, what is stopped runs again, and both outlive the daemon."""

from __future__ import annotations

import pytest

from supervisord_agents.core.events import PauseRequested, ResumeRequested, Stop
from supervisord_agents.core.model import State
from supervisord_agents.core.pauses import Scope
from supervisord_agents.core.scheduler import Scheduler
from supervisord_agents.errors import InvalidInput, NotFound
from tests.support.scheduling import POOL, Driven, a_task

FREE = {POOL: 10, "other": 10}


@pytest.fixture
def driven() -> Driven:
    found = Driven()
    found.submit(
        a_task("c", priority=9),
        a_task("q", agent="qwen", priority=1),
        a_task("o", pool="other", priority=2),
        a_task("d", priority=0),
    )
    return found


def offered(scheduler: Scheduler) -> list[str]:
    return [start.task for start in scheduler.starts(FREE)]


@pytest.mark.parametrize(
    ("pool", "agent", "left"),
    [
        ("", "", []),
        (POOL, "", ["g.o"]),
        ("", "qwen", ["g.d", "g.c", "g.o"]),
        ("", "command", ["g.q"]),
        ("other", "command", ["g.d", "g.q", "g.c"]),
        ("other", "qwen", ["g.d", "g.q", "g.c", "g.o"]),
    ],
)
def test_what_is_paused_is_passed_over(driven: Driven, pool: str, agent: str, left: list[str]) -> None:
    assert offered(driven.scheduler) == ["g.d", "g.q", "g.c", "g.o"]
    driven.feed(PauseRequested(pool=pool, agent=agent, reason="night", client="1000"))
    assert offered(driven.scheduler) == left
    restored = Scheduler.restore(driven.scheduler.snapshot())
    assert offered(restored) == left
    assert restored.pauses == driven.scheduler.pauses
    driven.feed(ResumeRequested(pool=pool, agent=agent))
    assert offered(driven.scheduler) == ["g.d", "g.q", "g.c", "g.o"]


def test_pauses_add_up_and_all_can_be_let_go_of(driven: Driven) -> None:
    for scope in (Scope(), Scope(agent="qwen"), Scope(pool=POOL)):
        driven.feed(PauseRequested(pool=scope.pool, agent=scope.agent))
    driven.feed(ResumeRequested())
    assert offered(driven.scheduler) == ["g.o"]
    assert driven.scheduler.pauses.over(driven.task("g.q")) == Scope(agent="qwen")
    driven.feed(ResumeRequested(everything=True))
    assert len(offered(driven.scheduler)) == 4


def test_what_is_stopped_is_ready_again_and_has_used_no_retry(driven: Driven) -> None:
    driven.start("g.q")
    driven.start("g.d")
    decisions = driven.feed(PauseRequested(agent="qwen", stop=True, reason="too dear"))
    assert decisions[0] == Stop(task="g.q", attempt=1, code="CANCELLED")
    assert driven.state("g.q") is State.READY
    assert driven.state("g.d") is State.RUNNING
    task = driven.task("g.q")
    assert (task.retries, task.lost, task.attempt) == (0, 0, 1)
    assert task.failure is not None
    assert "too dear" in task.failure.message
    driven.feed(ResumeRequested(everything=True))
    driven.start("g.q")
    assert driven.task("g.q").attempt == 2


def test_how_many_come_before_one(driven: Driven) -> None:
    assert [driven.scheduler.before_it(driven.task(name), 10) for name in ("g.d", "g.q", "g.c")] == [0, 1, 2]
    assert driven.scheduler.before_it(driven.task("g.c"), 1) == 1


def test_what_cannot_be_meant_is_refused(driven: Driven) -> None:
    with pytest.raises(InvalidInput) as refused:
        driven.scheduler.check(PauseRequested(reason="x" * 1001), driven.now)
    assert refused.value.field == "reason"
    driven.feed(PauseRequested(agent="qwen"))
    with pytest.raises(NotFound, match="no pause of all; paused: agent qwen"):
        driven.scheduler.check(ResumeRequested(), driven.now)
