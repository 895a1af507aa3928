"""Where a program of an attempt tells of its steps: a Unix socket in the private home, with lines of JSON both ways.

    {"step": "fetch"}                               it begins              {"ok": true}
    {"step": "fetch", "done": true, "result": 7}    it is done             {"ok": true}
    {}                                              what is known of all   {"ok": true, "steps": {"fetch": {"done": true, ...}}}

The first two are answered when they are on disk. What is refused is answered by `{"ok": false, "code": ..., "message": ...}`. Who
speaks here is a program of the task, and untrusted like all that it does.
"""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import socket
from pathlib import Path
from typing import Any

import msgspec

from supervisord_agents.core.checkpoints import MAX_RESULT_BYTES, refuse_large
from supervisord_agents.core.model import Failure
from supervisord_agents.errors import ErrorCode, InvalidInput
from supervisord_agents.wire import frames
from supervisord_agents.workers.uplink import Uplink

MAX_CALLERS = 32
"""At a time; others wait to be let in."""
MAX_LINE_BYTES = 4 * MAX_RESULT_BYTES
"""JSON may be longer than what is kept of it."""
READ_BYTES = 64 * 1024


class StepLine(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a program says."""

    step: str = ""
    done: bool = False
    result: Any = None


_decoder = msgspec.json.Decoder(StepLine)


class StepDesk:
    """Of one attempt. Raises OSError if there can be no socket at the path."""

    def __init__(self, selector: selectors.BaseSelector, uplink: Uplink, task: frames.RunTask, path: Path) -> None:
        self._selector = selector
        self._uplink = uplink
        self._task = task
        self._steps = dict(task.steps)
        self._said: dict[tuple[str, bool], Any] = {}
        self._callers: set[_Caller] = set()
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            self._socket.setblocking(False)
            path.unlink(missing_ok=True)
            self._socket.bind(os.fspath(path))
            self._socket.listen(MAX_CALLERS)
        except OSError:
            self._socket.close()
            raise
        self._listening = False
        self._listen()

    def close(self) -> None:
        """The attempt is over."""
        for caller in list(self._callers):
            self._leave(caller)
        if self._listening:
            self._selector.unregister(self._socket)
        self._listening = False
        self._socket.close()

    def answer(self, answer: frames.Checkpointed) -> None:
        """The daemon has answered a checkpoint."""
        key = (answer.step, answer.done)
        result = self._said.pop(key, None)
        if answer.failure is None:
            known = self._steps.get(answer.step)
            if known is None or not known.done:
                self._steps[answer.step] = frames.PastStep(attempt=self._task.attempt, done=answer.done, result=result)
        for caller in [caller for caller in self._callers if caller.waits_for == key]:
            caller.waits_for = None
            self._tell(caller, _refusal(answer.failure) if answer.failure else {"ok": True})
            self._hear(caller, b"")

    def _listen(self) -> None:
        room = len(self._callers) < MAX_CALLERS
        if room and not self._listening:
            self._selector.register(self._socket, selectors.EVENT_READ, self._accept)
        elif self._listening and not room:
            self._selector.unregister(self._socket)
        self._listening = room

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            connection, _ = self._socket.accept()
            connection.setblocking(False)
            caller = _Caller(connection)
            self._callers.add(caller)
            self._selector.register(connection, selectors.EVENT_READ, lambda: self._on_ready(caller))
            self._listen()

    def _leave(self, caller: _Caller) -> None:
        self._callers.discard(caller)
        self._selector.unregister(caller.connection)
        caller.connection.close()

    def _on_ready(self, caller: _Caller) -> None:
        try:
            caller.write()
            data = caller.connection.recv(READ_BYTES)
        except BlockingIOError:
            self._watch(caller)
            return
        except OSError:
            data = b""
        if not data:
            self._leave(caller)
            self._listen()
        else:
            self._hear(caller, data)

    def _hear(self, caller: _Caller, data: bytes) -> None:
        """Take the lines that are whole, one at a time: the next one when the one before is answered."""
        caller.heard += data
        while caller.waits_for is None and (end := caller.heard.find(b"\n")) >= 0:
            line = bytes(caller.heard[:end])
            del caller.heard[: end + 1]
            self._take(caller, line)
        if len(caller.heard) > MAX_LINE_BYTES:
            self._leave(caller)
            self._listen()

    def _take(self, caller: _Caller, line: bytes) -> None:
        try:
            said = _decoder.decode(line)
            refuse_large(said.step, len(frames.encoder.encode(said.result)))
        except InvalidInput as error:
            self._tell(caller, _refusal(Failure(error.code, error.message, error.hint)))
            return
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError, OverflowError) as error:
            self._tell(caller, _refusal(Failure(ErrorCode.INVALID, f"this is no step: {error}")))
            return
        known = self._steps.get(said.step)
        if not said.step:
            self._tell(caller, {"ok": True, "steps": msgspec.to_builtins(self._steps, str_keys=True)})
        elif known is not None and known.done:
            self._tell(caller, {"ok": True})
        else:
            caller.waits_for = (said.step, said.done)
            self._said[caller.waits_for] = said.result
            task = self._task
            self._uplink.ask(
                frames.Checkpoint(task=task.task, attempt=task.attempt, step=said.step, done=said.done, result=said.result)
            )

    def _tell(self, caller: _Caller, answer: dict[str, Any]) -> None:
        caller.to_say += json.dumps(answer).encode() + b"\n"
        with contextlib.suppress(OSError):  # it has gone, which is read
            caller.write()
        self._watch(caller)

    def _watch(self, caller: _Caller) -> None:
        events = selectors.EVENT_READ | (selectors.EVENT_WRITE if caller.to_say else 0)
        if caller in self._callers:
            self._selector.modify(caller.connection, events, lambda: self._on_ready(caller))


class _Caller:
    """A connection."""

    def __init__(self, connection: socket.socket) -> None:
        self.connection = connection
        self.heard = bytearray()
        self.to_say = bytearray()
        self.waits_for: tuple[str, bool] | None = None

    def write(self) -> None:
        """Say as much as can be; raises OSError if the caller has gone."""
        with contextlib.suppress(BlockingIOError):
            while self.to_say:
                del self.to_say[: self.connection.send(self.to_say)]


def _refusal(failure: Failure) -> dict[str, Any]:
    return {"ok": False, "code": failure.code, "message": " ".join(filter(None, (failure.message, failure.hint)))}
