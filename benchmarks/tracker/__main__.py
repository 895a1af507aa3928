"""The tracker put to its evaluation set, and to ten thousand tasks: `python -m benchmarks.tracker`, by the rules.

With `--model FILE.gguf` also by that model, in its sandbox: it takes a while, so that `--limit 1` may be enough.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import os
import sys
import time
from collections.abc import Iterator

from benchmarks.simulate.expectation import Expectation, show, told
from benchmarks.tracker.evaluation import Score, evaluated
from sandbox import profile
from sandbox.spawner import Spawner
from supervisord_agents.core.events import Finished, Started, Submitted
from supervisord_agents.core.outline import outline, tokens_at_most
from supervisord_agents.tracker import rules
from supervisord_agents.tracker.cell import Cell
from supervisord_agents.tracker.keeper import Settings
from supervisord_agents.tracker.local import Local
from supervisord_agents.tracker.talk import Load
from supervisord_agents.workers.shape import runtime_paths
from tests.support.scheduling import Driven, a_task
from tests.support.telling import digest_of

TASKS = 10_000
BUDGET = 4_096
UPDATE_S = 0.3
LAYERS = ("cgroup", "landlock", "namespaces")
UID = 1_900_065_535
PATIENCE_S = 300.0


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.tracker", description=__doc__)
    parser.add_argument("--limit", type=int, default=0, metavar="N", help="the first N events of every graph; 0: all ten")
    parser.add_argument("--model", default="", metavar="FILE", help="a GGUF file, for llama.cpp in its sandbox")
    parser.add_argument("--threads", type=int, default=0, metavar="N", help="of the model; 0: half of the processors")
    parser.add_argument("--gpu-layers", type=int, default=0, metavar="N")
    parser.add_argument("--profile", default="strict", help="of the model's sandbox")
    arguments = parser.parse_args()
    score = asyncio.run(evaluated(None, Settings(), arguments.limit))
    held = show("Evaluation set, by the rules", _of(score))
    held &= show(f"A digest of {TASKS:,} tasks", _of_many())
    if arguments.model:
        modelled = asyncio.run(_by_model(arguments))
        held &= show(f"Evaluation set, by {arguments.model}", [*_of_model(modelled)])
        score.wrong += modelled.wrong
    for line in score.wrong[:20]:
        print(line)
    return 0 if held else 1


async def _by_model(arguments: argparse.Namespace) -> Score:
    load = Load(model=arguments.model, context_tokens=8_192, threads=arguments.threads, gpu_layers=arguments.gpu_layers)
    spawner = Spawner.start(cgroup_name=f"agent-supervisor-evaluation-{os.getpid()}")
    cell = Cell(spawner, profile.load(arguments.profile), LAYERS, runtime_paths(), load.model, UID)
    local = Local("local", load, cell.start)
    local.start()
    try:
        return await evaluated(local, Settings(deadline_s=PATIENCE_S, every_s=0.0), arguments.limit)
    finally:
        await local.aclose()
        await spawner.aclose()


def _of_model(score: Score) -> Iterator[Expectation]:
    count = score.events
    yield Expectation("lists, states and ids of what was told right", f"{count}", f"{score.stories}", score.stories == count)
    yield told("in the model's words", f"{score.by_model} of {count}")
    yield told("answers, refused, given up", f"{score.answers}, {score.refused}, {score.failed}")
    yield told("planted facts in what was told", f"{score.facts_told} of {score.facts}")
    yield told("a telling, p50 and p95", f"{score.quantile(0.5):.2f} s, {score.quantile(0.95):.2f} s")
    yield told("tokens read and drawn", f"{score.input_tokens:,}, {score.output_tokens:,}")


def _of(score: Score) -> Iterator[Expectation]:
    count = score.events
    yield Expectation(
        "states, blocked_on, next_actionable of the digest right", f"{count}", f"{score.digests}", score.digests == count
    )
    yield Expectation("the same of what was told", f"{count}", f"{score.stories}", score.stories == count)
    yield Expectation("planted facts in the summary", f"{score.facts}", f"{score.facts_told}", score.facts_told == score.facts)
    p50, p95 = score.quantile(0.5), score.quantile(0.95)
    yield Expectation("an update, p50 and p95", "p95 < 300 ms", f"{p50 * 1000:.2f} ms, {p95 * 1000:.2f} ms", p95 < UPDATE_S)


def _of_many() -> Iterator[Expectation]:
    """Chains of ten tasks, of which half have run; the digest anew, its outline and its story, after each of some ends."""
    driven = Driven()
    specs = [
        a_task(f"c{chain}-{link}", *([f"c{chain}-{link - 1}"] if link else []), type=f"step{link}", estimate_s=10 + link)
        for chain in range(TASKS // 10)
        for link in range(10)
    ]
    driven.scheduler.handle(Submitted(graph="many", specs=tuple(specs)), driven.now)
    for chain in range(TASKS // 20):
        for link in range(10):
            _run(driven, f"many.c{chain}-{link}")
    texts, taken, written = [], [], []
    for chain in range(TASKS // 20, TASKS // 20 + 10):
        _run(driven, f"many.c{chain}-0")
        before = time.process_time()
        digest = digest_of(driven, "many")
        rules.story(digest)
        taken.append(time.process_time() - before)
        texts.append(outline(digest, BUDGET))
        written.append(time.process_time() - before - taken[-1])
    longest = max(map(tokens_at_most, texts))
    yield Expectation(
        "processor time of digest and story, the slowest of ten", "< 300 ms", f"{max(taken) * 1000:.0f} ms", max(taken) < UPDATE_S
    )
    yield told("its outline for a model, the slowest of ten", f"{max(written) * 1000:.0f} ms")
    yield Expectation("tokens of the outline, at the most", f"{BUDGET}", f"{longest}", longest <= BUDGET)
    kept = [_common(one, other) / len(other) for one, other in itertools.pairwise(texts)]
    yield told("of an outline the same as in the one before, mean and least", f"{sum(kept) / len(kept):.0%}, {min(kept):.0%}")


def _run(driven: Driven, task: str) -> None:
    driven.now += 1
    driven.scheduler.handle(Started(task=task, attempt=1, worker="w"), driven.now)
    driven.scheduler.handle(Finished(task=task, attempt=1), driven.now)


def _common(one: str, other: str) -> int:
    pairs = enumerate(zip(one, other, strict=False))
    return next((place for place, (first, second) in pairs if first != second), min(len(one), len(other)))


if __name__ == "__main__":
    sys.exit(main())
