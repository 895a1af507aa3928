"""What `starts` offers, by the rules of pools, agents and providers, in simulated time."""

from __future__ import annotations

from math import inf

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from supervisord_agents.core.breakers import Breaker, BreakerState
from supervisord_agents.core.events import BreakerReset, PauseRequested, Started
from supervisord_agents.core.model import Category, Failure, State
from supervisord_agents.core.placement import AgentRule, Placement, ProviderRule, Rules
from supervisord_agents.core.rates import Rate
from supervisord_agents.core.scaling import PoolRule, Size
from supervisord_agents.core.scheduler import Scheduler
from supervisord_agents.errors import InvalidInput, NotFound
from tests.support.scheduling import POOL, Driven, a_task

PROVIDER = "provider"
BROKEN = Failure("WORKER_FAILED", "no answer")


class Placed(Driven):
    """A driven scheduler that obeys rules, and starts all that is offered."""

    def __init__(self, **rules: dict[str, object]) -> None:
        super().__init__()
        self.scheduler.placement = Placement(Rules(**rules))  # type: ignore[arg-type]

    def offers(self, **free: int) -> list[tuple[str, str, str]]:
        """Task, pool and agent (empty: its first) of all that may start; asking again answers the same."""
        free = free or {POOL: 100}
        starts = self.scheduler.starts(free, self.now)
        assert self.scheduler.starts(free, self.now) == starts
        return [(start.task.partition(".")[2], start.pool, start.agent) for start in starts]

    def start_all(self, **free: int) -> list[str]:
        started = []
        for start in self.scheduler.starts(free or {POOL: 100}, self.now):
            pool = start.pool if start.pool != self.task(start.task).pool else ""
            event = Started(task=start.task, attempt=start.attempt, worker="w", pool=pool, agent=start.agent, note=start.note)
            self.feed(event)
            started.append(start.task)
        return started

    def fail_in_a_row(self, count: int, agent: str = "qwen") -> None:
        """So many tasks of an agent fail for want of an answer."""
        graph = f"bad{self.now:.0f}"
        self.submit(*(a_task(f"b{number}", agent=agent, max_retries=0) for number in range(count)), graph=graph)
        for task in self.start_all():
            self.finish(task, BROKEN)


def some(count: int, **fields: object) -> list:
    return [a_task(f"t{number}", **fields) for number in range(count)]


# The size of a pool


def test_a_hybrid_pool_grows_by_one_when_more_than_five_wait_for_ten_seconds() -> None:
    placed = Placed(pools={POOL: PoolRule(min_workers=2, max_workers=4, scaling="hybrid", scale_up_wait_s=inf)})
    placed.submit(*some(12))
    assert len(placed.start_all()) == 2
    assert placed.scheduler.placement.again_at == placed.now + 10.0
    placed.wait(9.9)
    assert placed.offers() == []
    placed.wait(0.1)
    assert len(placed.start_all()) == 1
    placed.wait(10.0)
    assert len(placed.start_all()) == 1
    placed.wait(100.0)
    assert placed.offers() == []  # at its ceiling


def test_five_that_wait_are_not_more_than_five() -> None:
    placed = Placed(pools={POOL: PoolRule(min_workers=2, max_workers=4, scaling="hybrid", scale_up_wait_s=inf)})
    placed.submit(*some(7))
    placed.start_all()
    placed.wait(1000.0)
    assert placed.offers() == []
    assert placed.scheduler.placement.again_at == inf


def test_a_hybrid_pool_grows_for_few_that_wait_for_long() -> None:
    placed = Placed(pools={POOL: PoolRule(min_workers=2, max_workers=4, scaling="hybrid")})
    placed.submit(*some(3))
    placed.start_all()
    placed.wait(29.0)
    assert placed.offers() == []
    placed.wait(1.0)
    assert len(placed.offers()) == 1


def test_a_hybrid_pool_shrinks_by_one_when_not_all_had_work_for_a_minute() -> None:
    placed = Placed(pools={POOL: PoolRule(min_workers=1, max_workers=3, scaling="hybrid", scale_up_s=1.0)})
    placed.submit(*some(20))
    for _ in range(3):
        placed.start_all()
        placed.wait(1.0)
    assert placed.scheduler.placement.size(POOL, placed.now) == 3
    placed.cancel("g")
    placed.offers()
    placed.wait(59.0)
    assert placed.scheduler.placement.size(POOL, placed.now) == 3
    placed.wait(1.0)
    assert placed.scheduler.placement.size(POOL, placed.now) == 2
    placed.wait(600.0)
    assert placed.scheduler.placement.size(POOL, placed.now) == 1


