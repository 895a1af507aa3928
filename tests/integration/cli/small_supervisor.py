"""The real RPC server with a small handler behind it: tasks do what the test says, when it says so."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator
from pathlib import Path

import msgspec

from supervisord_agents.core.events import Changed
from supervisord_agents.core.graph import normalise
from supervisord_agents.core.model import END_STATES, Failure, Result, State, TaskSpec
from supervisord_agents.daemon.feed import Feed
from supervisord_agents.errors import InvalidInput, NotFound
from supervisord_agents.rpc.peer import Peer
from supervisord_agents.rpc.server import Server
from supervisord_agents.wire import messages as m

RECOVERY = m.Recovery(at=1.0, clean=False, records=40, tasks=12, requeued=2, adopted=1, torn_bytes=0, seconds=0.01)


class SmallSupervisor:
    """Serves `socket`; may be stopped and started again with the same tasks."""

    def __init__(self, socket: Path) -> None:
        self.socket = socket
        self.specs: dict[str, TaskSpec] = {}
        self.views: dict[str, m.TaskView] = {}
        self.outputs: dict[str, object] = {}
        self.log_data: dict[str, bytes] = {}
        self.keys: dict[str, m.SubmitReply] = {}
        self.notes: list[str] = []
        self.enforcement = {"seccomp": "on", "landlock": "on"}
        self.requests: list[m.Request] = []
        self.changes: list[tuple[int, Changed]] = []
        self._changed = asyncio.Event()
        self._feed = Feed(0)
        self._server: Server | None = None

    async def start(self) -> None:
        self._feed = Feed(0)
        for sequence, change in self.changes:
            self._feed.changed(sequence, change)
        self._server = Server(self, epoch=str(time.time()))
        await self._server.start(self.socket)

    async def stop(self) -> None:
        if self._server is not None:
            await self._server.aclose()
            self._server = None

    # What a test does

    def move(self, task: str, state: State, failure: Failure | None = None) -> None:
        """Bring a task into a state."""
        view = self.views[task]
        now = time.time()
        times = {"ended_at": now} if state in END_STATES else {"started_at": now, "attempt": view.attempt + 1}
        self.views[task] = msgspec.structs.replace(view, state=state, failure=failure, **times)
        change = Changed(task=task, before=view.state, after=state, at=now, attempt=1, failure=failure)
        self.changes.append((len(self.changes) + 1, change))
        self._feed.changed(*self.changes[-1])
        self._tell()

    def write(self, task: str, data: bytes) -> None:
        """Let a task write to its log."""
        self.log_data[task] = self.log_data.get(task, b"") + data
        self._feed.transient(m.Item(kind="log", token=self._feed.token, at=time.time(), task=task, data=data))

    def end(self, task: str, output: object = None, failure: Failure | None = None) -> None:
        self.outputs[task] = output
        self.move(task, State.FAILED if failure else State.SUCCEEDED, failure)

    async def requested(self, kind: type[m.Request], count: int = 1) -> None:
        """Wait until so many requests of this kind have come."""
        while sum(isinstance(request, kind) for request in self.requests) < count:
            self._changed.clear()
            await self._changed.wait()

    # What a client asks

    async def handle(self, request: m.Request, peer: Peer) -> m.Reply:
        self.requests.append(request)
        self._tell()
        match request:
            case m.Submit():
                return self._submit(request)
            case m.ListTasks():
                return self._list(request)
            case m.Show():
                return self._show(self._find(request.task))
            case m.Wait():
                return await self._wait(request)
            case m.GetResult():
                return self._result(self._find(request.task))
            case m.GetLogs():
                return self._logs(request)
            case m.Cancel():
                return self._cancel(request)
            case m.Retry():
                name = self._find(request.task)
                self.move(name, State.READY)
                return m.RetryReply(tasks=[name])
            case m.Status():
                return self._status()
        raise AssertionError(request)

    def subscribe(self, request: m.Subscribe, peer: Peer) -> AsyncGenerator[m.Item, None]:
        self.requests.append(request)
        self._tell()
        return self._feed.subscribe(request.after, request.graph, request.logs)

    def _tell(self) -> None:
        self._changed.set()

    def _find(self, name: str) -> str:
        found = [task for task in self.views if task.startswith(name)]
        if not found:
            raise NotFound(f"no task is called `{name}`.", field="task", hint="See: agentctl list")
        return found[0]

    def _submit(self, request: m.Submit) -> m.SubmitReply:
        if request.key in self.keys:
            return msgspec.structs.replace(self.keys[request.key], duplicate=True)
        graph = f"g{len(self.changes) + len(self.views)}"
        names = []
        for index, spec in enumerate(normalise(request.tasks)):
            if spec.agent == "nobody":
                raise InvalidInput("there is no agent `nobody`.", field=f"tasks[{index}].agent", hint="Known: command.")
            name = f"{graph}.{spec.id}"
            self.specs[name] = spec
            self.views[name] = m.TaskView(
                id=name,
                graph=graph,
                agent=spec.agent,
                type=spec.type,
                state=State.READY,
                priority=spec.priority,
                attempt=0,
                max_retries=spec.max_retries,
                submitted_at=time.time(),
                pool="standard",
            )
            names.append(name)
        reply = m.SubmitReply(graph=graph, tasks=names)
        if request.key:
            self.keys[request.key] = reply
        return reply

    def _list(self, request: m.ListTasks) -> m.ListReply:
        wanted = [view for view in reversed(self.views.values()) if not request.states or view.state in request.states]
        if request.graph:
            wanted = [view for view in wanted if view.graph == request.graph]
        page = wanted[: request.limit]
        return m.ListReply(tasks=page, total=len(wanted), next=page[-1].id if len(page) < len(wanted) else "")

    def _show(self, name: str) -> m.ShowReply:
        history = [{"at": 1.0, "state": "failed", "attempt": 1, "code": "TIMEOUT", "message": "too long"}]
        return m.ShowReply(
            task=self.views[name],
            spec=self.specs[name],
            dependencies={},
            dependents=[],
            history=history,
            result_path=f"/state/results/task_{name}.json",
            log_path=f"/state/logs/task_{name}.log",
        )

    async def _wait(self, request: m.Wait) -> m.WaitReply:
        names = [task for name in request.tasks for task in self.views if task.startswith(self._find(name) and name)]

        def done() -> bool:
            ended = [self.views[name].ended for name in names]
            return any(ended) if request.mode == "any" else all(ended)

        try:
            async with asyncio.timeout(request.timeout_s):
                while not done():
                    self._changed.clear()
                    await self._changed.wait()
        except TimeoutError:
            pass
        return m.WaitReply(done=done(), tasks=[self.views[name] for name in names])

    def _result(self, name: str) -> m.ResultReply:
        view = self.views[name]
        if not view.ended:
            raise NotFound(f"task {name} has no result yet.", hint=f"Wait for it: agentctl wait {name}")
        result = Result(task_id=name, status=view.state.value, attempt=1, output=self.outputs.get(name), error=view.failure)
        return m.ResultReply(result=result, path=f"/state/results/task_{name}.json")

    def _logs(self, request: m.GetLogs) -> m.LogsReply:
        name = self._find(request.task)
        whole = self.log_data.get(name, b"")
        data = whole[request.offset : request.offset + request.limit_bytes]
        offset = request.offset + len(data)
        return m.LogsReply(data=data, offset=offset, ended=self.views[name].ended and offset >= len(whole))

    def _cancel(self, request: m.Cancel) -> m.CancelReply:
        name = self._find(request.task)
        if self.views[name].ended:
            return m.CancelReply(cancelled=[])
        self.move(name, State.CANCELLED, Failure(code="CANCELLED", message=request.reason))
        return m.CancelReply(cancelled=[name])

    def _status(self) -> m.StatusReply:
        counts = {state.value: sum(view.state is state for view in self.views.values()) for state in State}
        return m.StatusReply(
            version="0.1.0",
            pid=1,
            epoch="e",
            started_at=time.time() - 3723,
            state_dir="/state",
            counts=counts,
            pools=[m.PoolView(name="standard", min_workers=2, max_workers=10, busy=1, idle=1, waiting=4)],
            recovery=RECOVERY,
            journal_bytes=1536 * 1024,
            journal_sequence=len(self.changes),
            disk_free_bytes=2**40,
            accepting=True,
            cpu_seconds=0.8,
            rss_bytes=2**25,
            enforcement=self.enforcement,
            usage=m.Usage(),
            notes=self.notes,
        )
