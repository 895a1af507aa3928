"""What the daemon does for each request of the client protocol."""

from __future__ import annotations

import asyncio
import contextlib
import math
import os
import shutil
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from typing import Any

import msgspec
import psutil
import structlog

from supervisord_agents import __version__
from supervisord_agents.core import stuck
from supervisord_agents.core.breakers import BreakerState
from supervisord_agents.core.events import CancelRequested, Changed, RetryRequested
from supervisord_agents.core.model import END_STATES
from supervisord_agents.core.task import Task
from supervisord_agents.daemon import breakers, steps, views
from supervisord_agents.daemon.admission import Admission
from supervisord_agents.daemon.advice import Advisor
from supervisord_agents.daemon.archivist import ArchivedTask, Archivist
from supervisord_agents.daemon.attempts import Attempts
from supervisord_agents.daemon.breakers import BreakerControl
from supervisord_agents.daemon.control import Control, pauses
from supervisord_agents.daemon.ends import Ends
from supervisord_agents.daemon.engine import Engine
from supervisord_agents.daemon.facts import Facts
from supervisord_agents.daemon.feed import Feed
from supervisord_agents.daemon.letters import MAX_NAMED, Letters
from supervisord_agents.daemon.outcomes import Outcomes
from supervisord_agents.daemon.pictures import Pictures
from supervisord_agents.daemon.plans import Plans
from supervisord_agents.daemon.submissions import Submissions
from supervisord_agents.daemon.tracking import Tracking
from supervisord_agents.daemon.waiters import Waiters
from supervisord_agents.errors import InvalidInput, NotFound
from supervisord_agents.rpc.peer import Peer
from supervisord_agents.spool.logs import LogStore
from supervisord_agents.spool.results import ResultStore
from supervisord_agents.wire import messages as m
from supervisord_agents.wire.advice import Estimate
from supervisord_agents.wire.breakers import Breakers, ResetBreaker
from supervisord_agents.wire.changes import Apply, Changes, Discard
from supervisord_agents.wire.graph import ShowGraph
from supervisord_agents.wire.letters import Drop, ListLetters, Requeue
from supervisord_agents.wire.story import Ask, TellStory
from supervisord_agents.workers.pool import Pools
from supervisord_agents.workspaces.keeper import Keeper

MAX_WAIT_S = 24 * 3600.0
MAX_LOG_CHUNK_BYTES = 1024 * 1024
MAX_LOG_OFFSET = 2**62
log = structlog.get_logger()