@pytest.mark.parametrize("scaling", ["on-demand", "pre-warmed"])
def test_other_pools_run_as_many_as_they_may_at_once(scaling: str) -> None:
    placed = Placed(pools={POOL: PoolRule(min_workers=1, max_workers=4, scaling=scaling)})  # type: ignore[arg-type]
    placed.submit(*some(9))
    assert len(placed.start_all()) == 4


def test_a_hybrid_pool_without_warm_workers_works() -> None:
    placed = Placed(pools={POOL: PoolRule(min_workers=0, max_workers=4, scaling="hybrid")})
    placed.submit(*some(2))
    assert len(placed.start_all()) == 1


@given(
    steps=st.lists(st.tuples(st.floats(0.0, 200.0), st.integers(0, 20), st.integers(0, 20)), max_size=30),
    rule=st.builds(
        PoolRule,
        min_workers=st.integers(0, 3),
        max_workers=st.integers(3, 8),
        scaling=st.just("hybrid"),
        scale_up_s=st.sampled_from((1.0, 10.0)),
        idle_s=st.sampled_from((5.0, 60.0)),
    ),
)
@settings(max_examples=200)
def test_a_size_stays_within_its_bounds_and_grows_one_step_at_a_time(steps: list[tuple[float, int, int]], rule: PoolRule) -> None:
    size, now = Size(rule), 0.0
    for wait_s, running, waiting in steps:
        before = size.workers
        now += wait_s
        size.advance(now)
        assert rule.floor <= size.workers <= rule.max_workers
        assert size.workers - before <= wait_s / min(rule.scale_up_s, rule.scale_up_wait_s) + 1
        size.observe(min(running, size.workers), waiting, now)
        assert size.due > now


# Borrowing


LENT = {
    "high": PoolRule(max_workers=1, borrows_from=("low",)),
    "low": PoolRule(max_workers=3),
}


def test_a_pool_whose_workers_are_busy_borrows_from_one_for_which_nothing_waits() -> None:
    placed = Placed(pools=LENT)
    placed.submit(*some(5, pool="high"))
    assert placed.offers(high=1, low=3) == [("t0", "high", ""), ("t1", "low", ""), ("t2", "low", "")]
    placed.start_all(high=1, low=3)
    assert (placed.scheduler.running("high"), placed.scheduler.running("low")) == (1, 2)
    assert "pool low" in placed.task("g.t1").history[-1].message
    # The last worker is never lent.
    assert placed.offers(high=0, low=1) == []
    placed.submit(*some(2, pool="low"), graph="own")
    assert placed.offers(high=0, low=1) == [("t0", "low", "")]
    placed.finish("g.t1")
    assert (placed.scheduler.running("high"), placed.scheduler.running("low")) == (1, 1)


def test_nothing_is_lent_while_a_task_of_the_lender_waits() -> None:
    placed = Placed(pools=LENT)
    placed.submit(*some(4, pool="low"), graph="own")
    placed.submit(*some(3, pool="high"))
    assert [pool for _, pool, _ in placed.offers(high=1, low=3)] == ["high", "low", "low", "low"]


def test_nothing_is_lent_either_while_it_waits_for_its_agent_only() -> None:
    placed = Placed(pools=LENT, agents={"qwen": AgentRule(max_running=1)})
    placed.submit(*some(2, pool="low", agent="qwen"), graph="own")
    placed.submit(*some(3, pool="high"))
    assert placed.offers(high=1, low=3) == [("t0", "high", ""), ("t0", "low", "")]


def test_borrowed_workers_are_counted_as_the_lenders_after_a_restart_too() -> None:
    placed = Placed(pools=LENT)
    placed.submit(*some(3, pool="high"))
    placed.start_all(high=1, low=3)
    restored = Scheduler.restore(placed.scheduler.snapshot())
    assert (restored.running("high"), restored.running("low")) == (1, 2)
    assert placed.replayed().snapshot() == placed.scheduler.snapshot()


