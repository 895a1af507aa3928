"""`estimate`: what tasks would take if they were submitted now, and whether handing them over is worth it."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Sequence
from typing import NamedTuple

import msgspec

from supervisord_agents.config import Config
from supervisord_agents.core.advice import Bounds, Situation, advise, wait_s
from supervisord_agents.core.durations import features_of
from supervisord_agents.core.graph import dependencies_first, find_cycle, inner_dependencies, name_cycle
from supervisord_agents.core.model import TaskSpec, WorkspaceMode
from supervisord_agents.core.task import Task
from supervisord_agents.daemon.admission import Admission
from supervisord_agents.daemon.engine import Engine
from supervisord_agents.daemon.forecast import Forecast
from supervisord_agents.errors import InvalidInput, SupervisorError
from supervisord_agents.rpc.peer import Peer
from supervisord_agents.wire.advice import Estimate, EstimateReply, TaskEstimate
from supervisord_agents.workers.agents.registry import AgentRegistry
from supervisord_agents.workers.pool import Pools
from supervisord_agents.workspaces import paths

MOST_TASKS = 1_000
"""Of one request."""
AT_ONCE = 50
"""In one turn of the loop."""
MOST_BEFORE = 200
"""Of the tasks that wait, so many are looked at."""
MOST_FILES = 20_000
"""Counted for one request, of all workspaces together."""
COPIED_BYTES_S = 200e6
COPIED_FILE_S = 0.0002
"""Besides its bytes."""
_COPIED = (WorkspaceMode.COPY, WorkspaceMode.GIT_WORKTREE)


class Size(NamedTuple):
    """Of a workspace, as far as it was counted."""

    files: int = 0
    bytes: int = 0

    @property
    def copy_s(self) -> float:
        """How long it takes to copy."""
        return self.files * COPIED_FILE_S + self.bytes / COPIED_BYTES_S


class Advisor:
    """The handler of `estimate`."""

    def __init__(
        self, config: Config, engine: Engine, admission: Admission, forecast: Forecast, agents: AgentRegistry, pools: Pools
    ) -> None:
        self._config = config
        self._engine = engine
        self._scheduler = engine.scheduler
        self._admission = admission
        self._forecast = forecast
        self._agents = agents
        self._pools = pools
        self._bounds = Bounds(config.advice.min_s, config.advice.split_s)

    async def estimate(self, request: Estimate, peer: Peer) -> EstimateReply:
        if len(request.tasks) > MOST_TASKS:
            raise InvalidInput(
                f"there are {len(request.tasks)} tasks, the limit is {MOST_TASKS}.", field="tasks", hint="Ask in parts."
            )
        specs = await self._admission.admit_many(request.tasks, peer.uid)
        inner = inner_dependencies(specs)
        if cycle := find_cycle(inner):
            raise InvalidInput(f"the tasks wait for each other: {name_cycle([specs[at].id for at in cycle])}.", field="tasks")
        sizes = await asyncio.to_thread(_sizes, {spec.workspace for spec in specs if spec.workspace_mode in _COPIED})
        estimates = []
        for place, (asked, spec) in enumerate(zip(request.tasks, specs, strict=True)):
            bare = msgspec.structs.replace(spec, estimate_s=asked.estimate_s)
            copied = sizes[spec.workspace] if spec.workspace_mode in _COPIED else Size()
            estimates.append(self._estimate(bare, str(peer.uid), copied))
            if place % AT_ONCE == AT_ONCE - 1:
                await asyncio.sleep(0)
        reply = EstimateReply(
            tasks=estimates,
            path_s=_path_s([one.seconds for one in estimates], inner),
            work_s=sum(one.seconds for one in estimates),
        )
        await self._engine.settled_for([])
        return reply

    def _estimate(self, spec: TaskSpec, client: str, copied: Size) -> TaskEstimate:
        cold = not self._warm(spec, client)
        prediction = self._forecast.prediction(spec, cold=cold)
        now = self._engine.clock.now()
        before, held = self._scheduler.ahead_of(spec, now, MOST_BEFORE)
        size = self._scheduler.size(spec.pool, now)
        free = self._scheduler.room(spec.pool, self._pools.free().get(spec.pool, 0), now)
        idle = max(0, free - len(before))
        wait = 0.0 if idle else self._wait_s(spec.pool, size, before)
        overhead_s = self._pools.overhead.seconds
        split = self._config.advice.splits.get(spec.type) or self._agents.get(spec.agent).split
        situation = Situation(prediction, overhead_s, copied.copy_s, idle, wait, held, split)
        verdict, reason = advise(situation, self._bounds)
        return TaskEstimate(
            id=spec.id,
            agent=spec.agent,
            type=spec.type,
            pool=spec.pool,
            advice=str(verdict),
            reason=reason,
            seconds=prediction.seconds,
            low_s=prediction.low_s,
            high_s=prediction.high_s,
            method=prediction.method,
            error=prediction.error,
            observations=prediction.count,
            cold=cold,
            overhead_s=overhead_s,
            idle=idle,
            before=len(before),
            wait_s=wait,
            input_bytes=features_of(spec).input_bytes,
            workspace_bytes=copied.bytes,
            copy_s=copied.copy_s,
            timeout_s=spec.timeout_s,
        )

    def _warm(self, spec: TaskSpec, client: str) -> bool:
        try:
            return self._pools.warm_for(spec.pool, spec, client)
        except SupervisorError:  # there is no worker for it: `submit` takes it all the same, and the attempt says why
            return False

    def _wait_s(self, pool: str, size: int, before: Sequence[Task]) -> float:
        now = self._engine.clock.now()
        running = [task for task in self._scheduler.running_tasks() if task.pool == pool]
        left = [max(0.0, task.started_at + task.estimate_s - now) for task in running]
        return wait_s(size, left, (task.estimate_s for task in before))


def _path_s(seconds: Sequence[float], inner: Sequence[Sequence[int]]) -> float:
    ends = [0.0] * len(seconds)
    for place in dependencies_first(inner):
        ends[place] = seconds[place] + max((ends[before] for before in inner[place]), default=0.0)
    return max(ends, default=0.0)


def _sizes(workspaces: set[str]) -> dict[str, Size]:
    left, sizes = MOST_FILES, {}
    for workspace in sorted(workspaces):
        sizes[workspace] = _size(workspace, left)
        left -= sizes[workspace].files
    return sizes


def _size(workspace: str, limit: int) -> Size:
    files = size = 0
    try:
        root = os.open(workspace, paths.DIRECTORY)
    except OSError:  # gone since it was looked at
        return Size()
    try:
        for found in paths.walk(root, []):
            if files >= limit:
                break
            files += 1
            size += found.info.st_size if found.descriptor < 0 else 0
    except OSError:  # it changes meanwhile: what was counted is as good an answer
        pass
    finally:
        os.close(root)
    return Size(files, size)
