"""An asyncio loop without a machine behind it: its time is a number, and it jumps to the next thing that is due.

What runs belongs to a process, known by the context that it runs in. When a process dies, nothing of it runs any more: its tasks
are neither cancelled nor finished, as with a real one that is killed.
"""

from __future__ import annotations

import asyncio
import heapq
from collections import deque
from collections.abc import Callable, Coroutine, Generator
from contextlib import suppress
from contextvars import Context, ContextVar, copy_context
from itertools import count
from typing import Any

from greenlet import GreenletExit, getcurrent, greenlet

START_S = 1_800_000_000.0


class Crash(BaseException):
    """The process that runs has just died."""


class Process:
    """One that can die. Its context marks all that runs for it."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.alive = True
        self.steps_left: int | None = None
        """Of the loop, until it dies."""
        self.context = copy_context()
        self.context.run(PROCESS.set, self)
        self.threads: list[Thread] = []
        self.signals: dict[int, Callable[[], object]] = {}
        """What it does for each."""

    def die(self) -> None:
        """Called by what kills it, wherever that runs."""
        raise NotImplementedError


PROCESS: ContextVar[Process | None] = ContextVar("PROCESS", default=None)


class Handle:
    """Something to be called."""

    __slots__ = ("arguments", "callback", "context", "stopped", "when")

    def __init__(self, callback: Callable[..., object], arguments: tuple[Any, ...], context: Context, when: float) -> None:
        self.callback = callback
        self.arguments = arguments
        self.context = context
        self.stopped = False
        self.when = when

    def cancel(self) -> None:
        self.stopped = True

    def cancelled(self) -> bool:
        return self.stopped


class Loop(asyncio.AbstractEventLoop):
    """`on_error` is told of an exception that nobody handled."""

    def __init__(self, on_error: Callable[[BaseException], None]) -> None:
        self.now = START_S
        self.steps = 0
        self._on_error = on_error
        self._ready: deque[Handle] = deque()
        self._later: list[tuple[float, int, Handle]] = []
        self._number = count()
        self._over = False
        self.main = getcurrent()
        self.dead: list[asyncio.Task[Any]] = []
        """Tasks of dead processes. Kept, since a coroutine that is collected runs its `finally` blocks."""

    # What asyncio asks for

    def time(self) -> float:
        return self.now

    def get_debug(self) -> bool:
        return False

    def is_running(self) -> bool:
        return True

    def is_closed(self) -> bool:
        return False

    def call_soon(self, callback: Callable[..., object], *args: Any, context: Context | None = None) -> Handle:  # type: ignore[override]
        handle = Handle(callback, args, context if context is not None else copy_context(), self.now)
        self._ready.append(handle)
        return handle

    call_soon_threadsafe = call_soon  # type: ignore[assignment]

    def call_later(self, delay: float, callback: Callable[..., object], *args: Any, context: Context | None = None) -> Handle:  # type: ignore[override]
        return self.call_at(self.now + delay, callback, *args, context=context)

    def call_at(self, when: float, callback: Callable[..., object], *args: Any, context: Context | None = None) -> Handle:  # type: ignore[override]
        handle = Handle(callback, args, context if context is not None else copy_context(), when)
        heapq.heappush(self._later, (when, next(self._number), handle))
        return handle

    def create_future(self) -> asyncio.Future[Any]:
        return asyncio.Future(loop=self)

    def create_task(  # type: ignore[override]
        self,
        coro: Coroutine[Any, Any, Any] | Generator[Any, None, Any],
        *,
        name: str | None = None,
        context: Context | None = None,
    ) -> asyncio.Task[Any]:
        return asyncio.Task(coro, loop=self, name=name or "task", context=context)

    def run_in_executor(self, executor: object, func: Callable[..., Any], *args: Any) -> asyncio.Future[Any]:  # type: ignore[override]
        process = PROCESS.get()
        assert process is not None
        future = self.create_future()

        def run() -> None:
            try:
                result = func(*args)
            except Exception as error:
                self.call_soon(_fail, future, error)
            else:
                self.call_soon(_succeed, future, result)

        Thread(self, process, run)
        return future

    def add_signal_handler(self, sig: int, callback: Callable[..., object], *args: Any) -> None:
        process = PROCESS.get()
        assert process is not None
        process.signals[sig] = callback

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        """Of what nobody has looked at; what matters is seen by the checks."""

    def default_exception_handler(self, context: dict[str, Any]) -> None: ...

    # What the simulation asks for

    def spend(self, seconds: float) -> None:
        """The loop itself is held up."""
        self.now += seconds

    def run(self, until: Callable[[], bool]) -> bool:
        """Until that holds; False if nothing is left to happen before."""
        asyncio.events._set_running_loop(self)
        ready, later = self._ready, self._later
        try:
            while not until():
                if not ready:
                    if not later:
                        return False
                    when, _, handle = heapq.heappop(later)
                    if handle.stopped:
                        continue
                    if when > self.now:
                        self.now = when
                    ready.append(handle)
                handle = ready.popleft()
                if not handle.stopped:
                    self._step(handle)
            return True
        finally:
            asyncio.events._set_running_loop(None)

    def _step(self, handle: Handle) -> None:
        process = handle.context.get(PROCESS)
        self.steps += 1
        try:
            if process is not None:
                if not process.alive:
                    return
                if process.steps_left is not None:
                    process.steps_left -= 1
                    if process.steps_left <= 0:
                        process.die()
                        return
            handle.context.run(handle.callback, *handle.arguments)
        except Crash:
            pass
        except Exception as error:
            self._on_error(error)

    def bury(self) -> None:
        """Keep what is pending: a process has died."""
        self.dead += asyncio.all_tasks(self)

    def close(self) -> None:
        """End all that is still pending, without letting it do anything that matters."""
        self._over = True
        for task in [*asyncio.all_tasks(self), *self.dead]:
            task._log_destroy_pending = False  # type: ignore[attr-defined]
            with suppress(BaseException):
                task.get_coro().close()  # type: ignore[union-attr]
        self._ready.clear()
        self._later.clear()


class Thread(greenlet):
    """A thread of a process: code that blocks, and is resumed by the loop when what it waits for has come."""

    def __init__(self, loop: Loop, process: Process, run: Callable[[], None]) -> None:
        super().__init__(run, loop.main)
        self._loop = loop
        self._context = process.context.copy()
        self.gr_context = process.context.copy()
        self.ended = False
        process.threads.append(self)
        loop.call_soon(self.resume, context=self._context)

    def resume(self) -> None:
        self.switch()

    def wake(self) -> None:
        """Have it go on where it blocks."""
        self._loop.call_soon(self.resume, context=self._context)

    def sleep(self, seconds: float) -> None:
        """Called by the thread itself."""
        self._loop.call_later(seconds, self.resume, context=self._context)
        self.block()

    def block(self) -> None:
        """Called by the thread itself: go on when somebody wakes it."""
        self._loop.main.switch()

    def join(self) -> None:
        assert self.dead, "the loop waits for a thread that has not ended"

    def end(self) -> None:
        """Unwind it, when nothing of it matters any more."""
        if not self.dead and self.gr_frame is not None:
            with suppress(BaseException):
                self.throw(GreenletExit)


def current_thread() -> Thread | None:
    current = getcurrent()
    return current if isinstance(current, Thread) else None


class Threads:
    """In the place of journal.threads.Threads, for one process."""

    def __init__(self, loop: Loop, process: Process) -> None:
        self._loop = loop
        self._process = process

    def lock(self) -> Lock:
        return Lock()

    def queue(self) -> Queue:
        return Queue()

    def start(self, run: Callable[[], None], name: str) -> Thread:
        return Thread(self._loop, self._process, run)


class Lock:
    """The loop never waits for one that a thread holds: that would be a stall, and is a bug."""

    def __init__(self) -> None:
        self._held = False
        self._waiting: deque[Thread] = deque()

    def __enter__(self) -> None:
        while self._held:
            thread = current_thread()
            assert thread is not None, "the loop waits for a lock that a thread holds"
            self._waiting.append(thread)
            thread.block()
        self._held = True

    def __exit__(self, *error: object) -> None:
        self._held = False
        if self._waiting:
            self._waiting.popleft().wake()


class Queue:
    """Has one reader, a thread."""

    def __init__(self) -> None:
        self._items: deque[Any] = deque()
        self._reader: Thread | None = None

    def put(self, item: Any) -> None:
        self._items.append(item)
        if self._reader is not None:
            self._reader.wake()
            self._reader = None

    def empty(self) -> bool:
        return not self._items

    def get(self) -> Any:
        while not self._items:
            self._reader = current_thread()
            assert self._reader is not None
            self._reader.block()
        return self._items.popleft()


def _succeed(future: asyncio.Future[Any], result: Any) -> None:
    if not future.done():
        future.set_result(result)


def _fail(future: asyncio.Future[Any], error: Exception) -> None:
    if not future.done():
        future.set_exception(error)
