"""Workers, and the pools that a daemon has of them.

Workers outlive the daemon for a moment, and their outboxes until the power goes.

What an attempt comes to is drawn when it starts: it succeeds, fails, dies, hangs, dies between its outbox and its last frame, or
answers after it was told to stop.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping
from random import Random
from typing import TYPE_CHECKING, Any

from supervisord_agents.core.model import Failure, TaskSpec, Usage
from supervisord_agents.errors import ErrorCode, SupervisorError
from supervisord_agents.spool.meters import Count
from supervisord_agents.wire import frames
from supervisord_agents.wire.messages import PoolView

if TYPE_CHECKING:
    from tests.simulation.daemon import Daemon
    from tests.simulation.world import World

POOLS = {"critical": 2, "standard": 4}
PLANS = (
    ("succeed",) * 12 + ("large",) * 2 + ("fail",) * 3 + ("fail for good", "die", "die with its outbox", "hang", "late", "twice")
)
STOP_ANSWER_S = 4.0
WRITTEN = "its result is being written"


class Worker:
    """Runs one attempt after the other."""

    def __init__(self, id: str, pool: str) -> None:
        self.id = id
        self.pool = pool
        self.alive = True
        self.task = ""
        self.attempt = 0
        self.told = False
        self.stopped = False
        self.plan = ""
        self.pools: Pools | None = None
        """Of the daemon that it speaks to."""
        self.last_end: frames.TaskResult | frames.TaskError | None = None
        """Said again to a daemon that does not know of it."""

    def busy_with(self, task: str, attempt: int) -> bool:
        return self.alive and (self.task, self.attempt) == (task, attempt)


class Machine:
    """All workers there are, and what they leave behind."""

    def __init__(self, world: World, dice: Random) -> None:
        self.world = world
        self.dice = dice
        self.workers: dict[str, Worker] = {}
        self.outboxes: dict[str, frames.TaskResult | frames.TaskError] = {}
        """What a worker's outbox holds, by the worker's id."""
        self.calm = False
        """Workers behave."""
        self.meters: dict[str, Count] = {}

    def end_left(self, worker: str, task: str, attempt: int) -> frames.TaskResult | frames.TaskError | None:
        """As workers.nest.end_left."""
        end = self.outboxes.get(worker)
        return end if end is not None and (end.task, end.attempt) == (task, attempt) else None

    def clear(self, alive: Container[str]) -> None:
        """As daemon.recovery.clear."""
        self.outboxes = {name: end for name, end in self.outboxes.items() if name in alive}

    def orphaned(self, *, power: bool) -> None:
        """The daemon is gone. Its workers are kept for a successor; or the fork server is gone too, and what runs may finish in
        its grace, or not. A loss of power takes all of it."""
        kept = not power and self.dice.random() < 0.7
        for worker in list(self.workers.values()):
            worker.pools = None
            if kept and worker.alive and not worker.stopped:
                continue
            del self.workers[worker.id]
            if power or not worker.alive or kept:
                worker.alive = False
                continue
            if worker.told and worker.plan in ("succeed", "large", "fail", "twice") and self.dice.random() < 0.4:
                self.finish(worker)
            worker.alive = False
        if power:
            self.meters.clear()
            self.outboxes = {name: end for name, end in self.outboxes.items() if self.dice.random() < 0.2}

    def begin(self, worker: Worker) -> None:
        """The worker has its task."""
        world, dice = self.world, self.dice
        worker.told, worker.last_end = True, None
        world.witness.launched(worker.task, worker.attempt)
        for other in self.workers.values():
            if other is not worker and other.alive and other.told and not other.stopped and other.task == worker.task:
                world.violated(
                    f"{worker.task}#{worker.attempt} starts, and {worker.task}#{other.attempt} runs and was not stopped"
                )
        plan = worker.plan = "succeed" if self.calm else dice.choice(PLANS)
        seconds = 0.02 + dice.random() ** 3 * 3.0
        world.say("worker", f"{worker.id} runs {worker.task}#{worker.attempt}, will {plan}")
        task, attempt = worker.task, worker.attempt
        if plan in ("hang", "late"):
            return
        if dice.random() < 0.3:
            said = dice.choice(
                (
                    frames.Progress(task=task, attempt=attempt, fraction=0.5, message="half"),
                    frames.Log(task=task, attempt=attempt, stream="stdout", data=b"line\n"),
                    frames.Checkpoint(task=task, attempt=attempt, step="half", done=True, result=f"{task}#{attempt}"),
                    frames.UsageReport(task=task, attempt=attempt, usage=Usage(10, 5, 0.01)),
                )
            )
            world.loop.call_later(seconds / 2, self.says, worker, said)
        if dice.random() < 0.1:
            world.loop.call_later(seconds * dice.choice((0.5, 1.5)), self.uses, worker, task, Usage(100, 10, 0.1))
        world.loop.call_later(seconds, self.ends, worker, task, attempt)

    def says(self, worker: Worker, frame: Any) -> None:
        if worker.pools is not None and worker.busy_with(frame.task, frame.attempt):
            worker.pools.said(worker, frame)

    def uses(self, worker: Worker, task: str, usage: Usage) -> None:
        if worker.pools is not None:
            worker.pools.used(task, usage)

    def ends(self, worker: Worker, task: str, attempt: int) -> None:
        """The work of that attempt is over."""
        if worker.busy_with(task, attempt):
            if worker.plan == "die":
                worker.alive = False
                self.world.say("worker", f"{worker.id} dies")
                self.gone(worker)
            else:
                self.finish(worker)

    def gone(self, worker: Worker) -> None:
        """The fork server tells who listens, and a successor does not find it."""
        if worker.pools is not None:
            worker.pools.later(worker.pools.exited, worker)
        else:
            self.workers.pop(worker.id, None)

    def finish(self, worker: Worker) -> None:
        """Leave the end in the outbox; then say it, if there is somebody to be told and the worker gets to it."""
        end = self.end_of(worker)
        self.outboxes[worker.id] = worker.last_end = end
        self.world.witness.done(end)
        self.world.say("worker", f"{worker.id} has done {worker.task}#{worker.attempt}: {type(end).__name__}")
        if worker.plan == "die with its outbox":
            worker.alive = False
            self.gone(worker)
            return
        pools = worker.pools
        if pools is None:
            return
        pools.later(pools.finished, worker, end)
        if worker.plan == "twice":
            pools.later(pools.finished, worker, end)

    def end_of(self, worker: Worker) -> frames.TaskResult | frames.TaskError:
        task, attempt, plan = worker.task, worker.attempt, worker.plan
        usage = Usage(self.dice.randrange(100), self.dice.randrange(100), 0.0)
        if plan.startswith("fail"):
            failure = Failure(code=ErrorCode.WORKER_FAILED, message=f"attempt {attempt} failed", retriable=plan == "fail")
            return frames.TaskError(task=task, attempt=attempt, failure=failure, usage=usage)
        output = f"{task}#{attempt}:{self.dice.getrandbits(32):x}"
        if plan == "large":
            output += "x" * 600
        return frames.TaskResult(task=task, attempt=attempt, output=output, usage=usage)


class Meters:
    """In the place of spool.meters.Meters."""

    def __init__(self, machine: Machine) -> None:
        self._counts = machine.meters

    def write(self, task: str, count: Count) -> None:
        self._counts[task] = count

    def remove(self, task: str) -> None:
        self._counts.pop(task, None)

    def left(self) -> dict[str, Count]:
        return dict(self._counts)


class Pools:
    """In the place of workers.pool.Pools, for one daemon; listens to `Machine` for it. Everything is told a moment later."""

    def __init__(self, machine: Machine, daemon: Daemon) -> None:
        self._machine = machine
        self._daemon = daemon
        self._dice = machine.dice
        self._listener: Any = None
        self._closing = False
        self._born = 0
        self._mine: dict[str, Worker] = {}

    def later(self, callback: Any, *arguments: Any) -> None:
        """In the daemon, when the news have come through the channel."""
        self._daemon.world.loop.call_later(
            0.0002 + self._dice.random() * 0.002, callback, *arguments, context=self._daemon.context
        )

    # What the daemon asks for (workers.pool.Pools)

    def start(self, listener: Any) -> None:
        self._listener = listener

    async def adopt(self, listener: Any, found: Iterable[Worker], running: Mapping[str, Any]) -> set[str]:
        """As Pools.adopt: workers of the daemon before go on, and say what they have to say."""
        self._listener = listener
        tasks = set()
        for worker in found:
            known = running.get(worker.id)
            if known is None and worker.task and worker.told and worker.last_end is None:
                worker.alive = False  # it does something that nobody waits for
                del self._machine.workers[worker.id]
                continue
            worker.pools = self
            self._mine[worker.id] = worker
            if known is None:
                worker.task, worker.told = "", False
                continue
            tasks.add(known.task)
            end = worker.last_end
            told = worker.told and worker.busy_with(known.task, known.attempt)
            ended = end is not None and (end.task, end.attempt) == (known.task, known.attempt)
            worker.task, worker.attempt, worker.told = known.task, known.attempt, told or ended
            self._machine.world.say("worker", f"{worker.id} is found with {known.task}#{known.attempt}, told={worker.told}")
            self.later(self._hello, worker, known, end if ended else None)
        return tasks

    def _hello(self, worker: Worker, known: Any, end: Any) -> None:
        if worker.alive and worker.busy_with(known.task, known.attempt):
            self._listener.attempt_found(worker.task, worker.attempt, told=worker.told)
            if end is not None:
                self.later(self.finished, worker, end)

    @property
    def workers(self) -> Mapping[str, Worker]:
        return self._mine

    async def leave(self) -> None:
        self._closing = True

    def free(self) -> dict[str, int]:
        room = dict(POOLS)
        for worker in self._mine.values():
            if worker.task:
                room[worker.pool] -= 1
        return {name: 0 if self._closing else max(0, count) for name, count in room.items()}

    def hands(self) -> tuple[dict[str, list[str]], set[str]]:
        return {}, {worker.id for worker in self._mine.values() if worker.task}

    def claim(self, pool: str, task: str, attempt: int, spec: TaskSpec, client: str = "", prefer: str = "") -> str:
        if self._dice.random() < 0.01 and not self._machine.calm:
            raise SupervisorError("no worker can be made.", code=ErrorCode.UNAVAILABLE)
        idle = [worker for worker in self._mine.values() if worker.pool == pool and worker.alive and not worker.task]
        if idle:
            worker = idle[0]
        else:
            self._born += 1
            worker = Worker(f"w-{self._daemon.epoch}-{self._born}", pool)
            self._mine[worker.id] = self._machine.workers[worker.id] = worker
            worker.pools = self
        worker.task, worker.attempt, worker.told, worker.stopped = task, attempt, False, False
        return worker.id

    def cold(self, worker_id: str) -> bool:
        return False

    def launch(self, worker_id: str, message: frames.RunTask) -> None:
        worker = self._mine.get(worker_id)
        if worker is not None and worker.busy_with(message.task, message.attempt):
            self._daemon.world.loop.call_later(
                0.001 + self._dice.random() * 0.05,
                self._begin,
                worker,
                message.task,
                message.attempt,
                context=self._machine.world.context,
            )

    def _begin(self, worker: Worker, task: str, attempt: int) -> None:
        if self._daemon.alive and worker.busy_with(task, attempt) and not worker.told:
            self._machine.begin(worker)

    def gateway_port(self, worker_id: str) -> int:
        return 0

    def stop(self, task: str, attempt: int, code: str) -> None:
        for worker in list(self._mine.values()):
            if not worker.busy_with(task, attempt):
                continue
            if not worker.told:
                self._rest(worker)
                continue
            worker.stopped = True
            if worker.plan == "late" or (worker.plan == "succeed" and self._dice.random() < 0.3):
                self._machine.finish(worker)
            elif self._dice.random() < 0.5:
                self.later(self._stopped, worker, task, attempt)
            else:
                self._daemon.world.loop.call_later(STOP_ANSWER_S, self._kill, worker, task, attempt, context=self._daemon.context)

    def answer(self, answer: frames.Checkpointed) -> None:
        if answer.failure is None:
            self._machine.world.witness.kept(answer)

    def views(self, waiting: Mapping[str, int]) -> list[PoolView]:
        return [PoolView(name=name, min_workers=0, max_workers=count, busy=0, idle=0, waiting=0) for name, count in POOLS.items()]

    async def aclose(self) -> None:
        self._closing = True
        for worker in list(self._mine.values()):
            if worker.alive:
                self._exit(worker)

    # What workers do

    def said(self, worker: Worker, frame: Any) -> None:
        if worker.busy_with(frame.task, frame.attempt):
            self.later(self._hear, frame)

    def _hear(self, frame: Any) -> None:
        self._listener.attempt_said(frame)

    def used(self, task: str, usage: Usage) -> None:
        """The gateway counts."""
        if not self._closing:
            self.later(self._count, task, usage)

    def _count(self, task: str, usage: Usage) -> None:
        self._listener.used(task, usage)

    def finished(self, worker: Worker, end: frames.TaskResult | frames.TaskError) -> None:
        """Its last frame has come; as Pools._finished."""
        if not worker.busy_with(end.task, end.attempt):
            return
        recorded = True
        if not worker.stopped:
            recorded = self._listener.attempt_ended(worker.id, end)
        else:
            self._listener.attempt_stopped(end)
        worker.task = ""
        if recorded:
            self._rest(worker)
        else:
            worker.task, worker.told = WRITTEN, False
            self._daemon.world.loop.create_task(self._rest_when_settled(worker))

    async def _rest_when_settled(self, worker: Worker) -> None:
        if await self._listener.settled():
            self._rest(worker)
        else:
            self._exit(worker)

    def _stopped(self, worker: Worker, task: str, attempt: int) -> None:
        """It has answered that it stopped: its end is ignored."""
        if worker.busy_with(task, attempt):
            self._rest(worker)

    def _kill(self, worker: Worker, task: str, attempt: int) -> None:
        if worker.busy_with(task, attempt):
            self._exit(worker)

    def exited(self, worker: Worker) -> None:
        """As Pools._exited: what lies in the outbox counts."""
        self._exit(worker)

    def _exit(self, worker: Worker) -> None:
        worker.alive = False
        self._mine.pop(worker.id, None)
        self._machine.workers.pop(worker.id, None)
        if worker.task and worker.told and not worker.stopped:
            end = self._machine.end_left(worker.id, worker.task, worker.attempt)
            if end is not None:
                self._listener.attempt_ended(worker.id, end)
            elif not self._closing:
                failure = Failure(code=ErrorCode.WORKER_DIED, message="the worker ended without a result")
                self._listener.attempt_died(worker.task, worker.attempt, failure)
        self._daemon.world.loop.create_task(self._bury(worker))
        if not self._closing:
            self._listener.slots_changed()

    async def _bury(self, worker: Worker) -> None:
        if await self._listener.settled():
            self._machine.outboxes.pop(worker.id, None)

    def _rest(self, worker: Worker) -> None:
        worker.task, worker.told, worker.stopped = "", False, False
        if not self._closing:
            self._listener.slots_changed()
