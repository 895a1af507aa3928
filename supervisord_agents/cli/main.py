"""`agentctl`: finds the command, runs it, and turns whatever goes wrong into one line and an exit code."""

from __future__ import annotations

import argparse
import errno
import os
import sys
from collections.abc import Sequence
from typing import TextIO

from supervisord_agents.cli import (
    breakers,
    bridge,
    changes,
    configuration,
    control,
    doctor,
    estimate,
    events,
    graph,
    install,
    journal,
    letters,
    logs,
    results,
    status,
    story,
    submit,
    tasks,
    waiting,
)
from supervisord_agents.cli.exits import Exit, exit_of
from supervisord_agents.cli.output import Output, tolerate
from supervisord_agents.cli.parser import Parser, new_parser, parse
from supervisord_agents.cli.session import Command, Session
from supervisord_agents.errors import ErrorCode, SupervisorError

TRACEBACK_ENV = "AGENTCTL_TRACEBACK"


def build_parser() -> Parser:
    """The whole command line."""
    parser, commands = new_parser()
    modules = (
        *(status, story, submit, estimate, tasks, waiting, graph, control, breakers, letters, results, changes, logs, events),
        *(doctor, install, configuration, journal, bridge),
    )
    for module in modules:
        module.register(commands)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; the exit code is one of exits.Exit."""
    given = list(sys.argv[1:] if argv is None else argv)
    _open_streams()
    try:
        return _run(given)
    except BrokenPipeError:
        _close_quietly()
        return Exit.BROKEN_PIPE
    except KeyboardInterrupt:
        return Exit.INTERRUPTED


def _open_streams() -> None:
    """Standard output and error that take every character; where one was closed (`>&-`), it leads nowhere."""
    if sys.stdout is None:
        sys.stdout = _nowhere()
    if sys.stderr is None:
        sys.stderr = _nowhere()
    tolerate(sys.stdout)
    tolerate(sys.stderr)


def _nowhere() -> TextIO:
    return os.fdopen(os.open(os.devnull, os.O_WRONLY), "w")


def _run(given: list[str]) -> Exit:
    output = Output(json="--json" in _options(given))
    try:
        arguments = _parsed(given, output)
        output = Output(json=arguments.json, colour=not arguments.no_color)
        run: Command = arguments.run
        code = run(Session(arguments, output), arguments)
        output.close()
        return code
    except SupervisorError as error:
        output.error(error)
        return exit_of(error)
    except BrokenPipeError:
        raise
    except OSError as error:
        output.error(_failed(error))
        _close_quietly()
        return Exit.REFUSED
    except KeyboardInterrupt:
        output.interrupted()
        raise
    except Exception as error:
        if os.environ.get(TRACEBACK_ENV):
            raise
        output.error(_bug(error))
        return Exit.FAILED


def _parsed(given: list[str], output: Output) -> argparse.Namespace:
    try:
        return parse(build_parser(), given)
    except SystemExit:
        # --help or --version has been printed. Written here, it can still fail in a way that is told.
        output.close()
        raise


def _options(given: list[str]) -> list[str]:
    """What stands before `--`: behind it is the command of a task."""
    return given[: given.index("--")] if "--" in given else given


def _failed(error: OSError) -> SupervisorError:
    """Of the file system, such as a full disk behind standard output."""
    code = ErrorCode.DISK_FULL if error.errno in (errno.ENOSPC, errno.EDQUOT) else None
    return SupervisorError(f"{error.strerror or error}.", field=str(error.filename or "standard output"), code=code)


def _bug(error: Exception) -> SupervisorError:
    return SupervisorError(
        f"unexpected {type(error).__name__}: {error}.",
        hint=f"This is a mistake in agentctl; {TRACEBACK_ENV}=1 shows where.",
        code=ErrorCode.INTERNAL,
    )


def _close_quietly() -> None:
    """Point standard output elsewhere, so that the interpreter's last flush does not fail too."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())
    os.close(nowhere)


if __name__ == "__main__":
    sys.exit(main())
