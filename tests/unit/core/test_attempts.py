"""Starts, ends, retries, timeouts, deadlines, and what a restart of the daemon loses."""

from __future__ import annotations

import pytest

from supervisord_agents.core import policy
from supervisord_agents.core.events import Changed, Finished, Restarted, Slept, Started, Stop
from supervisord_agents.core.model import MAX_COST_USD, MAX_TOKENS, Failure, State, Usage
from supervisord_agents.core.scheduler import Scheduler
from supervisord_agents.core.task import HISTORY_LIMIT
from supervisord_agents.errors import InvalidTransition
from tests.support.scheduling import POOL, Driven, a_task


@pytest.fixture
def driven() -> Driven:
    return Driven()


def test_a_task_goes_from_ready_over_running_to_succeeded(driven: Driven) -> None:
    at = driven.now
    assert driven.submit(a_task("a")) == [Changed(task="g.a", before=None, after=State.READY, at=at)]
    assert driven.start("g.a") == [Changed(task="g.a", before=State.READY, after=State.RUNNING, at=at, attempt=1)]
    assert driven.task("g.a").worker == "w1"
    driven.now += 2
    assert driven.finish("g.a") == [Changed(task="g.a", before=State.RUNNING, after=State.SUCCEEDED, at=at + 2, attempt=1)]
    task = driven.task("g.a")
    assert (task.submitted_at, task.started_at, task.ended_at) == (at, at, at + 2)
    assert [moment.state for moment in task.history] == [State.READY, State.RUNNING, State.SUCCEEDED]


def test_a_start_that_is_not_of_the_next_attempt_is_ignored(driven: Driven) -> None:
    driven.submit(a_task("a"))
    for attempt in (0, 2):
        assert driven.feed(Started(task="g.a", attempt=attempt, worker="w")) == []
    driven.start("g.a")
    assert driven.feed(Started(task="g.a", attempt=1, worker="other")) == []
    assert driven.feed(Started(task="g.a", attempt=2, worker="other")) == []
    assert driven.task("g.a").worker == "w1"
    assert driven.feed(Started(task="g.nobody", attempt=1, worker="w")) == []


def test_the_end_of_an_attempt_that_is_over_is_ignored(driven: Driven) -> None:
    driven.submit(a_task("a", backoff_s=1.0))
    assert driven.feed(Finished(task="g.a", attempt=0)) == []
    driven.run("g.a", "WORKER_FAILED")
    driven.wait_until_due()
    driven.start("g.a")
    late = Finished(task="g.a", attempt=1, usage=Usage(1, 1, 1.0))
    assert driven.feed(late) == []
    assert driven.state("g.a") is State.RUNNING
    driven.finish("g.a")
    assert driven.feed(late) == []
    assert driven.task("g.a").usage == Usage()
    assert driven.feed(Finished(task="g.nobody", attempt=1)) == []


def test_a_failure_that_no_retry_can_mend_ends_the_task_with_its_own_code(driven: Driven) -> None:
    driven.submit(a_task("a"))
    failure = Failure("SANDBOX_DENIED", "no such file", retriable=False)
    decisions = driven.run("g.a", failure)
    assert decisions[-1] == Changed(
        task="g.a", before=State.RUNNING, after=State.FAILED, at=driven.now, attempt=1, failure=failure
    )
    assert driven.task("g.a").failure == failure


def test_a_failure_is_retried_after_a_backoff_that_doubles(driven: Driven) -> None:
    driven.submit(a_task("a", max_retries=3, backoff_s=2.0))
    for retry in (1, 2, 3):
        driven.run("g.a", "WORKER_FAILED")
        assert driven.state("g.a") is State.BACKING_OFF
        assert driven.code("g.a") == "WORKER_FAILED"
        delay_s = driven.task("g.a").retry_at - driven.now
        nominal_s = 2.0 * 2 ** (retry - 1)
        assert 0.75 * nominal_s <= delay_s <= 1.25 * nominal_s
        assert driven.scheduler.next_due() == driven.task("g.a").retry_at
        driven.wait(delay_s - 0.01)
        assert driven.state("g.a") is State.BACKING_OFF
        assert driven.offered() == []
        driven.wait_until_due()
        assert driven.offered() == ["g.a"]
    driven.run("g.a", Failure("WORKER_FAILED", "still no", "look"))
    task = driven.task("g.a")
    assert task.state is State.DEAD
    assert task.failure == Failure(
        "MAX_RETRIES", "gave up after 3 retries; the last failure was WORKER_FAILED: still no", "look", retriable=False
    )
    assert task.attempt == 4


