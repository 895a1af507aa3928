"""Clients: they submit, resubmit, cancel, retry, pause, wait and look, over a network that loses requests and answers."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from random import Random
from typing import TYPE_CHECKING, Any

from supervisord_agents.core.model import Dependency, TaskSpec, When
from supervisord_agents.errors import DiskFull, InvalidInput, JournalError, NotFound, SupervisorError, Unavailable
from supervisord_agents.rpc.peer import Peer
from supervisord_agents.wire import messages as m
from supervisord_agents.wire.story import TellStory
from tests.simulation.witness import Violation

if TYPE_CHECKING:
    from tests.simulation.daemon import Daemon
    from tests.simulation.world import World


class Disconnected(Exception):
    """No answer will come: the request, or the answer, was lost."""


class Client:
    """One user's program. It acts `acts` times, and tries again what it is not sure of."""

    def __init__(self, world: World, number: int, dice: Random, acts: int) -> None:
        self.world = world
        self.name = f"client {number}"
        self.dice = dice
        self.peer = Peer(pid=100 + number, uid=1000 + number % 2, gid=1000)
        self.acts = acts
        self.number = number
        self.graphs: list[str] = []
        self.tasks: list[str] = []
        self.refused_for_space = 0

    async def run(self) -> None:
        for act in range(self.acts):
            await asyncio.sleep(self.dice.random() ** 2 * 2.0)
            try:
                await self._act(act)
            except Disconnected:
                self.world.say(self.name, "no answer")
            except Unavailable as error:
                self.world.say(self.name, f"refused: {error.message}")
            except JournalError as error:
                self.world.say(self.name, f"the journal is broken: {error.message}")

    async def _act(self, number: int) -> None:
        acts = {self._cancel: 10, self._retry: 10, self._wait: 10, self._list: 7, self._pause: 3, self._look: 10, self._hear: 5}
        if self.dice.random() < 0.5 or not self.tasks:
            await self._submit(number)
        else:
            (act,) = self.dice.choices(list(acts), list(acts.values()))
            await act()

    async def call(self, request: Any) -> Any:
        """The answer of whatever daemon there is. Raises Disconnected, or what the handler raised."""
        world, dice = self.world, self.dice
        await asyncio.sleep(0.0005 + dice.random() * 0.002)
        daemon = world.daemon
        if daemon is None or not daemon.alive or daemon.handlers is None or (world.faulty and dice.random() < 0.02):
            await asyncio.sleep(0.05 + dice.random())
            raise Disconnected
        answer: asyncio.Future[Any] = world.loop.create_future()
        call = world.loop.create_task(self._handled(daemon, request), context=daemon.context.copy())

        def gone() -> None:
            if not answer.done():
                answer.set_exception(Disconnected())

        def over(task: asyncio.Task[Any]) -> None:
            if not answer.done():
                if task.cancelled():
                    answer.set_exception(Disconnected())
                elif task.exception() is not None:
                    answer.set_exception(task.exception())  # type: ignore[arg-type]
                else:
                    answer.set_result(task.result())

        call.add_done_callback(over, context=world.context)
        daemon.on_end.append(gone)
        if world.faulty and dice.random() < 0.05:
            # The client goes away before the answer, and the server stops working for it.
            world.loop.call_later(dice.random() * 0.02, call.cancel, context=daemon.context)
        reply = await answer
        await asyncio.sleep(0.0005 + dice.random() * 0.002)
        if world.faulty and dice.random() < 0.06:
            raise Disconnected
        return reply

    async def _handled(self, daemon: Daemon, request: Any) -> Any:
        """In the daemon. What it answers counts, whether or not the answer arrives."""
        assert daemon.handlers is not None
        reply = await daemon.handlers.handle(request, self.peer)
        try:
            self._bear_witness(request, reply)
        except Violation as violation:
            self.world.violated(str(violation))
        return reply

    def _bear_witness(self, request: Any, reply: Any) -> None:
        witness = self.world.witness
        if isinstance(request, m.Submit):
            witness.submitted(reply, request.key, str(self.peer.uid), len(request.tasks))
        elif isinstance(request, m.GetResult):
            witness.answered(reply.result)
        elif isinstance(request, m.Show):
            witness.saw([reply.task])
        elif isinstance(request, TellStory):
            witness.told(reply.tasks)
        elif isinstance(request, m.ListTasks | m.Wait):
            witness.saw(reply.tasks)

    # What it does

    async def _submit(self, act: int) -> None:
        dice = self.dice
        key = f"{self.name}/{act}" if dice.random() < 0.7 else ""
        if dice.random() < 0.1:
            key = f"shared/{dice.randrange(4)}"
        request = m.Submit(tasks=self._graph(), key=key)
        for _ in range(1 if not key else 6):
            try:
                self.world.say(self.name, f"submits {len(request.tasks)} tasks, key {key or 'none'}")
                if dice.random() < 0.3:
                    self.world.loop.create_task(self._look_meanwhile())
                reply = await self.call(request)
            except Disconnected:
                await asyncio.sleep(dice.random() * 2.0)
                continue
            except DiskFull as error:
                self.world.refused_for_space(error)
                await asyncio.sleep(1.0 + dice.random() * 4.0)
                continue
            except InvalidInput as error:
                # A dependency on a task that nobody acknowledged: it went with the daemon.
                if "unknown dependency" not in error.message:
                    raise
                return
            self.world.say(self.name, f"has {reply.graph}{', a duplicate' if reply.duplicate else ''}")
            self.graphs.append(reply.graph)
            self.tasks += reply.tasks
            if dice.random() < 0.1 and key:
                again = await self.call(request)
                if again.graph != reply.graph or not again.duplicate:
                    raise Violation(f"the key {key} gave {reply.graph}, and then {again.graph}")
            return

    async def _look_meanwhile(self) -> None:
        """While something is on its way to the disk."""
        await asyncio.sleep(self.dice.random() * 0.01)
        with suppress(Disconnected, SupervisorError):
            await self.call(m.ListTasks(limit=100))

    def _graph(self) -> list[TaskSpec]:
        dice = self.dice
        specs: list[TaskSpec] = []
        for number in range(dice.choice((1, 1, 2, 3, 4, 6))):
            dependencies: list[Dependency | str] = [
                Dependency(task=earlier.id, when=dice.choice((*[When.ON_SUCCESS] * 4, *When)))
                for earlier in specs
                if dice.random() < 0.4
            ]
            if self.tasks and dice.random() < 0.15:
                dependencies.append(dice.choice(self.tasks))
            specs.append(
                TaskSpec(
                    id=f"t{number}",
                    agent="python",
                    # Long ones reach over several sectors, and can be torn.
                    input={"function": "a:b", "args": ["x" * dice.choice((0, 0, 0, 400, 1500))]},
                    dependencies=tuple(dependencies),
                    priority=dice.randrange(10),
                    pool=dice.choice(("", "", "critical")),
                    max_retries=dice.randrange(4),
                    backoff_s=dice.choice((0.0, 0.1, 1.0)),
                    timeout_s=dice.choice((0.0, 0.0, 1.5, 4.0)),
                    deadline_s=dice.choice((0.0, 0.0, 0.0, 0.0, 5.0, 30.0)),
                )
            )
        return specs

    async def _cancel(self) -> None:
        target = self.dice.choice([*self.tasks[-10:], *self.graphs[-3:]])
        reply = await self._of_somebody(m.Cancel(task=target, subtree=self.dice.random() < 0.8))
        if reply is not None:
            self.world.say(self.name, f"has cancelled {reply.cancelled} for {target}")

    async def _retry(self) -> None:
        target = self.dice.choice(self.tasks[-10:])
        reply = await self._of_somebody(m.Retry(task=target))
        if reply is not None:
            self.world.say(self.name, f"has revived {reply.tasks}")

    async def _pause(self) -> None:
        """For a while: it is let go of again, whatever became of the request."""
        pool, agent = self.dice.choice(("", "standard", "critical")), self.dice.choice(("", "python"))
        try:
            reply = await self.call(m.Pause(pool=pool, agent=agent, stop=self.dice.random() < 0.5))
            self.world.say(self.name, f"has paused {pool or agent or 'all'} and stopped {reply.stopped}")
            await asyncio.sleep(self.dice.random() * 2.0)
        finally:
            await self._resume()

    async def _resume(self) -> None:
        while True:
            try:
                await self.call(m.Unpause(everything=True))
            except (Disconnected, SupervisorError):
                await asyncio.sleep(0.2)
            else:
                return

    async def _wait(self) -> None:
        names = self.dice.sample(self.tasks, min(len(self.tasks), 3))
        request = m.Wait(tasks=names, mode=self.dice.choice(("any", "all")), timeout_s=self.dice.random() * 5.0)
        await self.call(request)

    async def _list(self) -> None:
        await self.call(m.ListTasks(limit=self.dice.choice((5, 100)), graph=self.dice.choice(["", *self.graphs[-3:]])))

    async def _look(self) -> None:
        target = self.dice.choice(self.tasks[-10:])
        if self.dice.random() < 0.5:
            await self.call(m.Show(task=target))
        else:
            await self._of_somebody(m.GetResult(task=target))

    async def _hear(self) -> None:
        await self._of_somebody(TellStory(graph=self.dice.choice(["", *self.graphs[-3:]])))

    async def _of_somebody(self, request: Any) -> Any:
        """A request that may have come too late."""
        try:
            return await self.call(request)
        except InvalidInput:
            return None
        except NotFound as error:
            if "has no result yet" not in error.message:
                raise Violation(f"an acknowledged task is not known any more: {error}") from error
            return None


