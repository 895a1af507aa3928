"""What the harness asks of a peer, and what it is told when the peer cannot do it.

A peer module runs in the peer's own virtual environment, so this file, like all that peers import, needs the standard library
only. The clock is not the peer's business: the works in `work/` measure from outside, at the client.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

WORKERS = 2
"""Worker processes of every peer, ours included."""

SHAPES = ("chain", "fan", "layers")
LAYER_WIDTH = 100


class Cannot(Exception):
    """This peer has no way of doing it; the text is the reason that the table gives."""


class Absent(Exception):
    """Something that the peer needs is not on this machine; the text says what."""


@dataclass(frozen=True)
class Graph:
    """Tasks 0 to n-1 with the numbers that each waits for, always lower ones."""

    shape: str
    dependencies: tuple[tuple[int, ...], ...]


def graph(shape: str, count: int) -> Graph:
    """A `chain` of `count`; a `fan` of one, `count` and one; `layers` of 100, each task after 1 to 3 of the layer before."""
    if shape == "chain":
        return Graph(shape, tuple((number - 1,) if number else () for number in range(count)))
    if shape == "fan":
        return Graph(shape, ((), *[(0,)] * count, tuple(range(1, count + 1))))
    dice = random.Random(count)

    def above(number: int) -> tuple[int, ...]:
        first = (number // LAYER_WIDTH - 1) * LAYER_WIDTH
        if first < 0:
            return ()
        return tuple(sorted(dice.sample(range(first, first + LAYER_WIDTH), dice.randint(1, 3))))

    return Graph(shape, tuple(above(number) for number in range(count)))


Submitter = Callable[[], Any]
"""Submits one task and returns once it is acknowledged; a coroutine function where the library's client is asynchronous."""


class Peer(Protocol):
    """One peer in one of its settings. Everything it starts lies in `directory` and is ended by `stop`."""

    directory: Path
    most_queued: int

    def __init__(self, directory: Path, setting: str) -> None: ...

    def versions(self) -> dict[str, str]:
        """Of the library and of the servers it needs."""

    def start(self, workers: int) -> None:
        """Start the servers and `workers` warm workers on an empty queue; without workers tasks wait. Raises Absent."""

    def stop(self) -> None:
        """End what was started, and wait for it."""

    def submits(self, clients: int, each: int, limit_s: float) -> tuple[list[float], float]:
        """Seconds of every submit, and of all: `clients` at once, up to `each` submits a client or until `limit_s` is over."""

    def noops(self, count: int) -> None:
        """Submit `count` no-op tasks and return when the client knows that all have ended."""

    def processes(self, count: int) -> None:
        """The same with `/bin/true`, a new process each time."""

    def graph(self, graph: Graph) -> None:
        """Run a graph of no-op tasks and return when the client knows that its last task has ended."""

    def fill(self, count: int) -> None:
        """Submit `count` tasks that wait, in the quickest way that the API has."""

    def holders(self) -> list[int]:
        """Process ids of all that keeps queued tasks in memory."""

    def submit_marked(self, number: int, path: Path) -> None:
        """Submit a task that does as `mark` does; returns once it is acknowledged."""

    def crash(self) -> None:
        """SIGKILL the broker."""

    def recover(self) -> None:
        """Start the broker on what the killed one left, and workers again if they have ended."""


MARKED_S = 0.02


def mark(number: int, path: str) -> None:
    """The marked task of peers that run Python functions: a line when it begins, and one with a full stop when it has ended."""
    import time

    with open(path, "a", buffering=1) as file:
        file.write(f"{number}\n")
        time.sleep(MARKED_S)
        file.write(f"{number}.\n")


def marking_script(number: int, path: str) -> list[str]:
    """The same for peers that run programs."""
    return ["/bin/sh", "-c", f"echo {number} >> {path}; sleep {MARKED_S}; echo {number}. >> {path}"]


class Unable:
    """What a peer does not override it cannot do."""

    most_queued = 10**9
    """Tasks that may wait at a time."""

    def __init__(self, directory: Path, setting: str) -> None:
        self.directory = directory
        self.setting = setting

    def submits(self, clients: int, each: int, limit_s: float) -> tuple[list[float], float]:
        raise Cannot("nothing takes tasks one by one")

    def noops(self, count: int) -> None:
        raise Cannot("every task is a process")

    def processes(self, count: int) -> None:
        raise Cannot("it runs nothing")

    def graph(self, graph: Graph) -> None:
        raise Cannot("no dependencies")

    def fill(self, count: int) -> None:
        raise Cannot("it keeps no queue")

    def holders(self) -> list[int]:
        raise Cannot("no process keeps the queue: it lies in a file")

    def submit_marked(self, number: int, path: Path) -> None:
        raise Cannot("nothing takes tasks one by one")

    def crash(self) -> None:
        raise Cannot("no broker")

    def recover(self) -> None:
        raise Cannot("no broker")
