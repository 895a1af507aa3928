"""The evaluation set: the digest and the rules are right after each of its 200 events."""

from __future__ import annotations

import json

from benchmarks.tracker import make_events
from benchmarks.tracker.evaluation import EVENTS, cases, evaluated
from supervisord_agents.tracker.keeper import Settings


def test_the_set_is_what_its_maker_makes() -> None:
    assert json.loads(EVENTS.read_text(encoding="utf-8")) == make_events.made()
    assert len(cases()) == 20
    assert sum(len(case["events"]) for case in cases()) == 200


async def test_the_rules_are_right_after_each_event_and_tell_every_fact() -> None:
    score = await evaluated(None, Settings())
    assert (score.wrong, score.events) == ([], 200)
    assert (score.digests, score.stories, score.facts_told) == (200, 200, score.facts)
    assert score.facts > 600
