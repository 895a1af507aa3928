"""How one asks a model at a provider for JSON of a schema, and what of its answer is the text.

Sources: OpenAI API reference, "Create chat completion" (`response_format`), which llama-server, vLLM and Ollama serve too; Gemini
API reference, `models.generateContent` (`generationConfig.responseJsonSchema`).
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, NamedTuple

import msgspec

from supervisord_agents.tracker.backend import Limits, Prompt
from supervisord_agents.tracker.story import widened

SCHEMA_NAME = "story"
_CONTROL = re.compile(r"<(?=\||/?(?:s|start_of_turn|end_of_turn|bos|eos|think|tool_call)>)|\[(?=/?INST\])", re.I)


class Asked(NamedTuple):
    """A request: where below the provider's `base_url`, and with which JSON."""

    path: str
    body: dict[str, Any]


class Dialect(NamedTuple):
    """How to ask, and `text`: the text of a decoded answer, which raises LookupError or TypeError where there is none."""

    ask: Callable[[str, Prompt, dict[str, Any], Limits], Asked]
    text: Callable[[Any], str]


def inert(text: str) -> str:
    """A text in which no server sees the marks by which chat templates tell its parts: `<|im_end|>`, `[INST]` and their like."""
    return _CONTROL.sub(lambda mark: mark.group() + " ", text)


def user(prompt: Prompt) -> str:
    """What follows the system prompt: the digest, then what is wanted."""
    return inert(f"{prompt.data}\n\n{prompt.question}")


def _ask_openai(model: str, prompt: Prompt, schema: dict[str, Any], limits: Limits) -> Asked:
    form = {"name": SCHEMA_NAME, "strict": True, "schema": widened(schema)}
    body = {
        "model": model,
        "messages": [{"role": "system", "content": prompt.system}, {"role": "user", "content": user(prompt)}],
        "response_format": {"type": "json_schema", "json_schema": form},
        "max_tokens": limits.tokens,
        "temperature": 0,
    }
    return Asked("chat/completions", body)


def _text_of_openai(answer: Any) -> str:
    return _text(answer["choices"][0]["message"]["content"])


def _ask_gemini(model: str, prompt: Prompt, schema: dict[str, Any], limits: Limits) -> Asked:
    body = {
        "systemInstruction": {"parts": [{"text": prompt.system}]},
        "contents": [{"role": "user", "parts": [{"text": user(prompt)}]}],
        "generationConfig": {
            "responseMimeType": "application/json",
            "responseJsonSchema": widened(schema),
            "maxOutputTokens": limits.tokens,
            "temperature": 0,
        },
    }
    return Asked(f"v1beta/models/{model}:generateContent", body)


def _text_of_gemini(answer: Any) -> str:
    parts = answer["candidates"][0]["content"]["parts"]
    return "".join(_text(part["text"]) for part in parts if not part.get("thought"))


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError("no text")
    return value


DIALECTS = {"openai": Dialect(_ask_openai, _text_of_openai), "gemini": Dialect(_ask_gemini, _text_of_gemini)}
"""Of the providers that can be asked for JSON of a schema, by the names of gateway.dialects."""


def fault_in(body: bytes) -> str:
    """What an error that a provider answered says, in one short line; all dialects have the same form for it."""
    try:
        said = msgspec.json.decode(body)["error"]["message"]
    except (msgspec.DecodeError, UnicodeDecodeError, LookupError, TypeError):
        return ""
    return " ".join(str(said).split())[:200]