def test_a_cap_leaves_room_for_what_is_borrowed() -> None:
    placed = Placed(pools=LENT, agents={"qwen": AgentRule(max_running=2)})
    placed.submit(*some(3, pool="high", agent="qwen"))
    assert placed.offers(high=1, low=3) == [("t0", "high", ""), ("t1", "low", "")]


def test_what_the_lender_starts_itself_is_not_in_the_way() -> None:
    placed = Placed(pools=LENT)
    placed.submit(*some(2, pool="high"), a_task("own", pool="low"))
    assert placed.offers(high=1, low=3) == [("t0", "high", ""), ("own", "low", ""), ("t1", "low", "")]


def test_a_pool_that_may_start_no_more_now_borrows_nothing_either() -> None:
    rated = {**LENT, "high": PoolRule(max_workers=5, starts_per_s=1.0, borrows_from=("low",))}
    placed = Placed(pools=rated)
    placed.submit(*some(4, pool="high"))
    assert placed.start_all(high=5, low=3) == ["g.t0"]
    assert placed.offers(high=4, low=3) == []
    assert placed.scheduler.placement.again_at == placed.now + 1.0


def test_a_paused_pool_lends_nothing() -> None:
    placed = Placed(pools=LENT)
    placed.submit(*some(3, pool="high"))
    placed.feed(PauseRequested(pool="low"))
    assert placed.offers(high=1, low=3) == [("t0", "high", "")]


def test_a_paused_pool_does_not_borrow() -> None:
    placed = Placed(pools=LENT)
    placed.submit(*some(3, pool="high"))
    placed.feed(PauseRequested(pool="high"))
    assert placed.offers(high=1, low=3) == []


# Caps and rates


def test_an_agent_runs_no_more_at_once_than_its_licence_allows() -> None:
    placed = Placed(agents={"qwen": AgentRule(max_running=2)})
    placed.submit(*some(5, agent="qwen"), a_task("other"))
    assert {task for task, _, _ in placed.offers()} == {"t0", "t1", "other"}
    placed.start_all()
    assert placed.offers() == []
    placed.finish("g.t0")
    assert placed.offers() == [("t2", POOL, "")]
    assert "2 at once" in placed.scheduler.why_not(placed.task("g.t3"), placed.now) or placed.offers()


def test_the_cap_of_an_agent_holds_over_all_pools() -> None:
    placed = Placed(agents={"qwen": AgentRule(max_running=3)})
    placed.submit(*some(4, agent="qwen", pool="a"), graph="ga")
    placed.submit(*some(4, agent="qwen", pool="b"), graph="gb")
    assert len(placed.offers(a=2, b=2)) == 3


def test_an_agent_starts_no_more_often_than_its_rate() -> None:
    placed = Placed(agents={"qwen": AgentRule(starts_per_minute=6)})
    placed.submit(*some(9, agent="qwen"))
    assert len(placed.start_all()) == 1
    assert placed.scheduler.placement.again_at == placed.now + 10.0
    assert "6 a minute" in placed.scheduler.why_not(placed.task("g.t5"), placed.now)
    placed.wait(9.0)
    assert placed.offers() == []
    placed.wait(1.0)
    assert len(placed.start_all()) == 1


def test_the_agents_of_a_provider_share_its_rate() -> None:
    rules = {name: AgentRule(provider=PROVIDER) for name in ("qwen", "gemini")}
    placed = Placed(agents=rules, providers={PROVIDER: ProviderRule(starts_per_minute=120)})
    placed.submit(*some(3, agent="qwen"), *(a_task(f"g{number}", agent="gemini") for number in range(3)))
    assert len(placed.start_all()) == 2
    placed.wait(0.5)
    assert len(placed.start_all()) == 1


def test_a_pool_smooths_a_herd() -> None:
    placed = Placed(pools={POOL: PoolRule(max_workers=100, starts_per_s=10.0)})
    placed.submit(*some(35))
    counts = []
    for _ in range(5):
        counts.append(len(placed.start_all()))
        placed.wait(1.0)
    assert counts == [10, 10, 10, 5, 0]


@given(st.lists(st.floats(0.0, 5.0), min_size=1, max_size=60), st.sampled_from((0.25, 1.0, 3.0, 10.0)))
def test_a_rate_is_kept_in_every_window(waits: list[float], per_s: float) -> None:
    rate, now, taken = Rate(per_s), 0.0, []
    for wait_s in waits:
        now += wait_s
        for _ in range(rate.left(now)):
            rate.take(now)
            taken.append(now)
        assert rate.left(now) == 0
        assert rate.left(rate.next_at(now) + 1e-6) >= 1
    for position, first in enumerate(taken):
        within = sum(at < first + 10.0 for at in taken[position:])
        assert within <= 10.0 * per_s + max(1.0, per_s) + 1e-6


