"""The engine over a real journal: order, durability, and what happens when something fails."""

from __future__ import annotations

import asyncio
import errno
import threading
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from supervisord_agents.core.events import AnyEvent, CancelRequested, Decision, RetryRequested, Submitted
from supervisord_agents.core.graph import normalise
from supervisord_agents.core.model import State, TaskSpec
from supervisord_agents.daemon import engine as engine_module
from supervisord_agents.daemon.engine import STEP
from supervisord_agents.errors import DiskFull, JournalError
from tests.support.engine import Machine


@pytest.fixture
async def machine(tmp_path: Path) -> AsyncIterator[Machine]:
    machine = Machine(tmp_path)
    yield machine
    await machine.aclose()


async def test_decisions_are_released_in_order_once_they_are_durable(machine: Machine) -> None:
    last = 0
    for number in range(50):
        last = machine.submit(f"g{number}")
    assert machine.told == []
    await machine.engine.released(last)
    assert machine.told == [f"g{number}.t0" for number in range(50)]


async def test_an_answer_comes_when_its_record_is_durable_and_carried_out(machine: Machine) -> None:
    sequence = machine.submit("g")
    answer = machine.engine.answer(sequence, "taken")
    seen: list[tuple[int, list[str]]] = []
    answer.add_done_callback(lambda _: seen.append((machine.journal.durable, list(machine.told))))
    assert not answer.done()
    assert await answer == "taken"
    assert seen == [(sequence, ["g.t0"])]
    assert machine.engine.answer(sequence, "again").result() == "again"


async def test_what_comes_during_a_sync_is_synced_next(machine: Machine) -> None:
    """With an order for the thread in between, which must neither be forgotten nor take the place of the sync."""
    under_way, go_on = threading.Event(), threading.Event()

    def hold(_: int, name: str) -> None:
        if name == "sync_data":
            under_way.set()
            assert go_on.wait(60)

    machine.steps.fail = hold
    machine.submit("g")
    await asyncio.to_thread(under_way.wait)
    last = machine.submit("h")
    machine.committer.reclaim()
    machine.submit("i")
    go_on.set()
    await machine.engine.released(last)
    await machine.engine.settled()
    assert machine.told == ["g.t0", "h.t0", "i.t0"]


@pytest.mark.parametrize("error", [ValueError("a bug"), OSError(errno.ENOSPC, "No space left"), DiskFull("no room for a file")])
async def test_a_decision_that_cannot_be_carried_out_takes_no_other_with_it(machine: Machine, error: Exception) -> None:
    machine.raises["g.t1"] = error
    await machine.engine.released(machine.submit("g", tasks=3))
    assert machine.told == ["g.t0", "g.t2"]
    await machine.engine.released(machine.submit("h"))
    assert machine.told[-1] == "h.t0"
    assert not machine.running.done()


async def test_a_broken_journal_ends_the_engine_and_everybody_hears_of_it(machine: Machine) -> None:
    await machine.engine.released(machine.submit("g"))
    machine.steps.fail = lambda _, name: OSError(errno.EIO, "Input/output error") if name == "sync_data" else None
    sequence = machine.submit("h")
    waiting = [asyncio.create_task(machine.engine.released(sequence)) for _ in range(3)]
    errors = await asyncio.gather(*waiting, machine.running, return_exceptions=True)
    assert all(isinstance(error, JournalError) for error in errors)
    assert len({id(error) for error in errors}) == 4, "one exception must not be raised in two places"
    assert machine.told == ["g.t0"]


async def test_while_the_disk_stalls_only_what_it_holds_up_is_waited_for(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine_module, "PATIENCE_S", 0.05)
    await machine.engine.released(machine.submit("g"))
    going_on = threading.Event()
    machine.steps.fail = lambda _, name: going_on.wait() and None if name == "sync_data" else None
    sequences = [machine.submit("h"), machine.submit("i")]
    await machine.engine.settled_for(["g.t0", "unknown"])
    held = asyncio.create_task(machine.engine.settled_for(["g.t0", "h.t0"]))
    await machine.engine.settled_for(["g.t0"])
    count, seconds = machine.engine.waiting
    assert (count, machine.told, held.done()) == (2, ["g.t0"], False)
    assert seconds >= 0.05
    going_on.set()
    await held
    assert machine.told[:2] == ["g.t0", "h.t0"]
    await machine.engine.released(sequences[-1])
    assert machine.engine.waiting == (0, 0.0)


