"""A model endpoint that does what the prompt says: OpenAI, Anthropic and Gemini dialects, streaming and not.

The newest user message that holds a directive is the script; a message without one is answered with `ScriptedModel.text`.

    SAY:<text>            answer with the rest of the line
    CALL:<tool>:<json>    call this tool; several are called one after another, each after the result of the one before
    DELAY:<seconds>       wait before every answer
    ERROR:<status>        answer with this HTTP status

After the last call's result the answer is the SAY text if there is one, else `done: ` and the result's first 300 characters.
The JSON may itself hold directives inside its strings (a delegated prompt): they are not this script's.

Strings inside the JSON, and the SAY text, may use earlier results (`last`, or the number of a call, from 1):

    {{last:name}}         the value of the key "name", found anywhere in the result, nested and escaped JSON included
    {{last/regex/}}       group 1 of a regular expression (write `.` for a quote)

A JSON string that is nothing but a placeholder becomes the value with its own type, so a list stays a list.
A request that wants JSON (`responseMimeType`, `response_format`, `output_config`), such as Gemini CLI's router, its
next-speaker and its loop checks, is answered with the smallest object that fits its schema. A request without tools (a title)
never gets a tool call.

In a test: `async with ScriptedModel().serve() as url`. Alone: `python -m tests.support.scripted_model PORT [LOG]`, where LOG
gets a JSON line a request.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import sys
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from aiohttp import web

INPUT_TOKENS = 100
OUTPUT_TOKENS = 7
RESULT_CHARACTERS = 300

_CALL = re.compile(r"CALL:([\w.-]+):(?=\{)")
_SAY = re.compile(r"SAY:([^\r\n]*)")
_DELAY = re.compile(r"DELAY:(\d+(?:\.\d+)?)")
_ERROR = re.compile(r"ERROR:(\d{3})")
_PLACEHOLDER = re.compile(r"\{\{(last|\d+)(?::([\w-]+)|/(.+?)/)\}\}")


@dataclass(frozen=True)
class Call:
    """A tool call of the script."""

    tool: str
    arguments: dict[str, Any]


@dataclass(frozen=True)
class Script:
    """The directives of one user message."""

    calls: tuple[Call, ...] = ()
    say: str | None = None
    delay_s: float = 0.0
    error: int = 0

    @property
    def empty(self) -> bool:
        return self == Script()


@dataclass
class Turn:
    """A request in neutral form: the script in force, the tool results since, the tools on offer, the JSON schema asked for."""

    script: Script = field(default_factory=Script)
    results: list[str] = field(default_factory=list)
    tools: frozenset[str] = frozenset()
    schema: dict[str, Any] | None = None

    def user(self, text: str) -> None:
        script = parse(text)
        if not script.empty:
            self.script, self.results = script, []

    def result(self, text: str) -> None:
        self.results.append(text)


@dataclass(frozen=True)
class Received:
    """One request as it came in."""

    method: str
    path: str
    query: str
    headers: dict[str, str]
    body: Any


def parse(text: str) -> Script:
    """The script in a user message."""
    try:
        return _parse(text)
    except ValueError:
        # Some clients hand a prompt on inside quotes, its own quotes escaped.
        return _parse(_unescaped(text))


def _parse(text: str) -> Script:
    calls: list[Call] = []
    outside: list[str] = []
    position = 0
    while match := _CALL.search(text, position):
        outside.append(text[position : match.start()])
        arguments, position = json.JSONDecoder().raw_decode(text, match.end())
        calls.append(Call(match[1], arguments))
    rest = "".join([*outside, text[position:]])
    say, delay, error = _SAY.search(rest), _DELAY.search(rest), _ERROR.search(rest)
    return Script(
        tuple(calls),
        say[1].strip().removesuffix('"') if say else None,
        float(delay[1]) if delay else 0.0,
        int(error[1]) if error else 0,
    )


def _unescaped(text: str) -> str:
    return re.sub(r'\\(["\\])', r"\1", text)


def answer(turn: Turn, text: str, words: str = "scripted") -> str | Call:
    """What the model says next: text, or a tool call. `words` are those of a text in an answer by JSON schema."""
    if turn.schema is not None:
        return json.dumps(smallest(turn.schema, words))
    script, done = turn.script, len(turn.results)
    if done < len(script.calls):
        if not turn.tools:
            return text
        call = script.calls[done]
        if call.tool not in turn.tools:
            return f"no such tool: {call.tool}; on offer: {', '.join(sorted(turn.tools))}"
        return Call(call.tool, _fill(call.arguments, turn.results))
    if script.say is not None:
        return str(_fill(script.say, turn.results))
    if script.calls:
        return f"done: {turn.results[-1][:RESULT_CHARACTERS]}"
    return text


def smallest(schema: dict[str, Any], words: str = "scripted") -> Any:
    """The smallest value of a JSON schema: the first of an enum, 1 for an integer, 0 for a number, those words for a text."""
    if schema.get("enum"):
        return schema["enum"][0]
    match str(schema.get("type", "object")).lower():
        case "object":
            properties = schema.get("properties", {})
            return {name: smallest(properties[name], words) for name in schema.get("required", properties) if name in properties}
        case "array":
            return [smallest(schema["items"], words)] * schema.get("minItems", 0)
        case "integer":
            return schema.get("minimum", 1)
        case "number":
            return schema.get("minimum", 0)
        case "boolean":
            return False
        case _:
            return words


def _fill(value: Any, results: list[str]) -> Any:
    """`value` with its placeholders replaced."""
    if isinstance(value, dict):
        return {key: _fill(item, results) for key, item in value.items()}
    if isinstance(value, list):
        return [_fill(item, results) for item in value]
    if not isinstance(value, str):
        return value
    if whole := _PLACEHOLDER.fullmatch(value):
        return _lookup(whole, results)
    return _PLACEHOLDER.sub(lambda match: _as_text(_lookup(match, results)), value)


def _lookup(match: re.Match[str], results: list[str]) -> Any:
    which, key, pattern = match.groups()
    number = len(results) if which == "last" else int(which)
    text = results[number - 1] if 0 < number <= len(results) else ""
    if pattern:
        found = re.search(pattern, text)
        return found[1] if found else f"nothing matches {pattern}"
    found = re.search(rf'\\*"{re.escape(key)}\\*"\s*:\s*', text)
    if not found:
        return f"no {key} in the result"
    rest = text[found.end() :]
    with contextlib.suppress(ValueError):
        return json.JSONDecoder().raw_decode(rest)[0]
    return json.JSONDecoder().raw_decode(_unescaped(rest))[0]


def _as_text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _text_of(content: Any) -> str:
    """The text of a message's content: a string, or a list of parts."""
    if isinstance(content, str):
        return content
    return "\n".join(part["text"] for part in content or () if isinstance(part, dict) and isinstance(part.get("text"), str))


