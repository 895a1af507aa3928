"""Pools of workers: bulkheads with a floor of pre-warmed workers and a ceiling of concurrent ones.

The pools decide nothing about tasks. They are told to claim, run and stop, and they tell `Listener` what became of it.
A worker whose agent is reusable takes task after task; any other worker is used once and replaced in the background by one of the
same shape, so that the next task of the kind finds it warm.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Container, Iterable, Mapping
from pathlib import Path
from typing import Protocol

import msgspec
import structlog

from sandbox.spawner import Exit, Sandbox, Spawner
from supervisord_agents.config import Config, Pool
from supervisord_agents.core.model import Failure, TaskSpec
from supervisord_agents.errors import ErrorCode, SupervisorError
from supervisord_agents.wire import frames
from supervisord_agents.wire.messages import PoolView
from supervisord_agents.workers.agents.registry import AgentRegistry
from supervisord_agents.workers.dialogue import Dialogue
from supervisord_agents.workers.jobs import Jobs
from supervisord_agents.workers.label import Label
from supervisord_agents.workers.launcher import Gateway, Launcher, Violations
from supervisord_agents.workers.listener import Listener, Running
from supervisord_agents.workers.nest import Nest
from supervisord_agents.workers.overhead import Overhead
from supervisord_agents.workers.shape import Shape, Shaper, still_there
from supervisord_agents.workers.worker import Channel, Phase, Worker, death_of, refusal_of

MISSED_HEARTBEATS = 3
HELLO_S = 30.0
"""For a sandbox that runs to say hello; a busy machine needs a few seconds to start an interpreter."""
STOP_ANSWER_S = 4.0
"""Between asking an attempt to stop and killing its sandbox: for the worker's own grace, and for what it has to clear up."""
WARM_RETRY_S = 30.0
HOLD_S = 2.0
"""After a failure to make a sandbox that is not the task's fault."""
CLOSE_S = 10.0
log = structlog.get_logger()