async def test_who_asks_after_the_failure_is_told_at_once(machine: Machine) -> None:
    machine.steps.fail = lambda _, name: OSError(errno.EIO, "Input/output error") if name == "sync_data" else None
    sequence = machine.submit("g")
    await asyncio.wait([machine.running])
    for _ in range(2):
        with pytest.raises(JournalError, match="Input/output error"):
            await machine.engine.released(sequence)
        with pytest.raises(JournalError, match="Input/output error"):
            await machine.engine.settled()
        with pytest.raises(JournalError, match="Input/output error"):
            machine.submit("h")


async def test_an_event_that_cannot_be_applied_ends_the_engine(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    """The state in memory is half changed: nothing may be built on it."""
    await machine.engine.released(machine.submit("g"))
    handle = machine.scheduler.handle

    def failing(event: AnyEvent, now: float) -> list[Decision]:
        if isinstance(event, CancelRequested):
            raise KeyError("a bug")
        return handle(event, now)

    monkeypatch.setattr(machine.scheduler, "handle", failing)
    waiting = asyncio.create_task(machine.engine.released(machine.submit("h")))
    with pytest.raises(JournalError, match="record 3, CancelRequested, could not be applied: KeyError"):
        machine.engine.feed(CancelRequested(task="g"))
    with pytest.raises(JournalError, match="could not be applied"):
        machine.submit("i")
    errors = await asyncio.gather(machine.running, waiting, return_exceptions=True)
    assert all("could not be applied" in str(error) for error in errors)
    assert machine.told == ["g.t0"]


async def test_growth_is_counted_and_given_back_by_a_snapshot(machine: Machine) -> None:
    machine.submit("g")
    before = machine.engine.grown
    assert before.records == 1
    assert before.bytes > 0
    machine.submit("h")
    machine.engine.covered(before)
    assert machine.engine.grown.records == 1
    assert 0 < machine.engine.grown.bytes <= before.bytes


async def a_large_fan(machine: Machine) -> None:
    """A task that three steps' worth of tasks wait for, in graphs that a small record holds."""
    machine.engine.feed(Submitted(graph="g", specs=normalise([TaskSpec(id="root", pool="p")])))
    for graph in ("h1", "h2", "h3"):
        specs = normalise([TaskSpec(pool="p", dependencies=("g.root",)) for _ in range(STEP)])
        machine.engine.feed(Submitted(graph=graph, specs=specs))
    await machine.engine.settled()


async def test_the_backlog_is_carried_out_and_who_waits_for_it_is_told_each_time(machine: Machine) -> None:
    """More tasks than a step: cancelled in steps, run again in steps, and so on."""
    await a_large_fan(machine)
    for event in (CancelRequested(task="g.root"), RetryRequested(task="g.root")) * 2:
        await machine.engine.idle()
        machine.engine.feed(event)
        work = machine.scheduler.newest_work
        assert work is not None
        await machine.engine.carried_out(work)
        assert work.over
        assert len(work.names) == 3 * STEP + 1
    assert not machine.scheduler.busy
    assert machine.scheduler.counts[State.BLOCKED] == 3 * STEP


async def test_an_engine_that_fails_in_the_midst_of_its_backlog_tells_who_waits(machine: Machine) -> None:
    await a_large_fan(machine)
    machine.steps.fail = lambda _, name: OSError(errno.EIO, "Input/output error") if name == "sync_data" else None
    machine.engine.feed(CancelRequested(task="g.root"))
    work = machine.scheduler.newest_work
    assert work is not None
    with pytest.raises(JournalError):
        await machine.engine.carried_out(work)
