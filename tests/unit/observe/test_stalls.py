"""The stall watch over a real loop: what it counts, what it says, and how seldom."""

from __future__ import annotations

import asyncio
import time

from structlog.testing import capture_logs

from supervisord_agents.observe.stalls import StallWatch

LIMIT_S = 0.05


def dawdle(seconds: float) -> None:
    """Hold the loop up, in Python."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        pass


async def until_seen(watch: StallWatch, stalls: int) -> None:
    while watch.stalls < stalls:
        await asyncio.sleep(0.001)


async def test_a_stall_is_counted_and_its_culprit_named() -> None:
    watch = StallWatch(LIMIT_S)
    with capture_logs() as logs:
        watch.start()
        await asyncio.sleep(0)
        dawdle(6 * LIMIT_S)
        await until_seen(watch, 1)
        watch.stop()
    told = [line for line in logs if line["event"] == "loop_stalled"]
    assert len(told) == 1
    assert "dawdle" in told[0]["stack"]
    assert told[0]["seconds"] >= LIMIT_S
    assert watch.longest_s >= LIMIT_S
    assert watch.stalled_s >= told[0]["seconds"] - 0.001


async def test_a_call_that_keeps_the_interpreter_to_itself_is_named_too() -> None:
    def sort() -> None:
        for _ in range(3):  # between two calls the interpreter's lock changes hands
            sorted(range(3 * 10**6), key=int)

    watch = StallWatch(LIMIT_S)
    with capture_logs() as logs:
        watch.start()
        await asyncio.sleep(0)
        sort()
        await until_seen(watch, 1)
        watch.stop()
    assert any(" sort" in line.get("stack", "") for line in logs)


async def test_many_stalls_make_one_line_and_a_count() -> None:
    watch = StallWatch(LIMIT_S)
    with capture_logs() as logs:
        watch.start()
        for stalls in (1, 2, 3):
            dawdle(3 * LIMIT_S)
            await until_seen(watch, stalls)
        watch._logged_at -= 3600.0  # as if the time of the limit had passed
        dawdle(3 * LIMIT_S)
        await until_seen(watch, 4)
        watch.stop()
    told = [line["not_told_before"] for line in logs if line["event"] == "loop_stalled"]
    assert told == [0, watch.stalls - 2]
    assert "dawdle" in next(line["worst_of_these"] for line in logs if line.get("not_told_before"))


async def test_a_watch_without_a_limit_does_nothing() -> None:
    watch = StallWatch(0.0)
    watch.start()
    dawdle(0.01)
    watch.stop()
    assert (watch.stalls, watch.longest_s) == (0, 0.0)
