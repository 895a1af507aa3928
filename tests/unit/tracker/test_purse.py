"""What models may cost in a day: never more, also over restarts, and until when is said."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from supervisord_agents.tracker.purse import DAY_S, SLOT_S, Purse, PurseFile, Slot


class Watch:
    seconds = 1e9 // SLOT_S * SLOT_S

    def now(self) -> float:
        return self.seconds


def test_at_the_limit_it_is_said_when_there_is_room_again() -> None:
    watch = Watch()
    purse, began = Purse(1.0, watch.now), watch.seconds
    for _ in range(3):
        assert purse.until(0.3) == 0.0
        purse.charge(0.3)
        watch.seconds += 3600.0
    assert purse.until(0.1) == 0.0
    assert purse.until(0.3) == began + SLOT_S + DAY_S
    assert purse.until(0.5) == began + 3600.0 + SLOT_S + DAY_S
    assert (purse.until(0.0), purse.until(1.5)) == (0.0, math.inf)
    watch.seconds = began + DAY_S
    assert purse.until(0.3) > 0.0
    watch.seconds = began + SLOT_S + DAY_S
    assert purse.until(0.3) == 0.0
    assert purse.spent_usd == pytest.approx(0.6)


def test_what_an_answer_has_cost_takes_the_place_of_what_it_might() -> None:
    watch = Watch()
    purse = Purse(1.0, watch.now)
    charge = purse.charge(0.9)
    watch.seconds += 2 * SLOT_S
    charge.was(0.25)
    assert purse.spent_usd == 0.25
    charge.was(0.0)
    assert purse.spent_usd == 0.0


@given(st.lists(st.tuples(st.floats(0.0, DAY_S), st.floats(0.001, 0.4), st.floats(0.0, 1.0)), max_size=30))
def test_no_day_costs_more_than_the_limit(asked: list[tuple[float, float, float]]) -> None:
    watch, paid = Watch(), []
    purse = Purse(1.0, watch.now)
    for later, most, part in asked:
        watch.seconds += later
        until = purse.until(most)
        if until == 0.0:
            purse.charge(most).was(most * part)
            paid.append((watch.seconds, most * part))
        else:
            assert watch.seconds < until <= watch.seconds + DAY_S + SLOT_S
        assert math.fsum(usd for at, usd in paid if at > watch.seconds - DAY_S) <= 1.0 + 1e-9


def test_a_restart_forgets_nothing(tmp_path: Path) -> None:
    watch, file = Watch(), PurseFile(tmp_path / "spent.json")
    assert file.read() == []
    Purse(1.0, watch.now, file.read(), file.write).charge(0.75)
    after = Purse(1.0, watch.now, PurseFile(tmp_path / "spent.json").read(), file.write)
    assert after.spent_usd == 0.75
    assert after.until(0.5) == watch.seconds + SLOT_S + DAY_S
    assert [path.name for path in tmp_path.iterdir()] == ["spent.json"]


def test_what_was_spent_in_the_future_was_spent_now() -> None:
    watch = Watch()
    slots: list[Slot] = [(watch.seconds + 10 * DAY_S, 1.0)]
    assert Purse(1.0, watch.now, slots).until(0.5) == watch.seconds + SLOT_S + DAY_S


@pytest.mark.parametrize("text", [b"", b"{}", b"[[1]]", b"[[0, -5.0]]", b"\xff"])
def test_a_damaged_file_counts_as_none(tmp_path: Path, text: bytes) -> None:
    (tmp_path / "spent.json").write_bytes(text)
    assert PurseFile(tmp_path / "spent.json").read() == []


def test_a_file_that_cannot_be_written_does_no_harm(tmp_path: Path) -> None:
    file = PurseFile(tmp_path / "gone" / "spent.json")
    file.write([(0.0, 1.0)])
    assert file.read() == []