class Views(Protocol):
    """What the pools need of views of workspaces."""

    def place(self, spec: TaskSpec, task: str, attempt: int) -> str:
        """The directory of the host for the view of an attempt; empty: it needs none."""

    async def prepare(self, shape: Shape, protected: tuple[str, ...]) -> None:
        """Make the view of a worker that is about to start; `protected` are names that count as such in it (sandbox.protected).

        Raises SupervisorError or OSError.
        """

    async def over(self, shape: Shape) -> None:
        """Nobody works in it any more."""


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
        violations: Violations | None = None,
        views: Views | None = None,
    ) -> None:
        self._views = views
        self._config = config
        self._agents = agents
        self._shaper = Shaper(config, agents, namespaces=not spawner.without)
        self._spawner = spawner
        self._launcher = Launcher(self._shaper, spawner, gateway, violations)
        self._directory = directory
        self._epoch = epoch
        self._born = 0
        self._workers: dict[str, Worker] = {}
        self._recent: dict[str, Shape] = {}
        self._held_until: dict[str, float] = {}
        self._warm_not_before: dict[str, float] = {}
        self._jobs = Jobs("pool")
        self.overhead = Overhead(config.advice.overhead_s)
        self._watcher: asyncio.Task[None] | None = None
        self._closing = False
        self._listener: Listener
        self._dialogue: Dialogue

    def start(self, listener: Listener) -> None:
        """Begin to warm workers and to watch them."""
        self._listen(listener)
        self._watcher = self._jobs.spawn(self._watch())
        self._top_up()

    def _listen(self, listener: Listener) -> None:
        self._listener = listener
        self._dialogue = Dialogue(listener, self._finished, self.overhead)

    async def adopt(self, listener: Listener, found: Iterable[Sandbox], running: Mapping[str, Running]) -> set[str]:
        """Take over the workers of an earlier daemon; gives the tasks whose attempts go on.

        `running` are the attempts that should be, by worker. What is not of use here is ended, and has ended on return.
        """
        self._listen(listener)
        self._directory.mkdir(parents=True, exist_ok=True)
        tasks, unfit = set(), []
        for sandbox in found:
            label = Label.read(sandbox.label)
            if label is None or label.pool not in self._config.pools:
                unfit.append(self._launcher.discard(sandbox))
                continue
            worker = Worker(label.worker, label.pool, label.shape, label.uid)
            worker.adopted, worker.sandbox = True, sandbox
            if label.worker in running:
                worker.task, worker.attempt, worker.reusable = running[label.worker]
                worker.reusable = worker.reusable and not worker.shape.view
                tasks.add(worker.task)
            self._workers[worker.id] = worker
            self._jobs.spawn(self._live(worker, None))
        await asyncio.gather(*unfit)
        return tasks

    @property
    def views_in_use(self) -> set[str]:
        """The directories of the views that workers have."""
        return {worker.shape.view for worker in self._workers.values() if worker.shape.view}

    @property
    def workers(self) -> Container[str]:
        """Those that there are, by id."""
        return self._workers

    def free(self) -> dict[str, int]:
        """How many more tasks each pool may take now."""
        room = {name: pool.max_workers for name, pool in self._config.pools.items()}
        for worker in self._workers.values():
            room[worker.pool] -= worker.occupied
        now = time.monotonic()
        shut = self._closing or self._spawner.ended  # then a restart queues the tasks again
        return {name: 0 if shut or now < self._held_until.get(name, 0.0) else max(0, count) for name, count in room.items()}

    def hands(self) -> tuple[dict[str, list[str]], set[str]]:
        """The idle workers of each pool, and all that have something to do."""
        idle: dict[str, list[str]] = {}
        for worker in self._workers.values():
            if worker.unclaimed and worker.phase is Phase.IDLE:
                idle.setdefault(worker.pool, []).append(worker.id)
        return idle, {worker.id for worker in self._workers.values() if worker.task}

    def claim(self, pool: str, task: str, attempt: int, spec: TaskSpec, client: str = "", prefer: str = "") -> str:
        """Set a worker aside for an attempt and give its id, that of `prefer` if it is free and of the shape.

        `client` is the uid that submitted the task, as text.

        Raises SupervisorError if no worker can be made for it.
        """
        try:
            shape = self._shaper.of(spec, client)
        except SupervisorError:
            raise
        except Exception as error:  # an agent of a third party
            raise SupervisorError(f"the agent `{spec.agent}` is broken: {type(error).__qualname__}: {error}") from error
        # Without namespaces nothing in a sandbox can end all that a task has left in it.
        reusable = self._agents.get(spec.agent).reusable and not self._spawner.without
        if self._views is not None and (view := self._views.place(spec, task, attempt)):
            # A worker of an attempt's own: nobody else ever sees its view.
            shape, reusable = msgspec.structs.replace(shape, view=view, mode=str(spec.workspace_mode)), False
        else:
            self._recent[pool] = shape
        worker = self._unclaimed(pool, shape, prefer) or self._new_worker(pool, shape, self._evict_for(pool))
        if worker.phase is Phase.IDLE:
            worker.phase = Phase.BUSY
            if worker.sandbox is not None:
                self._spawner.renew(worker.sandbox)
        worker.task, worker.attempt, worker.reusable = task, attempt, reusable
        worker.claimed_at = time.monotonic()
        return worker.id

    def cold(self, worker_id: str) -> bool:
        """Whether a claimed worker has to come up first, or does its first task of many."""
        worker = self._workers.get(worker_id)
        return worker is not None and worker.cold

    def warm_for(self, pool: str, spec: TaskSpec, client: str) -> bool:
        """Whether a worker is free that such a task would find warm; raises SupervisorError if none can be had."""
        if self._views is not None and self._views.place(spec, "", 0):
            return False
        shape = self._shaper.of(spec, client)
        many = self._agents.get(spec.agent).reusable
        return any(
            worker.unclaimed and worker.shape == shape and worker.ready and (worker.wear.tasks or not many)
            for worker in self._of(pool)
        )

    def launch(self, worker_id: str, message: frames.RunTask) -> None:
        """Give the claimed worker its task, as soon as it is up."""
        worker = self._workers.get(worker_id)
        if worker is not None and worker.busy_with(message.task, message.attempt):
            worker.message = message
            if worker.ready and worker.phase is Phase.BUSY:
                self._dialogue.deliver(worker, message)

    def gateway_port(self, worker_id: str) -> int:
        worker = self._workers.get(worker_id)
        return worker.shape.gateway_port if worker else 0

    def stop(self, task: str, attempt: int, code: str) -> None:
        """End an attempt whose fate is decided: asked first, killed with its whole sandbox STOP_ANSWER_S later."""
        for worker in list(self._workers.values()):
            if not worker.busy_with(task, attempt):
                continue
            if worker.unknown:
                worker.stop_code = code
                worker.kill()
            elif worker.told and worker.channel is not None:
                worker.stop_code = code
                worker.channel.send(frames.CancelTask(task=task, attempt=attempt))
                asyncio.get_running_loop().call_later(STOP_ANSWER_S, self._kill_if_busy, worker, task, attempt)
            else:
                worker.forget_attempt()
                if worker.shape.view:
                    worker.kill()
                self._dialogue.rest(worker)
                self._listener.slots_changed()

    def answer(self, answer: frames.Answer) -> None:
        """Tell the worker of this attempt, if there is one, what became of what it asked for."""
        for worker in self._workers.values():
            if worker.busy_with(answer.task, answer.attempt) and worker.channel is not None:
                worker.channel.send(answer)

    def views(self, waiting: dict[str, int]) -> list[PoolView]:
        """The pools in numbers; `waiting` is the ready tasks of each."""
        return [
            PoolView(
                name=name,
                min_workers=pool.min_workers,
                max_workers=pool.max_workers,
                busy=sum(1 for worker in self._of(name) if worker.task),
                idle=sum(1 for worker in self._of(name) if worker.phase is Phase.IDLE),
                waiting=waiting.get(name, 0),
            )
            for name, pool in self._config.pools.items()
        ]

    async def aclose(self) -> None:
        """Kill every worker and wait until all are gone, CLOSE_S at most."""
        self._shut()
        for worker in self._workers.values():
            worker.kill()
        late = await self._jobs.ended(CLOSE_S)
        if late:
            log.error("pools_closed_early", jobs=len(late))
            self._jobs.cancel()
            await self._jobs.ended(1.0)

    async def leave(self) -> None:
        """Let go of all workers, for a successor of this daemon; what they do goes on."""
        self._shut()
        self._jobs.cancel()
        self._spawner.leave()
        await self._jobs.ended(CLOSE_S)

    def _shut(self) -> None:
        self._closing = True
        if self._watcher is not None:
            self._watcher.cancel()

    # Which workers there are

    def _of(self, pool: str) -> list[Worker]:
        return [worker for worker in self._workers.values() if worker.pool == pool]

    def _unclaimed(self, pool: str, shape: Shape, prefer: str) -> Worker | None:
        """A worker of this shape, rather `prefer`, else one that is up; those whose directory is no longer there are ended."""
        found = None
        for worker in self._of(pool):
            if not worker.unclaimed or worker.shape.workspace != shape.workspace:
                continue
            if worker.shape.workspace_id != shape.workspace_id:
                worker.kill()
            elif worker.shape == shape and (found is None or _rank(worker, prefer) > _rank(found, prefer)):
                found = worker
        return found

    def _evict_for(self, pool: str) -> Worker | None:
        """End a worker that nobody uses if the pool is at its ceiling; the new one is to wait for its end."""
        members = self._of(pool)
        if sum(not worker.replaced for worker in members) < self._config.pools[pool].max_workers:
            return None
        unused = [worker for worker in members if worker.unclaimed]
        victim = next((worker for worker in unused if worker.phase is Phase.IDLE), unused[0] if unused else None)
        if victim is not None:
            victim.replaced = True
            victim.kill()
        return victim

    def _new_worker(self, pool: str, shape: Shape, after: Worker | None = None) -> Worker:
        self._born += 1
        worker = Worker(f"w-{self._epoch}-{self._born}", pool, shape, self._unused_uid())
        self._workers[worker.id] = worker
        self._jobs.spawn(self._live(worker, after))
        return worker

    def _unused_uid(self) -> int:
        """The next in turn; all that are in use, if there are more workers than uids, are shared."""
        config = self._config.sandbox
        used = {worker.uid for worker in self._workers.values()}
        turn = (config.uid_first + (self._born + step) % config.uid_count for step in range(config.uid_count))
        return next((uid for uid in turn if uid not in used), config.uid_first)

    def _top_up(self) -> None:
        """Bring every pool to its floor with workers of the shape it last needed."""
        if self._closing or self._spawner.ended:
            return
        now = time.monotonic()
        for name, pool in self._config.pools.items():
            if now < max(self._held_until.get(name, 0.0), self._warm_not_before.get(name, 0.0)):
                continue
            shape = self._recent.get(name)
            if shape is None or not still_there(shape):
                shape = self._shaper.warm()
            members = self._of(name)
            wanted = _kept_ready(pool) - sum(worker.phase is not Phase.DYING for worker in members)
            for _ in range(min(wanted, pool.max_workers - len(members))):
                self._new_worker(name, shape)

    # One worker, from birth to burial

    async def _live(self, worker: Worker, after: Worker | None) -> None:
        nest: Nest | None = None
        try:
            if after is not None:
                await after.gone.wait()
            await self._prepare_view(worker)
            if worker.phase is not Phase.DYING:
                nest = Nest.left(self._directory / worker.id) if worker.adopted else Nest(self._directory / worker.id)
                exit = await self._launcher.live(worker, nest, self._channel(worker))
                self._exited(worker, exit, nest)
        except Exception as error:
            self._spawn_failed(worker, error)
        finally:
            if nest is not None:
                nest.handed_over()
            self._bury(worker)
        # What lies in its outbox is all that tells of its work until that is in the journal.
        if nest is not None and await self._listener.settled():
            nest.remove()
        if worker.shape.view and self._views is not None and not self._closing:
            await self._views.over(worker.shape)

    async def _prepare_view(self, worker: Worker) -> None:
        if worker.shape.view and self._views is not None and not worker.adopted and worker.phase is not Phase.DYING:
            await self._views.prepare(worker.shape, self._shaper.protected(worker.shape))

    def _channel(self, worker: Worker) -> Channel:
        return Channel(
            lambda frame: self._dialogue.heard(worker, frame),
            lambda error: self._give_up(worker, str(error)),
            worker.kill,
        )

    def _spawn_failed(self, worker: Worker, error: Exception) -> None:
        if self._closing or self._spawner.ended:
            return  # the attempt is still marked running, and queued again by the next start
        log.error("worker_spawn_failed", worker=worker.id, pool=worker.pool, error=str(error))
        failure = refusal_of(error)
        self._warm_later(worker)
        if failure.retriable:
            self._held_until[worker.pool] = time.monotonic() + HOLD_S
            asyncio.get_running_loop().call_later(HOLD_S, self._listener.slots_changed)
        if worker.task and not worker.stop_code:
            self._dialogue.died(worker, failure)

    def _exited(self, worker: Worker, exit: Exit, nest: Nest) -> None:
        log.debug("worker_exited", worker=worker.id, code=exit.code, signal=exit.signal, tasks=worker.wear.tasks)
        if not worker.ready and not self._closing and not worker.replaced and not worker.adopted:
            self._warm_later(worker)
            log.error("worker_never_ready", worker=worker.id, code=exit.code, signal=exit.signal, said=nest.last_words())
        if not worker.task or worker.stop_code:
            return
        end = nest.end_of(worker.task, worker.attempt) if worker.told or worker.adopted else None
        if end is not None:  # it was killed between writing and sending it
            self._listener.attempt_ended(worker.id, end)
        elif not self._closing and not self._spawner.ended:
            self._dialogue.died(worker, death_of(exit))

    def _warm_later(self, worker: Worker) -> None:
        """Sandboxes of this shape do not come up: try another one, and not at once."""
        self._warm_not_before[worker.pool] = time.monotonic() + WARM_RETRY_S
        if self._recent.get(worker.pool) == worker.shape:
            del self._recent[worker.pool]

    def _bury(self, worker: Worker) -> None:
        worker.phase = Phase.DYING
        worker.forget_attempt()
        del self._workers[worker.id]
        worker.gone.set()
        if not self._closing:
            self._listener.slots_changed()
            self._top_up()

    def _finished(self, worker: Worker, end: frames.End) -> None:
        recorded = True
        if worker.hearing is not None:
            worker.hearing.catch_up()
        if not worker.stop_code:
            self._dialogue.say_held(worker.progress)
            recorded = self._listener.attempt_ended(worker.id, end)
        else:
            self._listener.attempt_stopped(end)
        worker.forget_attempt()
        worker.wear.tasks += 1
        usable = worker.reusable and not end.last and worker.phase is not Phase.DYING
        if not usable or worker.worn_out(self._config.pools[worker.pool]):
            worker.kill()
        elif not recorded:  # its outbox is all that a crash would leave of it, and the next task would overwrite that
            self._jobs.spawn(self._rest_when_settled(worker))
        else:
            self._dialogue.rest(worker)

    async def _rest_when_settled(self, worker: Worker) -> None:
        if await self._listener.settled():
            self._dialogue.rest(worker)
        else:
            worker.kill()

    # When to end it

    def _kill_if_busy(self, worker: Worker, task: str, attempt: int) -> None:
        if worker.busy_with(task, attempt):
            worker.kill()

    def _give_up(self, worker: Worker, why: str) -> None:
        """End a worker that is no good; its attempt may be made again by another."""
        if worker.phase is not Phase.DYING:
            log.warning("worker_given_up", worker=worker.id, task=worker.task, reason=why)
        worker.kill()
        if worker.task and not worker.stop_code:
            self._dialogue.died(worker, Failure(code=ErrorCode.WORKER_DIED, message=why))

    async def _watch(self) -> None:
        """End the silent, retire the idle, replace the missing; once a heartbeat."""
        while True:
            before = time.monotonic()
            await asyncio.sleep(frames.HEARTBEAT_S)
            now = time.monotonic()
            late_s = now - before - frames.HEARTBEAT_S
            stalled = late_s > frames.HEARTBEAT_S
            for worker in list(self._workers.values()):
                if stalled:
                    worker.last_sign = now
                self._check(worker, now)
            self._listener.time_passed(late_s if stalled else 0.0)
            self._top_up()

    def _check(self, worker: Worker, now: float) -> None:
        silent_s = now - worker.last_sign
        if worker.phase is Phase.SPAWNING:
            if worker.sandbox is not None and silent_s > HELLO_S:
                self._give_up(worker, f"the worker did not say hello within {HELLO_S:.0f} s.")
        elif worker.phase is not Phase.DYING and silent_s > MISSED_HEARTBEATS * frames.HEARTBEAT_S:
            self._give_up(worker, f"the worker sent no heartbeat for {silent_s:.0f} s and was killed.")
        elif worker.phase is Phase.IDLE:
            pool = self._config.pools[worker.pool]
            alive = sum(other.phase is not Phase.DYING for other in self._of(worker.pool))
            if not still_there(worker.shape) or (now - worker.idle_since > pool.idle_s and alive > _kept_ready(pool)):
                worker.kill()


def _kept_ready(pool: Pool) -> int:
    """Workers that are not ended for being idle, and replaced."""
    return pool.max_workers if pool.scaling == "pre-warmed" else pool.min_workers


def _rank(worker: Worker, prefer: str) -> tuple[bool, bool]:
    """The higher, the rather it is given a task."""
    return worker.id == prefer, worker.phase is Phase.IDLE
