"""A provider that fails is left alone for a while, then tried by one call."""

from __future__ import annotations

from aiohttp import web

from supervisord_agents.core.breakers import Breaker
from supervisord_agents.core.placement import Placement, ProviderRule, Rules
from supervisord_agents.daemon.clock import Clock
from supervisord_agents.daemon.providers import Providers
from tests.support.gateway import a_worker, serving, settings


class Watch:
    """A clock that is set by hand."""

    seconds = 1000.0

    def read(self) -> float:
        return self.seconds


async def test_a_provider_that_fails_is_not_called_until_one_probe_succeeds() -> None:
    statuses: list[int] = []
    asked = 0

    async def upstream(request: web.Request) -> web.Response:
        nonlocal asked
        asked += 1
        return web.json_response({}, status=statuses.pop(0))

    watch, news = Watch(), []
    placement = Placement(Rules(providers={"openai": ProviderRule(breaker=Breaker(2, 60.0))}))
    clock = Clock(wall=watch.read, boot=watch.read)
    guard = Providers(placement, clock, lambda: news.append("changed"))
    async with serving(upstream) as url, a_worker(settings(url), guard=guard) as worker:

        async def ask() -> tuple[int, str]:
            async with worker.session.get(worker.url + "/openai/models") as answer:
                return answer.status, answer.headers.get("Retry-After", "")

        statuses[:] = [404, 503, 429]
        assert [await ask() for _ in range(3)] == [(404, ""), (503, ""), (429, "")]
        assert (await ask(), asked) == ((503, "60"), 3)
        assert "breaker of provider openai" in worker.refusals[-1][1]
        watch.seconds += 60.0
        statuses[:] = [500]
        assert ((await ask())[0], asked) == (500, 4)
        assert (await ask(), asked) == ((503, "60"), 4)
        watch.seconds += 60.0
        statuses[:] = [200, 200]
        assert [await ask(), await ask()] == [(200, ""), (200, "")]
        assert news == ["changed"] * 3  # opened, opened again by the probe, closed


async def test_what_a_provider_asks_for_is_remembered() -> None:
    async def upstream(request: web.Request) -> web.Response:
        return web.json_response({}, status=429, headers={"Retry-After": "17"})

    watch = Watch()
    guard = Providers(Placement(), Clock(wall=watch.read, boot=watch.read), lambda: None)
    async with (
        serving(upstream) as url,
        a_worker(settings(url), guard=guard) as worker,
        worker.session.get(worker.url + "/openai/models") as answer,
    ):
        assert (answer.status, answer.headers["Retry-After"]) == (429, "17")
    assert guard.asked_to_wait_s("openai") == 17.0
    watch.seconds += 20.0
    assert guard.asked_to_wait_s("openai") == 0.0
