"""The frame that ends an attempt: its output cut to what the daemon accepts."""

from __future__ import annotations

from typing import Any

import msgspec

from supervisord_agents.core.model import Failure
from supervisord_agents.errors import ErrorCode
from supervisord_agents.wire import frames
from supervisord_agents.wire.framing import DEFAULT_MAX_FRAME_BYTES
from supervisord_agents.workers.agents.base import Outcome

FRAME_ROOM_BYTES = 64 * 1024
"""For the rest of the frame beside the output."""
MESSAGE_CHARACTERS = 4096


class TooLarge(Exception):
    """The output is over the limit, and not of the kind that can be cut."""


def ending(task: frames.RunTask, outcome: Outcome) -> frames.TaskResult | frames.TaskError:
    """The outcome as a frame that fits."""
    limit = min(task.output_limit_bytes, DEFAULT_MAX_FRAME_BYTES - FRAME_ROOM_BYTES)
    failure = outcome.failure
    try:
        output, cut = shorten(outcome.output, limit)
    except TooLarge as error:
        output, cut = None, True
        failure = failure or Failure(
            code=ErrorCode.WORKER_FAILED,
            message=f"{error}; the limit is {limit}.",
            hint="Write large data to a file in the workspace and return its name, or raise tasks.output_limit_bytes.",
            retriable=False,
        )
    truncated = outcome.truncated or cut
    if failure is None:
        return frames.TaskResult(task=task.task, attempt=task.attempt, output=output, usage=outcome.usage, truncated=truncated)
    return frames.TaskError(
        task=task.task,
        attempt=task.attempt,
        failure=msgspec.structs.replace(failure, message=_clean(failure.message), hint=_clean(failure.hint)),
        output=output,
        usage=outcome.usage,
        truncated=truncated,
    )


def shorten(output: Any, limit: int) -> tuple[Any, bool]:
    """The output within `limit` bytes of msgpack, and whether something was cut: a text, or the longest texts of a dictionary.

    Raises TooLarge if cutting texts does not help.
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
    raise TooLarge(f"the output is {_size(output)} bytes")


def _size(value: Any) -> int:
    return len(frames.encoder.encode(value))


def _cut(text: str, limit: int) -> str:
    return text.encode()[: max(0, limit)].decode("utf-8", "ignore")


def _clean(text: str) -> str:
    """Of a length for a message, and encodable whatever an exception said."""
    return text[:MESSAGE_CHARACTERS].encode("utf-8", "backslashreplace").decode()
