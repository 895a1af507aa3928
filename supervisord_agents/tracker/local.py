"""A model on this machine: llama.cpp in a process of its own (tracker.host), started before it is needed, again if it dies."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import time
from collections.abc import Awaitable, Callable
from typing import Any, Protocol

import msgspec
import structlog

from supervisord_agents.core.model import Usage
from supervisord_agents.core.outline import printable
from supervisord_agents.errors import ErrorCode, ProtocolError, SupervisorError, Unavailable
from supervisord_agents.tracker import talk
from supervisord_agents.tracker.backend import Limits, Prompt, Standing, Stands, Told
from supervisord_agents.tracker.measure import Measure
from supervisord_agents.wire.framing import FrameReader, frame

FIELD = "tracker.local"
READ_BYTES = 64 * 1024
TEMPLATE_TOKENS = 64
"""Kept free for what a chat template adds to a prompt."""
BACKOFF_S = 1.0
"""Before a host that died is started again; doubled each time, until one has answered."""
MAX_BACKOFF_S = 60.0
ABOUT_CHARACTERS = 80
MESSAGE_CHARACTERS = 500
HUNG_S = 300.0
"""A host that has not given up an answer for so long is not slow: it is killed."""
log = structlog.get_logger()


class Process(Protocol):
    """What the host runs in."""

    async def wait(self) -> str:
        """How it ended, in words, once it has."""

    def kill(self) -> None:
        """End it at once; again, or when it has ended, is harmless."""


Start = Callable[[socket.socket], Awaitable[Process]]
"""Starts a host whose channel is that socket, which stays the caller's; raises SupervisorError."""