# Breakers


def breaking(failures: int = 3) -> Placed:
    return Placed(agents={"qwen": AgentRule(breaker=Breaker(failures, 60.0)), "gemini": AgentRule()})


def test_an_agent_that_fails_again_and_again_is_left_alone_and_then_tried_by_one() -> None:
    placed = breaking()
    placed.fail_in_a_row(2)
    placed.submit(*some(4, agent="qwen"))
    assert len(placed.offers()) == 4
    placed.start("g.t0")
    placed.finish("g.t0", BROKEN)
    assert placed.offers() == []
    assert "no answer" in placed.scheduler.why_not(placed.task("g.t1"), placed.now)
    assert placed.scheduler.placement.again_at == placed.now + 60.0
    placed.wait(60.0)
    probe = placed.start_all()
    assert len(probe) == 1
    assert placed.offers() == []  # one at a time
    placed.finish(probe[0], BROKEN)
    assert placed.offers() == []  # open again, for as long
    placed.wait(60.0)
    probe = placed.start_all()
    placed.finish(probe[0])
    assert len(placed.offers()) == 3  # closed


def test_failures_of_the_task_itself_open_no_breaker() -> None:
    placed = breaking(1)
    placed.submit(*some(3, agent="qwen"))
    placed.start_all()
    placed.finish("g.t0", Failure("WORKER_FAILED", "a bad input", retriable=False))
    placed.finish("g.t1", Failure("OUT_OF_MEMORY"))
    placed.finish("g.t2", Failure("WORKER_FAILED", "no", category=Category.PERMANENT))
    assert placed.scheduler.table.health == {}
    assert placed.state("g.t2") is State.FAILED


def test_a_timeout_counts_against_the_agent() -> None:
    placed = breaking(1)
    placed.submit(a_task("t", agent="qwen", timeout_s=5.0), a_task("u", agent="qwen"))
    placed.start("g.t")
    placed.wait(5.0)
    assert placed.offers() == []


def test_a_breaker_is_reset_by_hand_and_outlives_a_restart() -> None:
    placed = breaking(1)
    placed.fail_in_a_row(1)
    placed.submit(*some(2, agent="qwen"))
    assert placed.offers() == []
    rules = placed.scheduler.placement.rules
    for scheduler in (placed.replayed(), Scheduler.restore(placed.scheduler.snapshot())):
        scheduler.placement = Placement(rules)
        assert scheduler.starts({POOL: 9}, placed.now) == []
    with pytest.raises(NotFound, match="qwen"):
        placed.feed(BreakerReset(agent="gemini"))
    placed.feed(BreakerReset(agent="qwen"))
    assert len(placed.offers()) == 2


def test_a_task_with_a_choice_goes_to_the_next_agent_while_the_first_is_left_alone() -> None:
    placed = breaking(1)
    placed.fail_in_a_row(1)
    placed.submit(*some(2, agent="qwen", agents=("qwen", "gemini")), a_task("only", agent="qwen"))
    assert placed.offers() == [("t0", POOL, "gemini"), ("t1", POOL, "gemini")]
    placed.start_all()
    task = placed.task("g.t0")
    assert (task.agent, task.spec_of_attempt.agent) == ("gemini", "gemini")
    assert "breaker of agent qwen" in task.history[-1].message
    assert Scheduler.restore(placed.scheduler.snapshot()).tasks["g.t0"].agent == "gemini"
    # Another attempt begins with the first again.
    placed.finish("g.t0", BROKEN)
    placed.finish("g.t1")
    placed.wait(100.0)
    assert placed.task("g.t0").agent == "qwen"


def test_the_probe_of_a_task_with_a_choice_leaves_the_others_to_the_next_agent() -> None:
    placed = breaking(1)
    placed.fail_in_a_row(1)
    placed.wait(60.0)
    placed.submit(*some(3, agent="qwen", agents=("qwen", "gemini")))
    assert placed.offers() == [("t0", POOL, ""), ("t1", POOL, "gemini"), ("t2", POOL, "gemini")]


