"""Looking things up, and the whole state as bytes."""

from __future__ import annotations

import msgspec
import pytest

from supervisord_agents.core import invariants, snapshot
from supervisord_agents.core.events import AnyEvent
from supervisord_agents.core.model import State
from supervisord_agents.core.scheduler import HANDLERS, Scheduler
from supervisord_agents.errors import JournalCorrupt
from tests.support.scheduling import Driven, a_task


@pytest.fixture
def driven() -> Driven:
    return Driven()


def test_ids_are_resolved_from_what_a_person_types(driven: Driven) -> None:
    driven.submit(a_task("t1"), a_task("t10"), graph="abc")
    driven.submit(a_task("t1"), a_task("x"), graph="abd")
    resolve = driven.scheduler.resolve
    assert resolve("abc") == ["abc"]
    assert resolve("ab") == ["abc", "abd"]
    assert resolve("abc.t1") == ["abc.t1"]
    assert resolve("ab.t1") == ["abc.t1", "abd.t1"]
    assert resolve("abc.t") == ["abc.t1", "abc.t10"]
    assert resolve("ab.x") == ["abd.x"]
    assert resolve("nothing") == resolve("abc.nothing") == resolve("") == []


def test_graphs_list_their_tasks_in_order(driven: Driven) -> None:
    driven.submit(a_task("b"), a_task("a"), graph="g2")
    driven.submit(a_task("c"), graph="g1")
    assert driven.scheduler.graphs() == ["g2", "g1"]
    assert driven.scheduler.graph_tasks("g2") == ["g2.b", "g2.a"]
    assert driven.scheduler.graph_tasks("unknown") == []
    assert list(driven.scheduler.tasks) == ["g2.b", "g2.a", "g1.c"]


def test_a_task_gives_back_its_specification(driven: Driven) -> None:
    spec = a_task("a", input={"argv": ["echo", "ä"], "nested": {"n": [1, 2.5, None]}}, priority=2, timeout_s=3.0)
    driven.submit(spec)
    assert driven.task("g.a").spec == spec


def test_a_snapshot_restores_attempts_failures_timers_and_keys(driven: Driven) -> None:
    driven.submit(a_task("a", timeout_s=50.0), a_task("b", "a"), a_task("c", deadline_s=90.0), key="k")
    driven.run("g.c", "WORKER_FAILED")
    driven.start("g.a")
    data = driven.scheduler.snapshot()
    restored = Scheduler.restore(data)
    invariants.check(restored)
    assert restored.snapshot() == data
    assert restored.graph_of_key("k") == "g"
    assert restored.tasks["g.c"].failure == driven.task("g.c").failure
    assert restored.tasks["g.a"].history == driven.task("g.a").history
    assert [task.id for task in restored.running_tasks()] == ["g.a"]
    assert restored.next_due() == driven.scheduler.next_due()
    driven.scheduler = restored
    driven.finish("g.a")
    assert driven.states() == {"a": "succeeded", "b": "ready", "c": "backing_off"}


def test_an_empty_scheduler_survives_a_snapshot() -> None:
    restored = Scheduler.restore(Scheduler().snapshot())
    assert restored.tasks == {}
    assert restored.counts == dict.fromkeys(State, 0)


@pytest.mark.parametrize("data", [b"", b"\xc1", b"\x93\x01", b"\x80", b"not msgpack at all"])
def test_bytes_that_are_no_snapshot_are_refused(data: bytes) -> None:
    with pytest.raises(JournalCorrupt, match="snapshot cannot be read"):
        Scheduler.restore(data)


def test_every_truncation_of_a_snapshot_is_refused(driven: Driven) -> None:
    driven.submit(a_task("a"), a_task("b", "a"))
    data = driven.scheduler.snapshot()
    for length in range(len(data)):
        with pytest.raises(JournalCorrupt):
            Scheduler.restore(data[:length])


def test_a_snapshot_of_a_later_version_is_refused() -> None:
    data = msgspec.msgpack.encode([snapshot.VERSION + 1, [], {}])
    with pytest.raises(JournalCorrupt, match=f"version {snapshot.VERSION + 1}"):
        Scheduler.restore(data)


def test_the_invariants_notice_a_wrong_count(driven: Driven) -> None:
    driven.submit(a_task("a"), a_task("b", "a"))
    driven.task("g.b").unmet = 2
    with pytest.raises(invariants.InvariantBroken, match=r"g\.b counts 2 unmet"):
        invariants.check(driven.scheduler)
    driven.task("g.b").unmet = 1
    driven.scheduler.table.counts[State.READY] += 1
    with pytest.raises(invariants.InvariantBroken, match="counted in ready"):
        invariants.check(driven.scheduler)


def test_every_event_has_its_handler() -> None:
    assert set(HANDLERS) == set(AnyEvent.__args__)
