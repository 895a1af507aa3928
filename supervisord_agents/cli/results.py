"""`result`: what a task gave."""

from __future__ import annotations

import argparse
from typing import Any

from supervisord_agents.cli.exits import Exit
from supervisord_agents.cli.output import Output, json_text
from supervisord_agents.cli.parser import Commands, add
from supervisord_agents.cli.render import Span, Style
from supervisord_agents.cli.session import Session
from supervisord_agents.core.model import Result, State


def register(commands: Commands) -> None:
    parser = add(
        commands,
        "result",
        "print the output of a task that has ended",
        result,
        details="A text comes as it is; of a command, what it wrote to its standard output and standard error; all else as JSON.",
    )
    parser.add_argument("task", metavar="ID", help="a task, or the beginning of its id")


def result(session: Session, arguments: argparse.Namespace) -> Exit:
    reply = session.run(lambda client: client.result(arguments.task))
    if session.output.json:
        session.output.value(reply)
    else:
        print_result(session.output, reply.result)
    return Exit.OK if reply.result.status == State.SUCCEEDED else Exit.FAILED


def print_result(output: Output, result: Result) -> None:
    """The output where it belongs, and beside it why there is no more of it."""
    _print_output(output, result.output)
    if result.error is not None:
        output.note(Span(f"{result.status}: {result.error.code}", Style.BAD), f" {result.error.message} {result.error.hint}")
    if result.truncated:
        output.note(Span("the output was cut at the configured size; the log may hold more", Style.WARNING))
    if result.partial:
        output.note(Span("the output is what was there when the attempt was stopped", Style.WARNING))


def _print_output(output: Output, value: Any) -> None:
    if value is None:
        return
    if isinstance(value, str):
        output.worker_text(value)
    elif isinstance(value, dict) and set(value) == {"text"} and isinstance(value["text"], str):
        output.worker_text(value["text"])
    elif isinstance(value, dict) and {"exit_code", "stdout", "stderr"} <= set(value):
        output.worker_text(str(value["stdout"]))
        output.worker_error_text(str(value["stderr"]))
    else:
        output.worker_text(json_text(value) + "\n")
