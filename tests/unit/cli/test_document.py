"""docs/agentctl.md against the program, in both directions."""

from __future__ import annotations

import argparse
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest

from supervisord_agents import config
from supervisord_agents.cli import main, session
from supervisord_agents.cli.exits import Exit
from supervisord_agents.cli.main import build_parser
from supervisord_agents.cli.parser import EPILOG, Parser, parse
from supervisord_agents.core.model import State
from supervisord_agents.wire import letters, messages
from supervisord_agents.wire.methods import METHODS

ROOT = Path(__file__).resolve().parents[3]
TEXT = (ROOT / "docs" / "agentctl.md").read_text(encoding="utf-8")
SECTIONS = dict(re.findall(r"^##+ (.+)\n((?:(?!^##).*\n)*)", TEXT, re.MULTILINE))
COMMON = {"--json", "--socket", "--config", "--no-color", "-h", "--help"}


def commands(parser: Parser, name: str = "") -> Iterator[tuple[str, Parser]]:
    """Every command that can be run, with its name as it is typed."""
    groups = [action for action in parser._actions if isinstance(action, argparse._SubParsersAction)]
    if not groups:
        yield name, parser
    for group in groups:
        for word, inner in group.choices.items():
            yield from commands(inner, f"{name} {word}".strip())


COMMANDS = dict(commands(build_parser()))


def options(parser: Parser) -> set[str]:
    return {option for action in parser._actions for option in action.option_strings}


def rows(section: str) -> list[list[str]]:
    """The cells of a section's table without its head."""
    lines = [line for line in SECTIONS[section].splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines[2:]]


def documented_options(section: str) -> set[str]:
    return {word for row in rows(section) for word in re.findall(r"`(--?[a-z][a-z-]*)[^`]*`", row[0])}


def test_every_command_has_its_section_and_every_section_its_command() -> None:
    part = TEXT.partition("\n## Commands\n")[2].partition("\n## ")[0]
    assert sorted(re.findall(r"^### (.+)$", part, re.MULTILINE)) == sorted(COMMANDS)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_option_of_a_command_is_in_its_table_and_the_reverse(command: str) -> None:
    assert documented_options(command) == options(COMMANDS[command]) - COMMON


def test_the_common_options_are_those_of_every_command() -> None:
    assert documented_options("Common options") == COMMON | {"--version"}
    assert all(options(parser) >= COMMON for parser in COMMANDS.values())


@pytest.mark.parametrize("command", ["", "config", "journal", *COMMANDS])
def test_help_is_printed_for_every_command(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main.main([*command.split(), "--help"])
    shown = capsys.readouterr()
    assert (ended.value.code, shown.err) == (0, "")
    assert shown.out.startswith(f"usage: agentctl {command}".rstrip())


@pytest.mark.parametrize("command", COMMANDS)
def test_every_option_is_explained_by_help(command: str) -> None:
    shown = COMMANDS[command].format_help()
    assert all(option in shown for option in options(COMMANDS[command]))
    assert all(action.help for action in COMMANDS[command]._actions)


def test_the_table_of_exit_codes_is_the_enum() -> None:
    assert [(int(row[0]), row[1].strip("`")) for row in rows("Exit codes")] == [(code.value, code.name) for code in Exit]


def test_help_names_every_exit_code() -> None:
    assert [int(code) for code in re.findall(r"\b\d+\b", EPILOG)] == [code.value for code in Exit]


def test_the_states_to_filter_by_are_all_there() -> None:
    (row,) = [row for row in rows("list") if "--state" in row[0]]
    assert re.findall(r"`([a-z_]+)`", row[1]) == [state.value for state in State]


def test_the_variables_of_the_environment_are_those_that_are_read() -> None:
    documented = {row[0].strip("`") for row in rows("Environment")}
    assert documented >= {config.CONFIG_ENV, config.SOCKET_ENV, session.SOCKET_ENV, main.TRACEBACK_ENV}
    read_by_shutil = {"COLUMNS"}
    sources = [path.read_text(encoding="utf-8") for path in (ROOT / "supervisord_agents" / "cli").glob("*.py")]
    read = {name for source in sources for name in re.findall(r'environ\.get\("([A-Z_]+)"\)', source)}
    assert documented == read | read_by_shutil | {config.CONFIG_ENV, session.SOCKET_ENV, main.TRACEBACK_ENV}


def test_every_command_says_what_it_gives_as_json_and_names_structs_that_are_there() -> None:
    assert sorted(row[0].strip("`") for row in rows("JSON")) == sorted(COMMANDS)
    named = {name for row in rows("JSON") for name in re.findall(r"`([A-Z][A-Za-z]+)`", row[1])}
    replies = {reply.__name__ for reply in METHODS.values()}
    assert all(name in replies or any(hasattr(module, name) for module in (messages, letters)) for name in named)


def examples() -> list[str]:
    """The command lines of the document that are meant to be copied; the tour is run for real elsewhere."""
    blocks = re.findall(r"^```sh\n((?:.*\n)*?)```", TEXT, re.MULTILINE)
    return [line for block in blocks for line in block.splitlines()]


@pytest.mark.parametrize("line", examples())
def test_every_example_is_a_command_line(line: str) -> None:
    program, *given = shlex.split(line)
    assert program == "agentctl"
    parse(build_parser(), given)
