"""How long whole graphs take under each order of starts, against a bound that no order can beat."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Iterator
from statistics import median
from typing import NamedTuple

from benchmarks.simulate.expectation import Expectation, told
from benchmarks.simulate.graphs import Graph, random_graphs, realistic_graphs
from benchmarks.simulate.workers import Work, Workers, fixed
from benchmarks.simulate.world import World
from supervisord_agents.core.model import LOWEST_PRIORITY, TaskSpec
from supervisord_agents.core.ready import ReadyQueue
from supervisord_agents.core.scheduler import Scheduler
from supervisord_agents.core.task import Task

POOL = "pool"
WITHIN = 1.10
"""Of the bound, on the median."""
WRONG = 0.3
OURS, BLURRED, BLIND, PRIORITY, FIFO = (
    "longest path first (ours)",
    "ours, estimates ±30 % wrong",
    "ours, no estimates",
    "longest task first",
    "first come, first served",
)

Estimate = Callable[[str, float], float]


class Made(NamedTuple):
    """A graph run to its end under one order."""

    graph: Graph
    order: str
    makespan_s: float

    @property
    def ratio(self) -> float:
        return self.makespan_s / self.graph.bound_s


class FirstCome(ReadyQueue):
    """Plain priority: by priority, then by the moment of becoming ready."""

    def rank(self, task: Task) -> tuple[int, float, int]:
        return task.priority, task.history[-1].at, task.order


def exact(name: str, seconds: float) -> float:
    """What it takes is known."""
    return seconds


def blurred(name: str, seconds: float) -> float:
    """Known roughly."""
    return seconds * random.Random(name).uniform(1.0 - WRONG, 1.0 + WRONG)


def unknown(name: str, seconds: float) -> float:
    """Not known at all."""
    return 0.0


def makespan_s(graph: Graph, order: str) -> float:
    """By the real core, without any overhead."""
    estimate = {BLURRED: blurred, BLIND: unknown}.get(order, exact)
    scheduler = Scheduler()
    if order in (PRIORITY, FIFO):
        scheduler.table.ready = FirstCome()
    longest = max(graph.seconds.values())
    specs = []
    for name, seconds in graph.seconds.items():
        # In as many classes as there are priorities, the longest first: what one can say who looks at one task only.
        priority = round(LOWEST_PRIORITY * (1.0 - seconds / longest)) if order == PRIORITY else LOWEST_PRIORITY
        specs.append(
            TaskSpec(id=name, dependencies=graph.after[name], pool=POOL, priority=priority, estimate_s=estimate(name, seconds))
        )
    world = World(Workers(fixed({POOL: graph.workers})), lambda task: Work(graph.seconds[task.short_id]), scheduler=scheduler)
    world.submit(specs)
    return world.run().makespan_s


def all_made(graphs: Iterable[Graph] | None = None) -> Iterator[Made]:
    """Every graph under every order."""
    for graph in graphs or [*random_graphs(), *realistic_graphs()]:
        for order in (OURS, BLURRED, BLIND, PRIORITY, FIFO):
            yield Made(graph, order, makespan_s(graph, order))


def compared(made: list[Made]) -> list[Expectation]:
    """Medians over the bound, ours and the others', of random and of realistic graphs."""
    ours = [one for one in made if one.order == OURS]
    tight = sorted(one.makespan_s / one.graph.tight_bound_s for one in ours)
    found = [told("ours, against a bound that counts barriers too", f"{median(tight):.3f}, worst {tight[-1]:.2f}")]
    for realistic in (False, True):
        kind = "realistic" if realistic else "random"
        for order in dict.fromkeys(one.order for one in made):
            ratios = sorted(one.ratio for one in made if one.order == order and (one.graph.family == "realistic") == realistic)
            figure = f"{median(ratios):.3f}, worst {ratios[-1]:.2f}"
            what = f"{len(ratios)} {kind} graphs, {order}"
            if order == OURS:
                found.append(Expectation(what, f"<= {WITHIN:.2f}", figure, median(ratios) <= WITHIN))
            else:
                found.append(told(what, figure))
    return found
