"""agent-supervisor itself: the daemon as its users start it, two workers, its own asyncio client.

There is one setting: a submit is answered after the fdatasync of its record (docs/journal.md), and every task runs in a sandbox.
Functions of one graph share a process, as those of all tasks do with the peers; by default each has its own (docs/agents.md), for
which see bench_tasks.py. `/bin/true` runs sandboxed too: the product has no unsandboxed way.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Coroutine
from pathlib import Path
from typing import Any, TypeVar

from benchmarks.held import BLOCKER, CONFIG
from benchmarks.peers import clients as many
from benchmarks.peers.children import descendants
from benchmarks.peers.peer import MARKED_S, Graph, Unable, mark
from supervisord_agents import __version__
from supervisord_agents.core.model import TaskSpec
from supervisord_agents.rpc.client import Client
from tests.support.daemon import DaemonProcess

T = TypeVar("T")
BATCH = 1_000
WAIT_S = 600.0
NOOP = {"function": "supervisord_agents.workers.builtin:noop"}
TRUE = {"argv": ["/bin/true"]}
SHARED = """
[agents.python.options]
tasks_per_process = 1000
"""
MARKING = f"MARKED_S = {MARKED_S}\n\n{inspect.getsource(mark)}"
"""The module in the workspace with the marked task."""


class Ours(Unable):
    def __init__(self, directory: Path, setting: str) -> None:
        super().__init__(directory, setting)
        self._runner = asyncio.Runner()
        self._client: Client | None = None
        self._held = ""

    def versions(self) -> dict[str, str]:
        return {"agent-supervisor": __version__}

    def start(self, workers: int) -> None:
        self._daemon = DaemonProcess(self.directory, CONFIG.format(workers=workers) + SHARED)
        self._run(self._daemon.start())
        self._run(self._connect())
        if not workers:
            self._held = self._run(self._connected.submit([BLOCKER])).tasks[0]

    def stop(self) -> None:
        if self._client is not None:
            self._run(self._client.aclose())
        self._daemon.close()
        self._runner.close()

    @property
    def _connected(self) -> Client:
        assert self._client is not None
        return self._client

    def _run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        return self._runner.run(coroutine)

    async def _connect(self) -> None:
        self._client = await Client.connect(self._daemon.socket, name="bench")

    def _waiting(self, name: str = "t") -> TaskSpec:
        return TaskSpec(id=name, agent="python", input=NOOP, dependencies=(self._held,))

    def submits(self, clients: int, each: int, limit_s: float) -> tuple[list[float], float]:
        return self._run(self._submits(clients, each, limit_s))

    async def _submits(self, clients: int, each: int, limit_s: float) -> tuple[list[float], float]:
        connected = [await Client.connect(self._daemon.socket) for _ in range(clients)]

        def submitter(client: Client) -> Any:
            return lambda: client.submit([self._waiting()])

        try:
            return await many.by_tasks([submitter(client) for client in connected], each, limit_s)
        finally:
            for client in connected:
                await client.aclose()

    def noops(self, count: int) -> None:
        self._run(self._bag(TaskSpec(agent="python", input=NOOP), count))

    def processes(self, count: int) -> None:
        self._run(self._bag(TaskSpec(input=TRUE), count))

    async def _bag(self, spec: TaskSpec, count: int) -> None:
        sizes = [min(BATCH, count - first) for first in range(0, count, BATCH)]
        graphs = [(await self._connected.submit([spec] * size)).graph for size in sizes]
        await self._ended(graphs)

    def graph(self, graph: Graph) -> None:
        specs = [
            TaskSpec(id=f"t{number}", agent="python", input=NOOP, dependencies=tuple(f"t{above}" for above in dependencies))
            for number, dependencies in enumerate(graph.dependencies)
        ]
        self._run(self._graph(specs))

    async def _graph(self, specs: list[TaskSpec]) -> None:
        await self._ended([(await self._connected.submit(specs)).graph])

    async def _ended(self, graphs: list[str]) -> None:
        waited = await self._connected.wait(graphs, timeout_s=WAIT_S)
        bad = [task for task in waited.tasks if task.state != "succeeded"]
        if not waited.done or bad:
            raise RuntimeError(f"{len(bad)} tasks did not succeed, such as {bad[:1]}")

    def fill(self, count: int) -> None:
        async def submit() -> None:
            for first in range(0, count, BATCH):
                size = min(BATCH, count - first)
                await self._connected.submit([self._waiting(f"t{number}") for number in range(size)])

        self._run(submit())

    def holders(self) -> list[int]:
        assert self._daemon.process is not None
        pid = self._daemon.process.pid
        return [pid, *descendants(pid)]

    def submit_marked(self, number: int, path: Path) -> None:
        workspace = path.parent / "marks"
        if not number:
            workspace.mkdir(mode=0o777)
            workspace.chmod(0o777)
            (workspace / "marking.py").write_text(MARKING)
            # Inside the sandbox there is nothing else that it could write to.
            marks = path.rename(workspace / path.name)
            path.symlink_to(marks)
        arguments = {"function": "marking:mark", "args": [number, str(workspace / path.name)]}
        self._run(self._connected.submit([TaskSpec(agent="python", input=arguments, workspace=str(workspace))]))

    def crash(self) -> None:
        self._daemon.kill()

    def recover(self) -> None:
        self._daemon.spawn()

        async def answers() -> None:
            async with self._daemon.client():
                pass

        self._run(answers())
        self._run(self._connect())


PEER = Ours
