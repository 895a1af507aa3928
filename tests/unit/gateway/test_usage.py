"""Token counts out of answers of all three APIs, however they are cut."""

from __future__ import annotations

import itertools
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from supervisord_agents.config import Provider
from supervisord_agents.core.model import MAX_COST_USD, MAX_TOKENS, Usage
from supervisord_agents.gateway import usage
from supervisord_agents.gateway.usage import DOCUMENT_BYTES, Tokens, priced, reader

JSON = "application/json; charset=utf-8"
SSE = "text/event-stream"

OPENAI = {
    "choices": [{"message": {"content": '{"usage": {"prompt_tokens": 9}}'}}],
    "usage": {"prompt_tokens": 11, "completion_tokens": 5},
}
ANTHROPIC = {
    "content": [{"type": "text", "text": "hi"}],
    "usage": {"input_tokens": 4, "cache_creation_input_tokens": 5, "cache_read_input_tokens": 6, "output_tokens": 7},
}
GEMINI = {
    "candidates": [],
    "usageMetadata": {"promptTokenCount": 20, "candidatesTokenCount": 3, "thoughtsTokenCount": 2, "totalTokenCount": 25},
}


def sse(*events: Any, end: str = "\n") -> bytes:
    lines = [f"event: x{end}data: {event if isinstance(event, str) else json.dumps(event)}{end}{end}" for event in events]
    return f": a comment{end}{''.join(lines)}".encode()


OPENAI_STREAM = [
    {"choices": [{"delta": {"content": "usage"}}], "usage": None},
    {"choices": [], "usage": {"prompt_tokens": 11, "completion_tokens": 5}},
    "[DONE]",
]
RESPONSES_STREAM = [
    {"type": "response.output_text.delta", "delta": "hi"},
    {"type": "response.completed", "response": {"usage": {"input_tokens": 11, "output_tokens": 5}}},
]
ANTHROPIC_STREAM = [
    {"type": "message_start", "message": {"usage": {"input_tokens": 10, "cache_read_input_tokens": 5, "output_tokens": 1}}},
    {"type": "content_block_delta", "delta": {"type": "text_delta", "text": "hi"}},
    {"type": "message_delta", "delta": {}, "usage": {"output_tokens": 4}},
    {"type": "message_delta", "delta": {}, "usage": {"output_tokens": 7}},
    {"type": "message_stop"},
]
GEMINI_STREAM = [
    {"candidates": [], "usageMetadata": {"promptTokenCount": 20, "candidatesTokenCount": 1}},
    {"candidates": [], "usageMetadata": {"promptTokenCount": 20, "candidatesTokenCount": 5, "thoughtsTokenCount": 2}},
]

ANSWERS = [
    pytest.param("openai", JSON, json.dumps(OPENAI).encode(), Tokens(11, 5), id="openai"),
    pytest.param("anthropic", JSON, json.dumps(ANTHROPIC).encode(), Tokens(15, 7), id="anthropic"),
    pytest.param("gemini", JSON, json.dumps(GEMINI, indent=2).encode(), Tokens(20, 5), id="gemini"),
    pytest.param("gemini", JSON, json.dumps(GEMINI_STREAM).encode(), Tokens(20, 7), id="gemini-array"),
    pytest.param("openai", SSE, sse(*OPENAI_STREAM), Tokens(11, 5), id="openai-stream"),
    pytest.param("openai", SSE, sse(*RESPONSES_STREAM), Tokens(11, 5), id="openai-responses-stream"),
    pytest.param("anthropic", SSE, sse(*ANTHROPIC_STREAM), Tokens(15, 7), id="anthropic-stream"),
    pytest.param("gemini", SSE, sse(*GEMINI_STREAM, end="\r\n"), Tokens(20, 7), id="gemini-stream"),
    pytest.param("openai", SSE, sse(*OPENAI_STREAM, end="\r"), Tokens(11, 5), id="lines-ending-in-cr"),
]


def read(dialect: str, content_type: str, chunks: list[bytes]) -> Tokens:
    subject = reader(dialect, content_type)
    for chunk in chunks:
        subject.feed(chunk)
    subject.finish()
    return subject.tokens


def cut(data: bytes, places: list[int]) -> list[bytes]:
    edges = [0, *sorted(place % (len(data) + 1) for place in places), len(data)]
    return [data[start:end] for start, end in itertools.pairwise(edges)]


@pytest.mark.parametrize(("dialect", "content_type", "data", "expected"), ANSWERS)
def test_counts_are_read(dialect: str, content_type: str, data: bytes, expected: Tokens) -> None:
    assert read(dialect, content_type, [data]) == expected


@pytest.mark.parametrize(("dialect", "content_type", "data", "expected"), ANSWERS)
@given(places=st.lists(st.integers(min_value=0, max_value=10_000), max_size=12))
def test_counts_do_not_depend_on_how_the_answer_is_cut(
    dialect: str, content_type: str, data: bytes, expected: Tokens, places: list[int]
) -> None:
    assert read(dialect, content_type, cut(data, places)) == expected


@pytest.mark.parametrize(("dialect", "content_type", "data", "expected"), ANSWERS)
def test_counts_are_read_byte_by_byte(dialect: str, content_type: str, data: bytes, expected: Tokens) -> None:
    assert read(dialect, content_type, [data[i : i + 1] for i in range(len(data))]) == expected


@given(
    dialect=st.sampled_from(["openai", "anthropic", "gemini"]),
    content_type=st.sampled_from([JSON, SSE, ""]),
    chunks=st.lists(
        st.one_of(
            st.binary(max_size=50), st.sampled_from([b'data: {"usage":', b'{"usageMetadata": {', b"}}\n\n", b"\r", b"[" * 40])
        )
    ),
)
def test_garbage_is_never_an_error(dialect: str, content_type: str, chunks: list[bytes]) -> None:
    read(dialect, content_type, chunks)


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["usage", "message", "response", "x"]), inner, max_size=3)
    ),
    max_leaves=8,
)


