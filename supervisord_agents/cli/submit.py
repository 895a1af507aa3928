"""`submit`: one task from the command line, or a graph from a file."""

from __future__ import annotations

import argparse
import json
import math
from pathlib import Path
from typing import Any

import msgspec

from supervisord_agents.cli import graph_file, render
from supervisord_agents.cli.exits import Exit
from supervisord_agents.cli.follow import Followed, follow
from supervisord_agents.cli.parser import Commands, Parser, add, budget, count, seconds, variable
from supervisord_agents.cli.results import print_result
from supervisord_agents.cli.session import Session
from supervisord_agents.cli.tasks import task_table
from supervisord_agents.cli.waiting import judge, wait_for
from supervisord_agents.core.model import TaskSpec, WorkspaceMode
from supervisord_agents.errors import InvalidInput
from supervisord_agents.wire.messages import SubmitReply, WaitReply

_TASK_OPTIONS = (
    "agent",
    "id",
    "type",
    "priority",
    "timeout",
    "deadline",
    "retries",
    "workspace",
    "workspace_mode",
    "pool",
    "profile",
    "depends_on",
)
_INPUT_OPTIONS = ("prompt", "input", "env", "stdin", "argv")


def register(commands: Commands) -> None:
    parser = add(
        commands,
        "submit",
        "submit a task, or a graph of tasks",
        submit,
        details="Ids go to standard output when the supervisor has them on disk.",
    )
    add_subject(parser, "submit")
    parser.add_argument("--key", default="", help="the same key again gives the first graph instead of a new one")
    parser.add_argument(
        "--budget",
        type=budget,
        metavar="WHAT=MOST,...",
        help="what all tasks together may use: attempts, tokens, usd, time, such as attempts=5,usd=2,time=1h",
    )
    parser.add_argument("--wait", action="store_true", help="wait for the end and print the output")
    parser.add_argument("--follow", action="store_true", help="print logs as they come, until the end")
    add_task_options(parser)


def add_task_options(parser: Parser) -> None:
    """The options of one task."""
    task = parser.add_argument_group("of one task (a file says these itself)")
    task.add_argument("--agent", metavar="NAME", help="who does it (default: command)")
    task.add_argument("--prompt", metavar="TEXT", help="what an agent should do; `-`: from standard input")
    task.add_argument("--input", metavar="JSON", help="the whole input of any agent, as a JSON object")
    task.add_argument("--id", "--name", metavar="ID", help="short id in its graph (default: t1)")
    task.add_argument("--type", metavar="LABEL", help="label that timeouts and estimates by type go by")
    task.add_argument("--priority", type=count, metavar="N", help="0 (highest) to 9 (default: 5)")
    task.add_argument("--timeout", type=seconds, metavar="DURATION", help="of one attempt, such as 90, 10m, 2h")
    task.add_argument("--deadline", type=seconds, metavar="DURATION", help="over all attempts, from now")
    task.add_argument("--retries", type=count, metavar="N", help="attempts after a failed one (default: 3)")
    task.add_argument("--workspace", type=Path, metavar="DIR", help="a directory it may write (default: a private one)")
    task.add_argument(
        "--workspace-mode",
        choices=[str(mode) for mode in WorkspaceMode],
        metavar="MODE",
        help="how it sees the workspace: dir, copy, overlay or git-worktree (default: as configured)",
    )
    task.add_argument("--pool", metavar="NAME", help="pool of workers (default: the agent's own)")
    task.add_argument("--profile", metavar="NAME", help="what its sandbox grants (default: the agent's own)")
    task.add_argument("--depends-on", metavar="ID", action="append", help="an earlier task to wait for; may be repeated")
    task.add_argument("--env", metavar="NAME=VALUE", type=variable, action="append", help="for a command; may be repeated")
    task.add_argument("--stdin", metavar="FILE", help="what a command reads from its standard input; `-`: ours")


def add_subject(parser: Parser, command: str) -> None:
    """What a command is about: a program, or the graph of a file."""
    parser.usage = f"agentctl {command} [options] -- ARGV...\n       agentctl {command} [options] --file FILE"
    parser.add_argument("argv", metavar="ARGV", nargs="*", help="the program to run, with its arguments, behind `--`")
    parser.add_argument("--file", metavar="FILE", help="a graph, as JSON or TOML; `-`: from standard input")


