"""The command line: options that every command knows, and types of arguments. Each command module adds its own commands."""

from __future__ import annotations

import argparse
import math
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn, TypeAlias

from supervisord_agents import __version__
from supervisord_agents.cli.session import Command
from supervisord_agents.errors import InvalidInput

DESCRIPTION = "Look after the tasks of the agent supervisor."
EPILOG = """\
exit codes: 0 ok, 1 a task failed or a check found something, 2 bad usage or input, 3 the supervisor does not answer,
4 not found, 5 timed out waiting, 6 refused (disk full, permission), 130 interrupted, 141 output closed.
"""
_DURATION = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|min|h|d|)")
_SECONDS = {"": 1.0, "ms": 0.001, "s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0, "d": 86400.0}


class Parser(argparse.ArgumentParser):
    """Raises InvalidInput where argparse would print and exit."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings, allow_abbrev=False)

    def error(self, message: str) -> NoReturn:
        raise InvalidInput(f"{message}.", hint=f"See: {self.prog} --help")


def parse(parser: Parser, given: Sequence[str]) -> argparse.Namespace:
    """The arguments; raises InvalidInput."""
    arguments, rest = parser.parse_known_args(given)
    if rest:
        ours = bool(getattr(arguments, "argv", None))
        hint = "Put `--` before the program and its arguments." if ours else "See: agentctl --help"
        raise InvalidInput(f"unknown arguments: {' '.join(rest)}.", hint=hint)
    return arguments


Commands: TypeAlias = "argparse._SubParsersAction[Parser]"


def new_parser() -> tuple[Parser, Commands]:
    """The parser with the common options, and where commands are added."""
    parser = Parser(prog="agentctl", description=DESCRIPTION, epilog=EPILOG, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--version", action="version", version=f"agentctl {__version__}")
    _add_common(parser, given=False)
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True, parser_class=Parser)
    return parser, commands


def add(commands: Commands, name: str, summary: str, run: Command, *, details: str = "") -> Parser:
    """A command that takes the common options too."""
    parser = commands.add_parser(name, help=summary, description=f"{summary[0].upper()}{summary[1:]}. {details}".strip())
    _add_common(parser, given=True)
    parser.set_defaults(run=run)
    return parser


def add_group(commands: Commands, name: str, summary: str) -> Commands:
    """A command that has commands of its own, such as `config check`."""
    parser = commands.add_parser(name, help=summary, description=f"{summary[0].upper()}{summary[1:]}.")
    _add_common(parser, given=True)
    return parser.add_subparsers(title="commands", metavar="COMMAND", required=True, parser_class=Parser)


def _add_common(parser: Parser, *, given: bool) -> None:
    """The common options. Behind a command they have no default: it would overwrite what stood before the command."""

    def default(value: object) -> object:
        return argparse.SUPPRESS if given else value

    group = parser.add_argument_group("common options")
    group.add_argument("--json", action="store_true", default=default(False), help="print JSON for programs")
    group.add_argument("--socket", type=Path, metavar="PATH", default=default(None), help="socket of the supervisor")
    group.add_argument("--config", type=Path, metavar="FILE", default=default(None), help="configuration file")
    group.add_argument("--no-color", action="store_true", default=default(False), help="no colours (also: NO_COLOR=1)")


def seconds(text: str) -> float:
    """The type of a duration: `90`, `1.5s`, `10m`, `2h`."""
    match = _DURATION.fullmatch(text.strip())
    if match is None:
        raise argparse.ArgumentTypeError(f"`{text}` is not a duration: give seconds, or such as 30s, 10m, 2h")
    value = float(match[1]) * _SECONDS[match[2]]
    if not math.isfinite(value):
        raise argparse.ArgumentTypeError(f"`{text}` is too long")
    return value


def count(text: str) -> int:
    """The type of a number that is not negative."""
    if not (text.isascii() and text.isdigit()):
        raise argparse.ArgumentTypeError(f"`{text}` is not a whole number from 0 up")
    return int(text)


def amount(text: str) -> float:
    """The type of an amount that is not negative."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 <= value < math.inf:
        raise argparse.ArgumentTypeError(f"`{text}` is not a number from 0 up")
    return value


_BUDGET: dict[str, tuple[str, Callable[[str], float]]] = {
    "attempts": ("attempts", count),
    "tokens": ("tokens", count),
    "usd": ("cost_usd", amount),
    "time": ("wall_s", seconds),
}


def budget(text: str) -> dict[str, float]:
    """The type of `attempts=5,usd=2`: fields of a Budget."""
    fields = {}
    for part in text.split(","):
        name, _, value = part.strip().partition("=")
        if name not in _BUDGET:
            raise argparse.ArgumentTypeError(f"`{part}` is none of {', '.join(f'{known}=…' for known in _BUDGET)}")
        field, read = _BUDGET[name]
        fields[field] = read(value)
    return fields


def variable(text: str) -> tuple[str, str]:
    """The type of `NAME=VALUE`."""
    name, equals, value = text.partition("=")
    if not name or not equals:
        raise argparse.ArgumentTypeError(f"`{text}` is not of the form NAME=VALUE")
    return name, value
