"""The client of the daemon: one connection, any number of calls at a time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from pathlib import Path
from typing import Any, Self

import msgspec

from supervisord_agents import __version__
from supervisord_agents.core.budgets import NO_BUDGET
from supervisord_agents.core.model import Budget, State, TaskSpec
from supervisord_agents.errors import InvalidInput, ProtocolError, Unavailable
from supervisord_agents.rpc.channel import LOST, Channel
from supervisord_agents.wire import envelope
from supervisord_agents.wire import messages as m
from supervisord_agents.wire.advice import Estimate, EstimateReply
from supervisord_agents.wire.breakers import Breakers, BreakersReply, Kind, ResetBreaker, ResetBreakerReply
from supervisord_agents.wire.changes import Apply, ApplyReply, Changes, ChangesReply, Discard, DiscardReply
from supervisord_agents.wire.graph import GraphReply, ShowGraph
from supervisord_agents.wire.letters import Drop, DropReply, LettersReply, ListLetters, Requeue, RequeueReply
from supervisord_agents.wire.methods import METHODS
from supervisord_agents.wire.story import Ask, AskReply, StoryReply, TellStory

_DECODERS: dict[type[m.Request], msgspec.msgpack.Decoder[Any]] = {
    request: msgspec.msgpack.Decoder(reply) for request, reply in METHODS.items()
}


class Client:
    """A connection to the daemon. Every method raises the SupervisorError that the daemon answers, with its field and hint.

    If the connection is lost, open calls raise Unavailable: it is then not known whether they took effect. A cancelled call
    leaves the client usable, but the daemon is not told: what it does for the call goes on.

        async with await Client.connect(path) as client:
            reply = await client.submit([TaskSpec(input={"argv": ["true"]})])
            await client.wait([reply.graph])
    """

    def __init__(self, channel: Channel, hello: m.HelloReply, path: Path, settings: _Settings) -> None:
        self.hello = hello
        """What the daemon said of itself."""
        self._channel = channel
        self._path = path
        self._settings = settings

    @classmethod
    async def connect(
        cls,
        path: Path,
        *,
        name: str = "",
        timeout_s: float = 5.0,
    ) -> Self:
        """Connect and shake hands within `timeout_s`; `name` is for the daemon's log.

        Raises Unavailable if nobody listens or answers in time, Forbidden if this user is not let in, InvalidInput if the
        versions do not fit.
        """
        settings = _Settings(name, timeout_s)
        channel, hello = await _open(path, settings)
        return cls(channel, hello, path, settings)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Close the connection; open calls raise Unavailable. May be called again."""
        self._channel.close()

    @property
    def lost(self) -> bool:
        """The connection has ended, for whatever reason: only a new one helps."""
        return self._channel.ended

    async def call(self, request: m.Request) -> Any:
        """The reply, of the type that METHODS names for the request."""
        return _decoded(request, await self._channel.call(request))

    async def submit(self, tasks: Sequence[TaskSpec], key: str = "", budget: Budget = NO_BUDGET) -> m.SubmitReply:
        """Submit a graph; on disk when this returns. With a `key` it may be repeated: only the first one counts."""
        reply: m.SubmitReply = await self.call(m.Submit(tasks=[*tasks], key=key, budget=budget))
        return reply

    async def list(self, *, states: Sequence[State] = (), graph: str = "", limit: int = 100, after: str = "") -> m.ListReply:
        """A page of tasks, newest first; `after` is the `next` of the page before."""
        reply: m.ListReply = await self.call(m.ListTasks(states=[*states], graph=graph, limit=limit, after=after))
        return reply

    async def show(self, task: str) -> m.ShowReply:
        """One task, whole. Here and below an unambiguous prefix of its id will do."""
        reply: m.ShowReply = await self.call(m.Show(task=task))
        return reply

    async def wait(self, tasks: Sequence[str], *, mode: str = "all", timeout_s: float = 60.0) -> m.WaitReply:
        """Wait until `all` or `any` of the tasks (or graphs) have ended, or the time is over."""
        reply: m.WaitReply = await self.call(m.Wait(tasks=[*tasks], mode=mode, timeout_s=timeout_s))
        return reply

    async def result(self, task: str) -> m.ResultReply:
        """The result of a task that has ended."""
        reply: m.ResultReply = await self.call(m.GetResult(task=task))
        return reply

    async def cancel(self, task: str, *, subtree: bool = True, reason: str = "") -> m.CancelReply:
        """Cancel a task with all that depend on it, or a graph."""
        reply: m.CancelReply = await self.call(m.Cancel(task=task, subtree=subtree, reason=reason))
        return reply

    async def retry(self, task: str, *, fresh: bool = False) -> m.RetryReply:
        """Run a failed, cancelled or dead task again; `fresh`: without the steps that it has finished."""
        reply: m.RetryReply = await self.call(m.Retry(task=task, fresh=fresh))
        return reply

    async def pause(self, *, pool: str = "", agent: str = "", stop: bool = False, reason: str = "") -> m.PauseReply:
        """Start nothing more of a pool, of an agent, or of an agent in a pool (empty: any); `stop`: nor let run what runs."""
        reply: m.PauseReply = await self.call(m.Pause(pool=pool, agent=agent, stop=stop, reason=reason))
        return reply

    async def resume(self, *, pool: str = "", agent: str = "", everything: bool = False) -> m.UnpauseReply:
        """Let go of what a pause of exactly this pool and agent holds, or of all."""
        reply: m.UnpauseReply = await self.call(m.Unpause(pool=pool, agent=agent, everything=everything))
        return reply

    async def why(self, task: str) -> m.WhyReply:
        """Why a task is where it is."""
        reply: m.WhyReply = await self.call(m.Why(task=task))
        return reply

    async def letters(self, *, task: str = "", limit: int = 100, after: str = "") -> LettersReply:
        """A page of dead letters, the last that died first; or one."""
        reply: LettersReply = await self.call(ListLetters(task=task, limit=limit, after=after))
        return reply

    async def requeue(self, tasks: Sequence[str] = (), *, everything: bool = False) -> RequeueReply:
        """Give dead letters another round."""
        reply: RequeueReply = await self.call(Requeue(tasks=(*tasks,), everything=everything))
        return reply

    async def drop(self, tasks: Sequence[str] = (), *, everything: bool = False, reason: str = "") -> DropReply:
        """Take dead letters off the list for good."""
        reply: DropReply = await self.call(Drop(tasks=(*tasks,), everything=everything, reason=reason))
        return reply

    async def breakers(self) -> BreakersReply:
        """The agents and providers that have failed lately."""
        reply: BreakersReply = await self.call(Breakers())
        return reply

    async def reset_breaker(self, kind: Kind, name: str) -> ResetBreakerReply:
        """Say that an agent or a provider works again."""
        reply: ResetBreakerReply = await self.call(ResetBreaker(kind=kind, name=name))
        return reply

    async def estimate(self, tasks: Sequence[TaskSpec]) -> EstimateReply:
        """What these tasks would take if they were submitted now, and whether handing them over is worth it."""
        reply: EstimateReply = await self.call(Estimate(tasks=[*tasks]))
        return reply

    async def graph(self, graph: str, *, limit: int = 100, after: str = "", edges: bool = False) -> GraphReply:
        """When the tasks of a graph may start, must start, and are likely to: a page of them."""
        reply: GraphReply = await self.call(ShowGraph(graph=graph, limit=limit, after=after, edges=edges))
        return reply

    async def story(self, graph: str = "", *, wait_s: float = 0.0) -> StoryReply:
        """How a graph is, or all that is open, in words; with up to `wait_s` for a model to find them."""
        reply: StoryReply = await self.call(TellStory(graph=graph, wait_s=wait_s))
        return reply

    async def ask(self, question: str, graph: str = "") -> AskReply:
        """An answer to a question about a graph, or all that is open, with the tasks that it rests on."""
        reply: AskReply = await self.call(Ask(question=question, graph=graph))
        return reply

    async def logs(self, task: str, *, offset: int = 0, limit_bytes: int = 262_144) -> m.LogsReply:
        """A piece of a task's log, from byte `offset`."""
        reply: m.LogsReply = await self.call(m.GetLogs(task=task, offset=offset, limit_bytes=limit_bytes))
        return reply

    async def changes(self, task: str, *, diff: bool = True) -> ChangesReply:
        """What a task that has ended has changed in its view of the workspace."""
        reply: ChangesReply = await self.call(Changes(task=task, diff=diff))
        return reply

    async def apply(self, task: str, *, protected: bool = False) -> ApplyReply:
        """Carry the changes of a task over into its workspace, all or none."""
        reply: ApplyReply = await self.call(Apply(task=task, protected=protected))
        return reply

    async def discard(self, task: str) -> DiscardReply:
        """Throw the changes of a task away."""
        reply: DiscardReply = await self.call(Discard(task=task))
        return reply

    async def status(self) -> m.StatusReply:
        """The daemon's state in numbers."""
        reply: m.StatusReply = await self.call(m.Status())
        return reply

    async def subscribe(self, *, after: str = "", graph: str = "", logs: bool = False) -> AsyncGenerator[m.Item, None]:
        """What happens, after the item with the token `after` or from now on, over a connection of its own.

        That connection is opened when the first item is asked for, and closed with the generator. It is read no faster than items
        are taken. Raises Unavailable when it is lost; the last item's token is the place to go on from.
        """
        request = m.Subscribe(after=after, graph=graph, logs=logs)
        channel, _ = await _open(self._path, self._settings)
        try:
            async for body in channel.stream(request):
                yield _decoded(request, body)
        finally:
            channel.close()