def test_an_agent_that_is_only_busy_is_waited_for() -> None:
    placed = Placed(agents={"qwen": AgentRule(max_running=1)})
    placed.submit(*some(2, agent="qwen", agents=("qwen", "gemini")))
    assert placed.offers() == [("t0", POOL, "")]


def test_a_paused_agent_is_passed_over_where_there_is_a_choice() -> None:
    placed = Placed()
    placed.submit(*some(1, agent="qwen", agents=("qwen", "gemini")), a_task("only", agent="qwen"))
    placed.feed(PauseRequested(agent="qwen"))
    assert placed.offers() == [("t0", POOL, "gemini")]
    placed.feed(PauseRequested(agent="gemini"))
    assert placed.offers() == []


def test_agents_to_choose_from_must_differ_and_begin_with_the_agent() -> None:
    placed = Placed()
    for agents in (("gemini", "qwen"), ("qwen", "qwen")):
        with pytest.raises(InvalidInput, match=r"tasks\[0\].agents"):
            placed.submit(a_task("t", agent="qwen", agents=agents))


# Providers


def of_a_provider() -> Placed:
    rules = {name: AgentRule(provider=PROVIDER) for name in ("qwen", "opencode")}
    return Placed(agents=rules, providers={PROVIDER: ProviderRule(breaker=Breaker(2, 60.0))})


def test_no_agent_of_a_provider_that_fails_is_started() -> None:
    placed = of_a_provider()
    placement = placed.scheduler.placement
    placed.submit(*some(2, agent="qwen"), a_task("o", agent="opencode"), a_task("c"))
    for _ in range(2):
        placement.answered(PROVIDER, placed.now, "it failed (503)")
    assert placed.offers() == [("c", POOL, "")]
    assert "503" in placed.scheduler.why_not(placed.task("g.o"), placed.now)
    placed.wait(60.0)
    assert len(placed.offers()) == 2  # one of its agents is the probe
    placed.start_all()
    assert placed.offers() == []
    assert placement.answered(PROVIDER, placed.now)
    assert not placement.answered(PROVIDER, placed.now)
    assert placement.provider_state(PROVIDER, placed.now) is BreakerState.CLOSED
    assert len(placed.offers()) == 2


def test_a_provider_is_left_alone_for_as_long_as_it_asks() -> None:
    placed = of_a_provider()
    placed.submit(*some(2, agent="qwen"))
    placed.scheduler.placement.answered(PROVIDER, placed.now, "it limits the rate (429)", retry_after_s=20.0)
    assert placed.offers() == []
    assert placed.scheduler.placement.again_at == placed.now + 20.0
    placed.wait(20.0)
    assert len(placed.offers()) == 2


def test_what_a_provider_has_asked_for_ends_with_a_success_or_by_hand() -> None:
    placed = of_a_provider()
    placed.submit(*some(2, agent="qwen"))
    placement = placed.scheduler.placement
    for lift in (lambda: placement.answered(PROVIDER, placed.now), lambda: placement.reset(PROVIDER)):
        assert placement.answered(PROVIDER, placed.now, "it limits the rate (429)", retry_after_s=86400.0)
        assert placed.offers() == []
        assert lift()
        assert len(placed.offers()) == 2


# Retries


def test_a_retry_is_not_sooner_than_a_provider_has_asked_for() -> None:
    placed = Placed()
    placed.submit(a_task("t", backoff_s=1.0))
    placed.run("g.t", Failure("WORKER_FAILED", category=Category.RATE_LIMITED, retry_after_s=100.0))
    due = placed.scheduler.next_due()
    assert due is not None
    assert 100.0 <= due - placed.now <= 125.0


def test_another_agent_need_not_wait_for_what_the_first_was_asked_for() -> None:
    placed = Placed()
    placed.submit(a_task("t", agent="qwen", agents=("qwen", "gemini"), backoff_s=1.0))
    placed.run("g.t", Failure("WORKER_FAILED", category=Category.RATE_LIMITED, retry_after_s=100.0))
    due = placed.scheduler.next_due()
    assert due is not None
    assert due - placed.now < 2.0


def test_a_retry_that_would_come_after_the_deadline_is_none() -> None:
    placed = Placed()
    placed.submit(a_task("t", deadline_s=90.0))
    placed.run("g.t", Failure("WORKER_FAILED", category=Category.RATE_LIMITED, retry_after_s=100.0))
    assert placed.code("g.t") == "DEADLINE"
