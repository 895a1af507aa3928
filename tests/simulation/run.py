"""Runs seeds."""

from __future__ import annotations

import gc
import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import structlog

from supervisord_agents.daemon import ends, recovery
from tests.simulation.loop import PROCESS
from tests.simulation.world import World

INLINE_OUTPUT_BYTES = 200
"""So small that the way of large results is gone as well."""


class Outcome(NamedTuple):
    """How a history ended; `violation` is empty if every promise was kept."""

    seed: int
    violation: str
    history: list[str]
    steps: int
    operations: int
    lives: int
    tasks: int

    @property
    def digest(self) -> str:
        return hashlib.sha256("\n".join(self.history).encode()).hexdigest()

    def __str__(self) -> str:
        return f"seed {self.seed}: {self.violation}\n  replay it: python -m tests.simulation {self.seed}"


def simulate(seed: int, *, record: bool = False) -> Outcome:
    """One seed, one history."""
    with _simulated():
        world = World(seed, record=record)
        world.run()
    tasks = len(world.daemon.scheduler.tasks) if world.daemon is not None and world.daemon.scheduler is not None else 0
    return Outcome(seed, world.violation, world.history, world.loop.steps, world.disk.operations, len(world.daemons), tasks)


def first_bad(seeds: Iterator[int] | range) -> Outcome | None:
    """The first of the seeds that goes wrong."""
    return next((outcome for outcome in map(simulate, seeds) if outcome.violation), None)


@contextmanager
def _simulated() -> Iterator[None]:
    """What is not handed in: a constant, the workers' directories, and the log, which goes into the history."""
    saved = ends.INLINE_OUTPUT_BYTES, recovery.end_left, recovery.clear, structlog.get_config()
    ends.INLINE_OUTPUT_BYTES = INLINE_OUTPUT_BYTES
    recovery.end_left = lambda directory, task, attempt: _world().machine.end_left(directory.name, task, attempt)
    recovery.clear = lambda workers, alive: _world().machine.clear(alive)
    structlog.configure(processors=[_log])
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
        ends.INLINE_OUTPUT_BYTES, recovery.end_left, recovery.clear, config = saved
        structlog.configure(**config)


def _world() -> World:
    daemon: Any = PROCESS.get()
    world: World = daemon.world
    return world


def _log(logger: object, method: str, event: Any) -> Any:
    daemon: Any = PROCESS.get()
    if daemon is not None:
        event.pop("exc_info", None)
        daemon.world.say("log", " ".join([event.pop("event"), *(f"{key}={value}" for key, value in event.items())]))
    raise structlog.DropEvent
