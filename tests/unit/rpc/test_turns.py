"""One in a turn of the loop, in the order of coming."""

from __future__ import annotations

import asyncio
import itertools

from supervisord_agents.rpc.turns import Turns


async def test_others_run_between_two_that_take_turns() -> None:
    turns = Turns()
    seen: list[str] = []

    async def long(name: str) -> None:
        await turns.take()
        seen.append(name)

    async def short() -> None:
        while len([name for name in seen if name != "short"]) < 4:
            seen.append("short")
            await asyncio.sleep(0)

    jobs = [asyncio.create_task(long(name)) for name in "abxcd"]
    jobs.append(asyncio.create_task(short()))
    await asyncio.sleep(0)
    jobs[2].cancel()
    await asyncio.gather(*jobs, return_exceptions=True)
    assert [name for name in seen if name != "short"] == list("abcd")
    places = [seen.index(name) for name in "abcd"]
    assert all("short" in seen[here:there] for here, there in itertools.pairwise(places))
    await turns.take()
