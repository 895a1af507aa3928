"""Which ready task is offered first."""

from __future__ import annotations

import pytest

from supervisord_agents.core import invariants
from supervisord_agents.core.events import Finished, Start, Started, Submitted
from supervisord_agents.core.scheduler import Scheduler
from supervisord_agents.core.submit import LENGTHEN_LIMIT
from tests.support.scheduling import POOL, Driven, a_task


@pytest.fixture
def driven() -> Driven:
    return Driven()


def test_priority_comes_first_then_the_longest_remaining_path_then_submission(driven: Driven) -> None:
    driven.submit(
        a_task("late"),
        a_task("later"),
        a_task("long", estimate_s=5.0),
        a_task("chain"),
        a_task("link", "chain", estimate_s=5.0),
        a_task("urgent", priority=0),
        a_task("idle", priority=9, estimate_s=100.0),
    )
    assert driven.offered() == ["g.urgent", "g.chain", "g.long", "g.late", "g.later", "g.idle"]


def test_what_an_urgent_task_waits_for_is_urgent_too(driven: Driven) -> None:
    driven.submit(a_task("root", priority=9), a_task("mid", "root", priority=9), a_task("usual"))
    assert driven.offered() == ["g.usual", "g.root"]
    driven.submit(a_task("urgent", "g.mid", priority=0), graph="h")
    assert [driven.task(name).urgency for name in ("g.root", "g.mid", "g.usual", "h.urgent")] == [0, 0, 5, 0]
    assert driven.offered() == ["g.root", "g.usual"]
    restored = Scheduler.restore(driven.scheduler.snapshot())
    assert [offer.task for offer in restored.starts({POOL: 5})] == ["g.root", "g.usual"]


@pytest.mark.parametrize("ageing_s", [60.0, 20.0])
def test_what_waits_long_enough_is_passed_by_nobody(ageing_s: float) -> None:
    """A stream of urgent tasks takes every slot; the idle one gets its turn when it has aged by as many levels as lie between."""
    driven = Driven(ageing_s)
    driven.submit(a_task("idle", priority=9))
    rounds = 0
    while rounds < 200:
        driven.submit(a_task("urgent", priority=0), graph=f"u{rounds}")
        (first,) = driven.offered(1)
        if first == "g.idle":
            break
        driven.run(first)
        driven.now += 10.0
        rounds += 1
    assert abs(rounds * 10.0 - 9 * ageing_s) <= ageing_s


def test_an_offer_names_the_next_attempt_and_changes_nothing(driven: Driven) -> None:
    driven.submit(a_task("a"), a_task("b"))
    before = driven.scheduler.snapshot()
    offers = driven.scheduler.starts({POOL: 2})
    assert offers == [Start(task="g.a", attempt=1, pool=POOL), Start(task="g.b", attempt=1, pool=POOL)]
    assert driven.scheduler.starts({POOL: 2}) == offers
    assert driven.scheduler.snapshot() == before


def test_pools_are_offered_by_their_own_number_of_slots(driven: Driven) -> None:
    driven.submit(a_task("a"), a_task("b"), a_task("c", pool="other"), a_task("d", pool="other"))
    assert [offer.task for offer in driven.scheduler.starts({"other": 1, POOL: 5, "empty": 3})] == ["g.c", "g.a", "g.b"]
    assert driven.scheduler.starts({POOL: 0, "other": -1}) == []
    assert driven.scheduler.starts({}) == []


def test_the_slots_of_a_pool_are_shared_by_all_agents(driven: Driven) -> None:
    driven.submit(a_task("a"), a_task("b", agent="qwen"), a_task("c", agent="gemini"), a_task("d"))
    assert driven.offered(2) == ["g.a", "g.b"]
    assert driven.offered(3) == ["g.a", "g.b", "g.c"]


def test_what_becomes_ready_between_two_questions_takes_its_place(driven: Driven) -> None:
    driven.submit(*(a_task(f"t{number}", priority=5) for number in range(10)))
    assert driven.offered(3) == ["g.t0", "g.t1", "g.t2"]
    driven.submit(a_task("urgent", priority=0), a_task("idle", priority=9), graph="h")
    assert driven.offered(2) == ["h.urgent", "g.t0"]
    driven.start("h.urgent")
    driven.start("g.t1")
    assert driven.offered(3) == ["g.t0", "g.t2", "g.t3"]
    assert driven.offered()[-1] == "h.idle"


def test_a_later_graph_lengthens_the_path_of_an_earlier_task(driven: Driven) -> None:
    driven.submit(a_task("a"), a_task("b"), a_task("c"), a_task("d", "b"))
    assert driven.offered() == ["g.b", "g.a", "g.c"]
    driven.submit(a_task("x", "g.c"), a_task("y", "x"), graph="h")
    assert driven.offered() == ["g.c", "g.b", "g.a"]
    driven.submit(a_task("z", "g.d", estimate_s=50.0), graph="i")
    assert driven.offered() == ["g.b", "g.c", "g.a"]
    assert driven.task("g.b").rest_s == 52.0


def test_paths_are_right_in_any_order_within_a_graph(driven: Driven) -> None:
    driven.submit(
        a_task("end", "mid1", "mid2"), a_task("mid1", "start"), a_task("start"), a_task("mid2", "start", estimate_s=3.0)
    )
    assert [driven.task(f"g.{name}").rest_s for name in ("end", "mid1", "start", "mid2")] == [1.0, 2.0, 5.0, 4.0]


def test_lengthening_earlier_paths_is_bounded(driven: Driven) -> None:
    count = LENGTHEN_LIMIT + 50
    driven.submit(a_task("t0"), *(a_task(f"t{number}", f"t{number - 1}") for number in range(1, count)))
    driven.submit(a_task("more", f"g.t{count - 1}", estimate_s=1000.0), graph="h")
    assert driven.task(f"g.t{count - 1}").rest_s == 1001.0
    assert driven.task("g.t0").rest_s == count


def test_stale_entries_do_not_pile_up() -> None:
    scheduler = Scheduler()
    scheduler.handle(Submitted(graph="first", specs=(a_task("a", priority=9),)), 1.0)
    for number in range(5000):
        scheduler.handle(Submitted(graph=f"g{number}", specs=(a_task("a", timeout_s=1e6, deadline_s=1e6),)), 1.0)
        scheduler.handle(Started(task=f"g{number}.a", attempt=1, worker="w"), 1.0)
        scheduler.handle(Finished(task=f"g{number}.a", attempt=1), 1.0)
        if number % 2:
            # Each lengthens the path of the first task, and so gives it a new place in the queue.
            scheduler.handle(Submitted(graph=f"x{number}", specs=(a_task("x", "first.a", estimate_s=float(number)),)), 1.0)
    assert len(scheduler.table.timers) < 3000
    assert len(scheduler.table.ready) < 3000
    invariants.check(scheduler)
