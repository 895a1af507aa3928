"""What the tracker looks at of very many tasks, and that it is told nothing which is not on disk."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from supervisord_agents.config import Tasks
from supervisord_agents.core.events import Finished, PauseRequested, Started, Submitted
from supervisord_agents.core.model import Budget, Failure, State, TaskSpec
from supervisord_agents.core.task import Task
from supervisord_agents.daemon import digests
from supervisord_agents.daemon.digests import Digests
from supervisord_agents.daemon.forecast import Forecast
from supervisord_agents.daemon.pictures import Pictures
from supervisord_agents.daemon.tracking import Tracking
from supervisord_agents.errors import NotFound
from supervisord_agents.rpc.peer import Peer
from supervisord_agents.tracker import rules
from supervisord_agents.tracker.keeper import Keeper
from supervisord_agents.wire.story import Ask, AskReply
from tests.support.engine import Machine


@pytest.fixture
async def machine(tmp_path: Path) -> AsyncIterator[Machine]:
    machine = Machine(tmp_path)
    yield machine
    await machine.aclose()


def tracking_of(machine: Machine) -> Tracking:
    """With a pool of four workers."""
    pools: Any = SimpleNamespace(views=lambda waiting: [SimpleNamespace(name="p", max_workers=4)])
    forecast = Forecast(Tasks(), machine.scheduler.durations)
    return Tracking(machine.engine, Digests(machine.engine, Pictures(machine.engine, pools), forecast, signs={}))


async def test_all_that_is_open_is_told_with_what_has_ended_of_it(machine: Machine) -> None:
    for graph in ("one", "two", "three"):
        machine.submit(graph, tasks=3)
    machine.engine.feed(Started(task="two.t0", attempt=1, worker="w"))
    machine.engine.feed(Finished(task="two.t0", attempt=1))
    for number in range(3):
        machine.engine.feed(Started(task=f"three.t{number}", attempt=1, worker="w"))
        machine.engine.feed(Finished(task=f"three.t{number}", attempt=1))
    digest = await tracking_of(machine).digests.of("")
    assert (digest.counts, digest.others) == ({State.READY: 5, State.SUCCEEDED: 1}, {})
    assert list(digest.graphs()) == ["one", "two"]
    assert digest.eta is not None
    assert digest.eta.usual_s > 0  # as long as the one that has ended took


async def test_of_too_many_tasks_what_runs_comes_first_and_the_rest_is_counted(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(digests, "MOST_TASKS", 5)
    for graph in ("one", "two", "three", "four"):
        machine.submit(graph, tasks=3)
    machine.engine.feed(Started(task="two.t1", attempt=1, worker="w"))
    digest = await tracking_of(machine).digests.of("")
    assert list(digest.graphs()) == ["two"]
    assert {state: count for state, count in digest.others.items() if count} == {State.READY: 9}
    assert digest.eta is None
    summary = rules.story(digest).summary
    assert "None of 12 tasks has ended." in summary
    assert "Others are only counted: 9 ready." in summary
    assert "The end: not known, for there are too many tasks." in summary


@pytest.mark.parametrize("subject", ["", "huge"])
async def test_of_a_graph_that_is_too_large_by_itself_a_part_is_told_and_the_rest_counted(
    machine: Machine, monkeypatch: pytest.MonkeyPatch, subject: str
) -> None:
    monkeypatch.setattr(digests, "MOST_TASKS", 20)
    monkeypatch.setattr(digests, "PART", 2)
    monkeypatch.setattr(digests, "NEXT", 3)
    machine.submit("huge", tasks=50)
    for number in (40, 41):
        machine.engine.feed(Started(task=f"huge.t{number}", attempt=1, worker="w"))
    machine.engine.feed(Finished(task="huge.t41", attempt=1, failure=Failure("INVALID", "no", retriable=False)))
    digest = await tracking_of(machine).digests.of(subject)
    assert len(digest.nodes) < 10
    assert [node.id for node in digest.running] == ["huge.t40"]
    assert digest.next_actionable == ["huge.t0", "huge.t1", "huge.t2"]
    assert sum(digest.others.values()) == 45
    told = rules.story(digest).summary
    assert "1 runs: huge.t40" in told
    assert "Others are only counted: 45 ready." in told
    running = rules.answer("what is running?", digest).answer
    assert running.startswith("Running: huge.t40 for ")
    assert running.endswith(" Others are only counted: 45 ready.")
    assert (
        rules.answer("how is huge.t30?", digest).answer
        == "huge.t30 is not among the tasks that are looked at: agentctl show tells."
    )
    assert ("1 of 50 tasks has ended: 1 failed. Failed: huge.t41 (INVALID)." in told) == bool(subject)


async def test_what_is_behind_a_graph_that_is_too_large_is_found_in_few_steps(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(digests, "MOST_TASKS", 20)
    monkeypatch.setattr(digests, "AT_ONCE", 4)
    machine.submit("old", tasks=3)
    machine.submit("huge", tasks=400)
    machine.submit("new", tasks=3)
    looks = 0
    before = machine.scheduler.before

    def counted(order: int, count: int, graph: str = "") -> list[Task]:
        nonlocal looks
        looks += 1
        return before(order, count, graph)

    monkeypatch.setattr(machine.scheduler, "before", counted)
    digest = await tracking_of(machine).digests.of("")
    assert {"old", "new"} <= set(digest.graphs())
    assert len(digest.graphs()["old"]) == len(digest.graphs()["new"]) == 3
    assert looks < 10


async def test_the_time_of_a_budget_ends_the_work(machine: Machine) -> None:
    specs = (TaskSpec(id="a", pool="p", estimate_s=5000.0),)
    machine.engine.feed(Submitted(graph="one", specs=specs, budget=Budget(wall_s=600.0)))
    digest = await tracking_of(machine).digests.of("one")
    assert digest.eta is not None
    assert 590.0 < digest.eta.usual_s == digest.eta.high_s <= 600.0
    assert "the budget's time is over, which ends all that is left" in rules.story(digest).summary
    machine.engine.feed(PauseRequested(pool="p", agent="", client="0", reason=""))
    assert (
        "min; after 10.0 min the budget's time is over"
        in rules.answer("when is it done?", await tracking_of(machine).digests.of("one")).answer
    )


async def test_what_is_submitted_while_one_looks_does_not_count_as_too_many(machine: Machine) -> None:
    machine.submit("one", tasks=3)
    looking = asyncio.create_task(tracking_of(machine).digests.of(""))
    await asyncio.sleep(0)
    machine.submit("two", tasks=3)
    digest = await looking
    assert (list(digest.graphs()), digest.others) == (["one"], {})


async def asked(machine: Machine, question: str) -> AskReply:
    """By rules, of what is in memory."""
    tracking = tracking_of(machine)
    tellers: Any = SimpleNamespace(chain=None)
    tracking.keep(Keeper(tracking.digests.of, machine.engine.clock.now), tellers)

    async def target(name: str, field: str) -> str:
        if not machine.scheduler.resolve(name):
            raise NotFound(f"no {name}")
        return machine.scheduler.resolve(name)[0]

    async def names(name: str, field: str) -> list[str]:
        return machine.scheduler.graph_tasks(name)

    async def tasks(names: Sequence[str]) -> list[Task]:
        return [machine.scheduler.tasks[name] for name in names]

    tracking.attach(target, names, tasks)
    return await tracking.ask(Ask(question=question), Peer(0, 0, 0))


async def test_a_question_that_names_a_graph_is_about_that_graph(machine: Machine) -> None:
    for graph in ("one", "two"):
        machine.submit(graph, tasks=2)
    machine.engine.feed(Started(task="two.t0", attempt=1, worker="w"))
    machine.engine.feed(Finished(task="two.t0", attempt=1, failure=Failure("INVALID", "no", retriable=False)))
    assert (await asked(machine, "what failed?")).answer.startswith("Failed: two.t0 (INVALID)")
    assert (await asked(machine, "what failed in one?")).answer == "Nothing has failed."
    assert (await asked(machine, "how is graph two?")).answer.startswith("1 of 2 tasks has ended")
    assert (await asked(machine, "how is one, beside two?")).answer.startswith("1 of 4 tasks in 2 graphs has ended")
    assert (await asked(machine, "how is t0 of two?")).answer == "two.t0 (failed: INVALID)."


async def test_of_a_graph_that_has_ended_one_may_ask_too(machine: Machine) -> None:
    machine.submit("one", tasks=1)
    machine.engine.feed(Started(task="one.t0", attempt=1, worker="w"))
    machine.engine.feed(Finished(task="one.t0", attempt=1))
    assert (await asked(machine, "how is one.t0?")).answer == "one.t0 (succeeded)."
    assert (await asked(machine, "how is one.t7?")).answer == "There is no task one.t7."
    assert (await asked(machine, "how is gabc2345.t1?")).answer == "There is no task gabc2345.t1."


async def test_a_pool_that_is_not_configured_keeps_its_tasks(machine: Machine) -> None:
    machine.submit("one", tasks=1)
    tracking = tracking_of(machine)
    machine.scheduler.tasks["one.t0"].pool = "gone"
    digest = await tracking.digests.of("")
    assert (digest.next, digest.eta) == ([], None)
    assert "kept from starting: one.t0 (the configuration has no pool gone)" in rules.story(digest).summary


async def test_what_is_told_is_on_disk(machine: Machine) -> None:
    sequence = machine.submit("one")
    assert machine.journal.durable < sequence
    await tracking_of(machine).digests.of("")
    assert machine.journal.durable >= sequence
