"""The evaluation set: the digest and the rules are right after each of its 200 events."""

from __future__ import annotations

import json
from typing import Any

import msgspec

from benchmarks.tracker import make_events
from benchmarks.tracker.evaluation import EVENTS, cases, evaluated, played
from supervisord_agents.tracker import rules
from supervisord_agents.tracker.backend import Limits, Prompt, Told
from supervisord_agents.tracker.keeper import Settings
from supervisord_agents.tracker.story import checked, checked_answer
from tests.support.telling import Saying

QUESTIONS = (
    "what is blocked?",
    "what failed and why?",
    "what is next?",
    "what runs?",
    "what has ended?",
    "when?",
    "how is {}?",
    "what blocks {}?",
)


def test_the_set_is_what_its_maker_makes() -> None:
    assert json.loads(EVENTS.read_text(encoding="utf-8")) == make_events.made()
    assert len(cases()) == 20
    assert sum(len(case["events"]) for case in cases()) == 200


async def test_the_rules_are_right_after_each_event_and_tell_every_fact() -> None:
    score = await evaluated(None, Settings())
    assert (score.wrong, score.events) == ([], 200)
    assert (score.digests, score.stories, score.facts_told) == (200, 200, score.facts)
    assert score.facts > 600
    assert (score.answers, score.valid, score.named, score.actionable) == (200, 200, 200, 200)


class ByTheSchema(Saying):
    """Answers with the first that fits: what is given is right, and the words are not."""

    async def tell(self, prompt: Prompt, schema: dict[str, Any], limits: Limits) -> Told:
        told = {name: inner["enum"][0] for name, inner in schema["properties"].items() if "enum" in inner}
        return Told(text=json.dumps({**told, "summary": self.texts[0]}), by="schema")


async def test_what_the_answers_of_a_model_are_worth() -> None:
    quick = Settings(deadline_s=5.0, every_s=0.0)
    score = await evaluated(Saying("I would rather not."), quick, 1)
    assert (score.events, score.stories, score.by_model, score.answers, score.refused) == (20, 20, 0, 40, 40)
    assert (score.valid, score.named, score.actionable) == (0, 0, 0)
    score = await evaluated(ByTheSchema("g2345678.zz is done."), quick, 1)
    assert (score.answers, score.valid, score.named, score.actionable) == (40, 40, 0, 40)


def test_what_the_rules_tell_and_answer_passes_the_check_of_models() -> None:
    for case in cases():
        for _, digest, _ in played(case):
            assert checked(msgspec.json.encode(rules.story(digest)).decode(), digest).summary
            for question in QUESTIONS:
                answer = rules.answer(question.format(digest.inside[-1].id), digest)
                assert answer.understood
                assert (
                    checked_answer(msgspec.json.encode(answer).decode(), digest).citations[: len(answer.citations)]
                    == answer.citations
                )
