"""The four scenarios and the success table of the research (section 8), in simulated time."""

from __future__ import annotations

import random
from collections.abc import Sequence
from math import inf
from statistics import quantiles

import msgspec

from benchmarks.simulate.expectation import Expectation, told
from benchmarks.simulate.workers import BROKEN, Behaviour, Dice, Work, Workers, default_rules, fixed
from benchmarks.simulate.world import Run, World
from supervisord_agents.core.model import State, TaskSpec
from supervisord_agents.core.placement import AgentRule, Rules
from supervisord_agents.core.policy import JITTER
from supervisord_agents.core.task import Task

TASK_S = 30.0
TASKS = 100
FAILING = 0.05
OVERHEAD_S = 0.05
"""From the decision to start an attempt to its first step: more than a sandbox takes made on demand (RESULTS.md)."""
SLOW_S = 30.0
ROUNDS = 20
"""Repetitions, by seed, of what is left to chance."""
CHAIN = ("A", "B", "C", "D")


def a_task(
    name: str = "", after: Sequence[str] = (), pool: str = "standard", seconds: float = TASK_S, **more: object
) -> TaskSpec:
    """A task with a right estimate."""
    return TaskSpec(id=name, dependencies=tuple(after), pool=pool, estimate_s=seconds, **more)  # type: ignore[arg-type]


def chain_graph() -> list[TaskSpec]:
    """A → B → C → D"""
    return [a_task(name, CHAIN[max(place - 1, 0) : place]) for place, name in enumerate(CHAIN)]


def fan_graph(width: int = 4) -> list[TaskSpec]:
    """A → [B1, …] → C"""
    middle = [f"B{number}" for number in range(1, width + 1)]
    return [a_task("A"), *(a_task(name, ["A"]) for name in middle), a_task("C", middle)]


def simulated(
    graph: Sequence[TaskSpec], rules: Rules, behaviour: Behaviour | None = None, overhead_s: float = OVERHEAD_S
) -> World:
    """One graph, submitted at the beginning, run to its end."""
    world = World(Workers(rules), behaviour or Dice(0), overhead_s=overhead_s)
    world.submit(graph)
    return world.run()


def most_at_once(runs: Sequence[Run]) -> int:
    """How many of these ever ran at the same time."""
    steps = sorted([(run.start, 1) for run in runs] + [(run.end, -1) for run in runs])
    running = most = 0
    for _, step in steps:
        running += step
        most = max(most, running)
    return most


def span_s(runs: Sequence[Run]) -> float:
    """From the first start to the last end of these."""
    return max(run.end for run in runs) - min(run.start for run in runs)


def chain() -> list[Expectation]:
    one = simulated([a_task("A")], default_rules()).makespan_s
    world = simulated(chain_graph(), default_rules())
    times = world.makespan_s / one
    most = most_at_once(world.runs)
    order = "".join(run.task for run in world.runs)
    return [
        Expectation("time of the chain, in single tasks", "4.00 ×", f"{times:.2f} ×", abs(times - 4.0) < 0.01),
        Expectation("tasks at once", "1", str(most), most == 1),
        Expectation("order", "ABCD", order, order == "ABCD"),
    ]


def fan_out() -> list[Expectation]:
    middle = {workers: _middle(simulated(fan_graph(), fixed({"standard": workers})).runs) for workers in (1, 4)}
    speedup = span_s(middle[1]) / span_s(middle[4])
    most = most_at_once(middle[4])
    default = span_s(middle[1]) / span_s(_middle(simulated(fan_graph(), default_rules()).runs))
    return [
        Expectation("B1 to B4 with 4 workers, against one", "4.00 ×", f"{speedup:.2f} ×", abs(speedup - 4.0) < 0.01),
        Expectation("of them at once", "4", str(most), most == 4),
        told("the same in the default pool, which begins with 2", f"{default:.2f} ×"),
    ]


def _middle(runs: Sequence[Run]) -> list[Run]:
    return [run for run in runs if run.task.startswith("B")]


KINDS = {"cpu": (50, 20.0), "io": (30, 8.0), "api": (20, 45.0)}
"""Code analysis, file processing, external calls: how many of a hundred tasks, and how long one takes."""
KIND_POOLS = {"cpu": 4, "io": 3, "api": 3}
ONE_POOL = {"shared": 10}