def submit(session: Session, arguments: argparse.Namespace) -> Exit:
    graph = graph_of(arguments)
    # What an option says comes before what the file says.
    key, most = arguments.key or graph.key, msgspec.structs.replace(graph.budget, **(arguments.budget or {}))
    reply = session.run(lambda client: client.submit(graph.tasks, key=key, budget=most))
    output = session.output
    attended = arguments.wait or arguments.follow
    if reply.duplicate:
        output.note(f"this key was seen before: {reply.graph} is the graph submitted then")
    if attended:
        output.note(f"submitted {reply.tasks[0] if len(reply.tasks) == 1 else reply.graph}")
    elif not output.json:
        output.lines([name] for name in reply.tasks)
    if output.json and (arguments.follow or not attended):
        output.value(reply)
    if not attended:
        return Exit.OK
    try:
        return _attend(session, reply, following=arguments.follow)
    except KeyboardInterrupt:
        output.note(f"left alone, it goes on: agentctl wait {reply.graph}")
        raise


def _attend(session: Session, reply: SubmitReply, *, following: bool) -> Exit:
    if following:
        follow(session, Followed(target=_target(reply), tasks=reply.tasks))
    waited = wait_for(session, [_target(reply)], mode="all", timeout_s=math.inf)
    output = session.output
    if output.json:
        output.value(waited)
    elif len(waited.tasks) != 1:
        output.table(task_table(waited.tasks))
    elif following:
        _note_end(session, waited)
    else:
        print_result(output, session.run(lambda client: client.result(waited.tasks[0].id)).result)
    return judge(session, waited)


def _target(reply: SubmitReply) -> str:
    return reply.tasks[0] if len(reply.tasks) == 1 else reply.graph


def _note_end(session: Session, waited: WaitReply) -> None:
    task = waited.tasks[0]
    why = f": {task.failure.code} {task.failure.message}" if task.failure else ""
    took = f" after {render.duration(task.ended_at - task.started_at)}" if task.started_at else ""
    session.output.note(render.state(task.state), f"{took}{why}")


def graph_of(arguments: argparse.Namespace) -> graph_file.Graph:
    """What is meant: the task of the options, or the graph of the file; raises InvalidInput."""
    given = [name for name in (*_TASK_OPTIONS, *_INPUT_OPTIONS) if getattr(arguments, name) not in (None, [])]
    if arguments.file is None:
        return graph_file.Graph(tasks=[_task(arguments)])
    if given:
        shown = "ARGV" if given[0] == "argv" else f"--{given[0].replace('_', '-')}"
        raise InvalidInput("does not go with --file.", field=shown, hint="Say it in the file.")
    return graph_file.read(arguments.file)


def _task(arguments: argparse.Namespace) -> TaskSpec:
    """The task of the options; raises InvalidInput. What they do not say is left to the defaults of TaskSpec."""
    workspace = arguments.workspace
    fields = {
        "id": arguments.id,
        "agent": arguments.agent,
        "type": arguments.type,
        "priority": arguments.priority,
        "timeout_s": arguments.timeout,
        "deadline_s": arguments.deadline,
        "max_retries": arguments.retries,
        "workspace": str(workspace.absolute()) if workspace else None,
        "workspace_mode": WorkspaceMode(arguments.workspace_mode) if arguments.workspace_mode else None,
        "pool": arguments.pool,
        "profile": arguments.profile,
        "dependencies": tuple(arguments.depends_on) if arguments.depends_on else None,
    }
    said: dict[str, Any] = {name: value for name, value in fields.items() if value is not None}
    return TaskSpec(input=_input(arguments), **said)


def _input(arguments: argparse.Namespace) -> dict[str, Any]:
    given = _json_object(arguments.input) if arguments.input is not None else {}
    if arguments.argv:
        given["argv"] = arguments.argv
    if arguments.prompt is not None:
        given["prompt"] = graph_file.text_of(graph_file.STDIN) if arguments.prompt == "-" else arguments.prompt
    if not given and arguments.input is None:
        raise InvalidInput("there is nothing to do.", hint="Give a command behind `--`, or --prompt, --input or --file.")
    if arguments.agent is None and "argv" not in given:
        raise InvalidInput(
            "is missing: --prompt and --input need to know for whom.", field="--agent", hint="Such as --agent qwen."
        )
    if arguments.env or arguments.stdin is not None:
        _refuse_unless_command(arguments)
    if arguments.env:
        given["env"] = dict(arguments.env)
    if arguments.stdin is not None:
        given["stdin"] = graph_file.text_of(arguments.stdin)
    return given


def _refuse_unless_command(arguments: argparse.Namespace) -> None:
    if not arguments.argv:
        option = "--env" if arguments.env else "--stdin"
        raise InvalidInput("is only for a command.", field=option, hint="Give the command behind `--`.")


def _json_object(text: str) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InvalidInput(f"is not valid JSON: {error}.", field="--input") from error
    if not isinstance(value, dict):
        raise InvalidInput("must be a JSON object.", field="--input", hint="""Such as '{"function": "module:name"}'.""")
    return value
