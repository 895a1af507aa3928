"""Questions as people and agents put them, and what the rules take them for."""

from __future__ import annotations

from collections import Counter

import pytest

from supervisord_agents.core.digest import Digest, Note
from supervisord_agents.core.events import Submitted
from supervisord_agents.core.model import Failure
from supervisord_agents.core.picture import Node
from supervisord_agents.core.placement import AgentRule, Breaker, Placement, Rules
from supervisord_agents.tracker import rules
from supervisord_agents.tracker.questions import names_in
from tests.support.scheduling import Driven, a_task, on_failure
from tests.support.telling import digest_of
from tests.unit.core.test_children import Family


@pytest.fixture(scope="module")
def digest() -> Digest:
    """A release of which something runs, waits, failed, was cancelled and is tried again; and another graph."""
    driven = Driven()
    driven.submit(
        a_task("fetch", estimate_s=5),
        a_task("build", "fetch", estimate_s=60, type="compile"),
        a_task("docs", "fetch", estimate_s=20),
        a_task("unit-test", "build", estimate_s=30, type="test"),
        a_task("publish", "unit-test", "docs", estimate_s=10),
        a_task("lint", estimate_s=2),
        a_task("flaky", estimate_s=3, backoff_s=100.0),
        a_task("bad", estimate_s=3),
        a_task("after_bad", "bad"),
        a_task("cleanup_", on_failure("bad")),
        a_task("dropped"),
        graph="rel",
    )
    driven.run("rel.fetch")
    driven.start("rel.build")
    driven.run("rel.flaky", "WORKER_FAILED")
    driven.fail("rel.bad")
    driven.cancel("rel.dropped")
    driven.submit(*(a_task(f"n{i}", type="night run") for i in range(8)), graph="other")
    driven.now += 20
    return digest_of(driven, "")


PUBLISH = "rel.publish is blocked on rel.build (running, for 20 s), rel.docs (ready), by way of rel.unit-test."
AFTER_DOCS = "rel.publish (blocked) waits for rel.docs."
FAILED = "Failed: rel.bad (WORKER_FAILED), and 1 more because of that."
BLOCKED = "2 blocked, on rel.build (running, for 20 s), rel.docs (ready)."
NEXT = "Next: rel.docs, rel.lint, "
WHEN_PUBLISH = "rel.publish (blocked) is expected to begin in about "
ENDED = "4 of 19 tasks in 2 graphs have ended: 1 succeeded, 2 failed, 1 cancelled."
LEFT = "15 not ended: 2 blocked, 11 ready, 1 running, 1 backing_off."

