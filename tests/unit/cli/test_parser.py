"""The command line: its types of arguments, and options that may stand anywhere."""

from __future__ import annotations

import argparse
import math
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from supervisord_agents.cli import parser
from supervisord_agents.cli.main import build_parser
from supervisord_agents.errors import InvalidInput


def parsed(*given: str) -> argparse.Namespace:
    return parser.parse(build_parser(), given)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("0", 0),
        ("90", 90),
        ("1.5", 1.5),
        (" 2s ", 2),
        ("250ms", 0.25),
        ("10m", 600),
        ("10min", 600),
        ("1.5h", 5400),
        ("2d", 172800),
    ],
)
def test_durations(text: str, value: float) -> None:
    assert parser.seconds(text) == value


@pytest.mark.parametrize("text", ["", "s", "-1", "1e3", "inf", "nan", "1 h", "10x", "1h30m", ".5", "1.", "0x10", "9" * 400])
def test_what_is_no_duration(text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError, match=r"not a duration|too long"):
        parser.seconds(text)


@given(st.text())
def test_a_duration_is_finite_and_not_negative_or_refused(text: str) -> None:
    try:
        value = parser.seconds(text)
    except argparse.ArgumentTypeError:
        return
    assert math.isfinite(value)
    assert value >= 0


def test_budgets() -> None:
    given = parser.budget("attempts=5, usd=0.5,time=1h,tokens=10")
    assert given == {"attempts": 5, "cost_usd": 0.5, "wall_s": 3600.0, "tokens": 10}
    for text in ("", "attempts", "dollars=1", "usd=-1", "usd=nan", "attempts=1.5", "time=soon"):
        with pytest.raises(argparse.ArgumentTypeError):
            parser.budget(text)


def test_counts() -> None:
    assert parser.count("0") == 0
    assert parser.count("007") == 7
    for text in ("-1", "+1", "1.0", "", "٣", "²"):
        with pytest.raises(argparse.ArgumentTypeError, match="whole number"):
            parser.count(text)


def test_variables() -> None:
    assert parser.variable("A=b=c") == ("A", "b=c")
    assert parser.variable("A=") == ("A", "")
    for text in ("A", "=b", ""):
        with pytest.raises(argparse.ArgumentTypeError, match="NAME=VALUE"):
            parser.variable(text)


@pytest.mark.parametrize(
    "given",
    [
        ("--json", "--socket", "s", "--no-color", "list"),
        ("list", "--json", "--socket", "s", "--no-color"),
        ("--json", "list", "--socket", "s", "--no-color"),
    ],
)
def test_common_options_stand_before_or_behind_the_command(given: tuple[str, ...]) -> None:
    arguments = parsed(*given)
    assert (arguments.json, arguments.socket, arguments.no_color) == (True, Path("s"), True)


def test_common_options_of_a_command_of_a_group() -> None:
    assert parsed("--json", "config", "check").json
    assert parsed("config", "--json", "check").json
    assert parsed("config", "check", "--json").json
    assert not parsed("config", "check").json


def test_what_stands_behind_two_dashes_belongs_to_the_task() -> None:
    arguments = parsed("submit", "--id", "a", "--", "grep", "--json", "--", "-x")
    assert (arguments.argv, arguments.json) == (["grep", "--json", "--", "-x"], False)


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ((), "the following arguments are required: COMMAND"),
        (("frobnicate",), "invalid choice: 'frobnicate'"),
        (("list", "--stat", "ready"), "unknown arguments: --stat ready"),
        (("list", "--state", "gone"), "invalid choice: 'gone'"),
        (("list", "--limit", "-1"), "is not a whole number"),
        (("wait",), "the following arguments are required: ID"),
        (("wait", "x", "--timeout", "soon"), "`soon` is not a duration"),
        (("submit", "ls", "-l"), "unknown arguments: -l"),
        (("config",), "the following arguments are required: COMMAND"),
    ],
)
def test_a_wrong_command_line_is_refused_with_a_hint(given: tuple[str, ...], says: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        parsed(*given)
    assert says in caught.value.message
    assert caught.value.hint


def test_an_option_of_the_program_is_told_from_one_of_ours() -> None:
    with pytest.raises(InvalidInput) as caught:
        parsed("submit", "ls", "-l")
    assert caught.value.hint == "Put `--` before the program and its arguments."
