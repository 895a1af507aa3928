"""Durations, sizes, times and tables as people see them."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from supervisord_agents.cli import columns, render
from supervisord_agents.cli.render import Span, Style
from supervisord_agents.core.model import State


@pytest.fixture(autouse=True)
def utc(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [
        (-3, "0 s"),
        (0, "0.00 s"),
        (0.314, "0.31 s"),
        (9.994, "9.99 s"),
        (9.996, "10 s"),
        (59.4, "59 s"),
        (59.6, "1 min"),
        (245, "4 min 5 s"),
        (3600, "1 h"),
        (10920, "3 h 2 min"),
        (86400 * 5 + 3700, "5 d 1 h"),
    ],
)
def test_durations(seconds: float, shown: str) -> None:
    assert render.duration(seconds) == shown


@pytest.mark.parametrize(
    ("count", "shown"),
    [(0, "0 B"), (1023, "1023 B"), (1536, "1.5 KiB"), (2**20, "1.0 MiB"), (2**50, "1024.0 TiB")],
)
def test_sizes(count: int, shown: str) -> None:
    assert render.size(count) == shown


def test_moments() -> None:
    assert render.moment(0) == "-"
    assert render.moment(86400 + 61) == "1970-01-02 00:01:01"
    assert render.clock(61.0429) == "00:01:01.042"


def test_numbers_of_things() -> None:
    assert [render.plural(count, "task") for count in (0, 1, 2000)] == ["0 tasks", "1 task", "2,000 tasks"]


@pytest.mark.parametrize("state", State)
def test_every_state_has_its_name(state: State) -> None:
    assert render.state(state).text == state.value


def test_a_table_has_columns_under_its_header() -> None:
    rows = render.table([["a", Span("bad", Style.BAD), "x  y"], ["longer", "-", ""]], header=("ONE", "TWO", "THREE"))
    assert ["".join(span.text for span in row) for row in rows] == [
        "ONE     TWO  THREE",
        "a       bad  x  y",
        "longer  -    ",
    ]
    assert rows[1][2].style is Style.BAD


def test_an_empty_table_has_no_lines() -> None:
    assert render.table([]) == []


@given(st.lists(st.tuples(st.text(), st.text(), st.text()), min_size=1))
def test_the_last_column_of_a_table_begins_at_the_same_place_in_every_line(rows: list[tuple[str, str, str]]) -> None:
    table = render.table(rows)
    assert len({sum(columns.width(span.text) for span in line[:-1]) for line in table}) == 1
