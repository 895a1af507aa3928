"""Who makes no progress for too long, in simulated time."""

from __future__ import annotations

from supervisord_agents.core.stalls import Stalled, Stalls


def test_an_attempt_is_stalled_when_it_has_not_moved_for_longer_than_its_limit() -> None:
    stalls = Stalls(100.0, {})
    stalls.begun("a", 3, "", now=0.0)
    assert stalls.stalled(100.0) == []
    assert stalls.stalled(101.0) == [Stalled("a", 3, 101.0, 100.0)]
    stalls.moved("a", 101.0)
    assert stalls.stalled(201.0) == []
    assert stalls.idle_s("a", 201.0) == 100.0
    assert stalls.stalled(202.0) == [Stalled("a", 3, 101.0, 100.0)]
    stalls.begun("a", 4, "", now=202.0)
    assert stalls.stalled(300.0) == []
    stalls.over("a")
    assert "a" not in stalls
    stalls.moved("a", 400.0)
    assert stalls.stalled(1e9) == []


def test_limits_go_by_type_and_0_is_never() -> None:
    stalls = Stalls(100.0, {"slow": 1000.0, "silent": 0.0})
    for type in ("", "slow", "silent"):
        stalls.begun(type, 1, type, now=0.0)
    assert [found.task for found in stalls.stalled(500.0)] == [""]
    assert [found.task for found in stalls.stalled(5000.0)] == ["", "slow"]
    never = Stalls(0.0, {})
    never.begun("a", 1, "", now=0.0)
    assert never.stalled(1e9) == []


def test_time_in_which_nobody_was_heard_does_not_count() -> None:
    stalls = Stalls(100.0, {})
    stalls.begun("a", 1, "", now=0.0)
    stalls.unheard(400.0)
    assert stalls.stalled(500.0) == []
    assert [found.idle_s for found in stalls.stalled(501.0)] == [101.0]
