"""Pools of workers: bulkheads with a floor of pre-warmed workers and a ceiling of concurrent ones.

The pools decide nothing about tasks. They are told to claim, run and stop, and they tell `Listener` what became of it.
A worker whose agent is reusable takes task after task; any other worker is used once and replaced in the background by one of the
same shape, so that the next task of the kind finds it warm.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import socket
import time
from collections.abc import Coroutine
from pathlib import Path
from typing import Protocol

import structlog

from sandbox.errors import SandboxError
from sandbox.spawner import Exit, Spawner
from supervisord_agents.config import Config
from supervisord_agents.core.model import Failure, TaskSpec
from supervisord_agents.errors import ErrorCode, ProtocolError, SupervisorError
from supervisord_agents.wire import frames
from supervisord_agents.wire.messages import PoolView
from supervisord_agents.workers.agents.registry import AgentRegistry
from supervisord_agents.workers.shape import Shape, Shaper
from supervisord_agents.workers.worker import Channel, Gate, Phase, Worker, death_of

MISSED_HEARTBEATS = 3
STOP_GRACE_S = 2.0
"""Between asking an attempt to stop and killing its sandbox."""
DRAIN_S = 1.0
"""For the frames that a dead worker still had in its channel."""
WARM_RETRY_S = 30.0
LAST_WORDS_BYTES = 2_000
log = structlog.get_logger()


class Listener(Protocol):
    """Who is told what workers do."""

    def attempt_ended(self, worker: str, frame: frames.TaskResult | frames.TaskError) -> None: ...
    def attempt_died(self, task: str, attempt: int, failure: Failure) -> None: ...
    def attempt_said(self, frame: frames.Progress | frames.Log | frames.UsageReport) -> None: ...
    def slots_changed(self) -> None: ...
    async def settled(self) -> None:
        """Return when everything told so far is durable."""


class Gateway(Protocol):
    """What the pools need of the model gateway."""

    async def attach(self, listener: socket.socket, owner: str) -> Gate: ...


class Pools:
    """All workers of the daemon."""

    def __init__(
        self,
        config: Config,
        agents: AgentRegistry,
        spawner: Spawner,
        gateway: Gateway,
        directory: Path,
        epoch: str,
    ) -> None:
        self._config = config
        self._agents = agents
        self._shaper = Shaper(config, agents)
        self._spawner = spawner
        self._gateway = gateway
        self._directory = directory
        self._epoch = epoch
        self._born = 0
        self._workers: dict[str, Worker] = {}
        self._recent: dict[str, tuple[Shape, bool]] = {}
        self._warm_not_before = 0.0
        self._jobs: set[asyncio.Task[None]] = set()
        self._closing = False
        self._listener: Listener

    def start(self, listener: Listener) -> None:
        """Begin to warm workers and to watch them."""
        self._listener = listener
        self._directory.mkdir(parents=True, exist_ok=True)
        self._spawn_job(self._watch())
        self._top_up()

    def free(self) -> dict[str, int]:
        """How many more tasks each pool may take now."""
        occupied = dict.fromkeys(self._config.pools, 0)
        for worker in self._workers.values():
            if worker.task or worker.phase is Phase.DYING:
                occupied[worker.pool] += 1
        return {name: pool.max_workers - occupied[name] for name, pool in self._config.pools.items()}

    def claim(self, pool: str, task: str, attempt: int, spec: TaskSpec) -> str:
        """Set a worker aside for an attempt and give its id. Raises SupervisorError if no worker can be made for it."""
        shape = self._shaper.of(spec)
        reusable = self._agents.get(spec.agent).reusable
        self._recent[pool] = (shape, reusable)
        worker = self._idle_worker(pool, shape)
        if worker is None:
            self._evict_for(pool)
            worker = self._new_worker(pool, shape)
        else:
            worker.phase = Phase.BUSY
        worker.task, worker.attempt, worker.reusable = task, attempt, reusable
        return worker.id

    def launch(self, worker_id: str, message: frames.RunTask) -> None:
        """Give the claimed worker its task, as soon as it is up."""
        worker = self._workers.get(worker_id)
        if worker is not None and worker.busy_with(message.task, message.attempt):
            self._spawn_job(self._deliver(worker, message))

    def gateway_port(self, worker_id: str) -> int:
        worker = self._workers.get(worker_id)
        return worker.shape.gateway_port if worker else 0

    def stop(self, task: str, attempt: int, code: str) -> None:
        """End an attempt whose fate is decided: asked first, killed with its whole tree after STOP_GRACE_S."""
        for worker in self._workers.values():
            if worker.busy_with(task, attempt):
                worker.stop_code = code
                self._spawn_job(self._stop(worker))

    def views(self, waiting: dict[str, int]) -> list[PoolView]:
        """The pools in numbers; `waiting` is the ready tasks of each."""
        rows = []
        for name, pool in self._config.pools.items():
            workers = [worker for worker in self._workers.values() if worker.pool == name]
            rows.append(
                PoolView(
                    name=name,
                    min_workers=pool.min_workers,
                    max_workers=pool.max_workers,
                    busy=sum(1 for worker in workers if worker.task),
                    idle=sum(1 for worker in workers if worker.phase is Phase.IDLE),
                    waiting=waiting.get(name, 0),
                )
            )
        return rows

    async def aclose(self) -> None:
        """Kill every worker and wait until all are gone."""
        self._closing = True
        for worker in list(self._workers.values()):
            worker.kill()
        while self._workers:
            await asyncio.wait(self._jobs, timeout=1.0, return_when=asyncio.FIRST_COMPLETED)
            for worker in list(self._workers.values()):
                worker.kill()
        for job in self._jobs:
            job.cancel()
        await asyncio.gather(*self._jobs, return_exceptions=True)

    def _idle_worker(self, pool: str, shape: Shape) -> Worker | None:
        return next(
            (w for w in self._workers.values() if w.phase is Phase.IDLE and w.pool == pool and w.shape == shape),
            None,
        )

    def _evict_for(self, pool: str) -> None:
        """Make room under the ceiling by ending one idle worker of another shape."""
        alive = [w for w in self._workers.values() if w.pool == pool and w.phase is not Phase.DYING]
        if len(alive) < self._config.pools[pool].max_workers:
            return
        idle = next((w for w in alive if not w.task and w.phase is Phase.IDLE), None)
        if idle is not None:
            idle.kill()

    def _new_worker(self, pool: str, shape: Shape) -> Worker:
        self._born += 1
        worker = Worker(f"w-{self._epoch}-{self._born}", pool, shape, reusable=True)
        self._workers[worker.id] = worker
        self._spawn_job(self._live(worker, self._born))
        return worker

    def _spawn_job(self, job: Coroutine[object, object, None]) -> None:
        task = asyncio.get_running_loop().create_task(job)
        self._jobs.add(task)
        task.add_done_callback(self._job_done)

    def _job_done(self, task: asyncio.Task[None]) -> None:
        self._jobs.discard(task)
        if not task.cancelled() and task.exception() is not None:
            log.error("pool_job_failed", exc_info=task.exception())

    async def _live(self, worker: Worker, number: int) -> None:
        """A worker from birth to burial."""
        directory = self._directory / worker.id
        try:
            exit = await self._spawn_and_wait(worker, number, directory)
        except (SandboxError, SupervisorError, OSError) as error:
            self._spawn_failed(worker, error)
        else:
            self._exited(worker, exit, directory)
        worker.phase = Phase.DYING
        worker.task = ""
        del self._workers[worker.id]
        if not self._closing:
            self._listener.slots_changed()
            self._top_up()
            await self._listener.settled()
        shutil.rmtree(directory, ignore_errors=True)

    async def _spawn_and_wait(self, worker: Worker, number: int, directory: Path) -> Exit:
        config = self._config.sandbox
        uid = config.uid_first + number % config.uid_count
        _make_directory(directory, uid)
        spec = self._shaper.sandbox_spec(worker.shape, uid=uid, worker_dir=directory)
        ours, theirs = socket.socketpair()
        try:
            with (directory / "stderr").open("wb") as errors:
                sandbox = await self._spawner.spawn(spec, {2: errors.fileno(), frames.CHANNEL_FD: theirs.fileno()})
        except BaseException:
            ours.close()
            raise
        finally:
            theirs.close()
        worker.sandbox = sandbox
        if worker.phase is Phase.DYING:
            sandbox.kill()
        worker.channel = await Channel.open(
            ours,
            lambda frame: self._on_frame(worker, frame),
            lambda error: self._on_garbage(worker, error),
            self._config.daemon.max_frame_bytes,
        )
        for listener in sandbox.listeners:
            worker.gate = await self._gateway.attach(listener, worker.id)
            worker.gate.task = worker.task
        exit = await sandbox.wait()
        await worker.channel.drained(DRAIN_S)
        if worker.gate is not None:
            await worker.gate.close()
        return exit

    def _spawn_failed(self, worker: Worker, error: Exception) -> None:
        log.error("worker_spawn_failed", worker=worker.id, pool=worker.pool, error=str(error))
        self._warm_not_before = time.monotonic() + WARM_RETRY_S
        if worker.task and not worker.stop_code:
            failure = Failure(code=ErrorCode.SANDBOX_DENIED, message=f"no sandbox for it: {error}", retriable=False)
            self._listener.attempt_died(worker.task, worker.attempt, failure)

    def _exited(self, worker: Worker, exit: Exit, directory: Path) -> None:
        log.debug("worker_exited", worker=worker.id, code=exit.code, signal=exit.signal, tasks=worker.tasks_run)
        if not worker.ready.is_set() and not self._closing:
            self._warm_not_before = time.monotonic() + WARM_RETRY_S
            log.error("worker_never_ready", worker=worker.id, code=exit.code, signal=exit.signal, said=_last_words(directory))
        if worker.task and not worker.stop_code and not self._closing:
            code, message = death_of(exit)
            self._listener.attempt_died(worker.task, worker.attempt, Failure(code=code, message=message))

    async def _deliver(self, worker: Worker, message: frames.RunTask) -> None:
        await worker.ready.wait()
        if not worker.busy_with(message.task, message.attempt) or worker.stop_code or worker.channel is None:
            return
        if worker.gate is not None:
            worker.gate.task = message.task
        try:
            worker.channel.send(message)
        except ProtocolError as error:
            failure = Failure(code=ErrorCode.INVALID, message=str(error), retriable=False)
            task, attempt = worker.task, worker.attempt
            self._release(worker)
            self._listener.attempt_died(task, attempt, failure)

    async def _stop(self, worker: Worker) -> None:
        if worker.channel is None or not worker.ready.is_set():
            worker.kill()
            return
        worker.channel.send(frames.CancelTask(task=worker.task, attempt=worker.attempt))
        await asyncio.sleep(0 if worker.reusable else STOP_GRACE_S)
        worker.kill()

    def _on_frame(self, worker: Worker, frame: frames.FromWorker) -> None:
        worker.last_beat = time.monotonic()
        if isinstance(frame, frames.Heartbeat):
            return
        if isinstance(frame, frames.WorkerHello):
            self._arrived(worker, frame)
        elif not worker.busy_with(frame.task, frame.attempt):
            log.warning("frame_of_another_attempt", worker=worker.id, task=frame.task, attempt=frame.attempt)
        elif isinstance(frame, frames.TaskResult | frames.TaskError):
            if not worker.stop_code:
                self._listener.attempt_ended(worker.id, frame)
            self._release(worker)
        else:
            self._listener.attempt_said(frame)

    def _arrived(self, worker: Worker, hello: frames.WorkerHello) -> None:
        if hello.version != frames.WORKER_PROTOCOL_VERSION:
            self._on_garbage(worker, ProtocolError(f"the worker speaks version {hello.version} of the worker protocol."))
            return
        worker.phase = Phase.BUSY if worker.task else Phase.IDLE
        worker.idle_since = time.monotonic()
        worker.ready.set()

    def _on_garbage(self, worker: Worker, error: ProtocolError) -> None:
        log.warning("worker_broke_protocol", worker=worker.id, error=str(error))
        if worker.task and not worker.stop_code:
            task, attempt = worker.task, worker.attempt
            worker.task = ""
            self._listener.attempt_died(task, attempt, Failure(code=ErrorCode.WORKER_DIED, message=str(error)))
        worker.kill()

    def _release(self, worker: Worker) -> None:
        """Its attempt is over: back to the idle ones, or gone."""
        worker.tasks_run += 1
        worker.task, worker.attempt = "", 0
        if worker.gate is not None:
            worker.gate.task = ""
        pool = self._config.pools[worker.pool]
        old = time.monotonic() - worker.born > pool.recycle_after_s
        if not worker.reusable or worker.stop_code or old or worker.tasks_run >= pool.recycle_after_tasks:
            worker.kill()
            return
        worker.phase = Phase.IDLE
        worker.idle_since = time.monotonic()
        self._listener.slots_changed()

    def _top_up(self) -> None:
        """Bring every pool to its floor with workers of the shape it last needed."""
        if self._closing or time.monotonic() < self._warm_not_before:
            return
        for name, pool in self._config.pools.items():
            alive = sum(1 for w in self._workers.values() if w.pool == name and w.phase is not Phase.DYING)
            for _ in range(pool.min_workers - alive):
                shape, _ = self._recent.get(name) or (self._shaper.warm(), True)
                self._new_worker(name, shape)

    async def _watch(self) -> None:
        """Kill the silent, retire the idle, replace the missing; once a heartbeat."""
        while True:
            before = time.monotonic()
            await asyncio.sleep(frames.HEARTBEAT_S)
            now = time.monotonic()
            stalled = now - before > 2 * frames.HEARTBEAT_S
            for worker in list(self._workers.values()):
                if stalled:
                    worker.last_beat = now
                self._check(worker, now)
            self._top_up()

    def _check(self, worker: Worker, now: float) -> None:
        if worker.phase in (Phase.DYING, Phase.SPAWNING):
            return
        if now - worker.last_beat > MISSED_HEARTBEATS * frames.HEARTBEAT_S:
            log.warning("worker_silent", worker=worker.id, task=worker.task)
            if worker.task and not worker.stop_code:
                message = f"the worker sent no heartbeat for {now - worker.last_beat:.0f} s and was killed."
                self._listener.attempt_died(worker.task, worker.attempt, Failure(code=ErrorCode.WORKER_DIED, message=message))
                worker.task = ""
            worker.kill()
            return
        pool = self._config.pools[worker.pool]
        alive = sum(1 for w in self._workers.values() if w.pool == worker.pool and w.phase is not Phase.DYING)
        if worker.phase is Phase.IDLE and now - worker.idle_since > pool.idle_s and alive > pool.min_workers:
            worker.kill()


def _make_directory(directory: Path, uid: int) -> None:
    """What a worker shares with the daemon: its outbox is its own, the directory is not."""
    outbox = directory / "outbox"
    outbox.mkdir(parents=True, mode=0o700)
    if os.geteuid() == 0:
        directory.chmod(0o711)
        os.chown(outbox, uid, uid)


def _last_words(directory: Path) -> str:
    with contextlib.suppress(OSError), (directory / "stderr").open("rb") as file:
        file.seek(max(0, file.seek(0, os.SEEK_END) - LAST_WORDS_BYTES))
        return file.read().decode(errors="replace").strip()
    return ""
