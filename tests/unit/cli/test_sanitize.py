"""Whatever a worker writes, a terminal is told nothing by it."""

from __future__ import annotations

import json
import unicodedata

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from supervisord_agents.cli import sanitize

DIRECTIONS = {"LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI"}
NOT_PRINTED = {"Cc", "Cs", "Zl", "Zp"}
HARMFUL = "\x00\x07\x08\r\x1b\x7f\x84\x9b\x9d\u200b\u200e\u202e\u2028\u2069\ufeff\ud800\U000e0041"
ANY_TEXT = st.text(st.characters() | st.sampled_from(HARMFUL))


def obeyed(text: str) -> set[str]:
    """The characters that a terminal does not simply print, judged by the Unicode tables."""
    return {
        character
        for character in text
        if unicodedata.category(character) in NOT_PRINTED or unicodedata.bidirectional(character) in DIRECTIONS
    }


@given(ANY_TEXT)
@example(HARMFUL)
def test_no_control_character_but_line_feed_and_tab_survives(text: str) -> None:
    assert obeyed(sanitize.block(text)) <= {"\n", "\t"}
    assert not obeyed(sanitize.line(text))


@given(ANY_TEXT)
def test_what_was_made_harmless_stays_as_it_is(text: str) -> None:
    once = sanitize.line(text)
    assert sanitize.line(once) == once
    assert sanitize.block(once) == once


@given(st.text(st.characters(exclude_categories=("C", "Zl", "Zp"))))
@example("süß 日本語 👩\u200d💻 می\u200cخواهم é שלום")
def test_text_that_people_read_is_not_touched(text: str) -> None:
    assert sanitize.block(text) == text


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\x1b[2J", r"\x1b[2J"),
        ("\x9b31m", r"\x9b31m"),
        ("a\rb", r"a\x0db"),
        ("a\u202eb", r"a\u202eb"),
        ("\u2066\u2069", r"\u2066\u2069"),
        ("a\u2028b", r"a\u2028b"),
        ("\U000e0041", r"\U000e0041"),
        ("\ud800", r"\ud800"),
        ("pay\u200bpal", r"pay\u200bpal"),
    ],
)
def test_harmful_characters_are_shown_as_escapes(text: str, shown: str) -> None:
    assert sanitize.block(text) == shown
    assert sanitize.line(text) == shown


def test_lines_and_tabs_stay_in_a_block_and_are_escaped_in_a_line() -> None:
    assert sanitize.block("a\tb\nc") == "a\tb\nc"
    assert sanitize.line("a\tb\nc") == r"a\x09b\x0ac"


@given(st.dictionaries(ANY_TEXT, ANY_TEXT))
def test_a_json_document_stays_the_same_document(value: dict[str, str]) -> None:
    document = json.dumps(value, ensure_ascii=False)
    harmless = sanitize.json_text(document)
    assert not obeyed(harmless)
    assert json.loads(harmless) == json.loads(json.dumps(value))


@given(st.binary(), st.lists(st.integers(0, 64)))
@example("é\u202e€👩".encode(), [1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1])
def test_a_stream_shows_the_same_whatever_pieces_it_comes_in(data: bytes, sizes: list[int]) -> None:
    stream, shown, rest = sanitize.Stream(), "", data
    for size in sizes:
        shown += stream.feed(rest[:size])
        rest = rest[size:]
    shown += stream.feed(rest, final=True)
    assert shown == sanitize.block(data.decode("utf-8", "backslashreplace"))


def test_bytes_that_are_not_utf_8_are_shown() -> None:
    assert sanitize.Stream().feed(b"a\xff\xc3", final=True) == r"a\xff\xc3"
