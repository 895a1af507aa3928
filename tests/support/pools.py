"""Pools over a spawner that makes nothing: the test speaks in the place of each worker, on the other end of its channel."""

from __future__ import annotations

import asyncio
import copy
import os
import select
import socket
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from sandbox.errors import SandboxError
from sandbox.spawner import Exit
from sandbox.spec import SandboxSpec
from supervisord_agents.config import Agent, Config, Pool
from supervisord_agents.core.model import Failure, TaskSpec
from supervisord_agents.hosts import AllowedHosts
from supervisord_agents.wire import frames
from supervisord_agents.wire.framing import frame
from supervisord_agents.workers.agents.command import CommandAgent
from supervisord_agents.workers.agents.registry import AgentRegistry
from supervisord_agents.workers.listener import Running
from supervisord_agents.workers.outbox import Outbox
from supervisord_agents.workers.pool import Pools
from supervisord_agents.workers.uplink import Handover

PATIENCE_S = 20.0
COMMAND = TaskSpec(agent="once", input={"argv": ["true"]})
"""Of an agent whose workers are used once."""
FUNCTION = TaskSpec(agent="python", input={"function": "a:b"})


async def until(condition: Callable[[], object]) -> None:
    """Let the loop run until it holds."""
    async with asyncio.timeout(PATIENCE_S):
        while not condition():
            await asyncio.sleep(0)


class Once(CommandAgent):
    """Its workers are used once."""

    reusable = False


class StubSandbox:
    """What a worker is to the daemon."""

    events = None

    def __init__(self, descriptors: Mapping[int, int], label: bytes = b"", kept: tuple[int, ...] = ()) -> None:
        self.label = label
        self.kept = kept
        self.listeners: list[socket.socket] = []
        self.killed = False
        self.dies_at_once = True
        self.uid = 0
        self.pid = 0
        self.channel = socket.socket(fileno=os.dup(descriptors[frames.CHANNEL_FD]))
        self._handover = os.dup(descriptors[frames.HANDOVER_FD])
        self.outbox = Outbox(os.dup(descriptors[frames.OUTBOX_FD]))
        self._left = False
        self._exit: asyncio.Future[Exit] = asyncio.get_running_loop().create_future()

    def say(self, *messages: frames.Frame | bytes) -> None:
        data = (item if isinstance(item, bytes) else frame(frames.encoder.encode(item)) for item in messages)
        self.channel.sendall(b"".join(data))

    def hello(self, task: str = "", attempt: int = 0) -> None:
        self.say(frames.WorkerHello(version=frames.WORKER_PROTOCOL_VERSION, task=task, attempt=attempt))

    async def take_new_channel(self) -> None:
        """What a later daemon hands in."""
        self.channel.close()
        await until(lambda: select.select([self._handover], [], [], 0)[0])
        with socket.socket(fileno=os.dup(self._handover)) as handover:
            channel = Handover(handover).receive()
        assert channel is not None
        self.channel = channel
        self.channel.setblocking(False)

    def leave(self, exit: Exit) -> None:
        self.channel.close()
        if not self._exit.done():
            self._exit.set_result(exit)

    def let_go(self) -> None:
        """To those who had it, as if it had ended; they cannot kill it."""
        self._left = True
        if not self._exit.done():
            self._exit.set_result(Exit(code=-1, signal=9))

    def taken_over(self) -> StubSandbox:
        """As a later daemon finds it."""
        found = copy.copy(self)
        found._left = False
        found._exit = asyncio.get_running_loop().create_future()
        return found

    def kill(self) -> None:
        if self._left:
            return
        self.killed = True
        if self.dies_at_once:
            self.leave(Exit(code=-1, signal=9))

    async def wait(self) -> Exit:
        return await asyncio.shield(self._exit)


class StubSpawner:
    without = ""

    def __init__(self) -> None:
        self.made: list[StubSandbox] = []
        self.error: Exception | None = None
        self.ended = False
        self.with_listener = False
        self.renewed: list[StubSandbox] = []
        self.hold = asyncio.Event()
        self.hold.set()

    def leave(self) -> None:
        self.ended = True
        for sandbox in self.made:
            sandbox.let_go()

    async def spawn(self, spec: SandboxSpec, descriptors: Mapping[int, int], *, label: bytes, kept: Sequence[int]) -> StubSandbox:
        sandbox = StubSandbox(descriptors, label, tuple(map(os.dup, kept)))
        sandbox.uid = spec.uid
        await self.hold.wait()
        if self.error is not None:
            sandbox.kill()
            raise self.error
        if self.with_listener:
            sandbox.listeners.append(socket.create_server(("127.0.0.1", 0)))
        self.made.append(sandbox)
        return sandbox

    def renew(self, sandbox: StubSandbox) -> None:
        self.renewed.append(sandbox)

    @property
    def alive(self) -> list[StubSandbox]:
        return [sandbox for sandbox in self.made if not sandbox._exit.done()]


