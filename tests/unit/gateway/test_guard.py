"""What an answer says against a provider, and how long it asks to wait."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from supervisord_agents.gateway.guard import MAX_RETRY_AFTER_S, fault_of, retry_after_s

NOW = datetime(2026, 11, 27, 20, 0, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, 0.0),
        ({"Retry-After": "120"}, 120.0),
        ({"Retry-After": " 1.5 "}, 1.5),
        ({"Retry-After": "Fri, 27 Nov 2026 20:01:30 GMT"}, 90.0),
        ({"Retry-After": "Fri, 27 Nov 2026 19:00:00 GMT"}, 0.0),
        ({"retry-after-ms": "250", "Retry-After": "9"}, 0.25),
        ({"Retry-After": "999999999"}, MAX_RETRY_AFTER_S),
        ({"retry-after-ms": "nan"}, 0.0),
        ({"Retry-After": "soon"}, 0.0),
    ],
)
def test_the_time_that_an_answer_asks_for(headers: dict[str, str], seconds: float) -> None:
    assert retry_after_s(headers, NOW) == seconds


@given(st.text(max_size=40))
def test_any_header_gives_a_time_within_bounds(text: str) -> None:
    assert 0.0 <= retry_after_s({"Retry-After": text}, NOW) <= MAX_RETRY_AFTER_S


def test_which_answers_are_the_providers_fault() -> None:
    assert {status for status in range(200, 600) if fault_of(status)} == {401, 402, 403, 429, *range(500, 600)}