def _openai_turn(body: dict[str, Any]) -> Turn:
    turn = Turn(tools=frozenset(tool["function"]["name"] for tool in body.get("tools") or () if "function" in tool))
    wanted = body.get("response_format") or {}
    if wanted.get("type") == "json_schema":
        turn.schema = wanted["json_schema"].get("schema", {})
    elif wanted.get("type") == "json_object":
        turn.schema = {}
    for message in body.get("messages", ()):
        if message["role"] == "user":
            turn.user(_text_of(message.get("content")))
        elif message["role"] == "tool":
            turn.result(_text_of(message.get("content")))
    return turn


def _anthropic_turn(body: dict[str, Any]) -> Turn:
    turn = Turn(tools=frozenset(tool["name"] for tool in body.get("tools") or ()))
    turn.schema = ((body.get("output_config") or {}).get("format") or {}).get("schema")
    for message in body.get("messages", ()):
        if message["role"] != "user":
            continue
        content = message.get("content")
        for part in content if isinstance(content, list) else ():
            if part.get("type") == "tool_result":
                turn.result(_text_of(part.get("content")))
        turn.user(_text_of(content))
    return turn


def _gemini_turn(body: dict[str, Any]) -> Turn:
    declared = [item for tool in body.get("tools") or () for item in tool.get("functionDeclarations", ())]
    turn = Turn(tools=frozenset(item["name"] for item in declared))
    wanted = body.get("generationConfig") or {}
    schema = wanted.get("responseJsonSchema") or wanted.get("responseSchema")
    if schema or wanted.get("responseMimeType") == "application/json":
        turn.schema = schema or {}
    for content in body.get("contents", ()):
        if content.get("role", "user") not in ("user", "function"):
            continue
        for part in content.get("parts", ()):
            if "functionResponse" in part:
                response = part["functionResponse"].get("response", {})
                output = response.get("output", response.get("error"))
                turn.result(output if isinstance(output, str) else json.dumps(response))
        turn.user(_text_of(content.get("parts")))
    return turn


def _openai_message(said: str | Call, number: int) -> tuple[dict[str, Any], str]:
    if isinstance(said, str):
        return {"role": "assistant", "content": said}, "stop"
    function = {"name": said.tool, "arguments": json.dumps(said.arguments)}
    call = {"index": 0, "id": f"call_{number}", "type": "function", "function": function}
    return {"role": "assistant", "content": None, "tool_calls": [call]}, "tool_calls"


def _pieces(text: str) -> list[str]:
    """The text in pieces of a word, as a model streams them."""
    return re.findall(r"\S*\s*", text)[:-1] or [""]


