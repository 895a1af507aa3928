"""Digests of a driven scheduler, as the daemon makes them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from supervisord_agents.core.critical_path import CriticalPath
from supervisord_agents.core.digest import Digest, note_of
from supervisord_agents.core.eta import Spread, eta_of
from supervisord_agents.core.forecast import Forecast
from supervisord_agents.core.model import State, Usage
from supervisord_agents.core.pauses import Pauses
from supervisord_agents.core.picture import Picture
from supervisord_agents.tracker.backend import Limits, Prompt, Standing, Told
from tests.support.scheduling import POOL, Driven


def digest_of(
    driven: Driven,
    graph: str = "g",
    *,
    workers: int = 4,
    said: Mapping[str, tuple[float, str]] | None = None,
    spread: Spread = (0.5, 2.0),
) -> Digest:
    """Of a graph, or of all for an empty name; `said` is the progress that tasks have reported."""
    scheduler = driven.scheduler
    tasks = scheduler.table.graphs.tasks(graph) if graph else list(scheduler.tasks.values())
    picture = Picture(driven.now, scheduler.table.placed, scheduler.open_children)
    for _ in picture.take(tasks):
        pass
    picture.take_rivals(scheduler.rivals([POOL], 1000))
    plan = CriticalPath(picture.nodes)
    notes = {}
    for task in scheduler.tasks.values():
        held = scheduler.pauses.holding_all(task.pool, task.choices or (task.agent,)) if task.state is State.READY else None
        kept = scheduler.hindrance(task, driven.now) if task.state is State.READY else ("", False)
        notes[task.id] = note_of(task, task.spec.type, *(said or {}).get(task.id, (-1.0, "")), str(held or ""), spread, kept)
    forecast = Forecast(plan, {POOL: workers}, Pauses(scheduler.pauses), driven.now)
    return Digest(
        picture,
        notes,
        subject=graph,
        eta=eta_of(plan, forecast, lambda node: spread),
        ageing_s=scheduler.table.ready.ageing_s,
        slots=forecast.open_slots(),
        saga=scheduler.sagas.about(graph),
    )


class Saying:
    """A back end that says what it is given to say, one after the other, the last for ever; an error is raised."""

    name = "saying"
    context_tokens = 8192

    def __init__(self, *texts: str | Exception) -> None:
        self.texts = list(texts)
        self.asked: list[Prompt] = []
        self.wrong = ""
        self.stands = Standing()

    def standing(self) -> Standing:
        return self.stands

    def count(self, text: str) -> int:
        return len(text) // 3 + 1

    async def tell(self, prompt: Prompt, schema: dict[str, Any], limits: Limits) -> Told:
        self.asked.append(prompt)
        text = self.texts.pop(0) if len(self.texts) > 1 else self.texts[0]
        if isinstance(text, Exception):
            raise text
        return Told(text=text, by="saying/1", usage=Usage(10, 5, 0.001))

    def judged(self, wrong: str) -> None:
        self.wrong = wrong

    async def aclose(self) -> None:
        pass


def names(nodes: Sequence[Any]) -> list[str]:
    """The short ids of nodes."""
    return [node.id.partition(".")[2] for node in nodes]
