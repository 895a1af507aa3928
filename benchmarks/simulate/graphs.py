"""Graphs to be run as fast as they can be: a hundred by chance, of four families, and those of realistic.toml."""

from __future__ import annotations

import random
import re
import tomllib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

REALISTIC = Path(__file__).resolve().parent / "realistic.toml"
WORKERS = (2, 3, 4, 6, 8, 10, 16)
EACH = 25
"""Random graphs of each family."""

Edges = dict[str, tuple[str, ...]]
"""The tasks of a graph, each after those it waits for, and with them."""


class Graph(NamedTuple):
    name: str
    family: str
    workers: int
    seconds: dict[str, float]
    """How long each task takes; dependencies come first."""
    after: Edges

    @property
    def critical_path_s(self) -> float:
        """No number of workers is faster."""
        ends: dict[str, float] = {}
        for name, own_s in self.seconds.items():
            ends[name] = own_s + max((ends[other] for other in self.after[name]), default=0.0)
        return max(ends.values())

    @property
    def bound_s(self) -> float:
        """No order of starts is faster: the critical path, or the work shared out evenly."""
        return max(self.critical_path_s, sum(self.seconds.values()) / self.workers)

    @property
    def tight_bound_s(self) -> float:
        """The same between any two tasks of which one waits for the other: what all must pass through counts as a barrier."""
        starts: dict[str, float] = {}
        above: dict[str, set[str]] = {}
        for name, waits in self.after.items():
            above[name] = set(waits).union(*(above[other] for other in waits))
            shared = [sum(self.seconds[other] for other in above[name]) / self.workers]
            for first in above[name]:
                between = sum(self.seconds[other] for other in above[name] if first in above[other])
                shared.append(starts[first] + self.seconds[first] + between / self.workers)
            direct = [starts[other] + self.seconds[other] for other in waits]
            starts[name] = max(*shared, *direct) if waits else 0.0
        return max(self.bound_s, *(starts[name] + own_s for name, own_s in self.seconds.items()))


def layered(dice: random.Random) -> Edges:
    """Layers of varied width; a task waits for one to three of the layer before."""
    after: Edges = {}
    before: list[str] = []
    for layer in range(dice.randint(3, 12)):
        now = [f"l{layer}n{place}" for place in range(dice.randint(1, 20))]
        for name in now:
            after[name] = tuple(dice.sample(before, min(len(before), dice.randint(1, 3))))
        before = now
    return after


def fork_join(dice: random.Random) -> Edges:
    """Out to many and in to one, again and again."""
    after: Edges = {"join0": ()}
    for stage in range(1, dice.randint(3, 8)):
        middle = [f"f{stage}n{place}" for place in range(dice.randint(2, 24))]
        after |= dict.fromkeys(middle, (f"join{stage - 1}",))
        after[f"join{stage}"] = tuple(middle)
    return after


def series_parallel(dice: random.Random) -> Edges:
    """One edge, in which an edge is replaced by two in series or side by side, again and again (Valdes, Tarjan, Lawler, 1982)."""
    edges = [(0, 1)]
    nodes = 2
    for _ in range(dice.randint(40, 200)):
        place = dice.randrange(len(edges))
        first, last = edges[place]
        if dice.random() < 0.5:
            edges.append((first, last))
        else:
            edges[place : place + 1] = [(first, nodes), (nodes, last)]
            nodes += 1
    before: dict[int, set[int]] = {node: set() for node in range(nodes)}
    for first, last in edges:
        before[last].add(first)
    return _dependencies_first(before)


def erdos_renyi(dice: random.Random) -> Edges:
    """Every earlier task is waited for with the same probability."""
    count = dice.randint(20, 150)
    share = dice.uniform(1.0, 4.0) / count
    names = [f"n{place}" for place in range(count)]
    return {name: tuple(other for other in names[:place] if dice.random() < share) for place, name in enumerate(names)}


FAMILIES: dict[str, Callable[[random.Random], Edges]] = {
    "layered": layered,
    "fork-join": fork_join,
    "series-parallel": series_parallel,
    "Erdős–Rényi": erdos_renyi,
}


def random_graphs(each: int = EACH) -> Iterator[Graph]:
    """So many of each family: durations are log-normal, some tasks are ten times as long as others."""
    for family, made in FAMILIES.items():
        for seed in range(each):
            dice = random.Random(f"{family}{seed}")
            after = made(dice)
            seconds = {name: round(20.0 * dice.lognormvariate(0.0, 0.8), 1) for name in after}
            graph = Graph(f"{family} {seed}", family, WORKERS[0], seconds, after)
            # No more of them than can have work to do: with plenty, any order is as good.
            parallel = sum(seconds.values()) / graph.critical_path_s
            fitting = [workers for workers in WORKERS if workers <= 1.5 * parallel] or WORKERS[:1]
            yield graph._replace(workers=dice.choice(fitting))


def _dependencies_first(before: Mapping[int, set[int]]) -> Edges:
    left = dict(before)
    after: Edges = {}
    while left:
        free = [node for node, waits in left.items() if not waits & left.keys()]
        for node in free:
            after[f"n{node}"] = tuple(f"n{other}" for other in sorted(left.pop(node)))
    return after


def realistic_graphs(path: Path = REALISTIC) -> Iterator[Graph]:
    """Those of a file; realistic.toml says how they are written."""
    for table in tomllib.loads(path.read_text(encoding="utf-8"))["graph"]:
        yield _read(table)


def _read(table: Mapping[str, Any]) -> Graph:
    seconds: dict[str, float] = {}
    after: Edges = {}
    groups: dict[str, list[str]] = {}
    for entry in table["tasks"]:
        times = entry["s"] if isinstance(entry["s"], list) else [entry["s"]]
        names = [entry["id"] + (f"-{place}" if len(times) > 1 else "") for place in range(1, len(times) + 1)]
        groups[entry["id"]] = names
        for place, (name, own_s) in enumerate(zip(names, times, strict=True)):
            waits = [other for group in entry.get("after", ()) for other in groups[group]]
            waits += [other for group in entry.get("along", ()) for other in share(groups[group], place, len(names))]
            seconds[name], after[name] = float(own_s), tuple(waits)
    return Graph(table["name"], "realistic", table["workers"], seconds, after)


def kind_of(name: str) -> str:
    """The group of a task of a realistic graph: what it would have as its type."""
    return re.sub(r"-\d+$", "", name)


def share(group: Sequence[str], place: int, count: int) -> Sequence[str]:
    """What the task at `place` of `count` has of a group: one with as many or fewer, else its part of them."""
    have = len(group)
    if have <= count:
        return [group[place * have // count]]
    return [name for other, name in enumerate(group) if other * count // have == place]
