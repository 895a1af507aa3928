"""A daemon of the real parts, on a simulated disk, with simulated pools and no sockets: daemon.app._serve, without the rest."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any, cast

from supervisord_agents.config import Config, Pool, Tasks
from supervisord_agents.config import Journal as JournalTable
from supervisord_agents.core.model import State
from supervisord_agents.core.placement import Placement
from supervisord_agents.core.scheduler import Scheduler
from supervisord_agents.daemon import app, parts, recovery
from supervisord_agents.daemon.accounts import Accounts
from supervisord_agents.daemon.admission import Admission
from supervisord_agents.daemon.advice import Advisor
from supervisord_agents.daemon.attempts import Attempts
from supervisord_agents.daemon.clock import Clock
from supervisord_agents.daemon.digests import Digests
from supervisord_agents.daemon.ends import Ends
from supervisord_agents.daemon.engine import Engine, Growth
from supervisord_agents.daemon.facts import Facts
from supervisord_agents.daemon.feed import Feed
from supervisord_agents.daemon.forecast import Forecast
from supervisord_agents.daemon.handlers import Handlers
from supervisord_agents.daemon.pictures import Pictures
from supervisord_agents.daemon.providers import Providers
from supervisord_agents.daemon.rules import rules_of
from supervisord_agents.daemon.submissions import Submissions, limits_of
from supervisord_agents.daemon.tellers import Tellers
from supervisord_agents.daemon.tracking import Tracking, settings_of
from supervisord_agents.daemon.upkeep import PIECE_REST_S, Upkeep
from supervisord_agents.daemon.waiters import Waiters
from supervisord_agents.daemon.workspaces import Workspaces
from supervisord_agents.errors import DiskFull, JournalCorrupt, JournalError
from supervisord_agents.journal.committer import Committer
from supervisord_agents.journal.journal import Journal
from supervisord_agents.observe.stalls import StallWatch
from supervisord_agents.spool.results import ResultStore
from supervisord_agents.tracker.keeper import Keeper
from supervisord_agents.wire import frames
from supervisord_agents.workers.agents.registry import AgentRegistry
from tests.simulation.disk import SimFiles
from tests.simulation.loop import Loop, Process, Threads, current_thread
from tests.simulation.machine import POOLS, Meters, Pools, Worker
from tests.simulation.witness import Violation
from tests.support.archive import NoArchive

if TYPE_CHECKING:
    from tests.simulation.world import World

STATE_DIR = Path("/state")
SEGMENT_BYTES = 4096
RESERVE_BYTES = 2048
CONFIG = Config(
    pools={
        name: Pool(
            min_workers=0,
            max_workers=count,
            scale_up_waiting=1,
            scale_up_s=0.5,
            scale_up_wait_s=2.0,
            idle_s=5.0,
            borrows_from=tuple(other for other in POOLS if other > name),
        )
        for name, count in POOLS.items()
    },
    tasks=Tasks(timeout_s=6.0, backoff_s=0.2),
    journal=JournalTable(snapshot_every_records=40),
)
AGENTS = AgentRegistry(CONFIG)


def _slept(dice: Random) -> float:
    """The machine was suspended once in a while."""
    return dice.random() * 10.0 if dice.random() < 0.01 else 0.0


class Logs:
    """In the place of spool.logs.LogStore: logs are no part of what must survive."""

    def hear(self, task: str, attempt: int, offset: int, data: bytes) -> bytes:
        return data

    def heard(self, task: str, attempt: int) -> int:
        return 0

    def forget_positions(self, keep: object) -> None: ...
    def notice(self, task: str, text: str) -> None: ...
    def close(self, task: str) -> None: ...
    def path(self, task: str) -> Path:
        return STATE_DIR / "logs" / task

    def read(self, task: str, offset: int, limit_bytes: int) -> tuple[bytes, int]:
        return b"", 0


def pulled(pieces: Iterator[bytes], loop: Loop) -> Iterator[bytes]:
    """In the place of daemon.upkeep.pulled, whose thread waits for the loop in ways that only a real one can."""
    thread = current_thread()
    assert thread is not None
    taken: list[bytes] = []

    def take() -> None:
        taken.append(next(pieces, b""))
        thread.resume()

    while True:
        loop.call_soon(take)
        thread.block()
        if not (piece := taken.pop()):
            return
        yield piece
        thread.sleep(PIECE_REST_S)


class Stopwatch:
    """In the place of daemon.recovery.Stopwatch, which reads a real clock."""

    def seconds(self) -> float:
        return 0.0


class Spawner:
    """In the place of sandbox.spawner.Spawner, after a change of daemons."""

    without = ""

    def __init__(self, found: list[Worker]) -> None:
        self._found = found

    def adopt(self) -> list[Worker]:
        return self._found


class WatchedCommitter(Committer):
    """The real one, and the witness hears what it takes and what it tells."""

    def __init__(self, journal: Journal, threads: Threads, world: World) -> None:
        self._world = world
        super().__init__(journal, threads)  # type: ignore[arg-type]

    def append(self, payload: bytes, *, urgent: bool = True) -> int:
        sequence = super().append(payload, urgent=urgent)
        self._world.witness.appended[sequence] = payload
        return sequence

    def _flushed(self, durable: int, rests: bool) -> None:
        self._world.witness.acknowledged = max(self._world.witness.acknowledged, durable)
        super()._flushed(durable, rests)


def placed(scheduler: Scheduler, clock: Clock) -> Providers:
    """Have the scheduler obey the configuration; nobody calls a model here."""
    scheduler.placement = Placement(rules_of(CONFIG, AGENTS))
    return Providers(scheduler.placement, clock, lambda: None)


class Daemon(Process):
    """One life of the supervisor."""

    def __init__(self, world: World, epoch: str, dice: Random) -> None:
        super().__init__(epoch)
        self.world = world
        self.epoch = epoch
        self.dice = dice
        self.files = SimFiles(world.disk, self, self._on_disk)
        self.operations_left: int | None = None
        """Of the disk, until it dies."""
        self.power = False
        """It dies with the whole machine."""
        self.handlers: Handlers | None = None
        self.scheduler: Any = None
        self.ends: Ends | None = None
        self.clean_end = False
        self.on_end: list[Callable[[], None]] = []
        """Told when it is gone, however it went."""

    def die(self) -> None:
        self.world.crashed(self)

    def _on_disk(self, what: str) -> None:
        self.world.say("disk", what)
        if self.operations_left is not None:
            self.operations_left -= 1
            if self.operations_left <= 0:
                self.world.crash_in_a_call(self)

    async def main(self) -> None:
        """From start to end; returns when it has ended in order or by itself."""
        opened = await self._opened()
        world, threads = self.world, Threads(self.world.loop, self)
        if opened is None:
            return
        journal, recovered = opened
        feed = Feed(recovered.snapshot_sequence)
        replayed = recovery.replay(recovered, feed.changed)
        world.witness.recovered(recovered, replayed.scheduler)
        self.scheduler = replayed.scheduler
        del opened, recovered
        watch: Any = Stopwatch()
        stop = app._Stop(leaving=False)
        clock = Clock(replayed.last_at, wall=world.wall, boot=world.loop.time)
        results, providers = ResultStore(STATE_DIR / "results", self.files), placed(replayed.scheduler, clock)
        committer, waiters = WatchedCommitter(journal, threads, world), Waiters()
        meters: Any = Meters(world.machine)
        accounts = Accounts(meters)
        pools: Any = Pools(world.machine, self)
        logs: Any = Logs()
        ends = self.ends = Ends(results, accounts)
        attempts = Attempts(CONFIG, AGENTS, pools, ends, accounts, logs, feed, waiters, lambda: journal.accepting, providers)
        engine = Engine(replayed.scheduler, committer, clock, self._release(attempts), Growth(replayed.records, replayed.bytes))
        facts = self._facts(engine, journal)
        pull, slept = cast(Any, pulled), partial(_slept, self.dice)
        upkeep = Upkeep(CONFIG, engine, committer, journal, results, facts, attempts.slots_changed, pull, slept=slept)
        handlers = self._handlers(engine, attempts, ends, pools, results, logs, feed, waiters, facts)
        async with app._background([engine.run(), upkeep.run()], stop) as failed:
            left = self._left_in_outboxes()
            spawner: Any = Spawner(list(world.machine.workers.values()))
            facts.recovery = await app._recover(engine, attempts, ends, replayed, spawner, STATE_DIR, watch)
            self._check_adopted(left)
            self.check_results()
            attempts.start()
            upkeep.start()
            self.handlers = handlers
            self.world.say("daemon", f"ready, {facts.recovery.records} records, clean={facts.recovery.clean}")
            await stop.wait()
            self.handlers = None
            facts.stopping = True
            attempts.drain()
            self.world.disconnect(self)
            await (pools.leave() if stop.leaving else pools.aclose())
            await ends.recorded()
            await upkeep.finish(in_order=not failed)
        await committer.aclose()
        self.clean_end = not failed
        self.world.say("daemon", f"ends, in order: {self.clean_end}")

    def _facts(self, engine: Engine, journal: Journal) -> Facts:
        return Facts(
            epoch=self.epoch,
            started_at=engine.clock.now(),
            state_dir=STATE_DIR,
            recovery=parts.nothing_recovered(),
            enforcement={},
            journal_bytes=lambda: journal.size_bytes,
            journal_accepting=lambda: journal.accepting,
            notes=[],
            stalls=StallWatch(1.0),
        )

    def _handlers(
        self,
        engine: Engine,
        attempts: Attempts,
        ends: Ends,
        pools: Any,
        results: ResultStore,
        logs: Any,
        feed: Feed,
        waiters: Waiters,
        facts: Facts,
    ) -> Handlers:
        forecast = Forecast(CONFIG.tasks, engine.scheduler.durations)
        admission = Admission(CONFIG, AGENTS, Workspaces([]), forecast)
        archivist: Any = NoArchive()
        pictures = Pictures(engine, pools)
        return Handlers(
            engine,
            admission,
            attempts,
            ends,
            pools,
            results,
            logs,
            feed,
            waiters,
            archivist,
            facts,
            submissions=self._submissions(engine, admission, attempts, archivist, facts),
            keeper=None,  # type: ignore[arg-type]  # no task of a simulation has a workspace
            advisor=Advisor(CONFIG, engine, admission, forecast, AGENTS, pools),
            pictures=pictures,
            tracking=_tracking(engine, pictures, forecast, attempts),
        )

    def _submissions(self, engine: Engine, admission: Admission, attempts: Attempts, archivist: Any, facts: Facts) -> Submissions:
        made = Submissions(engine, admission, attempts, archivist, facts, 10_000, limits_of(CONFIG), self.dice)
        attempts.take_children(made)
        return made

    async def _opened(self) -> Any:
        while True:
            try:
                return Journal.open(
                    STATE_DIR / "journal",
                    segment_bytes=SEGMENT_BYTES,
                    reserve_bytes=RESERVE_BYTES,
                    max_record_bytes=1 << 20,
                    files=self.files,
                    threads=Threads(self.world.loop, self),  # type: ignore[arg-type]
                    dice=self.dice,
                )
            except JournalCorrupt as error:
                raise Violation(f"the daemon does not start: {error}") from error
            except DiskFull as error:
                if not self.world.space_is_short:
                    raise Violation(f"the daemon does not start for want of room, and there is room: {error}") from error
                self.world.say("daemon", f"no room to start: {error}")
                await asyncio.sleep(app.ROOM_RETRY_S)

    def _release(self, attempts: Attempts) -> Callable[[int, Any], None]:
        """An exception of a decision is caught by the engine; here it must not come."""

        def release(sequence: int, decision: Any) -> None:
            try:
                attempts.released(sequence, decision)
            except JournalError:
                raise
            except Exception as error:
                self.world.violated(f"a decision could not be carried out: {decision}: {error!r}")

        return release

    def _left_in_outboxes(self) -> dict[str, Any]:
        """Ends of attempts that workers left, and that the journal does not know."""
        machine = self.world.machine
        running = [task for task in self.scheduler.running_tasks() if task.worker not in machine.workers]
        found = {task.id: machine.end_left(task.worker, task.id, task.attempt) for task in running}
        return {task: end for task, end in found.items() if end is not None}

    def _check_adopted(self, left: dict[str, Any]) -> None:
        for name, end in left.items():
            task = self.scheduler.tasks[name]
            done = isinstance(end, frames.TaskResult)
            if (task.state is State.SUCCEEDED) != done or (not done and task.failure.code == "LOST"):
                raise Violation(f"the worker of {name}#{end.attempt} had left {end}, and the task is {task.state}")

    def check_results(self) -> None:
        """Every task that succeeded has the result that its worker gave."""
        assert self.ends is not None
        for task in self.scheduler.tasks.values():
            if task.state is State.SUCCEEDED:
                self.world.witness.answered(self.ends.answer(task))


def _tracking(engine: Engine, pictures: Pictures, forecast: Forecast, attempts: Attempts) -> Tracking:
    """That tells by rules only."""
    nobody: Any = None
    digests = Digests(engine, pictures, forecast, attempts.signs)
    tracking = Tracking(engine, digests)
    tracking.keep(
        Keeper(digests.of, engine.clock.now, settings=settings_of(CONFIG.tracker)),
        Tellers(CONFIG, nobody, nobody, STATE_DIR, engine.clock.now),
    )
    return tracking
