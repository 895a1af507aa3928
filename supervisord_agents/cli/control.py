"""`pause`, `resume`, `drain`, `stop` and `why`: what a person decides about the supervisor as a whole, and asks of it."""

from __future__ import annotations

import argparse
import math
import time
from typing import TYPE_CHECKING

from supervisord_agents.cli import render
from supervisord_agents.cli.exits import Exit
from supervisord_agents.cli.parser import Commands, Parser, add, seconds
from supervisord_agents.cli.session import Session
from supervisord_agents.cli.waiting import wait_for
from supervisord_agents.core.model import State
from supervisord_agents.core.pauses import Scope
from supervisord_agents.errors import InvalidInput
from supervisord_agents.wire.messages import PauseView

if TYPE_CHECKING:
    from supervisord_agents.rpc.client import Client

KINDS = ("all", "pool", "agent")
AT_ONCE = 1_000
"""Running tasks that are waited for together."""
LOOK_AGAIN_S = 2.0
"""A task that is to be tried again has not ended, but does not run either."""


def register(commands: Commands) -> None:
    pausing = add(commands, "pause", "start nothing more, of all or of a pool or an agent, until it is resumed", pause)
    _add_scope(pausing)
    _add_reason(pausing)

    resuming = add(commands, "resume", "let go of what is paused", resume)
    resuming.add_argument("kind", choices=KINDS, nargs="?", help="one pause only (default: every one)")
    resuming.add_argument("name", metavar="NAME", nargs="?", default="", help="of the pool or agent")

    draining = add(
        commands,
        "drain",
        "start nothing more, and wait until nothing runs",
        drain,
        details="It stays so until it is resumed. Exit code 5 if the time was over first.",
    )
    draining.add_argument("--timeout", type=seconds, metavar="DURATION", default=math.inf, help="such as 10m (default: none)")
    _add_reason(draining)

    stopping = add(
        commands,
        "stop",
        "start nothing more, and end what runs",
        stop,
        details="What was ended is ready again and has used no retry; it runs when that is resumed.",
    )
    stopping.add_argument("--now", action="store_true", required=True, help="to be said: work of running attempts is lost")
    _add_scope(stopping)
    _add_reason(stopping)

    asking = add(commands, "why", "say why a task is where it is", why)
    asking.add_argument("task", metavar="ID", help="a task, or the beginning of its id")


def _add_scope(parser: Parser) -> None:
    parser.add_argument("kind", choices=KINDS, nargs="?", default="all", help="what (default: all)")
    parser.add_argument("name", metavar="NAME", nargs="?", default="", help="of the pool or agent")


def _add_reason(parser: Parser) -> None:
    parser.add_argument("--reason", metavar="TEXT", default="", help="why; told by status and why")


def _scope(arguments: argparse.Namespace) -> Scope:
    """What is meant; raises InvalidInput."""
    if (arguments.kind == "all") == bool(arguments.name):
        what = "`all` has no name." if arguments.name else f"which {arguments.kind}?"
        raise InvalidInput(what, hint="Such as: agentctl pause agent qwen.")
    return Scope(**{} if arguments.kind == "all" else {arguments.kind: arguments.name})


def pause(session: Session, arguments: argparse.Namespace) -> Exit:
    return _pause(session, arguments, stop=False)


def stop(session: Session, arguments: argparse.Namespace) -> Exit:
    return _pause(session, arguments, stop=True)


def _pause(session: Session, arguments: argparse.Namespace, *, stop: bool) -> Exit:
    scope, output = _scope(arguments), session.output
    reply = session.run(lambda client: client.pause(pool=scope.pool, agent=scope.agent, stop=stop, reason=arguments.reason))
    if output.json:
        output.value(reply)
        return Exit.OK
    output.lines([name] for name in reply.stopped)
    if reply.stopped:
        output.note(f"{render.plural(len(reply.stopped), 'attempt')} ended; the tasks run again when that is resumed")
    if reply.running:
        output.note(f"{render.plural(reply.running, 'task')} still running")
    for one in reply.paused:
        output.note(f"paused: {scope_in_words(one)}")
    return Exit.OK


def resume(session: Session, arguments: argparse.Namespace) -> Exit:
    everything = arguments.kind is None
    scope = Scope() if everything else _scope(arguments)
    reply = session.run(lambda client: client.resume(pool=scope.pool, agent=scope.agent, everything=everything))
    if session.output.json:
        session.output.value(reply)
    elif reply.paused:
        for one in reply.paused:
            session.output.note(f"still paused: {scope_in_words(one)}")
    else:
        session.output.note("nothing is paused")
    return Exit.OK


def drain(session: Session, arguments: argparse.Namespace) -> Exit:
    end = time.monotonic() + arguments.timeout
    reply = session.run(lambda client: client.pause(reason=arguments.reason or "drained"))
    while running := session.run_patiently(_running):
        left_s = end - time.monotonic()
        if left_s <= 0:
            session.output.note(f"the time was over; {render.plural(len(running), 'task')} still running: nothing was stopped")
            return Exit.TIMED_OUT
        wait_for(session, running, mode="any", timeout_s=min(left_s, LOOK_AGAIN_S))
    if session.output.json:
        session.output.value(reply)
    else:
        session.output.note("nothing runs, and nothing is started until: agentctl resume")
    return Exit.OK


async def _running(client: Client) -> list[str]:
    reply = await client.list(states=[State.RUNNING], limit=AT_ONCE)
    return [task.id for task in reply.tasks]


def why(session: Session, arguments: argparse.Namespace) -> Exit:
    reply = session.run(lambda client: client.why(arguments.task))
    if session.output.json:
        session.output.value(reply)
    else:
        session.output.lines([reason] for reason in reply.reasons)
    return Exit.OK


def scope_in_words(one: PauseView) -> str:
    """What is paused, since when, by whom and why."""
    reason = f": {one.reason}" if one.reason else ""
    return f"{Scope(one.pool, one.agent)}, since {render.moment(one.at)}, by uid {one.client}{reason}"
