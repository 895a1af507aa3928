"""The power goes at any step of a repair, and the disk keeps any part of what was not synced: another repair saves the same."""

from __future__ import annotations

from pathlib import Path
from random import Random

import pytest

from supervisord_agents.journal.repair import repair
from supervisord_agents.journal.segment import HEADER, RECORD_OVERHEAD, segments
from tests.simulation.disk import Disk, SimFiles
from tests.simulation.loop import Crash, Loop, Process
from tests.support.journal import fill, open_journal, payloads

DIRECTORY = Path("/journal")
SIZE = 1300
RECORDS = [bytes([number]) * SIZE for number in range(1, 9)]


class Machine:
    """A disk with a journal of eight records whose fourth is damaged; `operations_left` until the power goes."""

    def __init__(self, seed: int) -> None:
        self.disk = Disk(Loop(lambda error: None), Random(seed), 1 << 20, pytest.fail)
        self.operations_left = 1_000_000
        journal, _ = open_journal(DIRECTORY, files=self.boot(), dice=Random(seed))
        fill(journal, RECORDS)
        journal.close(clean=False)
        self.disk.sync_everything()
        damaged = self.disk.file(segments(DIRECTORY, self.boot())[1][1])
        damaged.disk[HEADER.size + RECORD_OVERHEAD + 7] ^= 1
        damaged.cache[:] = damaged.disk

    def boot(self) -> SimFiles:
        self.process = Process("p")
        self.disk.forget_process()
        return SimFiles(self.disk, self.process, self._called)

    def _called(self, what: str) -> None:
        self.operations_left -= 1
        if self.operations_left < 0:
            self.process.alive = False
            raise Crash

    def repaired(self, operations: int) -> bool:
        """Whether a repair comes to its end before the power goes."""
        self.operations_left = operations
        try:
            repair(DIRECTORY, files=self.boot(), dice=Random(operations))
        except Crash:
            self.disk.lose_power()
            return False
        finally:
            self.operations_left = 1_000_000
        return True


@pytest.mark.parametrize("seed", range(10))
def test_the_power_goes_at_any_step(seed: int) -> None:
    operations = 0
    while True:
        machine = Machine(seed * 1000 + operations)
        done = machine.repaired(operations)
        if not done:
            repair(DIRECTORY, files=machine.boot(), dice=Random(1))
        journal, recovered = open_journal(DIRECTORY, files=machine.boot(), dice=Random(2))
        assert payloads(recovered) == [record for record in RECORDS if record != RECORDS[3]], operations
        assert recovered.holes == [(4, 4)]
        journal.close()
        if done:
            break
        operations += 1
    assert operations > 20


def test_after_a_repair_the_power_may_go_at_once() -> None:
    for seed in range(20):
        machine = Machine(seed)
        assert machine.repaired(1_000_000)
        machine.disk.lose_power()
        journal, recovered = open_journal(DIRECTORY, files=machine.boot(), dice=Random(2))
        assert len(recovered.records) == 7
        journal.close()
        copied = segments(DIRECTORY.with_name("journal.damaged"), machine.boot())
        assert len(copied) == 3
