"""A text is as wide as it was counted: no table is crooked and no line longer than the terminal."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from supervisord_agents.cli import columns, sanitize

TEXT = st.text().map(sanitize.line)


@pytest.mark.parametrize(
    ("text", "width"),
    [("", 0), ("abc", 3), ("süß", 3), ("日本", 4), ("e\u0301", 1), ("👩", 2), ("\u2764\ufe0f", 2), (r"\x1b", 4)],
)
def test_width(text: str, width: int) -> None:
    assert columns.width(text) == width


@pytest.mark.parametrize(
    ("text", "room", "shown"),
    [
        ("abc", 3, "abc"),
        ("abcd", 3, "ab…"),
        ("日本語", 6, "日本語"),
        ("日本語", 5, "日本…"),
        ("日本語", 4, "日…"),
        ("abc", 1, "…"),
        ("abc", 0, ""),
        ("", 0, ""),
    ],
)
def test_cut(text: str, room: int, shown: str) -> None:
    assert columns.cut(text, room) == shown


@given(TEXT, st.integers(0, 40))
def test_a_cut_text_fits_and_begins_like_the_whole(text: str, room: int) -> None:
    shown = columns.cut(text, room)
    assert columns.width(shown) <= room
    assert shown == text or text.startswith(shown.removesuffix(columns.ELLIPSIS))


@given(TEXT, TEXT)
def test_the_width_of_two_texts_is_the_sum_of_theirs(first: str, second: str) -> None:
    assert columns.width(first + second) == columns.width(first) + columns.width(second)


@given(TEXT, st.integers(0, 40))
def test_a_padded_text_reaches_the_column(text: str, column: int) -> None:
    assert columns.width(columns.padded(text, column)) == max(column, columns.width(text))
