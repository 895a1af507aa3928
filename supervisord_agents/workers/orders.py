"""What the runtime says to the fork that does its tasks, by one pipe: further tasks, and the answers to what it asks."""

from __future__ import annotations

import os
import threading
from collections import deque

import msgspec

from supervisord_agents.wire import frames
from supervisord_agents.wire.framing import FrameReader

ORDER_BYTES = 32 * 1024
"""A longer one is not sent by a pipe, which might not take it: a task gets a fork of its own."""
_decoder = msgspec.msgpack.Decoder(frames.RunTask | frames.Answer)


class Orders:
    """The fork's end; of its threads, one reads for all that wait."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._reader = FrameReader(ORDER_BYTES)
        self._lock = threading.Lock()
        self._tasks: deque[frames.RunTask] = deque()
        self._answers: deque[frames.Answer] = deque()

    def next_task(self) -> frames.RunTask | None:
        """Wait for another task; None when there will be none."""
        with self._lock:
            while not self._tasks:
                if not self._read():
                    return None
            return self._tasks.popleft()

    def answer(self, question: tuple[str, int]) -> frames.Answer:
        """Wait for the answer to this question of the attempt; raises EOFError if none can come."""
        with self._lock:
            while True:
                for answer in self._answers:
                    if answer.question == question:
                        self._answers.remove(answer)
                        return answer
                if not self._read():
                    raise EOFError("the worker has gone")

    def _read(self) -> bool:
        data = os.read(self._descriptor, ORDER_BYTES)
        for payload in self._reader.feed(data):
            order = _decoder.decode(payload)
            if isinstance(order, frames.RunTask):
                self._tasks.append(order)
            else:
                self._answers.append(order)
        return bool(data)
