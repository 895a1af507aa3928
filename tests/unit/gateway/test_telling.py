"""Refusals are told, and a flood of them is counted."""

from __future__ import annotations

from collections.abc import Callable

from supervisord_agents.gateway.telling import FIRST, PAUSE_S, Telling


class Clock:
    """Calls that are due when the test says so."""

    def __init__(self) -> None:
        self.due: list[Call] = []

    def later(self, delay_s: float, call: Callable[[], None]) -> Call:
        assert delay_s == PAUSE_S
        self.due.append(Call(call))
        return self.due[-1]

    def pass_pause(self) -> None:
        """The time of one pause."""
        due, self.due = self.due, []
        for call in due:
            if not call.cancelled:
                call.call()


class Call:
    def __init__(self, call: Callable[[], None]) -> None:
        self.call = call
        self.cancelled = False

    def cancel(self) -> None:
        self.cancelled = True


def a_telling() -> tuple[Telling, Clock, list[tuple[str, str]]]:
    told: list[tuple[str, str]] = []
    clock = Clock()
    return Telling(lambda task, line: told.append((task, line)), clock.later), clock, told


def test_the_first_are_told_one_by_one_and_of_the_rest_one_line_a_pause() -> None:
    telling, clock, told = a_telling()
    for number in range(4_000):
        telling.tell("t", f"no {number}")
    assert told == [("t", f"no {number}") for number in range(FIRST)]
    clock.pass_pause()
    assert told[FIRST:] == [("t", f"… and {4_000 - FIRST} more; the last: no 3999")]
    telling.tell("t", "no again")
    assert len(told) == FIRST + 1
    clock.pass_pause()
    assert told[FIRST + 1 :] == [("t", "… and 1 more; the last: no again")]


def test_after_a_quiet_pause_the_next_is_told_at_once() -> None:
    telling, clock, told = a_telling()
    for _ in range(FIRST):
        telling.tell("t", "no")
    clock.pass_pause()
    telling.tell("t", "late")
    telling.tell("t", "held")
    assert told[FIRST:] == [("t", "late")]
    clock.pass_pause()
    assert told[FIRST + 1 :] == [("t", "… and 1 more; the last: held")]


def test_another_task_begins_anew_and_the_count_is_told_to_the_task_before() -> None:
    telling, clock, told = a_telling()
    for _ in range(FIRST + 2):
        telling.tell("a", "no")
    telling.tell("b", "no")
    assert told[FIRST:] == [("a", "… and 2 more; the last: no"), ("b", "no")]
    clock.pass_pause()
    assert len(told) == FIRST + 2


def test_at_the_end_nothing_is_left_to_be_told_or_to_fire() -> None:
    telling, clock, told = a_telling()
    for _ in range(FIRST + 2):
        telling.tell("a", "no")
    telling.flush()
    assert told[FIRST:] == [("a", "… and 2 more; the last: no")]
    assert [call.cancelled for call in clock.due] == [True]
    telling.flush()
    assert len(told) == FIRST + 1
