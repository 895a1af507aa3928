"""Stalls of the event loop: turns that took too long, with the stack of what held them up.

The loop beats by a timer; a thread looks whether a beat is overdue and, if so, keeps what the loop's thread was doing
(sys._current_frames). A call into C that holds the interpreter's lock keeps the thread from looking too: it then sees the frame
that made the call, or one that this has returned to. The time that the garbage collector took is told beside it.
"""

from __future__ import annotations

import asyncio
import gc
import sys
import threading
import time
from types import FrameType

import structlog

BEATS_A_LIMIT = 2
"""A beat may be up to limit / BEATS_A_LIMIT older than the stall it is late by: what is told is a stall's least duration."""
STACK_FRAMES = 12
LOG_EVERY_S = 10.0
"""Of stalls in between the number and the worst are told with the next."""
HUNG_S = 5.0
"""A stall that lasts this long is told while it lasts: its end may never come."""
log = structlog.get_logger()


class StallWatch:
    """Watches the loop it is started in. `limit_s`: a turn longer than this is a stall; 0 watches nothing."""

    def __init__(self, limit_s: float) -> None:
        self.limit_s = limit_s
        self.stalls = 0
        self.stalled_s = 0.0
        """Of all stalls together."""
        self.longest_s = 0.0
        """The longest lateness of a beat, be it a stall or not."""
        self.longest_cpu_s = 0.0
        """The most that the loop's thread computed between two beats: on a busy machine a beat is late for others' work too."""
        self._cpu = 0.0
        self._period_s = limit_s / BEATS_A_LIMIT
        self._due = 0.0
        self._stack: list[str] = []
        self._collected_s = 0.0
        self._collecting_since = 0.0
        self._logged_at = -LOG_EVERY_S
        self._unlogged: list[tuple[float, str]] = []
        """Seconds and stack of those that were not logged."""
        self._timer: asyncio.TimerHandle | None = None
        self._stopped = threading.Event()

    def start(self) -> None:
        """Watch the running loop, from its own thread, until `stop`."""
        if not self.limit_s:
            return
        self._loop = asyncio.get_running_loop()
        self._due = time.monotonic() + self._period_s
        self._cpu = time.thread_time()
        self._timer = self._loop.call_later(self._period_s, self._beat)
        gc.callbacks.append(self._collects)
        self._thread = threading.Thread(target=self._watch, args=(threading.get_ident(),), name="stalls", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Harmless when it never started."""
        if self._timer is None:
            return
        self._timer.cancel()
        self._timer = None
        gc.callbacks.remove(self._collects)
        self._stopped.set()
        self._thread.join()

    def forget_longest(self) -> tuple[float, float]:
        """Gives `longest_s` and `longest_cpu_s`, and begins them anew."""
        longest = self.longest_s, self.longest_cpu_s
        self.longest_s = self.longest_cpu_s = 0.0
        return longest

    # In the loop

    def _beat(self) -> None:
        now = time.monotonic()
        late = now - self._due
        if late > self.longest_s:
            self.longest_s = late
        cpu, self._cpu = self._cpu, time.thread_time()
        computed = self._cpu - cpu
        if computed > self.longest_cpu_s:
            self.longest_cpu_s = computed
        if late >= self.limit_s:
            self._ended(late, computed, now)
        self._collected_s = 0.0
        self._due = now + self._period_s
        self._timer = self._loop.call_later(self._period_s, self._beat)

    def _ended(self, late: float, computed: float, now: float) -> None:
        self.stalls += 1
        self.stalled_s += late
        stack = " < ".join(self._stack) or "gone before it could be looked at"
        self._stack = []
        if now - self._logged_at < LOG_EVERY_S:
            self._unlogged.append((late, stack))
            return
        worst_s, worst = max(self._unlogged, default=(0.0, ""))
        log.warning(
            "loop_stalled",
            seconds=round(late, 3),
            cpu_s=round(computed, 3),
            collecting_s=round(self._collected_s, 3),
            stack=stack,
            not_told_before=len(self._unlogged),
            worst_of_these_s=round(worst_s, 3),
            worst_of_these=worst,
        )
        self._logged_at = now
        self._unlogged.clear()

    def _collects(self, phase: str, info: dict[str, int]) -> None:
        if phase == "start":
            self._collecting_since = time.monotonic()
        else:
            self._collected_s += time.monotonic() - self._collecting_since

    # In the thread

    def _watch(self, loop_thread: int) -> None:
        told = 0.0
        while not self._stopped.wait(self._period_s):
            due = self._due
            overdue = time.monotonic() - due
            if overdue < self.limit_s / BEATS_A_LIMIT:
                self._stack = []
                continue
            if not self._stack:
                self._stack = _stack_of(sys._current_frames().get(loop_thread))
            if overdue >= HUNG_S and told != due:
                told = due
                log.error("loop_hangs", seconds=round(overdue, 3), stack=" < ".join(self._stack))


def _stack_of(frame: FrameType | None) -> list[str]:
    """`file:line function`, innermost first. Reads no source file (traceback does): that would let the loop run on meanwhile."""
    stack: list[str] = []
    while frame is not None and len(stack) < STACK_FRAMES:
        code = frame.f_code
        stack.append(f"{'/'.join(code.co_filename.rsplit('/', 2)[-2:])}:{frame.f_lineno} {code.co_name}")
        frame = frame.f_back
    return stack
