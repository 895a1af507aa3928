"""The 200 events of events.json put to the tracker, with any back end: what is right of what it tells, and how long it takes."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

from supervisord_agents.core.digest import Digest
from supervisord_agents.core.events import CancelRequested, Finished, Started, Ticked
from supervisord_agents.core.model import Dependency, Failure, When
from supervisord_agents.tracker import rules
from supervisord_agents.tracker.backend import Backend, Limits, Prompt, Standing, Told
from supervisord_agents.tracker.claims import unknown_ids
from supervisord_agents.tracker.keeper import Keeper, Settings, Telling
from supervisord_agents.tracker.shapes import whole
from supervisord_agents.tracker.story import TASKS, Story, schema_of
from tests.support.fitting import fits
from tests.support.scheduling import Driven, a_task
from tests.support.telling import digest_of

EVENTS = Path(__file__).with_name("events.json")
LISTS = ("blocked_on", "next_actionable")
_WHEN = {"!": When.ON_FAILURE, "?": When.ALWAYS}


class Score(msgspec.Struct, kw_only=True):
    """Counts of events, but for the facts."""

    events: int = 0
    digests: int = 0
    """The digest is right: states, what blocks, what is next."""
    stories: int = 0
    """And so is all of what was told, but for the summary."""
    facts: int = 0
    facts_told: int = 0
    by_model: int = 0
    """The words are a model's."""
    facts_of_model: int = 0
    """Of these events."""
    facts_told_by_model: int = 0
    answers: int = 0
    """All that a model gave, before they were checked; without one, what the rules told. Of these:"""
    valid: int = 0
    """By the JSON schema that was asked for."""
    named: int = 0
    """No id that does not exist, in the lists or in the summary."""
    actionable: int = 0
    """`next_actionable` as it is."""
    refused: int = 0
    failed: int = 0
    seconds: list[float] = msgspec.field(default_factory=list)
    """Of each telling."""
    input_tokens: int = 0
    output_tokens: int = 0
    cost_usd: float = 0.0
    wrong: list[str] = msgspec.field(default_factory=list)

    def quantile(self, part: float) -> float:
        """Of the seconds."""
        return sorted(self.seconds)[min(int(part * len(self.seconds)), len(self.seconds) - 1)] if self.seconds else 0.0