class BrokenGateway:
    async def attach(self, listeners: Sequence[socket.socket], owner: str, allowed: AllowedHosts) -> Any:
        raise OSError(24, "Too many open files")


class Heard:
    """A listener that remembers."""

    def __init__(self) -> None:
        self.ended: list[frames.TaskResult | frames.TaskError] = []
        self.died: list[tuple[str, int, Failure]] = []
        self.said: list[Any] = []
        self.found: list[tuple[str, int, bool]] = []
        self.stopped: list[frames.TaskResult | frames.TaskError] = []
        self.recorded = True
        """What is answered to an end: it is with the journal already."""
        self.durable = True
        self.settling = asyncio.Event()
        self.settling.set()

    def attempt_ended(self, worker: str, frame: frames.TaskResult | frames.TaskError) -> bool:
        self.ended.append(frame)
        return self.recorded

    def attempt_died(self, task: str, attempt: int, failure: Failure) -> None:
        self.died.append((task, attempt, failure))

    def attempt_said(self, frame: Any) -> None:
        self.said.append(frame)

    def attempt_found(self, task: str, attempt: int, *, told: bool) -> int:
        self.found.append((task, attempt, told))
        return 5

    def attempt_stopped(self, frame: frames.TaskResult | frames.TaskError) -> None:
        self.stopped.append(frame)

    def time_passed(self, unheard_s: float) -> None:
        pass

    def slots_changed(self) -> None:
        pass

    async def settled(self) -> bool:
        await self.settling.wait()
        return self.durable


class PoolBench:
    """One pool with its surroundings."""

    def __init__(self, directory: Path, *, pool: str = "p", epoch: str = "e", min_workers: int = 0, max_workers: int = 2) -> None:
        config = Config(
            pools={pool: Pool(min_workers=min_workers, max_workers=max_workers)},
            agents={"once": Agent(adapter=f"{Once.__module__}:{Once.__qualname__}")},
        )
        self.directory = directory / "workers"
        self.spawner = StubSpawner()
        self.heard = Heard()
        self.pools = Pools(
            config,
            AgentRegistry(config),
            self.spawner,  # type: ignore[arg-type]
            BrokenGateway(),
            self.directory,
            epoch,
        )
        self.pools.start(self.heard)

    async def adopt(self, *found: StubSandbox, **running: Running) -> set[str]:
        """Take over sandboxes of an earlier bench; `running` by worker, with `_` for `-`."""
        by_worker = {worker.replace("_", "-"): attempt for worker, attempt in running.items()}
        return await self.pools.adopt(self.heard, found, by_worker)  # type: ignore[arg-type]

    def claim(self, task: str, spec: TaskSpec = FUNCTION) -> str:
        worker = self.pools.claim("p", task, 1, spec)
        self.pools.launch(worker, frames.RunTask(task=task, attempt=1, spec=spec, agent_class="x"))
        return worker

    async def working(self, task: str, spec: TaskSpec = FUNCTION) -> StubSandbox:
        """A worker that has been told its task."""
        made = len(self.spawner.made)
        self.claim(task, spec)
        await until(lambda: len(self.spawner.made) > made)
        sandbox = self.spawner.made[-1]
        sandbox.hello()
        sandbox.channel.setblocking(False)
        await until(lambda: self.told(sandbox))
        return sandbox

    def told(self, sandbox: StubSandbox) -> bytes:
        """What the daemon has sent it by now."""
        try:
            return sandbox.channel.recv(1 << 20)
        except BlockingIOError:
            return b""

    @property
    def view(self) -> tuple[int, int]:
        (view,) = self.pools.views({})
        return view.busy, view.idle

    @property
    def free(self) -> int:
        return self.pools.free()["p"]


def no_sandbox(**values: Any) -> SandboxError:
    return SandboxError("no.", **values)


def result(task: str, **values: Any) -> frames.TaskResult:
    return frames.TaskResult(task=task, attempt=1, **values)
