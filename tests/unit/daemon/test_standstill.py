"""What holds everything is told once, and given up when something goes on; what was forgotten is offered again."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import cast

import pytest
from structlog.testing import capture_logs
from structlog.typing import EventDict

from supervisord_agents.core.events import Finished, PauseRequested, ResumeRequested, Started, Submitted
from supervisord_agents.core.graph import normalise
from supervisord_agents.core.model import TaskSpec
from supervisord_agents.daemon.facts import Facts
from supervisord_agents.daemon.parts import nothing_recovered
from supervisord_agents.daemon.standstill import LOOK_S, Watch
from supervisord_agents.observe.stalls import StallWatch
from supervisord_agents.wire.messages import PoolView
from supervisord_agents.workers.pool import Pools
from tests.support.engine import Machine


class OnePool:
    """As far as it is asked here."""

    def __init__(self) -> None:
        self.room = 2

    def views(self, waiting: dict[str, int]) -> list[PoolView]:
        return [PoolView(name="p", min_workers=0, max_workers=2, busy=0, idle=0, waiting=0)]

    def free(self) -> dict[str, int]:
        return {"p": self.room}


class Place:
    """A watch over an engine; `look` is its next one."""

    def __init__(self, directory: Path) -> None:
        self.machine = Machine(directory / "journal")
        self.engine = self.machine.engine
        self.pool = OnePool()
        self.accepting = True
        self.dispatches = 0
        self.now = 1000.0
        self.facts = Facts(
            epoch="",
            started_at=0.0,
            state_dir=directory,
            recovery=nothing_recovered(),
            enforcement={},
            journal_bytes=lambda: 0,
            journal_accepting=lambda: self.accepting,
            notes=[],
            stalls=StallWatch(0.0),
        )
        self.watch = Watch(self.engine, cast(Pools, self.pool), self.facts, self._dispatch)

    def _dispatch(self) -> None:
        self.dispatches += 1

    def look(self, looks: int = 1) -> list[EventDict]:
        """What is logged meanwhile."""
        with capture_logs() as logged:
            for _ in range(looks):
                self.now += LOOK_S
                for _ in range(10):  # the turns of the loop until the next
                    self.watch.look(self.now)
        return list(logged)

    @property
    def reasons(self) -> list[str]:
        return self.facts.standstill.reasons if self.facts.standstill else []


@pytest.fixture
async def place(tmp_path: Path) -> AsyncIterator[Place]:
    found = Place(tmp_path)
    yield found
    await found.machine.aclose()


async def test_a_pause_is_told_once_and_goes_with_its_end(place: Place) -> None:
    assert place.look(3) == []
    place.machine.submit("g", tasks=3)
    place.engine.feed(PauseRequested(reason="night", client="7"))
    (told,) = place.look(3)
    assert (told["event"], told["tasks"], told["log_level"]) == ("standstill", 3, "warning")
    assert len(place.reasons) == 1
    assert place.reasons[0].startswith("3 ready tasks are held: all has been paused for ")
    assert ", by uid 7 (night); agentctl resume" in place.reasons[0]
    assert place.facts.standstill is not None
    since = place.facts.standstill.since
    place.machine.submit("h")
    assert place.look(2) == []
    assert place.facts.standstill.since == since
    assert place.facts.standstill.tasks == 4
    place.engine.feed(ResumeRequested(everything=True))
    place.engine.feed(Started(task="g.t0", attempt=1, worker="w"))
    (told,) = place.look()
    assert told["event"] == "standstill_over"
    assert place.facts.standstill is None
    assert place.dispatches == 0


async def test_what_has_only_just_become_ready_is_not_missed_yet(place: Place) -> None:
    for number in range(5):
        place.machine.submit(f"g{number}")
        assert place.look() == []
    assert (place.reasons, place.dispatches) == ([], 0)


async def test_a_lost_wake_up_is_told_and_made_good(place: Place) -> None:
    place.machine.submit("g", tasks=2)
    await place.engine.settled()
    logged = place.look(2)
    assert [entry["event"] for entry in logged] == ["standstill", "lost_wakeup"]
    assert place.dispatches == 1
    assert place.reasons == [
        "2 ready tasks are not started though workers of the pool p are free: a wake-up was lost, and they are offered again"
    ]
    place.engine.feed(Started(task="g.t0", attempt=1, worker="w"))
    place.look()
    assert place.facts.standstill is None


@pytest.mark.parametrize("why", ["stopping", "no space", "no room"])
async def test_who_cannot_start_anything_for_a_while_has_missed_nothing(place: Place, why: str) -> None:
    place.machine.submit("g")
    await place.engine.settled()
    place.facts.stopping = why == "stopping"
    place.accepting = why != "no space"
    place.pool.room = 0 if why == "no room" else 2
    assert place.look(4) == []
    assert (place.reasons, place.dispatches) == ([], 0)


async def test_a_blocked_task_that_nobody_woke_is_found_behind_the_others(place: Place) -> None:
    specs = normalise([TaskSpec(id="a", pool="p"), TaskSpec(id="b", pool="p", dependencies=("a",))])
    place.engine.feed(Submitted(graph="g", specs=specs))
    place.machine.scheduler.tasks["g.b"].unmet += 1  # as a bug would leave it
    place.engine.feed(Started(task="g.a", attempt=1, worker="w"))
    place.engine.feed(Finished(task="g.a", attempt=1))
    place.machine.submit("h")
    place.engine.feed(PauseRequested())
    assert [entry["event"] for entry in place.look(2)] == ["standstill"]
    assert place.reasons[0].startswith("1 ready task is held: all has been paused")
    assert place.reasons[1:] == [
        "g.b waits for nothing: all that it waited for has ended, but it was not told; a bug, please report it with the journal"
    ]
