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
from supervisord_agents.tracker.backend import Backend
from supervisord_agents.tracker.keeper import Keeper, Settings
from tests.support.scheduling import Driven, a_task
from tests.support.telling import digest_of

EVENTS = Path(__file__).with_name("events.json")
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
    answers: int = 0
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

    keeper = Keeper(gather, lambda: digest.now, backend, settings)
    job = asyncio.create_task(keeper.run())
    before = time.perf_counter()
    telling = await keeper.story(digest.subject, wait_s=3 * settings.deadline_s)
    score.seconds.append(time.perf_counter() - before)
    job.cancel()
    await asyncio.gather(job, return_exceptions=True)
    where = f"{digest.subject} at {digest.now}"
    states = {node.id.partition(".")[2]: str(node.state) for node in digest.inside}
    lists = {name: [f"{digest.subject}.{task}" for task in right[name]] for name in ("blocked_on", "next_actionable")}
    if (
        states != right["states"]
        or digest.blocked_on != lists["blocked_on"]
        or digest.next_actionable != lists["next_actionable"]
    ):
        score.wrong.append(f"{where}: {states}, {digest.blocked_on}, {digest.next_actionable} and not {right}")
    else:
        score.digests += 1
    story = telling.story
    told = {entry.id.partition(".")[2]: entry.status for entry in story.tasks}
    if (story.blocked_on, story.next_actionable) == (lists["blocked_on"], lists["next_actionable"]) and told.items() <= right[
        "states"
    ].items():
        score.stories += 1
    missed = [fact for fact in right["facts"] if not any(words.casefold() in story.summary.casefold() for words in fact)]
    score.wrong += [f"{where}, by {telling.by}: not told {fact}: {story.summary}" for fact in missed]
    score.events += 1
    score.facts += len(right["facts"])
    score.facts_told += len(right["facts"]) - len(missed)
    score.by_model += telling.by != "rules"
    tally = keeper.tally
    score.answers += tally.told
    score.refused += tally.refused
    score.failed += tally.failed
    score.input_tokens += tally.usage.input_tokens
    score.output_tokens += tally.usage.output_tokens
    score.cost_usd += tally.usage.cost_usd