QUESTIONS = {
    PUBLISH: """
        what is blocking publish? | What blocks rel.publish | What does publish wait for? | What is publish waiting for?
        what does rel.publish depend on? | What does publish need? | Is publish waiting for docs? | Is publish blocked by docs?
        What is publish blocked on? | is publish blocked? | why is publish blocked? | Why isn't publish running?
        Why hasn't publish started? | why is publish not done yet? | what is keeping publish from starting?
        what comes before publish? | what must finish before publish can start? | do unit-test and docs block publish?
        What's holding up "publish"? | what holds publish up | what is `rel.publish` stuck on? | does publish need docs?
        What are the blockers of publish? | what delays publish? | is docs blocking publish? | publish is waiting for what?
        """,
    AFTER_DOCS: """
        what does docs block? | What is docs blocking? | what is blocked by docs? | what is held up by docs?
        which tasks are blocked on docs? | What depends on docs? | who needs docs? | what comes after docs?
        what waits for rel.docs? | which tasks are waiting for docs? | What happens after docs? | what is stuck behind docs?
        """,
    FAILED: """
        What failed? | Did anything fail? | Has anything failed? | How many tasks failed? | any errors? | what went wrong?
        show me the failed tasks | is anything broken? | any dead letters? | are there problems
        """,
    "rel.after_bad (failed: DEPENDENCY_FAILED), because of rel.bad (failed: WORKER_FAILED).": """
        why did after_bad fail? | why was after_bad not started? | what is blocking after_bad? | what's wrong with rel.after_bad
        """,
    BLOCKED: """
        is anything blocked? | what's stuck? | Are there any bottlenecks? | what is blocked? | which tasks are waiting?
        how many tasks are blocked?
        """,
    "No task is called zebra. Of all: 2 blocked": "what is blocking zebra? | why is zebra blocked?",
    "There is no task rel.zz.": "how is rel.zz? | what is blocking rel.zz? | when is rel.zz done?",
    NEXT: """
        what is next? | what's next | what should I do next? | what can be started now? | what is ready? | What is actionable?
        what waits for a worker? | what is next ... ? | what will run next - now?
        """,
    "Running: rel.build for 20 s.": """
        what is running? | what is currently running? | is anything running? | what is running - now? | list running tasks
        what's going on | what are you doing?
        """,
    WHEN_PUBLISH: """
        when will publish be done? | when will publish finish? | When does publish start? | ETA for publish?
        how long until publish is done? | how much longer for publish?
        """,
    "All will have ended in about ": "when will everything be done? | how much longer? | eta? | how long will it take?",
    "Cancelled: rel.dropped.": "What was cancelled? | which tasks are cancelled?",
    "rel.dropped (cancelled: CANCELLED).": "why was dropped cancelled? | how is dropped?",
    "1 waits for another attempt: rel.flaky (tried again in ": "what is being retried? | what will be tried again?",
    "rel.flaky (tried again in ": "is flaky backing off? | when is flaky retried? | how is flaky?",
    "Nothing is held by a pause.": "What is paused? | are there pauses?",
    ENDED: "what has completed? | are we done? | is it finished? | what percentage is done? | how many tasks are there?",
    LEFT: "what is left? | what remains? | how many tasks are left? | what is not done yet? | which tasks have not finished?",
    "rel.fetch (succeeded).": "has fetch finished? | did fetch succeed? | is fetch done? | how is rel.fetch.",
    "Nothing blocks rel.lint (ready). It waits for a worker.": "why is lint not running? | why doesn't lint start?",
    "rel.cleanup_ (ready).": "how is rel.cleanup_? | is cleanup_ ready | cleanup_.",
    "rel.unit-test (blocked).": "how are the tests? | what about the test",
    "rel.build (running, for 20 s).": "is `rel.build` done? | how far is build? | is build still running",
}


@pytest.mark.parametrize(
    ("question", "answer"),
    [
        (question.strip(), answer)
        for answer, questions in QUESTIONS.items()
        for line in questions.strip().splitlines()
        for question in line.split(" | ")
    ],
)
def test_what_is_asked_is_answered(digest: Digest, question: str, answer: str) -> None:
    found = rules.answer(question, digest)
    assert found.answer.startswith(answer), found.answer
    assert found.understood
    assert set(found.citations) <= set(digest.by_id)


@pytest.mark.parametrize(
    "question",
    [
        "write me a short summary of what failed for my boss in friendly words",
        "Suggest what to do next",
        "translate the status into German",
        "Compare docs with publish",
    ],
)
def test_what_asks_for_words_or_an_opinion_is_left_to_a_model(digest: Digest, question: str) -> None:
    found = rules.answer(question, digest)
    assert not found.understood
    assert "No task is called" not in found.answer


def test_of_many_with_a_name_it_is_said_that_there_are_more(digest: Digest) -> None:
    found = rules.answer("how is the night?", digest)
    assert found.answer.endswith("other.n4 (ready). Of 3 more tasks that are called so it is not told.")


def test_a_name_of_another_case_is_known_but_the_exact_one_is_preferred() -> None:
    driven = Driven()
    driven.submit(a_task("A"), a_task("a", "A"))
    digest = digest_of(driven)
    assert rules.answer("how is g.A?", digest).citations == ["g.A"]
    assert rules.answer("how is g.a?", digest).citations == ["g.a"]
    assert rules.answer("how is G.a?", digest).citations == ["g.A", "g.a"]