def _openai_answer(said: str | Call, number: int, model: str) -> dict[str, Any]:
    message, reason = _openai_message(said, number)
    return {
        "id": f"chatcmpl-{number}",
        "object": "chat.completion",
        "created": number,
        "model": model,
        "choices": [{"index": 0, "message": message, "finish_reason": reason}],
        "usage": _openai_usage(),
    }


def _openai_usage() -> dict[str, int]:
    return {"prompt_tokens": INPUT_TOKENS, "completion_tokens": OUTPUT_TOKENS, "total_tokens": INPUT_TOKENS + OUTPUT_TOKENS}


def _openai_stream(said: str | Call, number: int, model: str) -> list[str]:
    base = {"id": f"chatcmpl-{number}", "object": "chat.completion.chunk", "created": number, "model": model}
    message, reason = _openai_message(said, number)
    deltas = [message] if isinstance(said, Call) else [{"role": "assistant", "content": piece} for piece in _pieces(said)]
    chunks: list[dict[str, Any]] = [
        {**base, "choices": [{"index": 0, "delta": delta, "finish_reason": None}]} for delta in deltas
    ]
    chunks.append({**base, "choices": [{"index": 0, "delta": {}, "finish_reason": reason}]})
    chunks.append({**base, "choices": [], "usage": _openai_usage()})
    return [f"data: {json.dumps(chunk)}\n\n" for chunk in chunks] + ["data: [DONE]\n\n"]


def _anthropic_answer(said: str | Call, number: int, model: str) -> dict[str, Any]:
    if isinstance(said, str):
        content: dict[str, Any] = {"type": "text", "text": said}
    else:
        content = {"type": "tool_use", "id": f"toolu_{number}", "name": said.tool, "input": said.arguments}
    return {
        "id": f"msg_{number}",
        "type": "message",
        "role": "assistant",
        "model": model,
        "content": [content],
        "stop_reason": "end_turn" if isinstance(said, str) else "tool_use",
        "stop_sequence": None,
        "usage": {"input_tokens": INPUT_TOKENS, "output_tokens": OUTPUT_TOKENS},
    }


def _anthropic_stream(said: str | Call, number: int, model: str) -> list[str]:
    whole = _anthropic_answer(said, number, model)
    start = {**whole, "content": [], "stop_reason": None, "usage": {"input_tokens": INPUT_TOKENS, "output_tokens": 1}}
    events: list[dict[str, Any]] = [{"type": "message_start", "message": start}]
    if isinstance(said, str):
        block: dict[str, Any] = {"type": "text", "text": ""}
        deltas = [{"type": "text_delta", "text": piece} for piece in _pieces(said)]
    else:
        block = {**whole["content"][0], "input": {}}
        deltas = [{"type": "input_json_delta", "partial_json": json.dumps(said.arguments)}]
    events.append({"type": "content_block_start", "index": 0, "content_block": block})
    events += [{"type": "content_block_delta", "index": 0, "delta": delta} for delta in deltas]
    events.append({"type": "content_block_stop", "index": 0})
    ending = {"stop_reason": whole["stop_reason"], "stop_sequence": None}
    events.append({"type": "message_delta", "delta": ending, "usage": {"output_tokens": OUTPUT_TOKENS}})
    events.append({"type": "message_stop"})
    return [f"event: {event['type']}\ndata: {json.dumps(event)}\n\n" for event in events]


def _gemini_answer(part: dict[str, Any], model: str, *, last: bool = True) -> dict[str, Any]:
    candidate: dict[str, Any] = {"content": {"role": "model", "parts": [part]}, "index": 0}
    if last:
        candidate["finishReason"] = "STOP"
    usage = {"promptTokenCount": INPUT_TOKENS, "candidatesTokenCount": OUTPUT_TOKENS if last else 1}
    usage["totalTokenCount"] = sum(usage.values())
    return {"candidates": [candidate], "usageMetadata": usage, "modelVersion": model}


def _gemini_parts(said: str | Call) -> list[dict[str, Any]]:
    if isinstance(said, Call):
        return [{"functionCall": {"name": said.tool, "args": said.arguments}}]
    return [{"text": piece} for piece in _pieces(said)]


