"""What is known of running attempts, and who has not moved."""

from __future__ import annotations

import pytest

from supervisord_agents.config import Tasks
from supervisord_agents.core.task import Task
from supervisord_agents.daemon.clock import Clock
from supervisord_agents.daemon.signs import NO_SIGN, Sign, Signs, failure_of
from tests.support.scheduling import Driven, a_task


class Time:
    def __init__(self) -> None:
        self.awake = 0.0
        """Without what the machine slept."""
        self.wall = 5000.0

    def passes(self, seconds: float, *, asleep: bool = False) -> None:
        self.wall += seconds
        self.awake += 0.0 if asleep else seconds


@pytest.fixture
def time() -> Time:
    return Time()


@pytest.fixture
def signs(time: Time) -> Signs:
    made = Signs(Tasks(stall_s=100.0, stalls_s={"slow": 1000.0}), lambda: time.awake)
    made.attach(Clock(wall=lambda: time.wall, boot=lambda: time.wall))
    return made


def running(type: str = "") -> Task:
    driven = Driven()
    driven.submit(a_task("a", type=type))
    driven.start("g.a")
    return driven.task("g.a")


def test_a_sign_says_what_was_reported_and_when_it_last_moved(signs: Signs, time: Time) -> None:
    assert signs.get("g.a") == NO_SIGN
    signs.begun(running())
    assert signs.get("g.a") == Sign(-1.0, "", 5000.0)
    time.passes(10)
    signs.said("g.a", 0.5, "half")
    time.passes(10)
    assert signs.get("g.a") == Sign(0.5, "half", 5010.0)
    signs.moved("g.a")
    assert signs.get("g.a") == Sign(0.5, "half", 5020.0)
    signs.over("g.a")
    assert signs.get("g.a") == NO_SIGN


def test_who_stalls_is_told_with_the_limit_of_its_type(signs: Signs, time: Time) -> None:
    signs.begun(running("slow"))
    time.passes(999)
    assert signs.stalled(0.0) == []
    time.passes(2)
    (found,) = signs.stalled(0.0)
    failure = failure_of(found)
    assert (found.attempt, failure.code, failure.retriable) == (1, "STALLED", True)
    assert "for 1001 s; the limit is 1000 s" in failure.message


def test_neither_sleep_of_the_machine_nor_what_the_daemon_did_not_hear_counts(signs: Signs, time: Time) -> None:
    signs.begun(running())
    time.passes(3600, asleep=True)
    assert signs.stalled(0.0) == []
    time.passes(300)
    assert signs.stalled(unheard_s=295.0) == []
