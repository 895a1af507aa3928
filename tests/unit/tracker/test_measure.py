"""What a text will take of a model's context, before the model has seen it."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from supervisord_agents.tracker.measure import FIRST, Measure


@given(
    st.floats(0.01, 1.0), st.integers(500, 100_000), st.lists(st.tuples(st.floats(0.01, 1.0), st.integers(400, 9000)), max_size=5)
)
def test_a_text_like_the_last_prompt_is_not_counted_too_low(rate: float, size: int, before: list[tuple[float, int]]) -> None:
    measure = Measure()
    for earlier, bytes_ in before:
        measure.learn(bytes_, int(bytes_ * earlier))
    measure.learn(size, int(size * rate))
    assert measure.count("x" * size) >= int(size * rate)


def test_a_guess_that_was_too_high_comes_down() -> None:
    measure = Measure()
    assert measure.count("x" * 1000) > 1000 * FIRST
    for _ in range(30):
        measure.learn(1000, 250)
    assert 250 <= measure.count("x" * 1000) < 300


def test_a_short_prompt_teaches_nothing() -> None:
    measure = Measure()
    measure.learn(10, 1000)
    measure.learn(1000, 0)
    assert measure.count("x" * 1000) == Measure().count("x" * 1000)
