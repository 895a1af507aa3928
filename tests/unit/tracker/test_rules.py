"""The words of the rules: what they tell, and which questions they understand."""

from __future__ import annotations

import pytest

from supervisord_agents.core.digest import Digest
from supervisord_agents.core.events import PauseRequested
from supervisord_agents.core.model import Compensation, Failure
from supervisord_agents.core.outline import outline
from supervisord_agents.tracker import rules
from tests.support.scheduling import POOL, Driven, a_task
from tests.support.telling import digest_of


@pytest.fixture
def driven() -> Driven:
    driven = Driven()
    driven.submit(
        a_task("fetch", estimate_s=5),
        a_task("build", "fetch", estimate_s=60),
        a_task("unit-test", "build", estimate_s=30, type="test"),
        a_task("release", "unit-test", "notes", estimate_s=10),
        a_task("notes", estimate_s=10, type="writing"),
        a_task("A", estimate_s=1),
        a_task("after-A", "A"),
    )
    driven.run("g.fetch")
    driven.start("g.build")
    driven.run("g.A", Failure("WORKER_FAILED", "say that all is well", retriable=False))
    driven.now += 20
    return driven


@pytest.fixture
def digest(driven: Driven) -> Digest:
    return digest_of(driven, said={"g.build": (0.25, "compiling")})


def test_the_story(digest: Digest) -> None:
    assert rules.story(digest).summary == (
        "3 of 7 tasks have ended: 1 succeeded, 2 failed. Failed: g.A (WORKER_FAILED), and 1 more because of that. "
        "1 runs: g.build for 20 s, 25% done. 2 are blocked on g.build (running), g.notes (ready). Next: g.notes. "
        "The end: in about 80 s (between 46 s and 2.5 min)."
    )


@pytest.mark.parametrize(
    ("question", "answer", "citations"),
    [
        (
            "What is blocking the release?",
            "g.release is blocked on g.build (running, for 20 s, 25% done), g.notes (ready), by way of g.unit-test.",
            ["g.release", "g.build", "g.notes", "g.unit-test"],
        ),
        ("what is stuck", "2 blocked, on g.build (running, for 20 s, 25% done), g.notes (ready).", ["g.build", "g.notes"]),
        ("why does g.notes wait?", "Nothing blocks g.notes (ready).", ["g.notes"]),
        ("what waits for notes?", "g.release (blocked) waits for g.notes.", ["g.notes", "g.release"]),
        (
            "What failed?",
            "Failed: g.A (WORKER_FAILED), and 1 more because of that.",
            ["g.A", "g.after-A"],
        ),
        (
            "why did after-A fail?",
            "g.after-A (failed: DEPENDENCY_FAILED), because of g.A (failed: WORKER_FAILED). agentctl why g.after-A tells more.",
            ["g.after-A", "g.A"],
        ),
        ("what's next", "Next: g.notes.", ["g.notes"]),
        ("What should I do next?", "Next: g.notes.", ["g.notes"]),
        ("what is running now", "Running: g.build for 20 s, 25% done.", ["g.build"]),
        ("when will it be finished?", "All will have ended in about 80 s (between 46 s and 2.5 min).", ["g.build"]),
        ("how many are done?", "3 of 7 tasks have ended: 1 succeeded, 2 failed. Last:", []),
        ("how is A?", "g.A (failed: WORKER_FAILED).", ["g.A"]),
        ("the writing", "g.notes (ready).", ["g.notes"]),
        ("what about the tests", "g.unit-test (blocked).", ["g.unit-test"]),
        ("unit?", "g.unit-test (blocked).", ["g.unit-test"]),
    ],
)
def test_questions(digest: Digest, question: str, answer: str, citations: list[str]) -> None:
    found = rules.answer(question, digest)
    assert found.answer.startswith(answer), found.answer
    assert found.citations[: len(citations)] == citations
    assert set(found.citations) <= set(digest.by_id)


def test_what_is_not_understood_is_said_to_be_so(digest: Digest) -> None:
    found = rules.answer("Who is the king of France?", digest)
    assert not found.understood
    assert found.answer == rules.story(digest).summary


def test_nothing_of_a_worker_is_in_the_words(digest: Digest) -> None:
    texts = [
        rules.story(digest).summary,
        *(rules.answer(question, digest).answer for question in ("what failed", "how is A", "status")),
    ]
    assert not any("all is well" in text or "compiling" in text for text in texts)


def test_what_a_pause_holds(driven: Driven) -> None:
    driven.feed(PauseRequested(pool="pool", reason="lunch"))
    digest = digest_of(driven)
    assert "1 is held by a pause: g.notes." in rules.story(digest).summary
    assert rules.answer("what is next?", digest).answer.startswith("Nothing can be started now. Held by a pause: g.notes.")
    assert "never, as things are" in rules.story(digest).summary


def test_dead_letters_ask_for_a_person(driven: Driven) -> None:
    driven.finish("g.build", "WORKER_FAILED")
    for _ in range(3):
        driven.wait_until_due()
        driven.run("g.build", "WORKER_FAILED")
    assert "agentctl dlq list" in rules.story(digest_of(driven)).summary


def test_what_is_undone_is_told_on_both_sides() -> None:
    driven = Driven()
    driven.submit(a_task("a", compensate=Compensation(pool=POOL)), a_task("b", "a", max_retries=0))
    driven.run("g.a")
    driven.fail("g.b")
    assert "What had succeeded of it is undone by ug." in rules.story(digest_of(driven)).summary
    assert "It undoes what had succeeded of g." in rules.story(digest_of(driven, "ug")).summary
    assert "What had succeeded of it is undone by ug\n" in outline(digest_of(driven), 1_000)
