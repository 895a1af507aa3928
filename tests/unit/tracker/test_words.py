"""What a summary may not leave out, and that nothing else is asked of it."""

from __future__ import annotations

import pytest

from supervisord_agents.core.digest import Digest
from supervisord_agents.tracker import rules
from supervisord_agents.tracker.words import left_out, lies
from tests.support.scheduling import Driven, a_task
from tests.support.telling import digest_of


def work(*, failed: int = 0, blocked: bool = False, running: int = 0) -> Digest:
    """Also of ten that have succeeded, and of two that are ready."""
    driven = Driven()
    done, broken = [f"done{i}" for i in range(10)], [f"broken{i}" for i in range(failed)]
    runs, ready = [f"runs{i}" for i in range(running)], ["ready0", "ready1"]
    behind = [a_task("behind", "ready0", "ready1", estimate_s=9)] if blocked else []
    driven.submit(*map(a_task, [*done, *broken, *runs, *ready]), *behind)
    for name in done:
        driven.run(f"g.{name}")
    for name in broken:
        driven.now += 1
        driven.fail(f"g.{name}")
    for name in runs:
        driven.start(f"g.{name}")
    return digest_of(driven)


FEW, MANY = work(failed=2, blocked=True, running=1), work(failed=12, running=1)


@pytest.mark.parametrize(
    ("digest", "text", "missing"),
    [
        (FEW, "g.runs0 runs, g.behind is blocked on g.ready0.", "g.broken1, which failed"),
        (FEW, "2 have failed.", "g.broken1, which failed"),
        (FEW, "g.broken0 failed.", "g.broken1, which failed"),
        (FEW, "g.broken1 failed.", ""),
        (MANY, "12 tasks failed.", ""),
        (MANY, "It took 12 minutes. Some failed.", "g.broken11, which failed"),
        (MANY, "312 failed.", "g.broken11, which failed"),
        (MANY, "g.broken11 is to blame.", ""),
        (work(blocked=True, running=1), "g.runs0 runs.", "g.ready0, on which others are blocked"),
        (work(blocked=True, running=1), "g.behind waits for g.ready0.", ""),
        (work(running=2), "All is well.", "g.runs0, which runs"),
        (work(running=2), "Only g.runs1 is of interest.", ""),
        (work(running=5), "5 are running, and well.", ""),
        (work(), "Good.", ""),
    ],
)
def test_what_matters_most_is_not_left_out(digest: Digest, text: str, missing: str) -> None:
    assert left_out(digest, text) == missing


@pytest.mark.parametrize(
    ("text", "round_and_round"),
    [
        ("g.runs0 runs, " + "and the most urgent tasks are still to be done, " * 3, True),
        ("g.runs0 runs, " + "and the most urgent tasks are still to be done, " * 2, False),
        (", ".join(f"g.ready{i % 2} is ready to be started by a worker {i}" for i in range(2)), False),
    ],
)
def test_what_goes_round_and_round_is_refused(text: str, round_and_round: bool) -> None:
    found = list(lies(work(running=1), text, "summary"))
    assert found == (["the summary says the same again and again"] if round_and_round else [])


def test_in_a_cycle_any_of_it_will_do(monkeypatch: pytest.MonkeyPatch) -> None:
    digest = work(blocked=True)
    ready = digest.by_id["g.ready1"]
    monkeypatch.setitem(vars(digest), "cycle", [digest.by_id["g.behind"], ready])
    assert left_out(digest, "It stands still.") == "g.behind, on which others are blocked"
    assert left_out(digest, "g.ready1 waits for itself.") == ""


def test_of_what_has_all_ended_well_one_word_is_enough() -> None:
    driven = Driven()
    driven.submit(a_task("a"))
    driven.run("g.a")
    assert left_out(digest_of(driven), "Done!") == ""


def test_what_failed_because_of_another_comes_after_what_failed_of_itself() -> None:
    driven = Driven()
    driven.submit(a_task("a"), *(a_task(f"b{i}", "a") for i in range(5)))
    driven.fail("g.a")
    digest = digest_of(driven)
    assert left_out(digest, "g.b1 failed.") == "g.a, which failed"
    assert left_out(digest, "6 tasks failed.") == "g.a, which failed"
    assert left_out(digest, rules.story(digest).summary) == ""
