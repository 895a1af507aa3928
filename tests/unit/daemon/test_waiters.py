"""Waiters are woken by the end of what they wait for, and leave nothing behind."""

from __future__ import annotations

from supervisord_agents.daemon.waiters import Waiters


def test_only_those_who_watch_a_task_are_woken() -> None:
    waiters = Waiters()
    with waiters.watch(["a", "b"]) as one, waiters.watch(["c"]) as other:
        waiters.ended("b")
        assert one.event.is_set()
        assert one.open == {"a"}
        assert not other.event.is_set()
        assert other.open == {"c"}
    waiters.ended("a")
    assert not waiters._by_task
