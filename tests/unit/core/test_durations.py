"""How long tasks take: what is learnt of them, in simulated time."""

from __future__ import annotations

import math
import random
import statistics
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from supervisord_agents.core import durations as d
from supervisord_agents.core.durations import Durations, quantile
from supervisord_agents.core.events import Checkpointed, Started
from supervisord_agents.core.model import TaskSpec
from supervisord_agents.core.regression import Regression
from supervisord_agents.core.scheduler import Scheduler
from supervisord_agents.core.task import new_task
from tests.support.scheduling import POOL, Driven, a_task


def took(driven: Driven, seconds: float, spec: TaskSpec | None = None, *, cold: bool = False) -> None:
    """A graph of one task that succeeds after so long."""
    graph = f"g{driven.scheduler.next_order}"
    spec = spec or a_task("a", type="review")
    driven.submit(spec, graph=graph)
    name = f"{graph}.{spec.id}"
    driven.feed(Started(task=name, attempt=1, worker="w", cold=cold))
    driven.now += seconds
    driven.finish(name)


def sized(length: int) -> TaskSpec:
    return a_task("a", type="review", input={"stdin": "x" * length})


def of(driven: Driven, rule_s: float = 0.0, spec: TaskSpec | None = None, *, cold: bool = False) -> d.Prediction:
    return driven.scheduler.durations.predict(spec or a_task("b", type="review"), rule_s, cold=cold)


def test_the_rule_is_believed_until_there_is_something_better() -> None:
    driven = Driven()
    assert of(driven) == d.NOTHING_KNOWN
    assert (of(driven, 60.0).seconds, of(driven, 60.0).method, of(driven, 60.0).error) == (60.0, d.RULE, -1.0)
    for _ in range(d.ENOUGH - 1):
        took(driven, 20.0)
    assert (of(driven, 60.0).method, of(driven, 60.0).count) == (d.RULE, d.ENOUGH - 1)
    took(driven, 20.0)
    seen = of(driven, 60.0)
    assert (seen.method, seen.seconds, seen.error) == (d.AVERAGE, pytest.approx(20.0), pytest.approx(0.0, abs=1e-6))
    assert (of(driven, 60.0, a_task("b", type="other")).method, of(driven).method) == (d.RULE, d.AVERAGE)
    assert of(driven, 20.0).method == d.RULE  # as good, and simpler


def test_an_estimate_of_its_own_wins() -> None:
    driven = Driven()
    took(driven, 20.0)
    own = of(driven, 60.0, a_task("b", type="review", estimate_s=7.0))
    assert (own.seconds, own.method) == (7.0, d.GIVEN)


def test_the_average_follows_a_drift() -> None:
    driven = Driven()
    for _ in range(50):
        took(driven, 10.0)
    for _ in range(15):
        took(driven, 30.0)
    seen = of(driven, 10.0)
    assert seen.method != d.RULE
    assert seen.seconds == pytest.approx(30.0, rel=0.1)


def test_the_regression_is_better_than_the_average_where_size_decides() -> None:
    driven, dice = Driven(), random.Random(1)
    for _ in range(80):
        length = int(math.exp(dice.uniform(3, 11)))
        took(driven, 0.01 * length + 1.0, sized(length))
    kind = driven.scheduler.durations.kinds["command", "review"]
    assert kind.regression_error < 0.5 * kind.average_error
    for length in (200, 2_000, 20_000):
        seen = of(driven, 0.0, sized(length))
        assert (seen.method, seen.seconds) == (d.REGRESSION, pytest.approx(0.01 * length + 1.0, rel=0.4))
        assert seen.low_s < seen.seconds < seen.high_s


def test_the_error_is_that_of_what_was_said_before_it_was_known() -> None:
    driven = Driven()
    took(driven, 10.0)
    took(driven, 20.0)
    assert driven.scheduler.durations.kinds["command", "review"].average_error == pytest.approx(0.5)


def test_eight_of_ten_lie_in_the_range() -> None:
    driven, dice = Driven(), random.Random(2)
    for _ in range(100):
        took(driven, dice.uniform(10.0, 20.0))
    seen = of(driven)
    within = sum(seen.low_s <= dice.uniform(10.0, 20.0) <= seen.high_s for _ in range(1000))
    assert 700 < within < 900


def test_a_cold_start_that_was_seen_is_counted() -> None:
    driven = Driven()
    took(driven, 30.0, cold=True)
    assert of(driven, cold=True).seconds == of(driven).seconds == 30.0  # nothing to compare it with yet
    for _ in range(30):
        took(driven, 5.0)
    took(driven, 30.0, cold=True)
    assert of(driven).seconds == pytest.approx(5.0, rel=0.1)
    assert of(driven, cold=True).seconds == pytest.approx(30.0, rel=0.1)
    for _ in range(20):
        took(driven, 500.0, cold=True)
    assert of(driven, cold=True).penalty == d.MOST_PENALTY


def test_only_success_is_learnt_from() -> None:
    driven = Driven()
    driven.submit(a_task("a"))
    driven.start("g.a")
    driven.now += 5.0
    driven.finish("g.a", "WORKER_FAILED")
    assert not driven.scheduler.durations.kinds


def with_timeouts(driven: Driven, most_s: float, floor_s: float = 1.0, spec: TaskSpec | None = None) -> float:
    return driven.scheduler.durations.timeout_s(spec or a_task("b", type="review"), 0.0, most_s, floor_s)


