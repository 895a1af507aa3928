"""From a worker on paper to one that speaks: its sandbox, channel and gate, made anew or taken over from an earlier daemon."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import time
from collections.abc import AsyncIterator, Sequence
from typing import Protocol

from sandbox import protected, protocol
from sandbox.spawner import Exit, Sandbox, Spawner
from supervisord_agents.hosts import AllowedHosts
from supervisord_agents.wire import frames
from supervisord_agents.workers.label import Label
from supervisord_agents.workers.nest import Nest
from supervisord_agents.workers.shape import Shaper
from supervisord_agents.workers.uplink import hand_over
from supervisord_agents.workers.worker import Channel, Gate, Hearing, Phase, Worker

DRAIN_S = 1.0
"""For the frames that a dead worker still had in its channel."""


class Gateway(Protocol):
    """What the launcher needs of the model gateway."""

    async def attach(self, listeners: Sequence[socket.socket], owner: str, allowed: AllowedHosts) -> Gate: ...


class Violations(Protocol):
    """What it needs of whoever hears what supervised sandboxes tell."""

    def attach(self, events: socket.socket, worker: Worker) -> Hearing: ...


class Launcher:
    """Knows how sandboxes are made. Which ones there are, the pools know."""

    def __init__(self, shaper: Shaper, spawner: Spawner, gateway: Gateway, violations: Violations | None = None) -> None:
        self._shaper = shaper
        self._spawner = spawner
        self._gateway = gateway
        self._violations = violations

    async def live(self, worker: Worker, nest: Nest, channel: Channel) -> Exit:
        """From its first frame to its last: gives how its sandbox ended. Raises SandboxError or OSError if it did not begin."""
        async with self._holding(worker):
            return await self._live(worker, nest, channel)

    @contextlib.asynccontextmanager
    async def _holding(self, worker: Worker) -> AsyncIterator[None]:
        """Keep what keeps protected files of its workspace from being made. In threads: a dead disk would hold up everything."""
        names = self._shaper.kept_from_being_made(worker.shape)
        held = await asyncio.to_thread(protected.hold, worker.shape.workspace) if names else -1
        try:
            yield
        finally:
            if held >= 0:
                await asyncio.to_thread(protected.let_go, held, names)

    async def _live(self, worker: Worker, nest: Nest, channel: Channel) -> Exit:
        ours, theirs = socket.socketpair()
        with contextlib.ExitStack() as stack:
            stack.callback(ours.close)
            with theirs:
                sandbox = worker.sandbox or await self._make(worker, nest, theirs)
                if worker.adopted:
                    _take_over(sandbox, theirs)
            nest.handed_over()
            worker.sandbox = sandbox
            self._listen(worker, sandbox)
            worker.last_sign = time.monotonic()
            if worker.phase is Phase.DYING:
                sandbox.kill()
            try:
                await self._open_gate(worker, sandbox.listeners)
                worker.channel = channel
                await channel.serve(ours)
                stack.pop_all()
                exit = await sandbox.wait()
                await channel.drained(DRAIN_S)
            finally:
                sandbox.kill()
                await sandbox.wait()
                if worker.hearing is not None:
                    await worker.hearing.close()
                if worker.gate is not None:
                    await worker.gate.close()
        return exit

    async def discard(self, sandbox: Sandbox) -> None:
        """End a sandbox that nobody here has a use for."""
        for descriptor in sandbox.kept:
            os.close(descriptor)
        for sock in filter(None, (*sandbox.listeners, sandbox.events)):
            sock.close()
        sandbox.kill()
        await sandbox.wait()

    async def _make(self, worker: Worker, nest: Nest, channel: socket.socket) -> Sandbox:
        spec = self._shaper.sandbox_spec(worker.shape, uid=worker.uid)
        label = Label(worker=worker.id, pool=worker.pool, shape=worker.shape, uid=worker.uid).written()
        ours, theirs = protocol.pair()
        with ours, theirs:
            descriptors = {frames.CHANNEL_FD: channel.fileno(), frames.HANDOVER_FD: theirs.fileno(), **nest.descriptors}
            return await self._spawner.spawn(spec, descriptors, label=label, kept=[ours.fileno()])

    def _listen(self, worker: Worker, sandbox: Sandbox) -> None:
        events, sandbox.events = sandbox.events, None
        if events is not None and self._violations is not None:
            worker.hearing = self._violations.attach(events, worker)
        elif events is not None:
            events.close()

    async def _open_gate(self, worker: Worker, listeners: list[socket.socket]) -> None:
        """The gateway has the worker's listening sockets from now on, or they are closed."""
        if not listeners:
            return
        try:
            allowed = self._shaper.allowed_hosts(worker.shape, adopted=worker.adopted)
            worker.gate = await self._gateway.attach(listeners, worker.id, allowed)
        except BaseException:
            for listener in listeners:
                listener.close()
            raise
        worker.gate.task = worker.task


def _take_over(sandbox: Sandbox, channel: socket.socket) -> None:
    """Hand the worker its end of the channel, by the socket that was kept for this."""
    for descriptor in sandbox.kept:
        hand_over(descriptor, channel.fileno())
        os.close(descriptor)