def mixed() -> list[Expectation]:
    alone = {kind: _kind(_mixed([kind]), kind) for kind in KINDS}
    together = _mixed(list(KINDS))
    found = []
    for kind in KINDS:
        times = _over_s(_kind(together, kind)) / _over_s(alone[kind])
        found.append(Expectation(f"{kind}, beside the others, against alone", "1.00 ×", f"{times:.2f} ×", times < 1.01))
    stuck = _mixed(list(KINDS), hanging="api")
    for kind in ("cpu", "io"):
        times = _over_s(_kind(stuck, kind)) / _over_s(alone[kind])
        found.append(Expectation(f"{kind}, while every api task hangs", "1.00 ×", f"{times:.2f} ×", times < 1.01))
    ended = sum(task.ended for task in stuck.scheduler.tasks.values())
    found.append(Expectation("tasks that end all the same", "100", str(ended), ended == 100))
    capped = {kind: AgentRule(max_running=most) for kind, most in KIND_POOLS.items()}
    times = _over_s(_kind(_mixed(list(KINDS), "api", fixed(ONE_POOL, **capped)), "cpu")) / _over_s(alone["cpu"])
    found.append(Expectation("cpu, the same, all in one pool, agents capped", "1.00 ×", f"{times:.2f} ×", times < 1.01))
    times = _over_s(_kind(_mixed(list(KINDS), "api", fixed(ONE_POOL)), "cpu")) / _over_s(alone["cpu"])
    found.append(told("cpu, the same, all in one pool without caps", f"{times:.2f} ×"))
    return found


def _mixed(kinds: Sequence[str], hanging: str = "", rules: Rules | None = None) -> World:
    """The tasks of these kinds, all at once, those of one of them hanging; each in the pool of its kind, or in the only one."""
    rules = rules or fixed(KIND_POOLS)
    dice = Dice(1, spread=0.5)

    def behaviour(task: Task) -> Work:
        return Work(inf) if hanging and task.short_id.startswith(hanging) else dice(task)

    world = World(Workers(rules), behaviour, overhead_s=OVERHEAD_S)
    for place in range(max(count for count, _ in KINDS.values())):
        for kind in kinds:
            count, seconds = KINDS[kind]
            pool = kind if kind in rules.pools else next(iter(rules.pools))
            if place < count:
                fields = {"agent": kind, "timeout_s": 10 * seconds, "max_retries": 1}
                world.submit([a_task(f"{kind}{place}", pool=pool, seconds=seconds, **fields)])
    return world.run()


def _over_s(runs: Sequence[Run]) -> float:
    """When the last of these ends."""
    return max(run.end for run in runs)


def _kind(world: World, kind: str) -> list[Run]:
    return [run for run in world.runs if run.task.startswith(kind)]


def recovered() -> list[Expectation]:
    found = []
    for way, bad in {"fails": Work(TASK_S, BROKEN), "hangs": Work(inf)}.items():

        def behaviour(task: Task, bad: Work = bad) -> Work:
            return bad if task.short_id == "B" and task.attempt == 1 else Work(TASK_S)

        graph = [a_task("A"), a_task("B", ["A"], timeout_s=2 * TASK_S), a_task("C", ["B"])]
        world = simulated(graph, default_rules(), behaviour)
        order = " ".join(run.task for run in world.runs)
        found.append(Expectation(f"B {way}: order of the attempts", "A B B C", order, order == "A B B C"))
        states = [str(world.task(name).state) for name in "ABC"]
        ended = states.count(State.SUCCEEDED)
        found.append(Expectation(f"B {way}: succeeded in the end", "3 of 3", f"{ended} of 3", ended == 3))
        again = [run for run in world.runs if run.task == "B"]
        pause_s = again[1].ready - again[0].end
        least, most = 1.0 - JITTER, 1.0 + JITTER
        found.append(
            Expectation(
                f"B {way}: wait before the retry", f"{least:g} to {most:g} s", f"{pause_s:.2f} s", least <= pause_s <= most
            )
        )
    return found


