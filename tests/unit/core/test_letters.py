"""Dead letters: what is one, until when, and what the archive leaves alone for them."""

from __future__ import annotations

import msgspec
import pytest

from supervisord_agents.core.events import Archived, Dropped
from supervisord_agents.core.model import Compensation, State
from supervisord_agents.core.scheduler import Scheduler
from supervisord_agents.core.snapshot import Snapshot
from supervisord_agents.errors import InvalidInput, NotFound
from tests.support.scheduling import POOL, Driven, a_task


@pytest.fixture
def driven() -> Driven:
    return Driven()


def die(driven: Driven, graph: str) -> None:
    """A graph whose only task is dead."""
    driven.submit(a_task("a", max_retries=1), graph=graph)
    driven.run(f"{graph}.a", "TIMEOUT")
    driven.wait_until_due()
    driven.run(f"{graph}.a", "TIMEOUT")


def letters(driven: Driven) -> list[str]:
    return list(driven.scheduler.letters)


def to_archive(driven: Driven, count: int) -> list[str]:
    return [graph.id for graph in driven.scheduler.to_archive(0, driven.now + 1.0, 100, count)]


def test_the_dead_are_listed_in_the_order_of_their_ends_and_nothing_else_is(driven: Driven) -> None:
    die(driven, "h")
    die(driven, "g")
    driven.submit(a_task("a", max_retries=0), a_task("b", "a"), a_task("c"), graph="k")
    driven.run("k.a", "TIMEOUT")
    driven.cancel("k")
    assert letters(driven) == ["h.a", "g.a"]
    assert driven.replayed().snapshot() == driven.scheduler.snapshot()
    assert list(Scheduler.restore(driven.scheduler.snapshot()).letters) == ["h.a", "g.a"]


def test_what_could_not_be_undone_is_one(driven: Driven) -> None:
    driven.submit(a_task("a", compensate=Compensation(pool=POOL)), a_task("b", "a"))
    driven.run("g.a")
    driven.fail("g.b")
    driven.fail("ug.a")
    assert letters(driven) == ["ug.a"]


def test_another_round_takes_it_off_until_it_dies_again(driven: Driven) -> None:
    die(driven, "g")
    driven.retry("g.a")
    assert letters(driven) == []
    driven.run("g.a", "TIMEOUT")
    driven.wait_until_due()
    driven.run("g.a", "TIMEOUT")
    assert letters(driven) == ["g.a"]


def test_a_dropped_one_stays_dead_and_its_history_says_who_and_why(driven: Driven) -> None:
    die(driven, "g")
    before = driven.task("g.a").failure
    assert driven.feed(Dropped(tasks=("g.a",), client="7", reason="known")) == []
    assert letters(driven) == []
    task = driven.task("g.a")
    assert (task.state, task.failure) == (State.DEAD, before)
    assert task.history[-1].message == "dropped by uid 7: known"
    assert list(driven.replayed().letters) == list(Scheduler.restore(driven.scheduler.snapshot()).letters) == []
    driven.retry("g.a")
    assert driven.state("g.a") is State.READY


def test_what_is_no_dead_letter_is_not_dropped(driven: Driven) -> None:
    die(driven, "g")
    with pytest.raises(NotFound, match="no dead letter"):
        driven.feed(Dropped(tasks=("g.a", "g.b")))
    with pytest.raises(InvalidInput) as caught:
        driven.feed(Dropped(tasks=("g.a",), reason="x" * 1001))
    assert caught.value.field == "reason"
    assert letters(driven) == ["g.a"]
    assert driven.scheduler.handle(Dropped(tasks=("g.x",)), driven.now) == []


def test_the_archive_leaves_the_newest_letters_alone_until_they_are_decided_about(driven: Driven) -> None:
    for graph in "abc":
        die(driven, graph)
    assert to_archive(driven, 3) == []
    assert to_archive(driven, 2) == ["a"]
    driven.feed(Dropped(tasks=("c.a",)))
    assert to_archive(driven, 2) == ["c"]
    driven.feed(Archived(graphs=("a", "c")))
    assert letters(driven) == ["b.a"]


def test_a_snapshot_of_an_older_version_has_all_the_dead(driven: Driven) -> None:
    for graph in "ba":
        die(driven, graph)
    fields = msgspec.msgpack.decode(driven.scheduler.snapshot())
    older = msgspec.msgpack.encode(fields[: Snapshot.__struct_fields__.index("letters")])
    assert list(Scheduler.restore(older).letters) == ["b.a", "a.a"]
