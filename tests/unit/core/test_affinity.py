"""Children start on the worker that made them; others steal, after a while, the oldest of a drawn victim."""

from __future__ import annotations

from math import inf

import pytest

from supervisord_agents.core.affinity import Affinity
from supervisord_agents.core.events import Start, Started, Submitted, Yielded
from supervisord_agents.core.graph import normalise
from tests.support.scheduling import POOL, Driven, a_task

AFFINITY_S = 2.0


class Workshop(Driven):
    """Parents that have run each on a worker of its own, and wait for the children that they made there."""

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        self.affinity = Affinity(AFFINITY_S, seed)

    def parent(self, worker: str, children: int, **fields: object) -> None:
        """Children `<worker>c.t1`, `.t2`, …, made by the task `<worker>.p`."""
        self.submit(a_task("p"), graph=worker)
        self.feed(Started(task=f"{worker}.p", attempt=1, worker=worker))
        specs = normalise([a_task(**fields) for _ in range(children)])  # type: ignore[arg-type]
        self.feed(Submitted(graph=f"{worker}c", specs=specs, parent=f"{worker}.p", attempt=1, call=1))
        self.feed(Yielded(task=f"{worker}.p", attempt=1))

    def sent(self, idle: list[str], busy: list[str], count: int | None = None) -> list[tuple[str, str]]:
        """What starts now, with the worker that it is for."""
        starts = self.scheduler.starts({POOL: len(idle) if count is None else count})
        return [(start.task, start.worker) for start in self.answer(starts, idle, busy)]

    def answer(self, starts: list[Start], idle: list[str], busy: list[str]) -> list[Start]:
        return self.affinity.sent(self.scheduler.table, starts, {POOL: idle}, busy, self.now)


def test_an_idle_worker_takes_the_newest_of_its_own() -> None:
    workshop = Workshop()
    workshop.parent("w1", 3)
    assert workshop.sent(["w1"], []) == [("w1c.t3", "w1")]


def test_a_child_is_kept_for_its_busy_worker_for_a_while_and_then_the_oldest_is_stolen() -> None:
    workshop = Workshop()
    workshop.parent("w1", 3)
    assert workshop.sent(["w2"], ["w1"]) == []
    assert workshop.affinity.again_at == workshop.now + AFFINITY_S
    workshop.now += AFFINITY_S
    (stolen,) = workshop.answer(workshop.scheduler.starts({POOL: 1}), ["w2"], ["w1"])
    assert (stolen.task, stolen.worker, stolen.note) == ("w1c.t1", "", "stolen from w1, which made it and is busy")
    assert workshop.affinity.again_at == inf


def test_its_own_worker_and_a_thief_take_from_both_ends_and_nothing_twice() -> None:
    workshop = Workshop()
    workshop.parent("w1", 3)
    workshop.now += AFFINITY_S
    assert workshop.sent(["w1", "w2", "w3"], []) == [("w1c.t3", "w1"), ("w1c.t1", ""), ("w1c.t2", "")]


def test_a_worker_that_is_gone_is_not_waited_for() -> None:
    workshop = Workshop()
    workshop.parent("w1", 2)
    assert workshop.sent(["w2"], []) == [("w1c.t1", "")]


def test_the_victim_is_drawn_by_the_seed() -> None:
    def first(seed: int) -> str:
        workshop = Workshop(seed)
        for worker in ("w1", "w2", "w3", "w4"):
            workshop.parent(worker, 1)
        workshop.now += AFFINITY_S
        return workshop.sent(["w9"], ["w1", "w2", "w3", "w4"], count=4)[0][0]

    assert [first(seed) for seed in range(8)] == [first(seed) for seed in range(8)]
    assert len({first(seed) for seed in range(8)}) > 1


@pytest.mark.parametrize("better", [{"priority": 0}, {"estimate_s": 60.0}])
def test_what_is_more_urgent_or_has_a_longer_path_is_not_passed_over(better: dict[str, object]) -> None:
    workshop = Workshop()
    workshop.submit(a_task("p"), graph="w1")
    workshop.feed(Started(task="w1.p", attempt=1, worker="w1"))
    specs = (a_task("first", **better), a_task("last"))
    workshop.feed(Submitted(graph="w1c", specs=specs, parent="w1.p", attempt=1, call=1))
    assert workshop.sent(["w1"], []) == [("w1c.first", "w1")]


def test_what_is_nobodys_child_starts_as_offered() -> None:
    workshop = Workshop()
    workshop.submit(a_task("a"), a_task("b"))
    assert workshop.sent(["w1", "w2"], []) == [("g.a", ""), ("g.b", "")]


def test_a_child_of_an_attempt_that_is_over_belongs_to_nobody() -> None:
    shop = Workshop()
    shop.submit(a_task("p", max_retries=1))
    shop.start("g.p")
    shop.feed(Submitted(graph="c", specs=(a_task("x"),), parent="g.p", attempt=1, call=1))
    shop.finish("g.p", "WORKER_FAILED")
    shop.retry("c.x")
    assert shop.sent(["w9"], []) == [("c.x", "")]