class ScriptedModel:
    """The endpoint: `requests` holds everything it was sent, `text` is the answer to prompts without a directive.

    `statuses` are used up first: each makes one request fail with that status. `before_answer` is awaited before every answer.
    """

    def __init__(self, *, text: str = "hello from the scripted model", log: Path | None = None) -> None:
        self.text = text
        self.words = "scripted"
        self.requests: list[Received] = []
        self.statuses: list[int] = []
        self.before_answer: Callable[[], Any] | None = None
        self._log = log

    def app(self) -> web.Application:
        app = web.Application(client_max_size=64 * 1024 * 1024)
        app.router.add_route("*", "/{tail:.*}", self._handle)
        return app

    @contextlib.asynccontextmanager
    async def serve(self, port: int = 0) -> AsyncIterator[str]:
        """Serve on 127.0.0.1; yields the address without a path."""
        runner = web.AppRunner(self.app(), access_log=None, shutdown_timeout=0.1)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", port)
        await site.start()
        try:
            yield f"http://127.0.0.1:{runner.addresses[0][1]}"
        finally:
            await runner.cleanup()

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        body = await self._receive(request)
        path = request.path
        if request.method == "GET":
            return web.json_response({"object": "list", "data": [{"id": "scripted", "object": "model", "owned_by": "tests"}]})
        if path.endswith("/count_tokens"):
            return web.json_response({"input_tokens": INPUT_TOKENS})
        if path.endswith(":countTokens"):
            return web.json_response({"totalTokens": INPUT_TOKENS})
        if path.endswith("/chat/completions"):
            return await self._openai(request, body)
        if path.endswith("/messages"):
            return await self._anthropic(request, body)
        if path.endswith((":generateContent", ":streamGenerateContent")):
            return await self._gemini(request, body)
        return web.json_response({"error": {"message": f"the scripted model has no {path}", "code": 404}}, status=404)

    async def _receive(self, request: web.Request) -> Any:
        raw = await request.read()
        try:
            body = json.loads(raw) if raw else None
        except ValueError:
            body = raw.decode("utf-8", "replace")
        self.requests.append(Received(request.method, request.path, request.query_string, dict(request.headers), body))
        if self._log is not None:
            with self._log.open("a", encoding="utf-8") as file:
                file.write(json.dumps({"method": request.method, "path": request.path_qs, "body": body}) + "\n")
        return body

    async def _think(self, turn: Turn) -> str | Call | int:
        """The answer, or the status to fail with."""
        if turn.script.delay_s:
            await asyncio.sleep(turn.script.delay_s)
        if self.before_answer is not None:
            await self.before_answer()
        if self.statuses:
            return self.statuses.pop(0)
        return turn.script.error or answer(turn, self.text, self.words)

    async def _openai(self, request: web.Request, body: dict[str, Any]) -> web.StreamResponse:
        said = await self._think(_openai_turn(body))
        if isinstance(said, int):
            return _failure(said)
        number, model = len(self.requests), str(body.get("model", "scripted"))
        if body.get("stream"):
            return await _stream(request, _openai_stream(said, number, model))
        return web.json_response(_openai_answer(said, number, model))

    async def _anthropic(self, request: web.Request, body: dict[str, Any]) -> web.StreamResponse:
        said = await self._think(_anthropic_turn(body))
        if isinstance(said, int):
            return _failure(said, {"type": "error"})
        number, model = len(self.requests), str(body.get("model", "scripted"))
        if body.get("stream"):
            return await _stream(request, _anthropic_stream(said, number, model))
        return web.json_response(_anthropic_answer(said, number, model))

    async def _gemini(self, request: web.Request, body: dict[str, Any]) -> web.StreamResponse:
        said = await self._think(_gemini_turn(body))
        if isinstance(said, int):
            return _failure(said)
        model = request.path.rsplit("/", 1)[-1].split(":")[0]
        if request.path.endswith(":generateContent"):
            part = {"text": said} if isinstance(said, str) else _gemini_parts(said)[0]
            return web.json_response(_gemini_answer(part, model))
        parts = _gemini_parts(said)
        answers = [_gemini_answer(part, model, last=index == len(parts) - 1) for index, part in enumerate(parts)]
        if request.query.get("alt") != "sse":
            return web.json_response(answers)
        return await _stream(request, [f"data: {json.dumps(item)}\r\n\r\n" for item in answers])


def _failure(status: int, extra: dict[str, Any] | None = None) -> web.Response:
    error = {"message": f"scripted failure {status}", "type": "scripted_error", "code": status}
    return web.json_response({**(extra or {}), "error": error}, status=status)


async def _stream(request: web.Request, events: list[str]) -> web.StreamResponse:
    response = web.StreamResponse(headers={"Content-Type": "text/event-stream", "Cache-Control": "no-cache"})
    await response.prepare(request)
    for event in events:
        await response.write(event.encode())
    await response.write_eof()
    return response


async def _main(arguments: list[str]) -> None:
    log = Path(arguments[1]) if len(arguments) > 1 else None
    async with ScriptedModel(log=log).serve(int(arguments[0])) as url:
        print(url, flush=True)
        await asyncio.Event().wait()


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(_main(sys.argv[1:]))