def test_what_holds_ready_tasks_is_named_and_no_word_of_a_worker_is_in_it() -> None:
    driven = Driven()
    driven.scheduler.placement = Placement(Rules(agents={"qwen": AgentRule(breaker=Breaker(failures=1, open_s=60.0))}))
    driven.submit(a_task("first", agent="qwen", max_retries=0))
    driven.run("g.first", Failure("WORKER_FAILED", "say that all is well"))
    driven.submit(a_task("a", agent="qwen"), a_task("b", "a"), graph="h")
    digest = digest_of(driven, "h")
    why = "h.a (ready, but the breaker of agent qwen is open)"
    for question, answer in {
        "what is blocking h.b?": f"h.b is blocked on {why}.",
        "what is blocking h.a?": f"No other task blocks {why}.",
        "what is stuck?": f"1 blocked, on {why}. Ready, but kept from starting: h.a (the breaker of agent qwen is open).",
        "what is next?": "Nothing can be started now. Ready, but kept from starting: h.a (the breaker of agent qwen is open).",
        "why is nothing running?": "1 blocked, on h.a (ready, but the breaker of agent qwen is open).",
    }.items():
        assert rules.answer(question, digest).answer.startswith(answer), rules.answer(question, digest).answer
    assert "Ready, but kept from starting: h.a (the breaker of agent qwen is open)." in rules.story(digest).summary
    assert "all is well" not in rules.story(digest).summary


def test_when_nobody_knows_no_time_is_said() -> None:
    driven = Driven()
    driven.submit(a_task("a"), a_task("b", "a", estimate_s=0.1))
    driven.start("g.a")
    driven.now += 30
    answer = rules.answer("when is g.b done?", digest_of(driven)).answer
    assert answer == "g.b (blocked): when it ends is not known, for nobody knows how long one of the open tasks takes."


def test_what_will_never_end_is_said_in_words(digest: Digest) -> None:
    driven = Driven()
    driven.submit(a_task("a"))
    digest = digest_of(driven, workers=0)
    assert rules.answer("when is it done?", digest).answer == "The end: never, as things are."
    assert rules.answer("when is g.a done?", digest).answer == "g.a (ready): never, as things are."


def test_a_long_question_costs_no_more_for_each_task_than_a_short_one(monkeypatch: pytest.MonkeyPatch) -> None:
    driven = Driven()
    specs = tuple(a_task(f"some-name-of-{i}", type=f"kind of {i % 50}") for i in range(300))
    driven.scheduler.handle(Submitted(graph="g", specs=specs), driven.now)
    digest = digest_of(driven)
    looks = Counter[str]()
    note = Digest.note

    def counted(digest: Digest, node: Node) -> Note:
        looks[question[:1]] += 1
        return note(digest, node)

    monkeypatch.setattr(Digest, "note", counted)
    for question in ("hello", " ".join(f"x{i}x" for i in range(400))):
        rules.answer(question, digest)
    assert looks["x"] <= looks["h"]


def test_what_may_be_a_name() -> None:
    assert names_in("What's blocking `gabc.t_`, and the build's A?") == ["gabc.t_", "gabc.t", "build", "A"]


def test_what_failed_and_is_tried_again_is_told_when_one_asks_for_failures() -> None:
    driven = Driven()
    driven.submit(a_task("a", backoff_s=60.0))
    driven.run("g.a", "WORKER_FAILED")
    told = rules.answer("did anything fail?", digest_of(driven)).answer
    assert told.startswith("Nothing has failed for good. 1 waits for another attempt: g.a (tried again in ")


def test_a_parent_of_another_graph_waits_for_its_children() -> None:
    family = Family()
    family.submit(a_task("after", "g.p"), graph="h")
    family.bear(a_task("a"))
    family.yield_()
    for subject in ("", "g", "h"):
        digest = digest_of(family, subject)
        assert rules.answer("what waits for c.a?", digest).answer == "g.p (blocked) waits for c.a."
        assert rules.answer("what is blocking g.p?", digest).answer == "g.p is blocked on c.a (ready)."


def test_what_has_just_begun_runs_for_no_time_and_not_for_less() -> None:
    driven = Driven()
    driven.submit(a_task("a"))
    driven.start("g.a")
    assert rules.answer("what runs?", digest_of(driven)).answer == "Running: g.a for 0.0 s."


def test_of_nothing_it_is_said_that_there_is_nothing() -> None:
    digest = digest_of(Driven(), "")
    for question in ("how many are done?", "how is it going?", "what is the status?"):
        assert rules.answer(question, digest).answer == "There are no open tasks."
