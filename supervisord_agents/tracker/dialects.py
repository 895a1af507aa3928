"""How one asks a model at a provider for JSON of a schema, and what of its answer is the text.

What servers of one dialect take differs, and a server says so with a 400: each dialect has several ways to ask, from the one
that binds a model most to the one that demands least of a server.

Sources: OpenAI API reference, "Create chat completion" (`response_format`, `max_completion_tokens`, `finish_reason`), which
llama-server, vLLM and Ollama serve too; Gemini API reference, `models.generateContent` (`generationConfig.responseJsonSchema`,
`FinishReason`); Anthropic API reference, "Create a message" (`output_config.format`, `stop_reason`).
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, NamedTuple

import msgspec

from supervisord_agents.core.outline import printable
from supervisord_agents.tracker.backend import Limits, Prompt
from supervisord_agents.tracker.shapes import loose, plain, whole

SCHEMA_NAME = "story"
SAID_CHARACTERS = 200
"""Of what a provider says of an error."""
_CONTROL = re.compile(r"<(?=\||/?(?:s|start_of_turn|end_of_turn|bos|eos|think|tool_call)>)|\[(?=/?INST\])", re.I)
CUT_OFF = "the answer was cut off at its limit of tokens, which a model's thinking counts against too (tracker.answer_tokens)"


class NoAnswer(Exception):
    """A well-formed answer that is none, with the reason that the provider gives."""


class Asked(NamedTuple):
    """A request: where below the provider's `base_url`, and with which JSON."""

    path: str
    body: dict[str, Any]


Ask = Callable[[str, Prompt, dict[str, Any], Limits], Asked]


class Dialect(NamedTuple):
    """The ways to ask, the most demanding one first, and what the text of a decoded answer is.

    `text` raises NoAnswer; LookupError, TypeError or AttributeError where the answer has not the form of one.
    """

    ways: tuple[Ask, ...]
    text: Callable[[Any], str]


def inert(text: str) -> str:
    """A text in which no server sees the marks by which chat templates tell its parts: `<|im_end|>`, `[INST]` and their like."""
    return _CONTROL.sub(lambda mark: mark.group() + " ", text)


def user(prompt: Prompt) -> str:
    """What follows the system prompt: the digest, then what is wanted."""
    return inert(f"{prompt.data}\n\n{prompt.question}")


def _openai(model: str, prompt: Prompt, schema: Any, sampling: dict[str, Any]) -> Asked:
    body = {
        "model": model,
        "messages": [{"role": "system", "content": prompt.system}, {"role": "user", "content": user(prompt)}],
        "response_format": {
            "type": "json_schema",
            "json_schema": {"name": SCHEMA_NAME, "strict": True, "schema": schema},
        },
    }
    return Asked("chat/completions", body | sampling)


def _openai_whole(model: str, prompt: Prompt, schema: dict[str, Any], limits: Limits) -> Asked:
    """Ollama, and older servers of llama.cpp, know no other limit than `max_tokens`."""
    return _openai(model, prompt, whole(schema), {"max_tokens": limits.tokens, "temperature": 0})


def _openai_plain(model: str, prompt: Prompt, schema: dict[str, Any], limits: Limits) -> Asked:
    return _openai(model, prompt, plain(schema), {"max_completion_tokens": limits.tokens, "temperature": 0})


def _openai_reasoning(model: str, prompt: Prompt, schema: dict[str, Any], limits: Limits) -> Asked:
    """Models that think have no `max_tokens`, and no temperature but their own."""
    return _openai(model, prompt, plain(schema), {"max_completion_tokens": limits.tokens})


def _text_of_openai(answer: Any) -> str:
    choice = answer["choices"][0]
    message = choice["message"]
    if message.get("refusal"):
        raise NoAnswer(f"the model refused: {short(message['refusal'])}")
    match choice.get("finish_reason"):
        case "length":
            raise NoAnswer(CUT_OFF)
        case "content_filter":
            raise NoAnswer("the provider's content filter stopped the answer")
    return _text(message["content"])


