"""`wait`, and the waiting of `submit --wait`: short waits at the server, one after the other, with a line of progress."""

from __future__ import annotations

import argparse
import math
import time
from collections import Counter
from typing import TYPE_CHECKING

from supervisord_agents.cli import render
from supervisord_agents.cli.exits import Exit
from supervisord_agents.cli.parser import Commands, add, seconds
from supervisord_agents.cli.session import Session
from supervisord_agents.cli.tasks import progress, task_table
from supervisord_agents.core.model import State
from supervisord_agents.wire.messages import TaskView, WaitReply

if TYPE_CHECKING:
    from supervisord_agents.rpc.client import Client

LOOK_EVERY_S = 1.0
"""Between two lines of progress on a terminal."""
LONGEST_WAIT_S = 60.0
"""Of one call to the server, where nobody watches."""


def register(commands: Commands) -> None:
    parser = add(
        commands,
        "wait",
        "wait until tasks have ended",
        wait,
        details="Exit code 0 if all that ended succeeded, 1 if one did not, 5 if the time was over first.",
    )
    parser.add_argument("tasks", metavar="ID", nargs="+", help="a task, or a graph for all of its tasks")
    parser.add_argument("--any", action="store_true", help="until one of them has ended")
    parser.add_argument(
        "--timeout", type=seconds, metavar="DURATION", default=math.inf, help="such as 30s or 10m (default: none)"
    )


def wait(session: Session, arguments: argparse.Namespace) -> Exit:
    mode = "any" if arguments.any else "all"
    reply = wait_for(session, arguments.tasks, mode=mode, timeout_s=arguments.timeout)
    if session.output.json:
        session.output.value(reply)
    else:
        session.output.table(task_table(reply.tasks))
    return judge(session, reply)


def judge(session: Session, reply: WaitReply) -> Exit:
    """The exit code of a wait."""
    if not reply.done:
        going_on = sum(not task.ended for task in reply.tasks)
        session.output.note(f"the time was over; {render.plural(going_on, 'task')} not ended: nothing was stopped")
        return Exit.TIMED_OUT
    succeeded = all(task.state is State.SUCCEEDED for task in reply.tasks if task.ended)
    return Exit.OK if succeeded else Exit.FAILED


def wait_for(session: Session, tasks: list[str], *, mode: str, timeout_s: float) -> WaitReply:
    """Wait, also over a restart of the daemon; raises NotFound, or Unavailable if the daemon stays away."""
    waiting = _Waiting(session, tasks, mode, timeout_s)
    return session.run_patiently(waiting.until_done)


class _Waiting:
    """One wait: knows when it began, whichever daemon it asks."""

    def __init__(self, session: Session, tasks: list[str], mode: str, timeout_s: float) -> None:
        self._output = session.output
        self._tasks = tasks
        self._mode = mode
        self._began = time.monotonic()
        self._timeout_s = timeout_s

    async def until_done(self, client: Client) -> WaitReply:
        while True:
            left = self._began + self._timeout_s - time.monotonic()
            once = min(max(left, 0.0), LOOK_EVERY_S if self._output.watched else LONGEST_WAIT_S)
            reply = await client.wait(self._tasks, mode=self._mode, timeout_s=once)
            if reply.done or left <= once:
                return reply
            self._output.progress(f"{summary(reply.tasks)}; {render.duration(round(time.monotonic() - self._began))}")


def summary(tasks: list[TaskView]) -> str:
    """Such as `2 of 5 ended, 1 running, 2 blocked; g1.B 40 % reading`."""
    ended = sum(task.ended for task in tasks)
    others = Counter(task.state.value for task in tasks if not task.ended)
    parts = [f"{ended} of {len(tasks)} ended", *(f"{number} {state}" for state, number in sorted(others.items()))]
    said = next((task for task in tasks if task.state is State.RUNNING and (task.progress >= 0 or task.progress_message)), None)
    return ", ".join(parts) + (f"; {said.id} {progress(said.progress, said.progress_message)}" if said else "")