@given(
    dialect=st.sampled_from(["openai", "anthropic", "gemini"]),
    value=_JSON,
    usage_value=st.dictionaries(st.sampled_from(["prompt_tokens", "input_tokens", "output_tokens", "promptTokenCount"]), _JSON),
)
def test_counts_are_never_negative_or_anything_but_numbers(dialect: str, value: Any, usage_value: Any) -> None:
    answer = {"message": value, "response": value, "usage": usage_value, "usageMetadata": usage_value}
    tokens = usage.counts(dialect, answer)
    assert all(count is None or (type(count) is int and count >= 0) for count in (tokens.input, tokens.output))


@pytest.mark.parametrize("content_type", [JSON, SSE])
@pytest.mark.parametrize(
    ("dialect", "counts"),
    [
        ("openai", {"usage": {"prompt_tokens": 11, "completion_tokens": 5, "details": {"cached": 1}}}),
        ("gemini", {"usageMetadata": {"promptTokenCount": 11, "candidatesTokenCount": 5}}),
    ],
)
def test_counts_at_the_end_of_a_huge_answer_are_read_in_bounded_memory(
    content_type: str, dialect: str, counts: dict[str, Any]
) -> None:
    # The text tries to pass for a usage object.
    content = '"usage": {"prompt_tokens": 1}, "usageMetadata": {}' * (DOCUMENT_BYTES // 20)
    data = json.dumps({"content": content, **counts, "model": "m"}).encode()
    assert len(data) > 2 * DOCUMENT_BYTES
    if content_type == SSE:
        data = b"data: " + data + b"\n\n"
    subject = reader(dialect, content_type)
    most = 0
    for start in range(0, len(data), 65_536):
        subject.feed(data[start : start + 65_536])
        document = subject._event if isinstance(subject, usage.EventStream) else subject
        assert isinstance(document, usage.Document)
        most = max(most, len(document._data))
    subject.finish()
    assert subject.tokens == Tokens(11, 5)
    assert most <= DOCUMENT_BYTES


def test_a_line_without_a_colon_is_not_gathered_for_ever() -> None:
    subject = usage.EventStream("openai")
    for _ in range(1000):
        subject.feed(b"x" * 1000)
    assert len(subject._line) <= 1000
    subject.feed(b"\n" + sse(*OPENAI_STREAM))
    subject.finish()
    assert subject.tokens == Tokens(11, 5)


def test_an_event_of_several_data_lines_is_one_document() -> None:
    data = b'data: {"usage":\r\ndata: {"prompt_tokens": 11,\r\ndata: "completion_tokens": 5}}\r\n\r\n'
    assert read("openai", SSE, [data]) == Tokens(11, 5)
    assert read("openai", SSE, [data[i : i + 1] for i in range(len(data))]) == Tokens(11, 5)


def test_counts_known_before_a_stream_broke_off_are_kept() -> None:
    assert read("anthropic", SSE, [sse(*ANTHROPIC_STREAM[:2]), b'data: {"type": "mess']) == Tokens(15, 1)


def test_an_answer_without_counts_has_none() -> None:
    assert read("openai", JSON, [b'{"error": {"message": "usage"}}']) == Tokens()
    assert read("openai", "text/html", [b"<p>usage</p>"]) == Tokens()


def test_an_answer_that_is_not_utf_8_has_none_and_passes_all_the_same() -> None:
    broken = b'{"usage": {"prompt_tokens": 1, "completion_tokens": 1}, "x": "\xff"}'
    assert read("openai", JSON, [broken]) == Tokens()
    good = b'data: {"usage": {"prompt_tokens": 5}}\n\n'
    assert read("openai", "text/event-stream", [b"data: " + broken + b"\n\n" + good]) == Tokens(5)
    tail = b'"usage": {"prompt_tokens": 1, "x": "\xff"}'
    assert read("openai", JSON, [b"[" + b" " * DOCUMENT_BYTES + tail + b"]"]) == Tokens()


@pytest.mark.parametrize(
    ("usage_object", "expected"),
    [
        ({"prompt_tokens": 10, "input_tokens": 10, "completion_tokens": 5, "output_tokens": 5}, Tokens(10, 5)),
        ({"prompt_tokens": None, "input_tokens": 10, "completion_tokens": "5", "output_tokens": 5}, Tokens(10, 5)),
        ({"prompt_tokens": 0, "input_tokens": 10, "output_tokens": 5}, Tokens(0, 5)),
    ],
)
def test_an_endpoint_that_gives_both_names_of_a_count_is_counted_once(usage_object: dict[str, Any], expected: Tokens) -> None:
    assert usage.counts("openai", {"usage": usage_object}) == expected


def test_parts_of_a_count_never_sum_up_to_more_than_can_be_stored() -> None:
    most = {"input_tokens": MAX_TOKENS, "cache_read_input_tokens": MAX_TOKENS, "output_tokens": 1}
    assert usage.counts("anthropic", {"usage": most}) == Tokens(MAX_TOKENS, 1)
    dear = Provider(base_url="http://x", input_usd_per_mtok=1e12)
    assert priced(Tokens(MAX_TOKENS, 0), dear).cost_usd == MAX_COST_USD


def test_prices_are_for_a_million_tokens() -> None:
    provider = Provider(base_url="http://x", input_usd_per_mtok=2.0, output_usd_per_mtok=10.0)
    assert priced(Tokens(500_000, 100_000), provider) == Usage(500_000, 100_000, 2.0)
    assert priced(Tokens(None, 100_000), provider) == Usage(0, 100_000, 1.0)
