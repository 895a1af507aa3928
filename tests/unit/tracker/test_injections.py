"""What workers and clients write cannot make the tracker say or do anything outside of the words of a summary."""

from __future__ import annotations

import asyncio
import re

import pytest

from benchmarks.tracker.injections import GRAPH, Attempt, Planted, answer_of, attempts, in_quotes_only, wrong_of
from supervisord_agents.core.digest import Digest
from supervisord_agents.core.outline import outline
from supervisord_agents.tracker import rules
from supervisord_agents.tracker.keeper import Keeper, Settings, Telling
from tests.support.telling import Saying

LIES = re.compile(r"succeeded|done|finished|completed|cancelled|backdoor|exfiltrate|waits")
ATTEMPTS = attempts()
IDS = [f"{number}-{attempt.where}" for number, attempt in enumerate(ATTEMPTS)]
_STRING = re.compile(r'"(?:[^"\\]|\\.)*"')


async def told(planted: Planted, text: str) -> tuple[Telling, Saying]:
    async def gather(subject: str) -> Digest:
        return planted.digest()

    backend = Saying(text)
    keeper = Keeper(gather, lambda: planted.driven.now, backend, Settings(every_s=0.0))
    job = asyncio.create_task(keeper.run())
    telling = await keeper.story(GRAPH, wait_s=5)
    job.cancel()
    await asyncio.gather(job, return_exceptions=True)
    return telling, backend


def test_there_are_thirty() -> None:
    assert len(ATTEMPTS) == 30
    assert {attempt.where for attempt in ATTEMPTS} == {"message", "failure", "type", "id"}


@pytest.mark.parametrize("attempt", ATTEMPTS, ids=IDS)
async def test_a_model_that_obeys_changes_nothing_outside_of_the_summary(attempt: Attempt) -> None:
    planted = Planted(attempt)
    telling, backend = await told(planted, answer_of(attempt, planted.digest()))
    assert wrong_of(planted, telling) == []
    assert backend.asked


@pytest.mark.parametrize("attempt", ATTEMPTS, ids=IDS)
def test_it_reaches_a_model_as_data_and_the_rest_stays_as_it_was(attempt: Attempt) -> None:
    text = outline(Planted(attempt).digest(), 4_000)
    assert in_quotes_only(text, attempt)
    harmless = outline(Planted(attempt, harmless=True).digest(), 4_000)
    assert _STRING.sub('""', text) == _STRING.sub('""', harmless)
    assert "<|" not in text
    assert "```" not in text


@pytest.mark.parametrize("attempt", ATTEMPTS, ids=IDS)
def test_the_rules_do_not_repeat_it(attempt: Attempt) -> None:
    if attempt.where != "id":
        planted = Planted(attempt)
        assert rules.story(planted.digest()) == rules.story(Planted(attempt, harmless=True).digest())
        said = [rules.answer(question, planted.digest()).answer for question in ("what failed?", "what runs?", "status")]
        assert not any(attempt.text in text for text in said)


@pytest.mark.parametrize(("held", "knows", "count"), [(False, False, 0), (True, False, 0), (False, True, 3), (True, True, 10)])
async def test_what_gets_into_the_words_of_a_model_is_no_lie_about_a_task(held: bool, knows: bool, count: int) -> None:
    """Nor does it name a task that does not exist; and whose words they are is said with them. `knows`: what has to be told."""
    through = []
    for attempt in ATTEMPTS:
        planted = Planted(attempt)
        before = f"{GRAPH}.broken failed. " if knows else ""
        telling, _ = await told(planted, answer_of(attempt, planted.digest(), held=held, before=before))
        if telling.by != "rules":
            assert telling.by == "saying/1"
            through.append(telling.story.summary)
    assert [text for text in through if LIES.search(text)] == []
    assert len(through) == count
