"""The frame that ends an attempt: its output checked, and cut to what the daemon accepts."""

from __future__ import annotations

from typing import Any

import msgspec

from supervisord_agents.core.families import MAX_STATE_BYTES
from supervisord_agents.core.model import MAX_COST_USD, MAX_TOKENS, Failure, Usage
from supervisord_agents.core.nesting import MAX_NESTING, too_deep
from supervisord_agents.errors import ErrorCode
from supervisord_agents.wire import frames
from supervisord_agents.workers.agents.base import Outcome, Wait

FRAME_ROOM_BYTES = 64 * 1024
"""For the rest of the frame beside the output."""
MESSAGE_CHARACTERS = 4096


class Refused(Exception):
    """The output cannot be sent, and is not of the kind that can be cut; the text goes into a failure."""

    def __init__(self, message: str, hint: str) -> None:
        super().__init__(message)
        self.hint = hint


def ending(task: frames.RunTask, outcome: Outcome) -> frames.End:
    """The outcome as a frame that fits, whatever an agent, or a function itself, has put into it."""
    limit = min(task.output_limit_bytes, frames.MAX_FRAME_BYTES - FRAME_ROOM_BYTES)
    failure = outcome.failure
    if failure is None and outcome.wait is not None:
        return _waiting(task, outcome.wait, sane(outcome.usage))
    try:
        output, cut = shorten(plain(outcome.output), limit)
    except Refused as error:
        output, cut = None, True
        failure = failure or Failure(code=ErrorCode.WORKER_FAILED, message=str(error), hint=error.hint, retriable=False)
    truncated = bool(outcome.truncated) or cut
    usage = sane(outcome.usage)
    if failure is None:
        return frames.TaskResult(task=task.task, attempt=task.attempt, output=output, usage=usage, truncated=truncated)
    return frames.TaskError(
        task=task.task,
        attempt=task.attempt,
        failure=Failure(
            code=_clean(failure.code)[:64],
            message=_clean(failure.message),
            hint=_clean(failure.hint),
            retriable=bool(failure.retriable),
        ),
        output=output,
        usage=usage,
        truncated=truncated,
    )


def _waiting(task: frames.RunTask, wait: Wait, usage: Usage) -> frames.End:
    try:
        state = plain(wait.state)
        size = _size(state)
        if size > MAX_STATE_BYTES:
            hint = "Write large data to a file in the workspace, and wait with its name."
            raise Refused(f"the state of a wait is {size} bytes; the limit is {MAX_STATE_BYTES}.", hint)
    except Refused as error:
        failure = Failure(code=ErrorCode.WORKER_FAILED, message=str(error), hint=error.hint, retriable=False)
        return frames.TaskError(task=task.task, attempt=task.attempt, failure=failure, usage=usage)
    return frames.Yield(task=task.task, attempt=task.attempt, state=state, fail_fast=bool(wait.fail_fast), usage=usage)


def plain(output: Any) -> Any:
    """The output as values of JSON; raises Refused if it is not made of such."""
    try:
        found = msgspec.to_builtins(output, str_keys=True)
        frames.encoder.encode(found)
    except Exception as error:  # also what a third party's own types raise
        raise Refused(
            f"the output, a {type(output).__qualname__}, cannot be stored: {type(error).__qualname__}: {error}.",
            "Return None, numbers, text, lists and dictionaries of them, or a dataclass.",
        ) from error
    if too_deep(found):
        raise Refused(f"the output cannot be stored: it is nested deeper than {MAX_NESTING} levels.", "Return something flatter.")
    return found


def shorten(output: Any, limit: int) -> tuple[Any, bool]:
    """The output within `limit` bytes of msgpack, and whether something was cut: a text, or the longest texts of a dictionary.

    Raises Refused if cutting texts does not help.
    """
    size = _size(output)
    if size <= limit:
        return output, False
    if isinstance(output, str):
        return _cut(output, limit - 5), True
    if isinstance(output, dict):
        texts = sorted((key for key in output if isinstance(output[key], str)), key=lambda key: len(output[key]), reverse=True)
        shorter = dict(output)
        for key in texts:
            text_size = _size(shorter[key])
            shorter[key] = _cut(shorter[key], max(0, text_size - (size - limit) - 5))
            size = _size(shorter)
            if size <= limit:
                return shorter, True
    raise Refused(
        f"the output is {_size(output)} bytes; the limit is {limit}.",
        "Write large data to a file in the workspace and return its name, or raise tasks.output_limit_bytes.",
    )


def clean_message(text: str) -> str:
    """Of a length for a message, and encodable whatever an exception said."""
    return text[:MESSAGE_CHARACTERS].encode("utf-8", "backslashreplace").decode()


def sane(usage: Usage) -> Usage:
    """Counts within their bounds; what an agent read, or a function claims, beyond them counts as nothing."""
    try:
        asked, answered = (int(count) if 0 <= count <= MAX_TOKENS else 0 for count in (usage.input_tokens, usage.output_tokens))
        cost = float(usage.cost_usd)
    except (AttributeError, TypeError, ValueError, OverflowError):
        return Usage()
    return Usage(asked, answered, cost if 0 <= cost <= MAX_COST_USD else 0.0)


def _size(value: Any) -> int:
    return len(frames.encoder.encode(value))


def _cut(text: str, limit: int) -> str:
    return text.encode()[: max(0, limit)].decode("utf-8", "ignore")


def _clean(text: object) -> str:
    return clean_message(text if isinstance(text, str) else repr(text))
