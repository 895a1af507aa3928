"""Following tasks live: the event stream wakes the reader, the log itself is read by offset.

A log is a file, so an offset into it outlives everything: nothing is missed or printed twice when the stream lags or the daemon
is restarted.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from supervisord_agents.cli import render, sanitize
from supervisord_agents.cli.output import Output
from supervisord_agents.cli.render import Span, Style
from supervisord_agents.cli.session import Session
from supervisord_agents.core.model import END_STATES
from supervisord_agents.wire.messages import Item, LogsReply

if TYPE_CHECKING:
    from supervisord_agents.rpc.client import Client

FROM_THE_BEGINNING = "0.0"


async def resumed(client: Client, after: str, graph: str, logs: bool) -> AsyncGenerator[Item, None]:
    """The stream, taken up again after the last item when this reader was too slow for it."""
    token = after
    while True:
        lagged = False
        async with aclosing(client.subscribe(after=token, graph=graph, logs=logs)) as items:
            async for item in items:
                token = item.token or token
                lagged = item.kind == "lagged"
                if not lagged:
                    yield item
        if not lagged:
            return


@dataclass
class Followed:
    """What is followed, and how far it has been printed."""

    target: str
    """A full task id, or a graph's."""
    tasks: list[str]
    raw: bool = False
    offsets: dict[str, int] = field(default_factory=dict)
    ended: set[str] = field(default_factory=set)
    token: str = FROM_THE_BEGINNING


def follow(session: Session, followed: Followed) -> None:
    """Print logs as they come until every task has ended and its log is printed; also over a restart of the daemon."""
    session.run_patiently(_Follower(session.output, followed).until_ended)


class _Follower:
    def __init__(self, output: Output, followed: Followed) -> None:
        self._output = output
        self._followed = followed
        self._printers = {task: LogPrinter(output, raw=followed.raw, prefix=self._prefix(task)) for task in followed.tasks}

    def _prefix(self, task: str) -> str:
        return f"{task.rpartition('.')[2]} | " if len(self._followed.tasks) > 1 else ""

    async def until_ended(self, client: Client) -> None:
        followed = self._followed
        for task in followed.tasks:
            await self._catch_up(client, task)
        if self._all_ended():
            return
        async with aclosing(resumed(client, followed.token, followed.target, True)) as items:
            async for item in items:
                await self._take(client, item)
                followed.token = item.token
                if self._all_ended():
                    return

    def _all_ended(self) -> bool:
        return len(self._followed.ended) == len(self._followed.tasks)

    async def _take(self, client: Client, item: Item) -> None:
        if item.kind == "gap":
            for task in self._followed.tasks:
                await self._catch_up(client, task)
        elif item.task in self._printers and item.task not in self._followed.ended:
            self._tell(item)
            if item.kind == "log" or item.state in END_STATES:
                await self._catch_up(client, item.task)

    def _tell(self, item: Item) -> None:
        if item.kind == "state" and item.state is not None and len(self._printers) > 1 and not self._output.json:
            self._output.note(Span(self._prefix(item.task), Style.FAINT), render.state(item.state))

    async def _catch_up(self, client: Client, task: str) -> None:
        """Print what the log holds by now."""
        followed = self._followed
        while task not in followed.ended:
            offset = followed.offsets.get(task, 0)
            reply = await client.logs(task, offset=offset)
            self._printers[task].print(task, reply)
            followed.offsets[task] = reply.offset
            if reply.ended:
                followed.ended.add(task)
            if not reply.data:
                return


class LogPrinter:
    """Prints the pieces of one log: whole lines with a prefix, or as they come without."""

    def __init__(self, output: Output, *, raw: bool, prefix: str = "") -> None:
        self._output = output
        self._raw = raw or (not output.terminal and not prefix)
        self._prefix = prefix
        self._stream = sanitize.Stream()
        self._partial = ""

    def print(self, task: str, reply: LogsReply) -> None:
        """One piece; for programs it is an object with `task` beside the fields of the reply."""
        if self._output.json:
            if reply.data or reply.ended:
                self._output.value({"task": task, "data": reply.data, "offset": reply.offset, "ended": reply.ended})
        elif self._raw:
            self._output.raw(reply.data)
        elif self._prefix:
            self._print_lines(self._stream.feed(reply.data, final=reply.ended), final=reply.ended)
        else:
            self._output.harmless(self._stream.feed(reply.data, final=reply.ended))

    def _print_lines(self, text: str, *, final: bool) -> None:
        *lines, self._partial = (self._partial + text).split("\n")
        if final and self._partial:
            lines.append(self._partial)
        for line in lines:
            self._output.line(Span(self._prefix, Style.FAINT), line)
        self._output.flush()