class Heard:
    """A back end, and all that it has answered."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self.texts: list[str] = []

    @property
    def name(self) -> str:
        return self._backend.name

    @property
    def context_tokens(self) -> int:
        return self._backend.context_tokens

    def standing(self) -> Standing:
        return self._backend.standing()

    def count(self, text: str) -> int:
        return self._backend.count(text)

    async def tell(self, prompt: Prompt, schema: dict[str, Any], limits: Limits) -> Told:
        told = await self._backend.tell(prompt, schema, limits)
        self.texts.append(told.text)
        return told

    def judged(self, wrong: str) -> None:
        self._backend.judged(wrong)

    async def aclose(self) -> None:
        await self._backend.aclose()


def cases() -> list[dict[str, Any]]:
    """As benchmarks/tracker/make_events.py has written them."""
    found: list[dict[str, Any]] = json.loads(EVENTS.read_text(encoding="utf-8"))
    return found


def played(case: dict[str, Any]) -> Iterator[tuple[Driven, Digest, dict[str, Any]]]:
    """The scheduler and the digest after each event, and what is right."""
    graph, driven = case["graph"], Driven()
    specs = [
        a_task(task["id"], *map(_dependency, task["after"]), estimate_s=task["estimate_s"], type=task["type"], backoff_s=0.001)
        for task in case["tasks"]
    ]
    driven.submit(*specs, graph=graph)
    said: dict[str, tuple[float, str]] = {}
    for event in case["events"]:
        driven.now = event["at"]
        _happen(driven, f"{graph}.{event['task']}", event, said)
        yield driven, digest_of(driven, graph, said=said), event["right"]


def _dependency(word: str) -> Dependency | str:
    return Dependency(word[1:], _WHEN[word[0]]) if word[0] in _WHEN else word


def _happen(driven: Driven, task: str, event: dict[str, Any], said: dict[str, tuple[float, str]]) -> None:
    attempt = driven.task(task).attempt
    match event["what"]:
        case "start":
            driven.feed(Started(task=task, attempt=attempt + 1, worker="w"))
            said.pop(task, None)
        case "succeed":
            driven.feed(Finished(task=task, attempt=attempt))
        case "fail":
            driven.feed(Finished(task=task, attempt=attempt, failure=Failure(event["code"], "as planned")))
        case "fail for good":
            driven.feed(Finished(task=task, attempt=attempt, failure=Failure(event["code"], "as planned", retriable=False)))
        case "report":
            said[task] = event["fraction"], event["message"]
        case "try again":
            driven.feed(Ticked())
        case "cancel":
            driven.feed(CancelRequested(task=task, subtree=False))
        case other:
            raise ValueError(other)


async def evaluated(backend: Backend | None, settings: Settings, limit: int = 0) -> Score:
    """Of the first `limit` events of every graph; 0: all."""
    score = Score()
    for case in cases():
        for number, (_, digest, right) in enumerate(played(case)):
            if not limit or number < limit:
                await _one(score, backend, settings, digest, right)
    return score


async def _one(score: Score, backend: Backend | None, settings: Settings, digest: Digest, right: dict[str, Any]) -> None:
    async def gather(subject: str) -> Digest:
        return digest

    heard = Heard(backend) if backend else None
    keeper = Keeper(gather, lambda: digest.now, heard, settings)
    job = asyncio.create_task(keeper.run())
    before = time.perf_counter()
    telling = await keeper.story(digest.subject, wait_s=3 * settings.deadline_s)
    score.seconds.append(time.perf_counter() - before)
    job.cancel()
    await asyncio.gather(job, return_exceptions=True)
    score.events += 1
    _of_digest(score, digest, right)
    _of_telling(score, telling, right)
    for text in heard.texts if heard else [_answer_of_the_rules(digest)]:
        _of_answer(score, text, digest, right)
    tally = keeper.tally
    score.refused += tally.refused
    score.failed += tally.failed
    score.input_tokens += tally.usage.input_tokens
    score.output_tokens += tally.usage.output_tokens
    score.cost_usd += tally.usage.cost_usd


def _of_digest(score: Score, digest: Digest, right: dict[str, Any]) -> None:
    states = {node.id.partition(".")[2]: str(node.state) for node in digest.inside}
    found = {"states": states} | {name: _short(getattr(digest, name)) for name in LISTS}
    if wrong := {name: value for name, value in found.items() if value != right[name]}:
        score.wrong.append(f"{digest.subject} at {digest.now}: {wrong} and not {right}")
    else:
        score.digests += 1


def _of_telling(score: Score, telling: Telling, right: dict[str, Any]) -> None:
    story = telling.story
    told = {entry.id.partition(".")[2]: entry.status for entry in story.tasks}
    lists = all(_short(getattr(story, name)) == right[name] for name in LISTS)
    score.stories += lists and told.items() <= right["states"].items()
    missed = [fact for fact in right["facts"] if not any(words.casefold() in story.summary.casefold() for words in fact)]
    where = f"{telling.digest.subject} at {telling.digest.now}, by {telling.by}"
    score.wrong += [f"{where}: not told {fact}: {story.summary}" for fact in missed]
    score.facts += len(right["facts"])
    score.facts_told += len(right["facts"]) - len(missed)
    if telling.by != rules.NAME:
        score.by_model += 1
        score.facts_of_model += len(right["facts"])
        score.facts_told_by_model += len(right["facts"]) - len(missed)


def _of_answer(score: Score, text: str, digest: Digest, right: dict[str, Any]) -> None:
    score.answers += 1
    try:
        story = msgspec.json.decode(text, type=Story)
    except msgspec.DecodeError:
        return
    score.valid += fits(msgspec.json.decode(text), whole(schema_of(digest)))
    entries = [name for entry in story.tasks for name in (entry.id, *entry.waits_for)]
    named = all(name in digest.by_id for name in (*story.blocked_on, *story.next_actionable, *entries))
    score.named += named and not unknown_ids(story.summary, digest)
    score.actionable += _short(story.next_actionable) == right["next_actionable"]


def _answer_of_the_rules(digest: Digest) -> str:
    story = rules.story(digest)
    return msgspec.json.encode(msgspec.structs.replace(story, tasks=story.tasks[:TASKS])).decode()


def _short(names: list[str]) -> list[str]:
    return [name.partition(".")[2] for name in names]
