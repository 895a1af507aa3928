"""`events`: the stream of what happens."""

from __future__ import annotations

import argparse
import asyncio
import math
from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing
from typing import TYPE_CHECKING

from supervisord_agents.cli import render
from supervisord_agents.cli.exits import Exit
from supervisord_agents.cli.follow import FROM_THE_BEGINNING, resumed
from supervisord_agents.cli.output import Output
from supervisord_agents.cli.parser import Commands, add
from supervisord_agents.cli.render import Cell, Span, Style
from supervisord_agents.cli.session import Session
from supervisord_agents.cli.tasks import progress
from supervisord_agents.wire.messages import Item

if TYPE_CHECKING:
    from supervisord_agents.rpc.client import Client

QUIET_S = 0.5
"""Without -f: the supervisor has told all it remembers when nothing has come for so long."""


def register(commands: Commands) -> None:
    parser = add(
        commands,
        "events",
        "print what happened to tasks",
        events,
        details="Without -f it prints what the supervisor still remembers and ends; with -f it prints what happens from now on.",
    )
    parser.add_argument(
        "-f", "--follow", action="store_true", help="go on until interrupted, also over restarts of the supervisor"
    )
    parser.add_argument("--after", metavar="TOKEN", default="", help="only what came after the item with this token")
    parser.add_argument("--graph", metavar="ID", default="", help="only this graph or task, or the beginning of its id")
    parser.add_argument("--logs", action="store_true", help="also what workers write")


def events(session: Session, arguments: argparse.Namespace) -> Exit:
    reader = _Reader(session.output, arguments)
    if arguments.follow:
        session.run_patiently(reader.follow, math.inf)
    else:
        session.run(reader.remembered)
    return Exit.OK


class _Reader:
    """Prints items; knows the place to resume from."""

    def __init__(self, output: Output, arguments: argparse.Namespace) -> None:
        self._output = output
        self._token: str = arguments.after
        self._graph: str = arguments.graph
        self._logs: bool = arguments.logs

    async def follow(self, client: Client) -> None:
        await self._find(client)
        start = f"{(await client.status()).journal_sequence}.0"
        try:
            async with aclosing(self._items(client)) as items:
                async for item in items:
                    self._print(item)
        finally:
            # A place to resume from if the daemon went away before the first item.
            self._token = self._token or start

    async def remembered(self, client: Client) -> None:
        await self._find(client)
        self._token = self._token or FROM_THE_BEGINNING
        async with aclosing(self._items(client)) as items:
            while True:
                try:
                    self._print(await asyncio.wait_for(anext(items), QUIET_S))
                except (TimeoutError, StopAsyncIteration):
                    return

    async def _find(self, client: Client) -> None:
        """Take the beginning of an id for the whole: the stream wants the whole one, and knows no wrong one."""
        if self._graph:
            named = (await client.wait([self._graph], mode="any", timeout_s=0)).tasks
            self._graph = named[0].id if len(named) == 1 else named[0].graph

    def _items(self, client: Client) -> AsyncGenerator[Item, None]:
        return resumed(client, self._token, self._graph, self._logs)

    def _print(self, item: Item) -> None:
        self._token = item.token or self._token
        if self._output.json:
            self._output.value(item)
        else:
            self._output.lines(describe(item))
            self._output.flush()


def describe(item: Item) -> Iterator[list[Cell]]:
    """An item as lines: one, or one for each line of a log."""
    if item.kind == "gap":
        yield [Span(f"… {item.message}", Style.WARNING)]
        return
    begin: list[Cell] = [Span(f"{render.clock(item.at)}  ", Style.FAINT), f"{item.task}  "]
    if item.kind == "log":
        for line in item.data.decode("utf-8", "backslashreplace").rstrip("\n").split("\n"):
            yield [*begin, Span("| ", Style.FAINT), line]
    else:
        yield [*begin, *_what(item)]


def _what(item: Item) -> list[Cell]:
    if item.kind == "progress":
        return [progress(item.progress, item.message)]
    if item.kind == "violation":
        return [Span(item.message, Style.WARNING)]
    attempt = f"  attempt {item.attempt}" if item.attempt else ""
    why = f"  {item.failure.code} {item.failure.message}" if item.failure else ""
    state: Cell = render.state(item.state) if item.state is not None else item.kind
    return [state, attempt, Span(why, Style.BAD)]