def test_without_retries_a_failure_keeps_its_own_code(driven: Driven) -> None:
    driven.submit(a_task("a", max_retries=0))
    driven.run("g.a", "WORKER_FAILED")
    assert (driven.state("g.a"), driven.code("g.a")) == (State.FAILED, "WORKER_FAILED")


def test_a_success_after_a_retry_leaves_no_failure(driven: Driven) -> None:
    driven.submit(a_task("a"))
    driven.run("g.a", "WORKER_FAILED")
    driven.wait_until_due()
    driven.run("g.a")
    assert driven.task("g.a").failure is None


def test_the_delay_is_capped_spread_and_the_same_every_time() -> None:
    delays = [policy.retry_delay_s(f"g.t{number}", 1, 1, 0.0) for number in range(1000)]
    assert delays == [policy.retry_delay_s(f"g.t{number}", 1, 1, 0.0) for number in range(1000)]
    assert 0.75 <= min(delays) < 0.8
    assert 1.2 < max(delays) <= 1.25
    assert policy.retry_delay_s("g.a", 1, 1, 1.0) != policy.retry_delay_s("g.a", 2, 1, 1.0)
    assert 225.0 <= policy.retry_delay_s("g.a", 100, 100, 1.0) <= 375.0
    assert 225.0 <= policy.retry_delay_s("g.a", 100, 100, 1e308) <= 375.0


def test_usage_adds_up_over_attempts(driven: Driven) -> None:
    driven.submit(a_task("a"))
    driven.start("g.a")
    driven.finish("g.a", "WORKER_FAILED", usage=Usage(10, 5, 0.5))
    driven.wait_until_due()
    driven.start("g.a")
    driven.finish("g.a", usage=Usage(1, 2, 0.25))
    assert driven.task("g.a").usage == Usage(11, 7, 0.75)


def test_an_attempt_that_takes_too_long_is_stopped_and_retried(driven: Driven) -> None:
    driven.submit(a_task("a", timeout_s=60.0))
    assert driven.scheduler.next_due() is None
    driven.start("g.a")
    assert (driven.scheduler.slept_s(driven.task("g.a")), driven.scheduler.next_due()) == (0.0, driven.now + 60)
    assert driven.wait(59.9) == []
    decisions = driven.wait(0.1)
    assert decisions[0] == Stop(task="g.a", attempt=1, code="TIMEOUT")
    assert (driven.state("g.a"), driven.code("g.a")) == (State.BACKING_OFF, "TIMEOUT")
    assert "60 s" in driven.message("g.a")
    assert driven.feed(Finished(task="g.a", attempt=1)) == []


def test_a_timeout_without_retries_left_ends_the_task(driven: Driven) -> None:
    driven.submit(a_task("a", timeout_s=60.0, max_retries=0), a_task("b", timeout_s=60.0, max_retries=1))
    driven.start("g.a")
    driven.start("g.b")
    driven.wait(60)
    assert (driven.state("g.a"), driven.code("g.a")) == (State.FAILED, "TIMEOUT")
    driven.wait(5)
    driven.start("g.b")
    driven.wait(60)
    assert (driven.state("g.b"), driven.code("g.b")) == (State.DEAD, "MAX_RETRIES")
    assert "TIMEOUT" in driven.message("g.b")


def test_the_timeout_of_an_attempt_that_ended_never_fires(driven: Driven) -> None:
    driven.submit(a_task("a", timeout_s=60.0), a_task("b", timeout_s=60.0))
    driven.run("g.a")
    driven.run("g.b", "WORKER_FAILED")
    driven.wait_until_due()
    driven.now += 50
    driven.start("g.b")
    assert driven.wait(10) == []
    assert driven.states() == {"a": "succeeded", "b": "running"}