class Local:
    """A back end. One answer at a time; a host that was stopped in the middle of one is free again when it says so."""

    def __init__(self, name: str, load: talk.Load, start: Start, *, idle_s: float = 0.0, backoff_s: float = BACKOFF_S) -> None:
        """`idle_s`: unloaded when nobody has asked for so long, and loaded when somebody does; 0: always loaded."""
        self.about = ""
        """The model, when it has been loaded."""
        self.starts = 0
        self._name = name
        self._load = load
        self._start = start
        self._idle_s = idle_s
        self._first_backoff_s = self._backoff_s = backoff_s
        self._measure = Measure()
        self._turn = asyncio.Lock()
        self._sending = asyncio.Lock()
        self._wanted = asyncio.Event()
        self._ready = asyncio.Event()
        self._asked = 0
        self._answers: dict[int, asyncio.Future[talk.Said | talk.Failed]] = {}
        self._given_up: set[asyncio.Task[None]] = set()
        self._unloaded = False
        self._last_wrong = ""
        self._since = time.time()
        """When it was last loaded, or began to be, or was unloaded."""
        self._socket: socket.socket | None = None
        self._process: Process | None = None
        self._keeping: asyncio.Task[None] | None = None

    @property
    def name(self) -> str:
        return self._name

    @property
    def context_tokens(self) -> int:
        return self._load.context_tokens - TEMPLATE_TOKENS

    def standing(self) -> Standing:
        if self._ready.is_set():
            return Standing(since=self._since, about=self.about)
        if not self._wanted.is_set():
            return Standing(stands=Stands.UNLOADED, since=self._since, about=self.about)
        return Standing(stands=Stands.LOADING, since=self._since, why=self._last_wrong)

    def count(self, text: str) -> int:
        return self._measure.count(text)

    def start(self) -> None:
        """Load the model now, unless it is to be loaded only when somebody asks."""
        if not self._idle_s:
            self._wanted.set()
        self._keep()

    async def tell(self, prompt: Prompt, schema: dict[str, Any], limits: Limits) -> Told:
        """Raises Unavailable."""
        self._keep()
        self._wanted.set()
        loop = asyncio.get_running_loop()
        began = loop.time()
        patience = asyncio.timeout(limits.seconds)
        try:
            async with patience, self._turn:
                await self._ready.wait()
                left = began + limits.seconds - loop.time()
                said = await self._ask(prompt, schema, Limits(tokens=limits.tokens, seconds=left))
        except TimeoutError:
            if not patience.expired():
                raise
            raise self._late(limits.seconds) from None
        return Told(
            text=said.text,
            by=f"{self._name} ({self.about})",
            usage=Usage(min(said.prompt_tokens, self._load.context_tokens), min(said.tokens, self._load.context_tokens)),
            seconds=loop.time() - began,
        )

    def judged(self, wrong: str) -> None:
        """It is asked again all the same."""

    async def aclose(self) -> None:
        """End the host."""
        process, tasks = self._process, [*self._given_up, *([self._keeping] if self._keeping else [])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if process is not None:
            await process.wait()

    # An answer

    async def _ask(self, prompt: Prompt, schema: dict[str, Any], limits: Limits) -> talk.Said:
        self._asked += 1
        id = self._asked
        ask = talk.Ask(
            id=id,
            system=prompt.system,
            data=prompt.data,
            question=prompt.question,
            schema=msgspec.json.encode(schema),
            tokens=limits.tokens,
            seconds=limits.seconds,
        )
        answer = self._answers[id] = asyncio.get_running_loop().create_future()
        given_up = False
        try:
            await self._send(ask)
            said = await asyncio.shield(answer)
        except asyncio.CancelledError:
            given_up = not answer.done()
            raise
        finally:
            if given_up:
                self._give_up(id, answer)
            else:
                self._answers.pop(id, None)
        return self._taken(said, talk.size(ask))

    def _taken(self, said: talk.Said | talk.Failed, prompt_bytes: int) -> talk.Said:
        self._backoff_s = self._first_backoff_s
        self._measure.learn(prompt_bytes, said.prompt_tokens)
        if isinstance(said, talk.Failed):
            why = printable(said.message[:MESSAGE_CHARACTERS])
            raise Unavailable(f"the local model did not answer: {why}.", field=FIELD)
        if not said.whole:
            raise Unavailable(
                f"the local model had not finished after {said.tokens} tokens and {said.seconds:.1f} s.", field=FIELD
            )
        return said

    def _give_up(self, id: int, answer: asyncio.Future[talk.Said | talk.Failed]) -> None:
        """The host is free for another when it has heard."""
        task = asyncio.get_running_loop().create_task(self._until_free(id, answer))
        self._given_up.add(task)
        task.add_done_callback(self._given_up.discard)

    async def _until_free(self, id: int, answer: asyncio.Future[talk.Said | talk.Failed]) -> None:
        with contextlib.suppress(Unavailable, TimeoutError):
            async with asyncio.timeout(HUNG_S):
                await self._send(talk.Stop(id))
                await asyncio.shield(answer)
        if not answer.done():
            log.warning("tracker_host_hangs", name=self._name, seconds=HUNG_S)
            self._kill()
        self._answers.pop(id, None)

    async def _send(self, message: talk.ToHost) -> None:
        sock = self._socket
        async with self._sending:
            if sock is None or sock is not self._socket:
                raise self._died()
            try:
                await asyncio.get_running_loop().sock_sendall(sock, frame(talk.encoder.encode(message), talk.MAX_FRAME_BYTES))
            except OSError:
                raise self._died() from None
            except asyncio.CancelledError:
                self._kill()  # behind half a frame no other can be sent
                raise

    def _late(self, seconds: float) -> Unavailable:
        if not self._ready.is_set():
            why = f", and last failed: {self._last_wrong.removesuffix('.')}" if self._last_wrong else ""
            message = f"the local model did not answer within {seconds:.3g} s: it is not loaded yet{why}."
            return Unavailable(message, field=FIELD)
        message = f"the local model did not answer within {seconds:.3g} s."
        return Unavailable(message, field=FIELD, code=ErrorCode.TIMEOUT)

    def _died(self) -> Unavailable:
        hint = "It is started again."
        return Unavailable(f"the process of the local model ended: {self._last_wrong or 'killed'}.", field=FIELD, hint=hint)

    # The host

    def _keep(self) -> None:
        if self._keeping is None:
            self._keeping = asyncio.get_running_loop().create_task(self._kept())

    async def _kept(self) -> None:
        """Start a host whenever one is wanted and none is there, later each time that it dies."""
        while True:
            await self._wanted.wait()
            before = self._last_wrong
            wrong = await self._lived()
            self._ready.clear()
            for answer in list(self._answers.values()):
                if not answer.done():
                    self._last_wrong = wrong or "unloaded"
                    answer.set_exception(self._died())
                    answer.exception()
            if not wrong:
                continue
            tell = log.debug if wrong == before else log.warning  # until it has loaded once, each reason once
            self._last_wrong = wrong
            tell("tracker_host_ended", name=self._name, how=wrong, retry_s=self._backoff_s)
            await asyncio.sleep(self._backoff_s)
            self._backoff_s = min(2 * self._backoff_s, MAX_BACKOFF_S)

    async def _lived(self) -> str:
        """One host, from its start to its end; gives what was wrong, empty if it was unloaded."""
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        self.starts += 1
        self._unloaded = False
        self._since = time.time()
        tell = log.debug if self._last_wrong else log.info
        tell("tracker_loading", name=self._name, file=self._load.model)
        with ours:
            try:
                with theirs:
                    process = self._process = await self._start(theirs)
            except SupervisorError as error:
                return str(error)
            self._socket = ours
            idle = asyncio.get_running_loop().create_task(self._unload_when_idle())
            try:
                said = await self._heard(ours)
                self._ready.clear()
                process.kill()
                how = await process.wait()
                return "" if self._unloaded else said or how
            finally:
                self._socket = self._process = None
                idle.cancel()
                process.kill()

    async def _heard(self, sock: socket.socket) -> str:
        """All that a host says; gives what it died of, as far as it said."""
        try:
            await self._send(self._load)
            reader = FrameReader(talk.MAX_FRAME_BYTES)
            while data := await asyncio.get_running_loop().sock_recv(sock, READ_BYTES):
                for payload in reader.feed(data):
                    message = talk.from_host.decode(payload)
                    if isinstance(message, talk.Failed) and not message.id:
                        return printable(message.message[:MESSAGE_CHARACTERS])
                    self._take(message)
        except (ProtocolError, msgspec.MsgspecError) as error:
            return f"it did not keep to its protocol: {error}"
        except (Unavailable, ConnectionError):
            pass
        return ""

    async def _unload_when_idle(self) -> None:
        while self._idle_s:
            asked = self._asked
            await asyncio.sleep(self._idle_s)
            if self._ready.is_set() and asked == self._asked and not self._answers and not self._turn.locked():
                log.info("tracker_unloaded", name=self._name, idle_s=self._idle_s)
                self._wanted.clear()
                self._unloaded = True
                self._since = time.time()
                self._kill()
                return

    def _take(self, message: talk.FromHost) -> None:
        """Raises ProtocolError for what nobody has asked."""
        if isinstance(message, talk.Loaded):
            if self._ready.is_set():
                raise ProtocolError("it has loaded a model already.")
            self.about = printable(message.about[:ABOUT_CHARACTERS])
            self._last_wrong = ""
            log.info("tracker_loaded", name=self._name, model=self.about, seconds=round(message.seconds, 3))
            self._since = time.time()
            self._ready.set()
            return
        answer = self._answers.get(message.id)
        if answer is None or answer.done():
            raise ProtocolError(f"it answered a question {message.id} that nobody asked.")
        answer.set_result(message)

    def _kill(self) -> None:
        self._ready.clear()
        if self._process is not None:
            self._process.kill()