class _Settings(msgspec.Struct, frozen=True):
    """Of a connection."""

    name: str
    timeout_s: float


async def _open(path: Path, settings: _Settings) -> tuple[Channel, m.HelloReply]:
    channel: Channel | None = None
    try:
        async with asyncio.timeout(settings.timeout_s):
            channel = await Channel.open(path)
            return channel, await _greeted(channel, settings.name)
    except BaseException as error:
        if channel is not None:
            channel.close()
        if isinstance(error, TimeoutError):
            raise Unavailable(
                f"the supervisor did not answer within {settings.timeout_s:g} s.",
                field=str(path),
                hint="It is very busy or stopped (SIGSTOP): look at `systemctl status agent-supervisor`.",
            ) from error
        raise


async def _greeted(channel: Channel, name: str) -> m.HelloReply:
    """Shake hands; raises InvalidInput for a daemon of another version."""
    request = m.Hello(version=m.PROTOCOL_VERSION, client=name)
    hello: m.HelloReply = _decoded(request, await channel.call(request))
    if hello.version != m.PROTOCOL_VERSION:
        raise InvalidInput(
            f"the supervisor speaks version {hello.version} of the protocol, this client version {m.PROTOCOL_VERSION}.",
            field="version",
            hint=f"The supervisor is {hello.daemon}, the client {__version__}: update the older one, and restart the supervisor.",
        )
    channel.allow(hello.max_frame_bytes)
    return hello


def _decoded(request: m.Request, body: msgspec.Raw) -> Any:
    try:
        return _DECODERS[type(request)].decode(body)
    except envelope.DECODE_ERRORS as error:
        raise ProtocolError(
            f"the supervisor's answer was not understood: {error}.", kept=LOST, hint="Client and supervisor differ: update both."
        ) from error
