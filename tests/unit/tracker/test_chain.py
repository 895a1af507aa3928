"""Several back ends: the first that works answers, and none is asked again and again in vain."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from structlog.testing import capture_logs

from supervisord_agents.core.breakers import Breaker, BreakerState
from supervisord_agents.errors import Unavailable
from supervisord_agents.tracker import chain
from supervisord_agents.tracker.backend import Limits, Prompt, Standing, Stands, Told
from supervisord_agents.tracker.chain import Chain

PROMPT = Prompt(system="s", data="d" * 98, question="q")


class Watch:
    seconds = 0.0

    def now(self) -> float:
        return self.seconds


class Scripted:
    """Fails as long as it is told to, and takes as long as it is told to."""

    def __init__(self, name: str, watch: Watch, *, context_tokens: int = 1000) -> None:
        self.name = name
        self.context_tokens = context_tokens
        self.asked: list[float] = []
        self.broken = False
        self.closed = False
        self.takes_s = 0.0
        self.stands = Standing()
        self._watch = watch

    def standing(self) -> Standing:
        return self.stands

    def count(self, text: str) -> int:
        return len(text)

    async def tell(self, prompt: Prompt, schema: dict[str, Any], limits: Limits) -> Told:
        self.asked.append(limits.seconds)
        self._watch.seconds += min(self.takes_s, limits.seconds)
        if self.broken or self.takes_s > limits.seconds:
            raise Unavailable(f"{self.name} is broken.")
        return Told(text="{}", by=self.name)

    def judged(self, wrong: str) -> None:
        raise AssertionError("the chain judges")

    async def aclose(self) -> None:
        self.closed = True


def a_chain(*contexts: int) -> tuple[Chain, Watch, list[Scripted]]:
    watch = Watch()
    backends = [Scripted(f"b{place}", watch, context_tokens=tokens) for place, tokens in enumerate(contexts)]
    return Chain(backends, Breaker(2, 60.0), watch.now), watch, backends


async def tell(chain: Chain, seconds: float = 30.0, wrong: str = "") -> str:
    by = (await chain.tell(PROMPT, {}, Limits(tokens=100, seconds=seconds))).by
    chain.judged(wrong)
    return by


async def test_the_first_that_works_answers() -> None:
    chain, _, (first, second) = a_chain(1000, 1000)
    assert await tell(chain) == "b0"
    first.broken = True
    assert await tell(chain) == "b1"
    assert (len(first.asked), len(second.asked)) == (2, 1)


async def test_one_that_fails_again_and_again_is_left_alone_then_tried_once() -> None:
    chain, watch, (first, _) = a_chain(1000, 1000)
    first.broken = True
    assert [await tell(chain) for _ in range(4)] == ["b1"] * 4
    assert len(first.asked) == 2
    assert chain.state("b0") is BreakerState.OPEN
    watch.seconds += 60.0
    assert [await tell(chain) for _ in range(2)] == ["b1"] * 2
    assert len(first.asked) == 3
    watch.seconds += 60.0
    first.broken = False
    with capture_logs() as logged:
        assert [await tell(chain) for _ in range(2)] == ["b0"] * 2
    assert [(line["event"], line["backend"], line["after"]) for line in logged] == [("tracker_works_again", "b0", 3)]
    assert chain.state("b0") is BreakerState.CLOSED


async def test_one_whose_answers_are_not_true_is_left_alone_too() -> None:
    chain, watch, _ = a_chain(1000, 1000)
    assert [await tell(chain, wrong="g.x does not exist") for _ in range(3)] == ["b0", "b0", "b1"]
    watch.seconds += 60.0
    assert [await tell(chain) for _ in range(2)] == ["b0", "b0"]
    assert chain.healths.keys() == {"b1"}


async def test_when_none_answers_each_says_why() -> None:
    chain, _, backends = a_chain(1000, 1000, 100)
    backends[0].broken = backends[1].broken = True
    for _ in range(2):
        with pytest.raises(
            Unavailable, match=r"b0: b0 is broken.*b1: b1 is broken.*b2: about 200 tokens are too many for its 100"
        ):
            await tell(chain)
    with pytest.raises(Unavailable, match="b0: left alone, b0 is broken"):
        await tell(chain)
    assert chain.state("b2") is BreakerState.CLOSED
    with pytest.raises(Unavailable, match="there is none"):
        await tell(Chain([], Breaker()))


async def test_one_that_has_spent_enough_is_left_out_and_says_until_when() -> None:
    chain, _, (first, second) = a_chain(1000, 500)
    first.stands = Standing(stands=Stands.OVER_LIMIT, until=99.0, why="$1.00 of $1.00 a day are spent")
    assert chain.context_tokens == 500
    assert await tell(chain) == "b1"
    assert (first.asked, chain.healths) == ([], {})
    second.broken = True
    with pytest.raises(Unavailable, match=r"b0: over limit, \$1.00 of \$1.00 a day are spent; b1: b1 is broken"):
        await tell(chain)


async def test_how_each_is() -> None:
    chain, watch, (first, second) = a_chain(1000, 1000)
    second.stands = Standing(stands=Stands.LOADING, since=3.0)
    assert chain.standings() == {"b0": Standing(), "b1": second.stands}
    assert chain.standing() == Standing()
    first.broken = True
    watch.seconds = 7.0
    for _ in range(2):
        await tell(chain)
    assert chain.standings()["b0"] == Standing(stands=Stands.LEFT_ALONE, since=7.0, until=67.0, why="b0 is broken.")
    assert chain.standing() == second.stands
    second.stands = Standing(stands=Stands.OVER_LIMIT)
    assert not chain.standing().askable
    assert not Chain([], Breaker()).standing().askable


async def test_a_slow_one_leaves_time_for_the_next() -> None:
    chain, _, (first, second) = a_chain(1000, 1000)
    first.takes_s = 99.0
    second.takes_s = 9.0
    assert await tell(chain, seconds=20.0) == "b1"
    assert first.asked == second.asked == [pytest.approx(9.5)]


async def test_a_prompt_is_made_for_the_one_that_will_be_asked() -> None:
    chain, _, (first, _) = a_chain(1000, 500)
    assert (chain.context_tokens, chain.count("xyz")) == (1000, 3)
    first.broken = True
    await tell(chain)
    await tell(chain)
    assert chain.context_tokens == 500
    assert (Chain([], Breaker()).context_tokens, Chain([], Breaker()).count("é")) == (0, 2)


async def test_all_are_closed() -> None:
    chain, _, backends = a_chain(1, 2)
    await chain.aclose()
    assert all(backend.closed for backend in backends)


class Broken(Scripted):
    """Raises what no back end should."""

    async def tell(self, prompt: Prompt, schema: dict[str, Any], limits: Limits) -> Told:
        self.asked.append(limits.seconds)
        raise KeyError("choices")


class Sleepy(Scripted):
    """Does not look at the clock."""

    async def tell(self, prompt: Prompt, schema: dict[str, Any], limits: Limits) -> Told:
        self.asked.append(limits.seconds)
        await asyncio.Event().wait()
        raise AssertionError


@pytest.mark.parametrize("kind", [Broken, Sleepy])
async def test_after_one_that_breaks_the_rules_the_next_is_asked_too(
    monkeypatch: pytest.MonkeyPatch, kind: type[Scripted]
) -> None:
    monkeypatch.setattr(chain, "LATE_S", 0.0)
    watch = Watch()
    backends = [kind("bad", watch), Scripted("good", watch)]
    several = Chain(backends, Breaker(failures=2, open_s=60.0), watch.now)
    for _ in range(3):
        assert (await several.tell(PROMPT, {}, Limits(tokens=10, seconds=0.02))).by == "good"
        several.judged("")
    assert (len(backends[0].asked), len(backends[1].asked)) == (2, 3)
    assert several.state("bad") is BreakerState.OPEN