def test_a_deadline_ends_a_task_in_any_state(driven: Driven) -> None:
    driven.submit(
        a_task("running", deadline_s=10.0),
        a_task("ready", deadline_s=10.0),
        a_task("blocked", "ready", deadline_s=9.0),
        a_task("backing", deadline_s=10.0, backoff_s=5.0),
        a_task("done", deadline_s=10.0),
    )
    driven.start("g.running")
    driven.run("g.backing", "WORKER_FAILED")
    driven.run("g.done")
    driven.wait(9)
    assert driven.states() == {
        "running": "running",
        "ready": "ready",
        "blocked": "failed",
        "backing": "ready",
        "done": "succeeded",
    }
    decisions = driven.wait(1)
    assert [decision for decision in decisions if isinstance(decision, Stop)] == [
        Stop(task="g.running", attempt=1, code="DEADLINE")
    ]
    assert driven.states() == {
        "running": "failed",
        "ready": "failed",
        "blocked": "failed",
        "backing": "failed",
        "done": "succeeded",
    }
    assert {driven.code(f"g.{name}") for name in ("running", "ready", "blocked", "backing")} == {"DEADLINE"}
    assert driven.scheduler.next_due() is None


def test_a_retry_that_would_start_after_the_deadline_is_not_waited_for(driven: Driven) -> None:
    driven.submit(a_task("a", deadline_s=10.0, backoff_s=20.0))
    driven.run("g.a", "WORKER_FAILED")
    assert (driven.state("g.a"), driven.code("g.a")) == (State.FAILED, "DEADLINE")
    assert "WORKER_FAILED" in driven.message("g.a")


def test_what_is_due_fires_even_when_the_tick_is_late(driven: Driven) -> None:
    driven.submit(*(a_task(f"t{number}", timeout_s=float(number), max_retries=0) for number in range(1, 6)))
    for number in range(1, 6):
        driven.start(f"g.t{number}")
    stops = [decision.task for decision in driven.wait(4) if isinstance(decision, Stop)]
    assert stops == ["g.t1", "g.t2", "g.t3", "g.t4"]
    assert driven.scheduler.next_due() == driven.now + 1


def test_a_restart_takes_running_attempts_back_without_using_a_retry(driven: Driven) -> None:
    driven.submit(a_task("a", max_retries=0, timeout_s=5.0), a_task("b"))
    driven.start("g.a")
    decisions = driven.restart()
    assert [type(decision) for decision in decisions] == [Changed]
    assert driven.states() == {"a": "ready", "b": "ready"}
    assert (driven.task("g.a").retries, driven.task("g.a").lost, driven.code("g.a")) == (0, 1, "LOST")
    assert driven.scheduler.next_due() is None
    driven.start("g.a")
    assert driven.task("g.a").attempt == 2
    assert driven.feed(Finished(task="g.a", attempt=1)) == []


def test_a_task_lost_ten_times_is_dead(driven: Driven) -> None:
    driven.submit(a_task("a"))
    for _ in range(policy.LOST_LIMIT):
        assert driven.state("g.a") is State.READY
        driven.start("g.a")
        driven.restart()
    assert policy.LOST_LIMIT == 10
    assert (driven.state("g.a"), driven.code("g.a")) == (State.DEAD, "LOST")
    driven.retry("g.a")
    driven.start("g.a")
    driven.restart()
    assert (driven.state("g.a"), driven.task("g.a").lost) == (State.READY, 1)


def test_the_history_is_bounded_and_keeps_the_submission(driven: Driven) -> None:
    driven.submit(a_task("a", max_retries=100, backoff_s=1.0))
    for _ in range(50):
        driven.run("g.a", Failure("WORKER_FAILED", "again"))
        driven.wait_until_due()
    history = driven.task("g.a").history
    assert len(history) == HISTORY_LIMIT
    assert history[0].at == 1000.0
    assert history[-2].code == "WORKER_FAILED"
    assert history[-2].message == "again"
    assert history[-2].attempt == 50


