"""Upkeep over a real journal: when it writes snapshots, what it does when one fails, and that it sees the disk fill and empty."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from supervisord_agents.config import Config, parse
from supervisord_agents.core.events import Started
from supervisord_agents.daemon import upkeep as upkeep_module
from supervisord_agents.daemon.facts import Facts
from supervisord_agents.daemon.upkeep import Upkeep
from supervisord_agents.errors import DiskFull
from supervisord_agents.journal.snapshot import snapshots
from supervisord_agents.observe.stalls import StallWatch
from supervisord_agents.spool.results import ResultStore
from supervisord_agents.wire.messages import Recovery
from tests.support.engine import Machine
from tests.support.journal import SmallDisk


class House:
    """Upkeep, and what it keeps up. Its loop runs only when a test steps it by `turn`."""

    def __init__(self, directory: Path) -> None:
        self.capacity: int | None = None
        self.directory = directory / "journal"
        self.machine = Machine(self.directory, SmallDisk(lambda: self.capacity))
        self.config: Config = parse("[journal]\nsnapshot_every_records = 100\n")
        self.results = ResultStore(directory / "results")
        self.spaces = 0
        self.slept_s = 0.0
        self.facts = Facts(
            epoch="",
            started_at=0.0,
            state_dir=directory,
            recovery=Recovery(at=0.0, clean=True, records=0, tasks=0, requeued=0, adopted=0, torn_bytes=0, seconds=0.0),
            enforcement={},
            journal_bytes=lambda: 0,
            journal_accepting=lambda: True,
            notes=[],
            stalls=StallWatch(0.0),
        )
        self.upkeep = Upkeep(
            self.config,
            self.machine.engine,
            self.machine.committer,
            self.machine.journal,
            self.results,
            self.facts,
            self._space,
            slept=self._slept,
        )
        self.upkeep.start()
        self.running = asyncio.create_task(self.upkeep.run())

    def _slept(self) -> float:
        slept_s, self.slept_s = self.slept_s, 0.0
        return slept_s

    def _space(self) -> None:
        self.spaces += 1

    async def until(self, met: Callable[[], bool]) -> None:
        """The limit of the test's time ends a wait in vain."""
        while not met():
            assert not self.running.done(), self.running
            await asyncio.sleep(0.001)

    async def submit(self, graphs: int) -> None:
        sequence = 0
        for _ in range(graphs):
            sequence = self.machine.submit(f"g{self.machine.engine.sequence}")
        await self.machine.engine.released(sequence)

    @property
    def snapshots(self) -> list[str]:
        return [path.name for path in snapshots(self.directory)]

    async def aclose(self) -> None:
        self.running.cancel()
        await asyncio.wait([self.running])
        await self.upkeep.finish(in_order=False)
        await self.machine.aclose()


@pytest.fixture
async def house(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[House]:
    monkeypatch.setattr(upkeep_module, "MAX_SLEEP_S", 0.001)
    monkeypatch.setattr(upkeep_module, "DISK_CHECK_S", 0.01)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(100, 50, 50))  # type: ignore[attr-defined]
    house = House(tmp_path)
    yield house
    await house.aclose()


def failing(house: House, monkeypatch: pytest.MonkeyPatch, error: Exception | None = None) -> list[int]:
    """Make snapshots fail; gives the sequences at which one was tried."""
    tried: list[int] = []

    def fail(payload: bytes, sequence: int) -> None:
        tried.append(sequence)
        raise error or DiskFull("no room for a snapshot.")

    monkeypatch.setattr(house.machine.journal, "write_snapshot", fail)
    return tried


async def test_a_snapshot_is_written_after_so_many_records(house: House) -> None:
    await house.submit(99)
    assert not house.snapshots
    await house.submit(1)
    await house.until(lambda: house.machine.engine.grown.records == 0)
    assert house.snapshots == ["snapshot-0000000000000064.snap"]


async def test_a_snapshot_is_written_after_so_many_bytes(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(upkeep_module, "SNAPSHOT_BYTES", 1000)
    await house.submit(1)
    assert not house.snapshots
    await house.submit(20)
    await house.until(lambda: bool(house.snapshots) and house.machine.engine.grown.records < 21)
    size = house.machine.journal.snapshot_bytes
    assert size > 0
    before = house.snapshots
    while house.machine.engine.grown.bytes < 2 * size - 200:
        await house.submit(1)
        await asyncio.sleep(0.002)
    assert house.snapshots == before, "a large snapshot is written less often"
    await house.submit(10)
    await house.until(lambda: house.snapshots != before)


@pytest.mark.parametrize("error", [DiskFull("no room for a snapshot."), ValueError("a bug")])
async def test_a_snapshot_that_fails_is_told_and_tried_again(
    house: House, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    with monkeypatch.context() as broken:
        tried = failing(house, broken, error)
        await house.submit(100)
        await house.until(lambda: any("no snapshot could be written" in note for note in house.facts.notes))
        await house.submit(10)
        assert tried == [100], "it is not tried again at once"
        assert house.machine.engine.grown.records == 110
        broken.setattr(upkeep_module, "SNAPSHOT_RETRY_S", 0.001)
        house.upkeep._snapshot_not_before = 0.0
        await house.until(lambda: len(tried) > 2)
    await house.until(lambda: bool(house.snapshots) and not house.facts.notes)
    assert house.machine.engine.grown.records < 10


async def test_a_snapshot_that_fails_does_not_spoil_the_end(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(upkeep_module, "STOP_SNAPSHOT_RECORDS", 5)
    tried = failing(house, monkeypatch)
    await house.submit(6)
    await house.upkeep.finish(in_order=True)
    assert tried == [6]


async def test_at_the_end_few_records_are_not_worth_a_snapshot(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(upkeep_module, "STOP_SNAPSHOT_RECORDS", 5)
    await house.submit(5)
    await house.upkeep.finish(in_order=True)
    assert not house.snapshots
    await house.submit(1)
    await house.upkeep.finish(in_order=False)
    assert not house.snapshots
    await house.upkeep.finish(in_order=True)
    assert house.snapshots == ["snapshot-0000000000000006.snap"]


async def test_the_disk_fills_and_empties(house: House) -> None:
    house.capacity = 1
    while house.machine.journal.accepting:
        await house.submit(1)
    await house.until(lambda: any("none is started" in note for note in house.facts.notes))
    assert house.spaces == 0
    house.capacity = None
    await house.until(lambda: house.spaces == 1)
    assert house.machine.journal.accepting
    await house.until(lambda: not house.facts.notes)
    assert house.spaces == 1


async def test_a_disk_that_does_not_tell_its_size_is_no_failure(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    looked = []

    def unknown(path: Path) -> object:
        looked.append(path)
        if len(looked) % 2:
            raise OSError(2, "No such file or directory")
        return shutil._ntuple_diskusage(0, 0, 0)  # type: ignore[attr-defined]

    monkeypatch.setattr(shutil, "disk_usage", unknown)
    await house.until(lambda: len(looked) > 4)
    assert not house.running.done()


async def test_a_sleep_of_the_machine_is_recorded_before_timeouts_are_looked_at(house: House) -> None:
    machine = house.machine
    machine.submit("g")
    machine.engine.feed(Started(task="g.t0", attempt=1, worker="w"))
    house.slept_s = 50.0
    await house.until(lambda: not house.slept_s)
    assert machine.scheduler.slept_s(machine.scheduler.tasks["g.t0"]) > 0
