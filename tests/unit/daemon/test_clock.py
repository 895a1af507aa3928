"""The clock goes on from where the journal ends, also when only a snapshot tells where that was."""

from __future__ import annotations

import time

import msgspec

from supervisord_agents.core.events import Submitted, Ticked, encode_event
from supervisord_agents.core.graph import normalise
from supervisord_agents.core.model import TaskSpec
from supervisord_agents.core.scheduler import Scheduler
from supervisord_agents.core.snapshot import taken_at
from supervisord_agents.daemon import recovery
from supervisord_agents.daemon.clock import Clock, Sleeps
from supervisord_agents.journal.recovery import Recovered

FAR = time.time() + 10**8


def recovered(snapshot: bytes | None, records: list[tuple[int, bytes]]) -> Recovered:
    return Recovered(snapshot, 5 if snapshot else 0, records, 0, True, 6, [])


def floor_of(snapshot: bytes | None, *times: float) -> float:
    records = [(6 + index, encode_event(Ticked(), at)) for index, at in enumerate(times)]
    return recovery.replay(recovered(snapshot, records), lambda sequence, change: None).last_at


def test_a_wall_clock_set_back_does_not_take_the_daemon_back() -> None:
    clock = Clock(FAR)
    assert clock.now() >= FAR


def test_the_floor_is_the_last_time_in_the_journal() -> None:
    scheduler = Scheduler()
    scheduler.handle(Submitted(graph="g", specs=normalise([TaskSpec(pool="p")])), 1.0)
    snapshot = scheduler.snapshot(FAR)
    assert taken_at(snapshot) == FAR
    assert floor_of(snapshot) == FAR
    assert floor_of(snapshot, FAR + 1, FAR + 3, FAR + 2) == FAR + 3
    assert floor_of(None, 7.0) == 7.0


def test_a_snapshot_without_its_time_is_read() -> None:
    """As they were written before."""
    old = msgspec.msgpack.encode(msgspec.msgpack.decode(Scheduler().snapshot(FAR))[:3])
    assert taken_at(old) == 0.0
    assert Scheduler.restore(old).tasks == {}
    assert floor_of(old, 7.0) == 7.0


def test_a_sleep_is_told_once_and_by_its_length() -> None:
    boot, awake = [100.0], [40.0]
    sleeps = Sleeps(boot=lambda: boot[0], awake=lambda: awake[0])
    assert sleeps.seconds() == 0.0
    boot[0], awake[0] = 3760.0, 100.0
    assert sleeps.seconds() == 3600.0
    assert sleeps.seconds() == 0.0
    boot[0] += 0.001  # read a moment later
    assert sleeps.seconds() == 0.0