def test_a_change_that_the_table_does_not_have_is_refused_with_the_story(driven: Driven) -> None:
    driven.submit(a_task("a"))
    table = driven.scheduler.table
    before = driven.scheduler.snapshot()
    with pytest.raises(InvalidTransition, match=r"g\.a cannot go from ready to succeeded \(so far: ready at 1000"):
        table.move(driven.task("g.a"), State.SUCCEEDED, driven.now)
    assert driven.scheduler.snapshot() == before


def test_counts_follow_the_states(driven: Driven) -> None:
    driven.submit(a_task("a"), a_task("b", "a"), a_task("c", pool="other"))
    scheduler = driven.scheduler
    assert (scheduler.waiting(POOL), scheduler.waiting("other"), scheduler.waiting("unknown")) == (1, 1, 0)
    driven.start("g.a")
    assert (scheduler.waiting(POOL), scheduler.running(POOL), scheduler.running("other")) == (0, 1, 0)
    assert [task.id for task in scheduler.running_tasks()] == ["g.a"]
    assert {state: count for state, count in scheduler.counts.items() if count} == {
        State.READY: 1,
        State.BLOCKED: 1,
        State.RUNNING: 1,
    }


def test_an_empty_scheduler_has_nothing_to_do() -> None:
    scheduler = Scheduler()
    assert scheduler.starts({POOL: 3}) == []
    assert scheduler.next_due() is None


def test_a_long_message_is_whole_in_the_failure_and_short_in_the_history(driven: Driven) -> None:
    driven.submit(a_task("a", max_retries=0))
    driven.run("g.a", Failure("WORKER_FAILED", "x" * 4000))
    assert len(driven.message("g.a")) == 4000
    assert len(driven.task("g.a").history[-1].message) == 500


def test_what_is_consumed_is_added_up_to_a_bound() -> None:
    most = Usage(MAX_TOKENS, MAX_TOKENS, MAX_COST_USD)
    assert most + Usage(1, 1, 1.0) == most
    assert (Usage(1, 2, 0.5) + Usage(3, 4, 0.5)) == Usage(4, 6, 1.0)


def test_an_attempt_ended_by_an_orderly_stop_is_not_held_against_the_task(driven: Driven) -> None:
    driven.submit(a_task("a"))
    for _ in range(20):
        driven.start("g.a")
        driven.feed(Restarted(clean=True))
    assert (driven.state("g.a"), driven.task("g.a").lost) == (State.READY, 0)


def test_time_that_the_machine_slept_does_not_count_towards_the_timeout_of_what_ran_then() -> None:
    driven = Driven()
    driven.submit(
        a_task("a", timeout_s=60.0, max_retries=3),
        a_task("b", timeout_s=60.0, max_retries=0),
        a_task("c", timeout_s=60.0, max_retries=0),
    )
    driven.start("g.a")
    driven.now += 20
    driven.start("g.b")
    driven.now += 3600
    driven.feed(Slept(seconds=3600))
    driven.start("g.c")
    assert driven.scheduler.slept_s(driven.task("g.a")) == 3600
    driven.wait(39)
    assert driven.state("g.a") is State.RUNNING
    restored = Scheduler.restore(driven.scheduler.snapshot())
    assert restored.next_due() == driven.scheduler.next_due() == driven.now + 1
    assert driven.replayed().snapshot() == driven.scheduler.snapshot()
    driven.wait(1)
    assert driven.code("g.a") == "TIMEOUT"
    driven.wait(20)
    assert [driven.code(name) for name in ("g.b", "g.c")] == ["TIMEOUT", "TIMEOUT"]
    driven.start("g.a")
    assert driven.scheduler.next_due() == driven.now + 60


def test_an_attempt_that_began_while_it_was_not_yet_known_slept_no_longer_than_it_ran() -> None:
    driven = Driven()
    driven.submit(a_task("a", timeout_s=60.0))
    driven.start("g.a")
    driven.now += 1
    driven.feed(Slept(seconds=3600))
    driven.wait(60)
    assert driven.code("g.a") == "TIMEOUT"


def test_a_deadline_does_not_wait_for_a_machine_that_sleeps() -> None:
    driven = Driven()
    driven.submit(a_task("a", deadline_s=100.0))
    driven.start("g.a")
    driven.now += 3600
    driven.feed(Slept(seconds=3600))
    driven.wait(0)
    assert driven.code("g.a") == "DEADLINE"
