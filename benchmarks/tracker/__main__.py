"""The tracker put to its evaluation set, and to ten thousand tasks: `python -m benchmarks.tracker`, by the rules.

Also by a model: one of `tracker.backends` of a configuration (--config), a GGUF file in its sandbox (--model), or a server of
OpenAI's dialect (--url, and --model for the name). Tellings take a while then, so that `--limit 1` may be enough.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import logging
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import structlog

from benchmarks.simulate.expectation import Expectation, show, told
from benchmarks.tracker import models
from benchmarks.tracker.evaluation import Score, evaluated
from supervisord_agents.config import Config, load
from supervisord_agents.core.events import Finished, Started, Submitted
from supervisord_agents.core.outline import outline, tokens_at_most
from supervisord_agents.errors import SupervisorError
from supervisord_agents.tracker import rules
from supervisord_agents.tracker.keeper import Settings
from tests.support.scheduling import Driven, a_task
from tests.support.telling import digest_of

TASKS = 10_000
BUDGET = 4_096
UPDATE_S = 0.3


def main() -> int:
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    arguments = _arguments()
    try:
        config = _config(arguments)
    except SupervisorError as error:
        print(error, file=sys.stderr)
        return 2
    score = asyncio.run(evaluated(None, Settings(), arguments.limit))
    held = show("Evaluation set, by the rules", _of_rules(score))
    if config is None:
        held &= show(f"A digest of {TASKS:,} tasks", _of_many())
    else:
        modelled = asyncio.run(models.scored(config, arguments.limit))
        held &= show(f"Evaluation set, by {_name(config)}", _of_model(modelled))
        score.wrong += modelled.wrong
    for line in score.wrong[:20]:
        print(line)
    return 0 if held else 1


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.tracker", description=__doc__)
    parser.add_argument("--limit", type=int, default=0, metavar="N", help="the first N events of every graph; 0: all ten")
    parser.add_argument("--config", default="", metavar="FILE", help="a configuration with tracker.backends")
    parser.add_argument("--model", default="", metavar="MODEL", help="a GGUF file, or with --url a name that the server knows")
    parser.add_argument("--url", default="", help="of a server of OpenAI's dialect, with /v1 if it has that")
    parser.add_argument("--key-env", default="", metavar="NAME", help="the variable with the server's key")
    parser.add_argument("--threads", type=int, default=0, metavar="N", help="of a GGUF model; 0: half of the processors")
    parser.add_argument("--gpu-layers", type=int, default=0, metavar="N")
    parser.add_argument("--profile", default="strict", help="of a GGUF model's sandbox")
    return parser.parse_args()


def _config(arguments: argparse.Namespace) -> Config | None:
    """None: only the rules are asked. Raises ConfigError."""
    if arguments.config:
        return load(Path(arguments.config))
    if arguments.url:
        return models.served(arguments.url, arguments.model, arguments.key_env)
    if arguments.model:
        return models.local(arguments.model, arguments.threads, arguments.gpu_layers, arguments.profile)
    return None


def _name(config: Config) -> str:
    named = {"local": config.tracker.local.model} | {name: model.model for name, model in config.tracker.models.items()}
    return ", ".join(named[name] for name in config.tracker.backends)


def _of_rules(score: Score) -> Iterator[Expectation]:
    count, p95 = score.events, score.quantile(0.95)
    yield Expectation("states and lists of the digest right", f"{count}", f"{score.digests}", score.digests == count)
    yield from _of_told(score)
    held = score.facts_told == score.facts
    yield Expectation("planted facts in the summaries", f"{score.facts}", f"{score.facts_told}", held)
    for what, good in _of_answers(score):
        yield Expectation(what, "100 %", _share(good, score.answers), good == score.answers)
    p50 = score.quantile(0.5)
    yield Expectation("a telling, p50 and p95", "p95 < 300 ms", f"{p50 * 1000:.2f} ms, {p95 * 1000:.2f} ms", p95 < UPDATE_S)


def _of_model(score: Score) -> Iterator[Expectation]:
    yield from _of_told(score)
    yield told("in the model's words", _share(score.by_model, score.events))
    yield told("planted facts in these words", _share(score.facts_told_by_model, score.facts_of_model))
    yield told("answers; refused, given up", f"{score.answers}; {score.refused}, {score.failed}")
    for what, good in _of_answers(score):
        yield told(what, _share(good, score.answers))
    yield told("a telling, p50 and p95", f"{score.quantile(0.5):.2f} s, {score.quantile(0.95):.2f} s")
    yield told("tokens read and drawn", f"{score.input_tokens:,}, {score.output_tokens:,}")
    yield told("price, and of a thousand tellings", f"${score.cost_usd:.4f}, ${1000 * score.cost_usd / max(score.events, 1):.2f}")


def _of_told(score: Score) -> Iterator[Expectation]:
    count = score.events
    yield Expectation("lists, states and ids of what was told right", f"{count}", f"{score.stories}", score.stories == count)


def _of_answers(score: Score) -> Iterator[tuple[str, int]]:
    yield "answers by the schema", score.valid
    yield "answers that name no task that does not exist", score.named
    yield "answers with next_actionable as it is", score.actionable


def _share(part: int, whole: int) -> str:
    return f"{part} of {whole} ({part / whole:.0%})" if whole else "none"


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