def success() -> list[Expectation]:
    """100 tasks of 30 s, 95 of 100 attempts succeed, in the default pools; and the same tasks one by one, as they come."""
    at_once = [_hundred(seed) for seed in range(ROUNDS)]
    slowest = max(world.makespan_s for world in at_once)
    good = sum(world.succeeded() for world in at_once) / (TASKS * ROUNDS)
    attempts = sum(len(world.runs) for world in at_once) / (TASKS * ROUNDS)
    queued = percentile([run.begun - run.ready for world in at_once for run in world.runs], 95)
    coming = [_arriving(seed, 0.5) for seed in range(ROUNDS)]
    added = percentile([run.begun - run.ready for world in coming for run in world.runs], 95)
    busy = percentile([run.begun - run.ready for seed in range(ROUNDS) for run in _arriving(seed, 0.8).runs], 95)
    slow = percentile([run.begun - run.ready for seed in range(ROUNDS) for run in _arriving(seed, 0.5, slow_rules()).runs], 95)
    whole = percentile([latency for world in coming for latency in latencies(world)], 95)
    share = sum(world.cpu_s for world in coming) / sum(world.now for world in coming)
    return [
        Expectation(
            "100 tasks at once (one by one: 50 min)", "< 15 min", f"{slowest / 60:.1f} min, slowest of {ROUNDS}", slowest < 900
        ),
        Expectation("tasks that succeed (attempts: 95 %)", "> 95 %", f"{100 * good:.2f} %", good > 0.95),
        Expectation("attempts a task, which cost goes by", "< 1.4", f"{attempts:.3f}", attempts < 1.4),
        Expectation("P95 from ready to begun, at 50 % of what the pool carries", "< 10 s", f"{added:.2f} s", added < 10.0),
        told("the same at 80 %", f"{busy:.2f} s"),
        told(f"the same at 50 %, were scale_up_wait_s {SLOW_S:g}", f"{slow:.2f} s"),
        told("the same, 100 at once: they wait for one another", f"{queued:.0f} s"),
        told("P95 from submit to end, retries and their waits included", f"{whole:.1f} s"),
        Expectation("processor time of the core (of the daemon: REAL=1)", "< 5 %", f"{100 * share:.4f} %", share < 0.05),
    ]


def _hundred(seed: int) -> World:
    world = World(Workers(default_rules()), Dice(seed, TASK_S, failing=FAILING), overhead_s=OVERHEAD_S)
    for number in range(TASKS):
        world.submit([a_task(f"t{number}")])
    return world.run()


def slow_rules() -> Rules:
    """Those of config.toml, but that a pool for which few tasks wait takes long to grow."""
    rules = default_rules()
    pools = {name: msgspec.structs.replace(pool, scale_up_wait_s=SLOW_S) for name, pool in rules.pools.items()}
    return msgspec.structs.replace(rules, pools=pools)


def _arriving(seed: int, load: float, rules: Rules | None = None) -> World:
    """As many tasks, at random moments (a Poisson process), so often that the pool's workers are busy for `load` of the time."""
    dice = random.Random(seed)
    every_s = TASK_S / (default_rules().pools["standard"].max_workers * load)
    world = World(Workers(rules or default_rules()), Dice(seed, TASK_S, spread=0.3, failing=FAILING), overhead_s=OVERHEAD_S)
    at = 0.0
    for number in range(TASKS):
        at += dice.expovariate(1.0 / every_s)
        world.submit([a_task(f"t{number}")], at)
    return world.run()


def latencies(world: World) -> list[float]:
    """From submit to end, of every task."""
    return [task.ended_at - task.submitted_at for task in world.scheduler.tasks.values()]


def percentile(values: Sequence[float], percent: int) -> float:
    return quantiles(values, n=100, method="inclusive")[percent - 1]


SCENARIOS = {
    "1. Chain: A → B → C → D, 30 s each": chain,
    "2. Fan-out: A → [B1 B2 B3 B4] → C, 30 s each": fan_out,
    "3. Mixed load: 50 cpu, 30 io, 20 api, a pool for each": mixed,
    "4. Failure recovered: A → B → C, the first attempt of B is bad": recovered,
    "Success table: 100 tasks of 30 s, an attempt of 20 fails": success,
}
