"""Where a provider's paths lead, and what a configuration may not say."""

from __future__ import annotations

from typing import Any

import pytest

from supervisord_agents import config
from supervisord_agents.errors import ConfigError
from supervisord_agents.gateway.dialects import DIALECTS, error_body
from supervisord_agents.gateway.routes import Route
from supervisord_agents.gateway.server import Gateway


def a_route(base_url: str, dialect: str = "openai") -> Route:
    return Route("p", config.Provider(base_url=base_url, dialect=dialect))


@pytest.mark.parametrize(
    ("base", "rest", "query", "url"),
    [
        ("https://h/v1", "chat/completions", "", "https://h/v1/chat/completions"),
        ("https://h/v1/", "v1/chat/completions", "", "https://h/v1/chat/completions"),
        ("https://h", "v1/messages", "beta=true", "https://h/v1/messages?beta=true"),
        (
            "https://h",
            "v1beta/models/m:streamGenerateContent",
            "alt=sse&key=x",
            "https://h/v1beta/models/m:streamGenerateContent?alt=sse",
        ),
        ("https://h/v1beta", "v1beta/models/m", "k%65y=x", "https://h/v1beta/models/m"),
        ("https://h/v1", "v2/x", "", "https://h/v1/v2/x"),
        ("https://h/api", "api/x", "", "https://h/api/api/x"),
        ("http://h:8000/a/v1", "models/a%2Fb", "q=%20+&access_token=y", "http://h:8000/a/v1/models/a%2Fb?q=%20+"),
        ("https://h/v1", "", "", "https://h/v1/"),
    ],
)
def test_the_rest_of_the_path_is_joined_to_the_base(base: str, rest: str, query: str, url: str) -> None:
    assert str(a_route(base).url(rest, query)) == url


@pytest.mark.parametrize("rest", ["../admin", "a/../../b", "%2e%2e/x", "a/%2E%2E", "..%2fx", "..\\x", "./x"])
def test_a_path_that_leaves_the_base_is_refused(rest: str) -> None:
    with pytest.raises(ValueError, match=r"`\.\.`"):
        a_route("https://h/v1").url(rest, "")


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"dialect": "grpc"}, r"gateway\.providers\.p\.dialect: unknown dialect: grpc.*openai"),
        ({"base_url": "ftp://h"}, r"gateway\.providers\.p\.base_url: must begin with http"),
        ({"base_url": "h/v1"}, r"base_url: must begin with http"),
        ({"base_url": "https:///v1"}, r"base_url"),
        ({"base_url": "https://h:99999"}, r"base_url"),
        ({"base_url": "https://u:secret@h"}, r"base_url: must not hold credentials"),
        ({"base_url": "https://h/?a=1"}, r"base_url: must not hold a query"),
        ({"base_url": "https://h/#a"}, r"base_url: must not hold a query or a fragment"),
        ({"input_usd_per_mtok": -1.0}, r"price"),
    ],
)
def test_a_provider_that_cannot_work_is_refused_by_name(values: dict[str, Any], message: str) -> None:
    settings = config.Gateway(providers={"p": config.Provider(**{"base_url": "https://h", **values})})
    with pytest.raises(ConfigError, match=message) as caught:
        Gateway(settings, lambda task, usage: None, lambda task, line: None)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("name", ["", "a/b", "a b", "..", "ü"])
def test_a_provider_name_that_is_no_path_segment_is_refused(name: str) -> None:
    with pytest.raises(ConfigError, match="name"):
        Route(name, config.Provider(base_url="https://h"))


@pytest.mark.parametrize(
    "values",
    [{"port": 0}, {"read_timeout_s": 0.0}, {"connect_timeout_s": -1.0}, {"max_request_bytes": 0}],
)
def test_limits_that_cannot_work_are_refused(values: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=next(iter(values))):
        Gateway(config.Gateway(**values), lambda task, usage: None, lambda task, line: None)


@pytest.mark.parametrize("dialect", DIALECTS)
def test_errors_have_message_type_and_code_in_every_dialect(dialect: str) -> None:
    error = error_body(dialect, 403, "host_not_allowed", "no")["error"]
    assert error["message"] == "no"
    assert {"type", "code"} <= set(error)


def test_errors_are_in_the_shape_that_each_api_uses() -> None:
    assert error_body("anthropic", 403, "c", "no")["type"] == "error"
    assert error_body("gemini", 504, "c", "no")["error"]["status"] == "DEADLINE_EXCEEDED"
    assert error_body("gemini", 504, "c", "no")["error"]["code"] == 504
    assert error_body("openai", 504, "c", "no")["error"]["code"] == "c"
