"""What a digest says is next, against what the scheduler starts first."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from supervisord_agents.core.breakers import Breaker
from supervisord_agents.core.digest import Digest
from supervisord_agents.core.events import PauseRequested, Start, Started
from supervisord_agents.core.model import Failure, State
from supervisord_agents.core.outline import outline
from supervisord_agents.core.placement import AgentRule, Placement, ProviderRule, Rules
from supervisord_agents.core.scaling import PoolRule
from tests.support.scheduling import POOL, Driven, a_task
from tests.support.telling import digest_of, names

BROKEN = Failure("WORKER_FAILED", "ignore all of this", retriable=True)
AGENTS = ("qwen", "gemini", "command", "python")
POOLS = (POOL, "other")
RULES = Rules(
    pools={
        POOL: PoolRule(min_workers=50, max_workers=50, borrows_from=("other",)),
        "other": PoolRule(min_workers=50, max_workers=50, borrows_from=(POOL,)),
    },
    agents={
        "qwen": AgentRule(breaker=Breaker(failures=2, open_s=30.0)),
        "gemini": AgentRule(max_running=1, provider="far"),
        "command": AgentRule(starts_per_minute=4.0),
    },
    providers={"far": ProviderRule(breaker=Breaker(failures=2, open_s=30.0))},
)


def placed(ageing_s: float = 0.0) -> Driven:
    driven = Driven(ageing_s)
    driven.scheduler.placement = Placement(RULES)
    return driven


def start(driven: Driven, count: int = 1, pools: Sequence[str] = (POOL,)) -> list[str]:
    starts = driven.scheduler.starts(dict.fromkeys(pools, count), driven.now)
    for one in starts:
        driven.feed(Started(task=one.task, attempt=one.attempt, worker="w", agent=one.agent, pool=pool_of(driven, one)))
    return [one.task for one in starts]


def pool_of(driven: Driven, one: Start) -> str:
    """Only that of a lender is told."""
    return one.pool if one.pool != driven.task(one.task).pool else ""


def opened(driven: Driven) -> None:
    """The breaker of an agent."""
    driven.submit(*(a_task(f"b{i}", agent="qwen", max_retries=0) for i in range(2)), graph="bad")
    for task in start(driven, 2):
        driven.finish(task, BROKEN)


def test_what_an_open_breaker_keeps_is_not_next_and_the_words_say_so() -> None:
    driven = placed()
    opened(driven)
    driven.submit(a_task("a", agent="qwen", priority=0), a_task("b", agent="python"), a_task("c", "a"))
    digest = digest_of(driven)
    assert (names(digest.next), names(digest.kept)) == (["b"], ["a"])
    assert digest.note(digest.by_id["g.a"]).kept == "the breaker of agent qwen is open"
    assert 'g.a ready, but kept from starting: "the breaker of agent qwen is open"' in outline(digest, 4_000)
    driven.now += 30.0
    assert names(digest_of(driven).next) == ["a", "b"]


def test_what_waits_for_a_busy_agent_is_next_but_after_what_may_start_now() -> None:
    driven = placed()
    driven.submit(*(a_task(f"t{i}", agent="gemini", priority=0) for i in range(2)), a_task("other", agent="python"))
    assert start(driven) == ["g.t0"]
    assert names(digest_of(driven).next) == ["other", "t1"]


def test_of_several_agents_one_that_may_is_enough() -> None:
    driven = placed()
    opened(driven)
    driven.submit(
        a_task("either", agent="qwen", agents=("qwen", "python")),
        a_task("neither", agent="qwen", agents=("qwen", "gemini")),
    )
    driven.scheduler.placement.answered("far", driven.now, "no answer", retry_after_s=60.0)
    digest = digest_of(driven)
    assert (names(digest.next), names(digest.kept)) == (["either"], ["neither"])
    assert not digest.note(digest.by_id["g.either"]).kept


class Random:
    """A driven scheduler in which anything happens."""

    def __init__(self, draw: Any) -> None:
        self.draw = draw
        self.driven = placed(draw(st.sampled_from([0.0, 20.0])))

    def happen(self, number: int) -> None:
        driven, draw = self.driven, self.draw
        running = [task.id for task in driven.scheduler.running_tasks()]
        match draw(st.sampled_from(["submit", "start", "end", "wait", "pause", "provider"])):
            case "submit":
                agents = st.sampled_from(AGENTS)
                specs = [
                    a_task(
                        f"t{i}",
                        *([f"t{draw(st.integers(0, i - 1))}"] if i and draw(st.booleans()) else []),
                        priority=draw(st.integers(0, 9)),
                        pool=draw(st.sampled_from(POOLS)),
                        estimate_s=draw(st.integers(0, 30)),
                        **draw(
                            st.one_of(
                                st.builds(lambda name: {"agent": name}, agents),
                                st.lists(agents, min_size=2, max_size=3, unique=True).map(
                                    lambda found: {"agent": found[0], "agents": tuple(found)}
                                ),
                            )
                        ),
                    )
                    for i in range(draw(st.integers(1, 4)))
                ]
                driven.submit(*specs, graph=f"g{number}")
            case "start":
                start(driven, draw(st.integers(1, 3)), POOLS)
            case "end" if running:
                driven.finish(draw(st.sampled_from(running)), draw(st.sampled_from([None, BROKEN])))
            case "wait":
                driven.wait(draw(st.integers(1, 40)))
            case "pause":
                driven.feed(PauseRequested(pool="", agent=draw(st.sampled_from(AGENTS)), client="0", reason=""))
            case "provider":
                driven.scheduler.placement.answered("far", driven.now, draw(st.sampled_from(["", "no answer"])))


def assert_next_is_right(digest: Digest, driven: Driven) -> None:
    next_now = [node for node in digest.next if not digest.note(node).busy]
    for pool in POOLS:
        first = [one.task for one in driven.scheduler.starts({pool: 1}, driven.now)]
        assert [node.id for node in next_now if node.pool == pool][:1] == first
    # With or without a worker that one pool lends to the other.
    for free in ({POOL: 1000, "other": 1000}, {POOL: 1000, "other": 0}, {POOL: 0, "other": 3}):
        all_at_once = {one.task for one in driven.scheduler.starts(free, driven.now)}
        assert all_at_once <= {node.id for node in next_now}
    assert {node.id for node in [*digest.next, *digest.held, *digest.kept]} == {
        task.id for task in driven.scheduler.tasks.values() if task.state is State.READY
    }


@given(st.data())
@settings(max_examples=60, deadline=None)
def test_the_first_is_what_a_free_worker_is_given(data: st.DataObject) -> None:
    random = Random(data.draw)
    for number in range(data.draw(st.integers(3, 14))):
        random.happen(number)
        assert_next_is_right(digest_of(random.driven, ""), random.driven)


@pytest.mark.parametrize("ageing_s", [0.0, 20.0])
def test_what_has_aged_comes_first_in_both(ageing_s: float) -> None:
    driven = placed(ageing_s)
    driven.submit(a_task("old", agent="python", priority=6), graph="g1")
    driven.wait(50.0)
    driven.submit(a_task("new", agent="python", priority=5), graph="g2")
    assert_next_is_right(digest_of(driven, ""), driven)
