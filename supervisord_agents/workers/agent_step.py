"""`agent-step`: the steps of a task, for programs that run in it and for people who write shell scripts.

It needs nothing but the standard library and what the environment of a task has ($AGENT_SUPERVISOR_STEPS, see step_desk.py).
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import subprocess
import sys
from collections.abc import Sequence
from typing import Any

STEPS_ENV = "AGENT_SUPERVISOR_STEPS"
KEPT_CHARACTERS = 16_000
"""Of what a command printed: with the four bytes that a character may take, less than a result may have."""
NOT_DONE = 1
REFUSED = 125
"""As timeout(1) does: commands of their own rarely end so."""
READ_BYTES = 64 * 1024


class RefusedError(Exception):
    """The supervisor does not keep it, or there is none."""


def ask(line: dict[str, Any]) -> dict[str, Any]:
    """Say a line and give the answer; raises RefusedError."""
    path = os.environ.get(STEPS_ENV)
    if not path:
        raise RefusedError(
            f"${STEPS_ENV} is not set: this is no task of agent-supervisor, or its sandbox has no room for the socket."
        )
    try:
        with socket.socket(socket.AF_UNIX) as sock:
            sock.connect(path)
            sock.sendall(json.dumps(line).encode() + b"\n")
            answer = bytearray()
            while not answer.endswith(b"\n") and (data := sock.recv(READ_BYTES)):
                answer += data
    except OSError as error:
        raise RefusedError(f"the supervisor's worker cannot be asked: {error}.") from error
    said: dict[str, Any] = json.loads(answer or b'{"ok": false, "message": "the line is too long."}')
    if not said["ok"]:
        raise RefusedError(said["message"])
    return said


def complain(text: str) -> None:
    sys.stderr.write(f"agent-step: {text}\n")


def known(name: str) -> dict[str, Any]:
    """What is known of a step: `done`, `result`, `attempt`; empty if it never began."""
    step: dict[str, Any] = ask({})["steps"].get(name, {})
    return step


def begin(arguments: argparse.Namespace) -> int:
    ask({"step": arguments.name})
    return 0


def done(arguments: argparse.Namespace) -> int:
    try:
        result = json.loads(arguments.result)
    except ValueError as error:
        raise RefusedError(f"the result is no JSON: {error}.") from error
    ask({"step": arguments.name, "done": True, "result": result})
    return 0


def get(arguments: argparse.Namespace) -> int:
    step = known(arguments.name)
    if not step.get("done"):
        return NOT_DONE
    sys.stdout.write(json.dumps(step.get("result"), ensure_ascii=False) + "\n")
    return 0


def list_steps(arguments: argparse.Namespace) -> int:
    for name, step in ask({})["steps"].items():
        sys.stdout.write(f"{'done ' if step.get('done') else 'begun'} {name}\n")
    return 0


def run(arguments: argparse.Namespace) -> int:
    """What it printed is the result: printed again when it is done already."""
    step = known(arguments.name)
    if step.get("done"):
        sys.stdout.write(step.get("result") or "")
        return 0
    ask({"step": arguments.name})
    process = subprocess.Popen(arguments.command, stdout=subprocess.PIPE, encoding="utf-8", errors="surrogateescape")
    assert process.stdout is not None
    kept, size = [], 0
    for line in process.stdout:
        sys.stdout.write(line)
        sys.stdout.flush()
        size += len(line)
        if size <= KEPT_CHARACTERS:
            kept.append(line)
    code = process.wait()
    if code:
        return code if code > 0 else 128 - code
    if size > KEPT_CHARACTERS:
        complain(f"{arguments.name} printed too much to be kept: another attempt will print none of it")
    text = "".join(kept).encode("utf-8", "surrogateescape").decode("utf-8", "replace") if size <= KEPT_CHARACTERS else None
    ask({"step": arguments.name, "done": True, "result": text})
    return 0


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(prog="agent-step", description="The steps of this task: what is done is not done again.")
    commands = made.add_subparsers(required=True)
    running = commands.add_parser("run", help="run a command, unless the step is done: then print what it printed")
    running.add_argument("name")
    running.add_argument("command", nargs=argparse.REMAINDER)
    running.set_defaults(act=run)
    beginning = commands.add_parser("begin", help="a step begins")
    finishing = commands.add_parser("done", help="a step is done")
    getting = commands.add_parser("get", help="print the result of a step; exit code 1 if it is not done")
    for command, act in ((beginning, begin), (finishing, done), (getting, get)):
        command.add_argument("name")
        command.set_defaults(act=act)
    finishing.add_argument("result", nargs="?", default="null", help="JSON")
    commands.add_parser("list", help="all steps").set_defaults(act=list_steps)
    return made


def main(argv: Sequence[str] | None = None) -> int:
    arguments = parser().parse_args(argv)
    command = getattr(arguments, "command", None)
    if command is not None:
        arguments.command = command[1:] if command[:1] == ["--"] else command
        if not arguments.command:
            parser().error("run: no command is given")
    try:
        code: int = arguments.act(arguments)
    except (RefusedError, OSError) as error:
        complain(str(error))
        return REFUSED
    return code


if __name__ == "__main__":
    sys.exit(main())
