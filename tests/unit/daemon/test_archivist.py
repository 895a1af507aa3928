"""What leaves memory for the archive, and what must not."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from supervisord_agents.config import Config, Tasks
from supervisord_agents.core.events import Finished, RetryRequested, Started
from supervisord_agents.core.model import Failure, State
from supervisord_agents.daemon import archivist
from supervisord_agents.daemon.archivist import Archivist
from supervisord_agents.spool.logs import LogStore
from supervisord_agents.spool.results import ResultStore
from tests.support.engine import Machine

FAILED = Failure("WORKER_FAILED", "no", retriable=False)


class Bench:
    """A machine, and the archivist that keeps nothing in memory."""

    def __init__(self, directory: Path) -> None:
        self.machine = Machine(directory / "journal")
        self.machine.engine._release = lambda *_: None
        config = Config(tasks=Tasks(keep_ended=0))
        results, logs = ResultStore(directory / "results"), LogStore(directory / "logs", 1000)
        nothing_changed: Any = SimpleNamespace(size=lambda task: 0, remove=lambda task: None)
        self.archivist = Archivist(config, self.machine.engine, results, logs, directory / "archive.db", nothing_changed)

    def fail(self, graph: str) -> None:
        self.machine.submit(graph)
        self.machine.engine.feed(Started(task=f"{graph}.t0", attempt=1, worker="w"))
        self.machine.engine.feed(Finished(task=f"{graph}.t0", attempt=1, failure=FAILED))

    async def archived(self) -> list[str]:
        return await self.archivist._do(lambda: self.archivist._archive.graphs(["g", "h"]))


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    made = Bench(tmp_path)
    await made.archivist.open()
    yield made
    await made.archivist.aclose()
    await made.machine.aclose()


async def test_what_has_ended_leaves_memory(bench: Bench) -> None:
    bench.fail("g")
    bench.fail("h")
    await bench.archivist._archive_all()
    assert (await bench.archived(), bench.archivist.counts) == (["g", "h"], {State.FAILED: 2})
    assert not bench.machine.scheduler.tasks


async def test_what_is_retried_while_it_is_archived_stays_in_memory_alone(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its row, with the old time of its end, would be the first to be removed, and its result and log with it."""
    monkeypatch.setattr(archivist, "LOOK_S", 0.0)
    bench.fail("g")
    bench.fail("h")
    put, loop = bench.archivist._put, asyncio.get_running_loop()

    def put_while_retried(*arguments: Any) -> dict[str, int]:
        retry = asyncio.run_coroutine_threadsafe(_feed(bench.machine, RetryRequested(task="g.t0")), loop)
        retry.result()
        return put(*arguments)

    bench.archivist._put = put_while_retried  # type: ignore[method-assign]
    graphs = bench.machine.scheduler.to_archive(0, bench.machine.engine.clock.now(), 10)
    await bench.archivist._archive_some(graphs)
    assert (await bench.archived(), bench.archivist.counts) == (["h"], {State.FAILED: 1})
    assert list(bench.machine.scheduler.tasks) == ["g.t0"]


async def _feed(machine: Machine, event: RetryRequested) -> None:
    machine.engine.feed(event)
