"""A local model's process from outside: it may be slow, deaf or dead, and never costs more than its answer."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import time
from collections.abc import AsyncIterator

import pytest
from structlog.testing import capture_logs

from supervisord_agents.core.model import Usage
from supervisord_agents.errors import SandboxRefused, SupervisorError, Unavailable
from supervisord_agents.tracker import local, talk
from supervisord_agents.tracker.backend import Limits, Prompt, Stands
from supervisord_agents.tracker.local import Local
from tests.support.scripted_host import Starter


@contextlib.asynccontextmanager
async def a_local(model: str = "m.gguf", *, idle_s: float = 0.0) -> AsyncIterator[tuple[Local, Starter]]:
    starter = Starter()
    load = talk.Load(model=model, context_tokens=1000)
    backend = Local("local", load, starter, idle_s=idle_s, backoff_s=0.01)
    backend.start()
    try:
        async with asyncio.timeout(30.0):
            yield backend, starter
    finally:
        await backend.aclose()


async def tell(backend: Local, data: str, *, seconds: float = 10.0) -> str:
    return (await backend.tell(Prompt(system="s", data=data, question="q"), {}, Limits(seconds=seconds))).text


async def failure(backend: Local, data: str, *, seconds: float = 10.0) -> SupervisorError:
    with pytest.raises(Unavailable) as caught:
        await tell(backend, data, seconds=seconds)
    return caught.value


async def test_an_answer() -> None:
    async with a_local() as (backend, starter):
        told = await backend.tell(Prompt(system="s", data="SAY:so it is", question="q"), {}, Limits())
        assert (told.text, told.by, told.usage) == ("so it is", "local (scripted m.gguf)", Usage(3, 3))
        assert "RuntimeError: no" in str(await failure(backend, "RAISE:no"))
        assert await tell(backend, "SAY:still there") == "still there"
        assert len(starter.started) == 1


async def test_a_host_that_dies_in_the_middle_of_an_answer_costs_that_answer_and_is_started_again() -> None:
    async with a_local() as (backend, starter):
        assert "ended: it exited with code -9" in str(await failure(backend, "DIE"))
        assert await tell(backend, "SAY:again") == "again"
        slow = asyncio.create_task(tell(backend, "TAKE:9"))
        waiting = asyncio.create_task(tell(backend, "SAY:after it"))
        await asyncio.sleep(0.01)
        starter.started[-1].kill()
        with pytest.raises(Unavailable):
            await slow
        assert await waiting == "after it"
        assert backend.starts == len(starter.started) == 3


async def test_an_answer_that_takes_too_long_is_given_up_and_the_host_kept() -> None:
    async with a_local() as (backend, starter):
        assert await tell(backend, "SAY:loaded") == "loaded"
        assert "within 0.05 s" in str(await failure(backend, "DEAF:0.3", seconds=0.05))
        assert await tell(backend, "SAY:next") == "next"
        cancelled = asyncio.create_task(tell(backend, "TAKE:60", seconds=60))
        await asyncio.sleep(0.01)
        cancelled.cancel()
        assert await tell(backend, "SAY:at once") == "at once"
        assert len(starter.started) == 1


async def test_a_host_that_hangs_is_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local, "HUNG_S", 0.05)
    async with a_local() as (backend, starter):
        assert await tell(backend, "SAY:loaded") == "loaded"
        await failure(backend, "DEAF:60", seconds=0.05)
        await starter.started[0].wait()
        assert await tell(backend, "SAY:another") == "another"
        assert len(starter.started) == 2


@pytest.mark.parametrize("lie", ["twice", "other", "loaded", "noise"])
async def test_a_host_that_says_what_nobody_asked_is_ended(lie: str) -> None:
    async with a_local() as (backend, starter):
        assert await tell(backend, "SAY:loaded") == "loaded"
        with contextlib.suppress(Unavailable):  # the first of two answers may be good
            await tell(backend, f"LIE:{lie}")
        await starter.started[0].wait()
        while len(starter.started) < 2:
            await asyncio.sleep(0.01)
        assert await tell(backend, "SAY:another") == "another"
        assert backend.about == "scripted m.gguf"


async def test_what_a_host_counts_is_believed_within_reason() -> None:
    async with a_local() as (backend, _):
        told = await backend.tell(Prompt(system="s" * 500, data="LIE:counts", question="q"), {}, Limits())
        assert told.usage == Usage(1000, 1000)
        for _ in range(20):
            await backend.tell(Prompt(system="s" * 500, data="SAY:x", question="q"), {}, Limits())
        assert backend.count("x" * 1000) < 300


@pytest.mark.parametrize(("size", "hung_s"), [(10, 0.1), (2_000_000, 300.0)])
async def test_a_host_that_is_stopped_is_killed(monkeypatch: pytest.MonkeyPatch, size: int, hung_s: float) -> None:
    """After a while if it was sent a question; at once if it has taken half of one."""
    monkeypatch.setattr(local, "HUNG_S", hung_s)
    async with a_local() as (backend, starter):
        assert await tell(backend, "SAY:loaded") == "loaded"
        os.kill(starter.started[0].pid, signal.SIGSTOP)
        await asyncio.gather(*(failure(backend, "x" * size, seconds=0.05) for _ in range(2)))
        await starter.started[0].wait()
        assert await tell(backend, "SAY:another") == "another"
        assert len(starter.started) == 2


async def test_an_answer_that_comes_as_its_asker_goes_leaves_nothing_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    async with a_local(idle_s=0.05) as (backend, starter):
        take = backend._take

        def take_and_go(message: talk.FromHost) -> None:
            take(message)
            if isinstance(message, talk.Said):
                asking.cancel()

        monkeypatch.setattr(backend, "_take", take_and_go)
        asking = asyncio.create_task(tell(backend, "SAY:too late"))
        with pytest.raises(asyncio.CancelledError):
            await asking
        await starter.started[0].wait()  # unloaded: nothing is waited for


async def test_a_prompt_that_was_too_long_teaches_how_to_count() -> None:
    async with a_local() as (backend, _):
        text = "LONG:2000\n" + "x" * 1000
        before = backend.count(text)
        assert "do not fit into 1000" in str(await failure(backend, text))
        assert backend.count(text) > before


async def test_a_model_that_cannot_be_loaded_is_named_and_tried_again() -> None:
    async with a_local("broken") as (backend, starter):
        while len(starter.started) < 2:
            await asyncio.sleep(0.01)
        assert "not loaded yet, and last failed: ValueError: it is no model" in str(await failure(backend, "", seconds=0.05))
        assert backend.standing().why == "ValueError: it is no model"


async def test_a_sandbox_that_is_refused_is_named() -> None:
    async def refuse(channel: object) -> local.Process:
        raise SandboxRefused("no such profile.")

    backend = Local("local", talk.Load(model="m", context_tokens=1000), refuse, backoff_s=0.01)
    try:
        assert "last failed: no such profile" in str(await failure(backend, "", seconds=0.05))
    finally:
        await backend.aclose()


async def test_one_that_nobody_asks_is_unloaded_until_somebody_does() -> None:
    async with a_local(idle_s=0.05) as (backend, starter):
        assert starter.started == []
        assert await tell(backend, "SAY:loaded") == "loaded"
        (first,) = starter.started
        await first.wait()
        assert await tell(backend, "SAY:once more") == "once more"
        assert len(starter.started) == 2


async def test_how_it_is_and_what_the_log_tells_of_it() -> None:
    with capture_logs() as logged:
        async with a_local() as (backend, starter):
            assert backend.standing().stands is Stands.LOADING
            await tell(backend, "SAY:loaded")
            ready = backend.standing()
            assert (ready.stands, ready.about) == (Stands.READY, "scripted m.gguf")
            assert 0.0 <= time.time() - ready.since < 60.0
            await failure(backend, "DIE")
            again = backend.standing()
            assert (again.stands, again.why) == (Stands.LOADING, "it exited with code -9")
            await tell(backend, "SAY:again")
            assert backend.standing().stands is Stands.READY
        async with a_local(idle_s=0.05) as (backend, starter):
            assert backend.standing().stands is Stands.UNLOADED
            await tell(backend, "SAY:loaded")
            await starter.started[0].wait()
            assert backend.standing().stands is Stands.UNLOADED
    once = ["tracker_loading", "tracker_loaded"]
    assert [line["event"] for line in logged] == [*once, "tracker_host_ended", *once, *once, "tracker_unloaded"]
    assert (logged[0]["file"], logged[1]["model"], logged[1]["seconds"] >= 0) == ("m.gguf", "scripted m.gguf", True)
    assert logged[2]["how"] == "it exited with code -9"


async def test_the_host_ends_with_its_daemon() -> None:
    async with a_local() as (backend, starter):
        assert await tell(backend, "SAY:loaded") == "loaded"
    assert await starter.started[0].wait()
