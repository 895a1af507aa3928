"""A back end at a provider: its key, prices and breaker are the gateway's, and what it says is never trusted to be an answer."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest
from aiohttp import web
from structlog.testing import capture_logs

from supervisord_agents.core.model import Usage
from supervisord_agents.daemon.tellers import inquirer
from supervisord_agents.errors import InvalidInput, SupervisorError, Unavailable
from supervisord_agents.gateway.server import Gateway
from supervisord_agents.tracker.backend import Limits, Prompt, Stands
from supervisord_agents.tracker.purse import DAY_S, SLOT_S, Purse
from supervisord_agents.tracker.remote import Remote
from tests.support import particular
from tests.support.gateway import KEY, KEY_ENV, serving, settings
from tests.support.scripted_model import INPUT_TOKENS, OUTPUT_TOKENS, ScriptedModel

PROMPT = Prompt(system="Rules.", data="g1.a runs.", question="Tell.")
SCHEMA = {
    "type": "object",
    "properties": {"ids": {"type": "array", "items": {"enum": ["g1.a"]}}, "summary": {"type": "string"}},
    "required": ["ids", "summary"],
}
STORY = {
    **SCHEMA,
    "properties": {**SCHEMA["properties"], "summary": {"type": "string", "maxLength": 9}},
    "additionalProperties": False,
}


PURSE = Purse(1e6, lambda: 0.0)


class Guard:
    """Keeps what it is told of the provider."""

    def __init__(self) -> None:
        self.wait = 0.0
        self.said: list[str] = []

    def wait_s(self, provider: str) -> float:
        return self.wait

    def answered(self, provider: str, failure: str, retry_after_s: float) -> None:
        self.said.append(failure)


@contextlib.asynccontextmanager
async def a_remote(url: str, dialect: str = "openai", purse: Purse = PURSE) -> AsyncIterator[tuple[Remote, Guard]]:
    guard = Guard()
    configured = settings(url, dialect, connect_timeout_s=5.0)
    prices = msgspec.structs.replace(configured.providers[dialect], input_usd_per_mtok=1.0, output_usd_per_mtok=2.0)
    configured = msgspec.structs.replace(configured, providers={dialect: prices})
    gateway = Gateway(configured, lambda *_: None, lambda *_: None, guard=guard)
    await gateway.start()
    try:
        remote = Remote("mini", dialect, dialect, "some-model", 8000, inquirer(gateway), purse=purse, most_usd=0.5)
        yield remote, guard
    finally:
        await gateway.aclose()


@pytest.fixture(autouse=True)
def _key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(KEY_ENV, KEY)


async def failure(remote: Remote, seconds: float = 5.0) -> SupervisorError:
    with pytest.raises(SupervisorError) as caught:
        await remote.tell(PROMPT, SCHEMA, Limits(seconds=seconds))
    assert KEY not in str(caught.value)
    return caught.value


@pytest.mark.parametrize("dialect", ["openai", "gemini", "anthropic"])
async def test_an_answer_and_what_it_costs(dialect: str) -> None:
    model = ScriptedModel()
    base = {"openai": "/v1", "gemini": "/v1beta", "anthropic": ""}[dialect]
    async with model.serve() as url, a_remote(url + base, dialect) as (remote, guard):
        told = await remote.tell(PROMPT, SCHEMA, Limits(tokens=50, seconds=5.0))
    assert msgspec.json.decode(told.text) == {"ids": [], "summary": "scripted"}
    assert told.by == "mini (some-model)"
    assert told.usage == Usage(INPUT_TOKENS, OUTPUT_TOKENS, (INPUT_TOKENS + 2 * OUTPUT_TOKENS) / 1e6)
    (request,) = model.requests
    assert request.path in ("/v1/chat/completions", "/v1beta/models/some-model:generateContent", "/v1/messages")
    assert KEY in str(request.headers)
    assert guard.said == [""]


@pytest.mark.parametrize(
    ("status", "kind", "fault"),
    [(429, Unavailable, True), (500, Unavailable, True), (401, InvalidInput, True), (404, InvalidInput, False)],
)
async def test_a_provider_that_refuses(status: int, kind: type[SupervisorError], fault: bool) -> None:
    async def refuse(request: web.Request) -> web.Response:
        return web.json_response({"error": {"message": f"your key {request.headers['Authorization']} is bad"}}, status=status)

    async with serving(refuse) as url, a_remote(url) as (remote, guard):
        error = await failure(remote)
    assert type(error) is kind
    assert f"answered {status}: your key Bearer ***" in error.message
    assert (guard.said != [""]) is fault


async def test_a_provider_that_is_particular_is_asked_for_less_and_so_from_then_on() -> None:
    bodies: list[Any] = []

    async def answer(request: web.Request) -> web.Response:
        bodies.append(await request.json())
        if wrong := particular.openai(bodies[-1], thinks=True):
            return web.json_response({"error": {"message": wrong[0]}}, status=400)
        return web.json_response({"choices": [{"message": {"content": "{}"}}]})

    async with serving(answer) as url, a_remote(url) as (remote, guard):
        for _ in range(2):
            assert (await remote.tell(PROMPT, STORY, Limits(tokens=50, seconds=5.0))).text == "{}"
    assert [bool(particular.openai(body, thinks=True)) for body in bodies] == [True, True, False, False]
    assert [body.get("max_completion_tokens") for body in bodies] == [None, 50, 50, 50]
    assert guard.said == [""] * 4


async def test_a_provider_that_takes_no_way_of_asking_is_quoted_and_asked_in_full_again() -> None:
    bodies: list[Any] = []

    async def refuse(request: web.Request) -> web.Response:
        bodies.append(await request.json())
        return web.json_response({"error": {"message": f"no {len(bodies)}"}}, status=400)

    async with serving(refuse) as url, a_remote(url) as (remote, _):
        assert "answered 400: no 3" in str(await failure(remote))
        assert "answered 400: no 6" in str(await failure(remote))
    assert bodies[0] == bodies[3]


async def test_an_answer_that_was_cut_off_is_none() -> None:
    async def answer(request: web.Request) -> web.Response:
        return web.json_response({"choices": [{"message": {"content": '{"ids": ['}, "finish_reason": "length"}]})

    async with serving(answer) as url, a_remote(url) as (remote, _):
        assert "gave no answer: the answer was cut off at its limit of tokens" in str(await failure(remote))


@pytest.mark.parametrize("body", [b"no JSON", b"{}", b'{"choices": [{"message": {"content": null}}]}'])
async def test_an_answer_that_is_none(body: bytes) -> None:
    async def answer(request: web.Request) -> web.Response:
        return web.Response(body=body)

    async with serving(answer) as url, a_remote(url) as (remote, _):
        assert "no text in it" in str(await failure(remote))


async def test_what_was_given_up_is_paid_for_and_what_was_refused_is_not() -> None:
    async def hang(request: web.Request) -> web.Response:
        await asyncio.Event().wait()
        return web.Response()

    async def refuse(request: web.Request) -> web.Response:
        return web.json_response({}, status=400)

    purse = Purse(1.0, lambda: 0.0)
    async with a_remote("http://127.0.0.1:1", purse=purse) as (remote, _):
        await failure(remote)
    async with serving(refuse) as url, a_remote(url, purse=purse) as (remote, _):
        await failure(remote)
    assert purse.spent_usd == 0.0
    async with ScriptedModel().serve() as url, a_remote(f"{url}/v1", purse=purse) as (remote, _):
        cost = (await remote.tell(PROMPT, SCHEMA, Limits(tokens=50, seconds=5.0))).usage.cost_usd
    assert purse.spent_usd == pytest.approx(cost)
    assert cost > 0.0
    async with serving(hang) as url, a_remote(url, purse=purse) as (remote, _):
        await failure(remote, seconds=0.05)
        assert purse.spent_usd == pytest.approx(0.5 + cost)
        standing = remote.standing()
    assert (standing.stands, standing.why) == (Stands.OVER_LIMIT, "$0.50 of $1.00 a day are spent")
    assert standing.until == DAY_S + SLOT_S


async def test_an_answer_that_does_not_say_what_it_used_costs_the_most() -> None:
    async def answer(request: web.Request) -> web.Response:
        return web.json_response({"choices": [{"message": {"content": "{}"}}]})

    purse = Purse(0.75, lambda: 0.0)
    async with serving(answer) as url, a_remote(url, purse=purse) as (remote, _):
        with capture_logs() as logged:
            await remote.tell(PROMPT, SCHEMA, Limits(tokens=50, seconds=5.0))
    assert purse.spent_usd == 0.5
    assert [(line["event"], line["why"]) for line in logged] == [("tracker_over_limit", "$0.50 of $0.75 a day are spent")]


async def test_a_deadline_is_not_the_providers_fault() -> None:
    async def hang(request: web.Request) -> web.Response:
        await asyncio.Event().wait()
        return web.Response()

    async with serving(hang) as url, a_remote(url) as (remote, guard):
        assert "within 0.05 s" in str(await failure(remote, seconds=0.05))
        assert guard.said == []


async def test_a_provider_that_is_not_there_is_told_and_one_that_is_left_alone_is_not_called() -> None:
    async with a_remote("http://127.0.0.1:1") as (remote, guard):
        assert "could not be connected to" in str(await failure(remote))
        assert len(guard.said) == 1
        guard.wait = 7.0
        assert "is open" in str(await failure(remote))
        assert len(guard.said) == 1


async def test_a_key_that_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(KEY_ENV)
    async with a_remote("http://127.0.0.1:1") as (remote, _):
        assert KEY_ENV in str(await failure(remote))


async def test_an_answer_without_end_is_given_up() -> None:
    async def pour(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        while True:
            await response.write(b"x" * 65536)

    purse = Purse(1.0, lambda: 0.0)
    async with serving(pour) as url, a_remote(url, purse=purse) as (remote, _):
        assert "more than" in str(await failure(remote))
    assert purse.spent_usd == 0.5


async def test_an_answer_that_breaks_off_is_paid_for() -> None:
    async def break_off(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Length": "1000"})
        await response.prepare(request)
        await response.write(b"{")
        assert request.transport is not None
        request.transport.abort()
        return response

    purse = Purse(1.0, lambda: 0.0)
    async with serving(break_off) as url, a_remote(url, purse=purse) as (remote, _):
        assert "gave no valid answer" in str(await failure(remote))
    assert purse.spent_usd == 0.5