class Handlers:
    """The handler of the RPC server (rpc.handler.Handler)."""

    def __init__(
        self,
        engine: Engine,
        admission: Admission,
        attempts: Attempts,
        ends: Ends,
        pools: Pools,
        results: ResultStore,
        logs: LogStore,
        feed: Feed,
        waiters: Waiters,
        archivist: Archivist,
        facts: Facts,
        *,
        submissions: Submissions,
        keeper: Keeper,
        advisor: Advisor,
        pictures: Pictures,
        tracking: Tracking,
    ) -> None:
        outcomes = Outcomes(keeper, self._resolve_one)
        breaker_control = BreakerControl(engine, attempts, tracking.chain)
        control = Control(engine, admission, attempts, pools, self._resolve_one)
        plans = Plans(engine, pictures, self._resolve_target, self._resolve, self._tasks)
        self._tracking = tracking
        tracking.attach(self._resolve_target, self._resolve, self._tasks)
        self._engine = engine
        self._scheduler = engine.scheduler
        self._admission = admission
        self._attempts = attempts
        self._ends = ends
        self._pools = pools
        self._results = results
        self._logs = logs
        self._feed = feed
        self._waiters = waiters
        self._archivist = archivist
        self._facts = facts
        self._process = psutil.Process()
        letters = Letters(engine, self._resolve, self._done)
        self._table: dict[type[m.Request], Callable[[Any, Peer], Awaitable[m.Reply]]] = {
            m.Submit: submissions.submit,
            m.ListTasks: self._list,
            m.Show: self._show,
            m.Wait: self._wait,
            m.GetResult: self._result,
            m.Cancel: self._cancel,
            m.Retry: self._retry,
            m.Pause: control.pause,
            m.Unpause: control.resume,
            m.Why: control.why,
            ListLetters: letters.page,
            Requeue: letters.requeue,
            Drop: letters.drop,
            Breakers: breaker_control.breakers,
            ResetBreaker: breaker_control.reset,
            Estimate: advisor.estimate,
            ShowGraph: plans.graph,
            TellStory: tracking.story,
            Ask: tracking.ask,
            m.GetLogs: self._get_logs,
            Changes: outcomes.changes,
            Apply: outcomes.apply,
            Discard: outcomes.discard,
            m.Status: self._status,
        }

    def handle(self, request: m.Request, peer: Peer) -> Awaitable[m.Reply]:
        """Answer one request; raises SupervisorError for the client to see."""
        return self._table[type(request)](request, peer)

    def subscribe(self, request: m.Subscribe, peer: Peer) -> AsyncGenerator[m.Item, None]:
        """Raises NotFound or InvalidInput for a name that is no graph or task, or a token that is none.

        Nothing more happens to what is archived: only names of what is in memory are known here.
        """
        only = views.one_of(self._scheduler.resolve(request.graph), request.graph, "graph") if request.graph else ""
        return self._feed.subscribe(request.after, only, request.logs)

    # Names: what is in memory comes before what is archived

    async def _resolve_target(self, name: str, field: str = "task") -> str:
        """The task id or graph id behind an id or an unambiguous prefix of one; raises NotFound or InvalidInput."""
        found = self._scheduler.resolve(name)
        if found != [name]:
            found = list(dict.fromkeys([*found, *await self._archivist.resolve(name)]))
            found = [name] if name in found else found
        return views.one_of(found, name, field)

    async def _resolve(self, name: str, field: str = "task") -> list[str]:
        """The task ids behind such a name: one, or all of a graph; raises NotFound or InvalidInput."""
        target = await self._resolve_target(name, field)
        if "." in target:
            return [target]
        names = self._scheduler.graph_tasks(target) or await self._archivist.names(target)
        if not names:
            raise views.no_graph(target)
        return names

    async def _resolve_one(self, name: str) -> ArchivedTask:
        """The one task behind a name; raises NotFound or InvalidInput. One in memory is given with its edges."""
        found = await self._resolve(name)
        if len(found) > 1:
            raise views.a_graph(name, found)
        task = self._scheduler.tasks.get(found[0])
        if task is not None:
            before = {edge.before.id: edge.before.state for edge in task.dependencies}
            undoes, children = self._scheduler.sagas.undoes(task), self._scheduler.children_of(task)
            return ArchivedTask(task, before, task.dependent_ids, undoes, children)
        archived = await self._archivist.task(found[0])
        if archived is None:
            raise NotFound(f"the task {found[0]} has just been removed from the archive.", field="task")
        return archived

    async def _tasks(self, names: Sequence[str]) -> list[Task]:
        """Of full ids; without what is removed from the archive meanwhile."""
        tasks = {name: task for name in names if (task := self._scheduler.tasks.get(name)) is not None}
        archived = await self._archivist.tasks([name for name in names if name not in tasks])
        tasks |= {task.id: task for task in archived}
        return [tasks[name] for name in names if name in tasks]

    # Changing

    async def _cancel(self, request: m.Cancel, peer: Peer) -> m.CancelReply:
        target = await self._resolve_target(request.task)
        if target not in self._scheduler.tasks and not self._scheduler.graph_tasks(target):
            return m.CancelReply(cancelled=[])  # It has ended, and is archived.
        event = CancelRequested(task=target, subtree=request.subtree, reason=request.reason)
        self._scheduler.check(event, self._engine.clock.now())
        names = await self._done(event)
        log.info("cancelled", request=request.task, tasks=len(names), uid=peer.uid)
        return m.CancelReply(cancelled=sorted(names[:MAX_NAMED]), count=len(names))

    async def _done(self, event: CancelRequested | RetryRequested) -> list[str]:
        """Feed it; return when all that it changes is released, with the full ids of the tasks."""
        before = self._scheduler.newest_work
        fed = self._engine.feed(event)
        self._attempts.slots_changed()
        work = self._scheduler.newest_work
        if work is not None and work is not before:
            await self._engine.carried_out(work)
            self._attempts.slots_changed()
            return work.names
        await self._engine.released(fed.sequence)
        changes = [change for change in fed.decisions if isinstance(change, Changed)]
        if isinstance(event, CancelRequested):
            return [change.task for change in changes if change.after in END_STATES]
        return [change.task for change in changes if change.before in END_STATES]

    async def _retry(self, request: m.Retry, peer: Peer) -> m.RetryReply:
        await self._engine.idle()
        task = (await self._resolve_one(request.task)).task
        if task.id not in self._scheduler.tasks:
            raise InvalidInput(
                f"task {task.id} ended long ago and is archived; it is not run again.",
                field="task",
                kept="Its result and its log are kept.",
                hint="Submit it anew: `agentctl show` has its specification.",
            )
        event = RetryRequested(task=task.id, fresh=request.fresh)
        self._scheduler.check(event, self._engine.clock.now())
        names = await self._done(event)
        return m.RetryReply(tasks=sorted(names[:MAX_NAMED]), count=len(names))

    # Reading. Nothing is told that is not durable: the answer is made first, and given when all that it rests on is on disk.
    # The other way round, more would have happened by the time that the answer is made.

    async def _list(self, request: m.ListTasks, peer: Peer) -> m.ListReply:
        reply = await views.page(self._scheduler, self._archivist, request, self._attempts.signs)
        await self._engine.settled_for([view.id for view in reply.tasks])
        return reply

    async def _show(self, request: m.Show, peer: Peer) -> m.ShowReply:
        found = await self._resolve_one(request.task)
        task = found.task
        reply = m.ShowReply(
            task=views.view(task, self._attempts.signs, self._scheduler),
            spec=task.spec,
            dependencies=found.dependencies,
            dependents=found.dependents,
            history=[msgspec.structs.asdict(moment) for moment in task.history],
            result_path=str(self._results.path(task.id)),
            log_path=str(self._logs.path(task.id)),
            undoes=found.undoes,
            children=found.children,
            undone_by=self._scheduler.sagas.undone_by(task.graph),
            budget=self._attempts.spending.view(task.graph),
            steps=steps.views(self._scheduler.steps(task.id)),
        )
        await self._engine.settled_for([task.id, *reply.dependencies])
        return reply

    async def _wait(self, request: m.Wait, peer: Peer) -> m.WaitReply:
        if request.mode not in ("any", "all"):
            raise InvalidInput("must be `any` or `all`.", field="mode")
        if not math.isfinite(request.timeout_s) or not 0 <= request.timeout_s <= MAX_WAIT_S:
            raise InvalidInput(f"must be from 0 to {MAX_WAIT_S:.0f}.", field="timeout_s")
        if not request.tasks:
            raise InvalidInput("must name at least one task.", field="tasks")
        found = [await self._resolve(item, f"tasks[{index}]") for index, item in enumerate(request.tasks)]
        names = list(dict.fromkeys(name for some in found for name in some))
        done = await self._wait_for(names, request.mode, request.timeout_s)
        tasks = await self._tasks(names)
        reply = m.WaitReply(done=done, tasks=await views.rows(tasks, self._attempts.signs, self._scheduler))
        await self._engine.settled_for(names)
        return reply

    async def _wait_for(self, names: list[str], mode: str, timeout_s: float) -> bool:
        tasks = self._scheduler.tasks
        with self._waiters.watch(names) as watch:
            # After the watch has begun: an end in between is in both.
            watch.open.difference_update([name for name in names if name not in tasks or tasks[name].ended])
            enough = len(names) - 1 if mode == "any" else 0
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(timeout_s):
                    while len(watch.open) > enough:
                        watch.event.clear()
                        await watch.event.wait()
            return len(watch.open) <= enough

    async def _result(self, request: m.GetResult, peer: Peer) -> m.ResultReply:
        task = (await self._resolve_one(request.task)).task
        reply = m.ResultReply(result=self._ends.answer(task), path=str(self._results.path(task.id)))
        await self._engine.settled_for([task.id])
        return reply

    async def _get_logs(self, request: m.GetLogs, peer: Peer) -> m.LogsReply:
        if not 0 <= request.offset <= MAX_LOG_OFFSET:
            raise InvalidInput(f"must be from 0 to {MAX_LOG_OFFSET}.", field="offset")
        if not 1 <= request.limit_bytes <= MAX_LOG_CHUNK_BYTES:
            raise InvalidInput(f"must be from 1 to {MAX_LOG_CHUNK_BYTES}.", field="limit_bytes")
        task = (await self._resolve_one(request.task)).task
        ended = task.state in END_STATES
        await self._engine.settled_for([task.id])
        data, size = self._logs.read(task.id, request.offset, request.limit_bytes)
        offset = request.offset + len(data)
        return m.LogsReply(data=data, offset=offset, ended=ended and offset >= size)

    async def _status(self, request: m.Status, peer: Peer) -> m.StatusReply:
        await self._engine.settled_for([])
        facts, scheduler = self._facts, self._scheduler
        waiting = {view.name: scheduler.waiting(view.name) for view in self._pools.views({})}
        cpu = self._process.cpu_times()
        reply = m.StatusReply(
            version=__version__,
            pid=os.getpid(),
            epoch=facts.epoch,
            started_at=facts.started_at,
            state_dir=str(facts.state_dir),
            counts={str(state): count for state, count in scheduler.counts.items()},
            pools=[
                msgspec.structs.replace(view, size=scheduler.placement.size(view.name, self._engine.clock.now()))
                for view in self._pools.views(waiting)
            ],
            recovery=facts.recovery,
            journal_bytes=facts.journal_bytes(),
            journal_sequence=self._engine.sequence,
            disk_free_bytes=shutil.disk_usage(facts.state_dir).free,
            accepting=not facts.stopping and facts.journal_accepting(),
            cpu_seconds=cpu.user + cpu.system,
            rss_bytes=self._process.memory_info().rss,
            enforcement=facts.enforcement,
            usage=self._attempts.consumed,
            archived=sum(self._archivist.counts.values()),
            stalls=facts.stalls.stalls,
            longest_pause_s=facts.stalls.longest_s,
            paused=pauses(scheduler),
            letters=len(scheduler.letters),
            standstill=facts.standstill if stuck.standing(scheduler) else None,
            tracker=self._tracking.view(),
            notes=[
                *facts.notes,
                *self._waiting_for_disk(),
                *self._waiting_without_pool(),
                *self._broken(),
                *filter(None, [self._archivist.note]),
            ],
        )
        await self._engine.settled_for([])
        return reply

    def _waiting_for_disk(self) -> list[str]:
        """Nothing else is told before it is durable; these figures are, for whoever looks why all is quiet."""
        count, seconds = self._engine.waiting
        if not count:
            return []
        return [
            f"{count} records wait for the disk, since {seconds:.1f} s: these figures count them, else nobody is told of them"
        ]

    def _broken(self) -> list[str]:
        """What is left alone, for who wonders why its tasks wait."""
        return [
            f"the breaker of {view.kind} {view.name} is {view.state}: {view.failures} failures in a row, the last: {view.last} "
            "(see: agentctl breakers)"
            for view in breakers.views(self._scheduler, self._engine.clock.now())
            if view.state != BreakerState.CLOSED
        ]

    def _waiting_without_pool(self) -> list[str]:
        """Tasks of pools that the configuration no longer has would wait for ever; somebody has to know."""
        return [
            f"{self._scheduler.waiting(pool)} tasks wait for the pool `{pool}`, which the configuration does not have: "
            f"add [pools.{pool}] to it, or cancel them"
            for pool in self._scheduler.pools_waiting()
            if pool not in self._pools.free()
        ]
