"""How long whole graphs take under each order of starts, against a bound that no order can beat."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Iterator
from statistics import median
from typing import NamedTuple

import msgspec

from benchmarks.simulate.expectation import Expectation, told
from benchmarks.simulate.graphs import Graph, kind_of, random_graphs, realistic_graphs
from benchmarks.simulate.workers import Work, Workers, fixed
from benchmarks.simulate.world import World
from supervisord_agents.core.durations import Durations
from supervisord_agents.core.model import LOWEST_PRIORITY, TaskSpec
from supervisord_agents.core.ready import ReadyQueue
from supervisord_agents.core.scheduler import Scheduler
from supervisord_agents.core.task import Task

POOL = "pool"
WITHIN = 1.10
"""Of the bound, on the median."""
WRONG = 0.3
DAYS = 3
"""How often the same graph was run before, where estimates are learnt."""
ORDERS = OURS, BLURRED, LEARNT, BLIND, PRIORITY, FIFO = (
    "longest path first (ours)",
    "ours, estimates ±30 % wrong",
    "ours, estimates learnt by type",
    "ours, nothing known",
    "longest task first",
    "first come, first served",
)

Estimate = Callable[[TaskSpec, float], float]
"""Of a task, and the seconds that it takes."""


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


def exact(spec: TaskSpec, seconds: float) -> float:
    """What it takes is known."""
    return seconds


def blurred(spec: TaskSpec, seconds: float) -> float:
    """Known roughly."""
    return seconds * random.Random(spec.id).uniform(1.0 - WRONG, 1.0 + WRONG)


def unknown(spec: TaskSpec, seconds: float) -> float:
    """Not known at all."""
    return 0.0


def makespan_s(graph: Graph, order: str) -> float:
    """By the real core, without any overhead."""
    if order == LEARNT:
        return _learnt_s(graph)
    estimate = {BLURRED: blurred, BLIND: unknown}.get(order, exact)
    scheduler = Scheduler()
    if order in (PRIORITY, FIFO):
        scheduler.table.ready = FirstCome()
    return _run_s(graph, scheduler, estimate, by_length=order == PRIORITY)


def _learnt_s(graph: Graph) -> float:
    """What is learnt of the types of tasks is taken from one day to the next."""
    durations, last_s = Durations(), 0.0
    for _ in range(DAYS + 1):
        scheduler = Scheduler()
        scheduler.table.durations = durations
        last_s = _run_s(graph, scheduler, lambda spec, seconds: durations.predict(spec, 0.0).seconds)
    return last_s


def _run_s(graph: Graph, scheduler: Scheduler, estimate: Estimate, by_length: bool = False) -> float:
    longest = max(graph.seconds.values())
    specs = []
    for name, seconds in graph.seconds.items():
        # In as many classes as there are priorities, the longest first: what one can say who looks at one task only.
        priority = round(LOWEST_PRIORITY * (1.0 - seconds / longest)) if by_length else LOWEST_PRIORITY
        spec = TaskSpec(id=name, type=kind_of(name), dependencies=graph.after[name], pool=POOL, priority=priority)
        specs.append(msgspec.structs.replace(spec, estimate_s=estimate(spec, seconds)))
    world = World(Workers(fixed({POOL: graph.workers})), lambda task: Work(graph.seconds[task.short_id]), scheduler=scheduler)
    world.submit(specs)
    return world.run().makespan_s


def all_made(graphs: Iterable[Graph] | None = None) -> Iterator[Made]:
    """Every graph under every order; tasks of random graphs have no types of which something could be learnt."""
    for graph in graphs or [*random_graphs(), *realistic_graphs()]:
        for order in ORDERS:
            if order != LEARNT or graph.family == "realistic":
                yield Made(graph, order, makespan_s(graph, order))


def compared(made: list[Made]) -> list[Expectation]:
    """Medians over the bound, ours and the others', of random and of realistic graphs."""
    ours = [one for one in made if one.order == OURS]
    tight = sorted(one.makespan_s / one.graph.tight_bound_s for one in ours)
    found = [told("ours, against a bound that counts barriers too", f"{median(tight):.3f}, worst {tight[-1]:.2f}")]
    for realistic in (False, True):
        kind = "realistic" if realistic else "random"
        for order in ORDERS:
            ratios = sorted(one.ratio for one in made if one.order == order and (one.graph.family == "realistic") == realistic)
            if not ratios:
                continue
            figure = f"{median(ratios):.3f}, worst {ratios[-1]:.2f}"
            what = f"{len(ratios)} {kind} graphs, {order}"
            if order == OURS:
                found.append(Expectation(what, f"<= {WITHIN:.2f}", figure, median(ratios) <= WITHIN))
            else:
                found.append(told(what, figure))
    return found
