"""What other tasks came to, for the frame that starts an attempt."""

from __future__ import annotations

import msgspec

from supervisord_agents.core.task import Task
from supervisord_agents.daemon.ends import Ends
from supervisord_agents.spool.logs import LogStore
from supervisord_agents.wire import frames


class Outputs:
    """For one attempt of the task `reader`; all outputs together take no more than `room` bytes."""

    def __init__(self, ends: Ends, logs: LogStore, reader: str, room: int) -> None:
        self._ends = ends
        self._logs = logs
        self._reader = reader
        self._room = room

    def of(self, task: Task) -> frames.DependencyResult:
        """How the task ended, with its output if there is room."""
        output, left_out = self._ends.output(task.id, self._room)
        size = len(msgspec.msgpack.encode(output))
        if size > self._room:
            output, left_out, size = None, True, 0
        self._room -= size
        if left_out:
            self._logs.notice(self._reader, f"the output of {task.id} is too large to be passed on; its result file has it")
        return frames.DependencyResult(state=str(task.state), output=output, failure=task.failure, truncated=left_out)