def _gemini(model: str, prompt: Prompt, schema: Any, limits: Limits) -> Asked:
    body = {
        "systemInstruction": {"parts": [{"text": prompt.system}]},
        "contents": [{"role": "user", "parts": [{"text": user(prompt)}]}],
        "generationConfig": {
            "responseMimeType": "application/json",
            "responseJsonSchema": schema,
            "maxOutputTokens": limits.tokens,
            "temperature": 0,
        },
    }
    return Asked(f"v1beta/models/{model}:generateContent", body)


def _gemini_plain(model: str, prompt: Prompt, schema: dict[str, Any], limits: Limits) -> Asked:
    return _gemini(model, prompt, plain(schema), limits)


def _gemini_loose(model: str, prompt: Prompt, schema: dict[str, Any], limits: Limits) -> Asked:
    """A schema that is too complex is refused without a word of how complex one may be."""
    return _gemini(model, prompt, loose(schema), limits)


def _text_of_gemini(answer: Any) -> str:
    if blocked := answer.get("promptFeedback", {}).get("blockReason"):
        raise NoAnswer(f"the provider blocked the prompt: {short(blocked)}")
    candidate = answer["candidates"][0]
    reason = candidate.get("finishReason", "STOP")
    if reason == "MAX_TOKENS":
        raise NoAnswer(CUT_OFF)
    if reason not in ("STOP", "FINISH_REASON_UNSPECIFIED"):
        raise NoAnswer(f"the provider stopped the answer: {short(reason)}")
    return "".join(_text(part["text"]) for part in candidate["content"]["parts"] if not part.get("thought"))


def _anthropic(model: str, prompt: Prompt, schema: Any, sampling: dict[str, Any]) -> Asked:
    body = {
        "model": model,
        "system": prompt.system,
        "messages": [{"role": "user", "content": user(prompt)}],
        "output_config": {"format": {"type": "json_schema", "schema": schema}},
    }
    return Asked("v1/messages", body | sampling)


def _anthropic_plain(model: str, prompt: Prompt, schema: dict[str, Any], limits: Limits) -> Asked:
    return _anthropic(model, prompt, plain(schema), {"max_tokens": limits.tokens, "temperature": 0})


def _anthropic_loose(model: str, prompt: Prompt, schema: dict[str, Any], limits: Limits) -> Asked:
    """For schemas that are too complex, and models with no temperature but their own."""
    return _anthropic(model, prompt, loose(schema), {"max_tokens": limits.tokens})


def _text_of_anthropic(answer: Any) -> str:
    match answer.get("stop_reason"):
        case "max_tokens" | "model_context_window_exceeded":
            raise NoAnswer(CUT_OFF)
        case "refusal":
            raise NoAnswer("the model refused")
    texts = [_text(part["text"]) for part in answer["content"] if part["type"] == "text"]
    if not texts:
        raise LookupError("no text")
    return "".join(texts)


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError("no text")
    return value


DIALECTS = {
    "openai": Dialect((_openai_whole, _openai_plain, _openai_reasoning), _text_of_openai),
    "gemini": Dialect((_gemini_plain, _gemini_loose), _text_of_gemini),
    "anthropic": Dialect((_anthropic_plain, _anthropic_loose), _text_of_anthropic),
}
"""By the names of gateway.dialects."""


def fault_in(body: bytes) -> str:
    """What an error that a provider answered says, in one short line; all dialects have the same form for it."""
    try:
        said = msgspec.json.decode(body)["error"]["message"]
    except (msgspec.DecodeError, UnicodeDecodeError, LookupError, TypeError):
        return ""
    return short(said)


def short(said: Any) -> str:
    """What a provider says, on one line and not longer than needed."""
    words = " ".join(str(said)[: 10 * SAID_CHARACTERS].split())
    return printable(words)[:SAID_CHARACTERS]