class Subscriber:
    """Follows the events, over every restart, from where it was."""

    def __init__(self, world: World, number: int, dice: Random) -> None:
        self.world = world
        self.name = f"subscriber {number}"
        self.dice = dice
        self.peer = Peer(pid=200 + number, uid=1000, gid=1000)
        self.token = ""

    async def run(self) -> None:
        while not self.world.over:
            daemon = self.world.daemon
            if daemon is None or not daemon.alive or daemon.handlers is None:
                await asyncio.sleep(0.2 + self.dice.random())
                continue
            ended: asyncio.Future[None] = self.world.loop.create_future()

            def gone(ended: asyncio.Future[None] = ended) -> None:
                if not ended.done():
                    ended.set_result(None)

            daemon.on_end.append(gone)
            reading = self.world.loop.create_task(self._read(daemon), context=daemon.context.copy())
            reading.add_done_callback(self.world.check_task, context=self.world.context)
            if self.dice.random() < 0.3:
                self.world.loop.call_later(self.dice.random() * 10, reading.cancel, context=daemon.context)
                self.world.loop.call_later(10, gone)
            await ended

    async def _read(self, daemon: Daemon) -> None:
        assert daemon.handlers is not None
        place = _place(self.token)
        async for item in daemon.handlers.subscribe(m.Subscribe(after=self.token, logs=False), self.peer):
            if item.kind == "gap":
                place = None
                continue
            if item.kind != "state":
                continue
            found = _place(item.token)
            assert found is not None
            if place is not None and found <= place:
                raise Violation(f"after {self.token} came {item.token}")
            place = found
            self.token = item.token
            self.world.witness.heard(item.token, item)


def _place(token: str) -> tuple[int, int] | None:
    if not token:
        return None
    sequence, index = map(int, token.split("."))
    return sequence, index