def test_a_timeout_is_half_as_long_again_as_the_slowest_but_five_of_a_hundred() -> None:
    driven = Driven()
    shuffled = [float(37 * number % 101) for number in range(1, 101)]
    for seconds in shuffled[:19]:
        took(driven, seconds)
    assert with_timeouts(driven, 600.0) == 600.0  # too few
    for seconds in shuffled[19:]:
        took(driven, seconds)
    assert with_timeouts(driven, 600.0) == pytest.approx(95.05 * 1.5)
    assert with_timeouts(driven, 120.0) == 120.0
    assert with_timeouts(driven, 600.0, floor_s=300.0) == 300.0
    assert with_timeouts(driven, 600.0, floor_s=900.0) == 600.0


def test_a_task_larger_than_all_before_has_a_longer_timeout() -> None:
    driven, dice = Driven(), random.Random(3)
    for _ in range(60):
        length = int(math.exp(dice.uniform(5, 8)))
        took(driven, 0.01 * length, sized(length))
    usual_s = with_timeouts(driven, 6000.0, spec=sized(2_000))
    assert usual_s < 60.0
    assert with_timeouts(driven, 6000.0, spec=sized(20_000)) > 150.0


def test_timeouts_grow_again_when_tasks_have_become_slower() -> None:
    """Only what ends in time succeeds: of success alone, a timeout made of it could never grow."""
    driven = Driven()
    for _ in range(100):
        took(driven, 10.0)
    for round_ in range(40):
        timeout_s = with_timeouts(driven, 600.0)
        driven.submit(a_task("a", type="review", timeout_s=timeout_s, max_retries=0), graph=f"slow{round_}")
        driven.start(f"slow{round_}.a")
        if timeout_s > 100.0:
            break
        driven.wait(timeout_s)
        assert driven.code(f"slow{round_}.a") == "TIMEOUT"
    else:
        pytest.fail("tasks of 100 s are cut off for ever")


def test_of_too_many_kinds_the_one_not_heard_of_for_longest_goes() -> None:
    durations = Durations()
    for name in (*map(str, range(d.MOST_KINDS)), "0", "one more"):
        durations.succeeded(new_task("g", a_task("a", type=name), 0, 0.0, ""), 1.0)
    assert len(durations.kinds) == d.MOST_KINDS
    assert ("command", "0") in durations.kinds
    assert ("command", "1") not in durations.kinds


def test_a_snapshot_and_a_replay_know_the_same() -> None:
    driven, dice = Driven(), random.Random(4)
    for number in range(40):
        took(driven, dice.uniform(0.1, 9.0), sized(dice.randrange(1, 9_000)), cold=number % 7 == 0)
    driven.submit(a_task("x"), graph="running")
    driven.feed(Started(task="running.x", attempt=1, worker="w", cold=True))
    data = driven.scheduler.snapshot()
    restored = Scheduler.restore(data)
    assert restored.snapshot() == driven.replayed().snapshot() == data
    assert restored.durations.cold == {"running.x"}
    spec = sized(500)
    assert restored.durations.predict(spec, 60.0) == driven.scheduler.durations.predict(spec, 60.0)


def test_asking_changes_nothing() -> None:
    driven = Driven()
    for _ in range(30):
        took(driven, 3.0)
    before = driven.scheduler.snapshot()
    of(driven, 1.0)
    with_timeouts(driven, 600.0)
    assert driven.scheduler.snapshot() == before


@given(st.lists(st.floats(0.001, 1e6), min_size=2, max_size=120), st.integers(1, 99))
def test_quantiles_are_those_of_everybody(values: list[float], percent: int) -> None:
    expected = statistics.quantiles(values, n=100, method="inclusive")[percent - 1]
    assert quantile(sorted(values), percent / 100) == pytest.approx(expected, rel=1e-9)


@given(st.lists(st.tuples(st.floats(-7, 16), st.floats(0, 16), st.floats(-7, 16)), max_size=300))
def test_the_regression_stays_within_bounds_whatever_it_is_told(seen: list[tuple[float, float, float]]) -> None:
    regression = Regression([0.0, 1.0, 0.0])
    for first, second, y in seen:
        regression.learn((1.0, first, second), y)
    assert all(map(math.isfinite, [*regression.weights, *(value for row in regression.covariance for value in row)]))
    assert math.isfinite(regression.predict((1.0, 16.0, 16.0)))


def test_the_regression_finds_a_line_and_follows_when_it_moves() -> None:
    regression, dice = Regression([0.0, 0.0]), random.Random(5)

    def learn(count: int, line: Callable[[float], float]) -> None:
        for _ in range(count):
            x = dice.uniform(0, 10)
            regression.learn((1.0, x), line(x) + dice.gauss(0, 0.05))

    learn(40, lambda x: 1.0 + 0.5 * x)
    assert regression.predict((1.0, 4.0)) == pytest.approx(3.0, abs=0.2)
    learn(400, lambda x: 2.0 - 0.3 * x)
    assert regression.predict((1.0, 4.0)) == pytest.approx(0.8, abs=0.2)


def test_a_new_task_knows_what_comes_before_it() -> None:
    driven = Driven()
    driven.submit(a_task("a", priority=5), a_task("b", priority=2), a_task("c", priority=9))
    ahead, paused = driven.scheduler.ahead_of(a_task("n", priority=5, pool=POOL), driven.now, 10)
    assert ([task.short_id for task in ahead], paused) == (["b", "a"], "")


def test_an_attempt_that_went_on_where_another_stopped_says_nothing() -> None:
    driven = Driven()
    driven.submit(a_task("a", backoff_s=1.0))
    driven.start("g.a")
    driven.feed(Checkpointed(task="g.a", attempt=1, step="one", done=True))
    driven.finish("g.a", "WORKER_FAILED")
    driven.wait_until_due()
    driven.run("g.a")
    assert not driven.scheduler.durations.kinds
