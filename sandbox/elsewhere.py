"""Answers from a child process, where to find them out would leave something behind in this one, which others are forked from."""

from __future__ import annotations

import marshal
import os
from collections.abc import Callable
from typing import NoReturn, TypeVar, cast

from sandbox.errors import SandboxError

T = TypeVar("T")
"""Of what marshal can write."""
_Refusal = tuple[str, str, int, str]


def elsewhere(asked: Callable[[], T]) -> T:
    """What `asked` gives in a child of this process. Raises the child's SandboxError, or one that says that the child died."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        _answer(asked, writer)
    os.close(writer)
    with open(reader, "rb") as file:
        packed = file.read()
    os.waitpid(child, 0)
    answer, refusal = marshal.loads(packed) if packed else (None, ("the child that was asked died.", "", 0, ""))
    if refusal is None:
        return cast(T, answer)
    message, step, number, hint = cast(_Refusal, refusal)
    raise SandboxError(message, step=step, errno=number, hint=hint)


def _answer(asked: Callable[[], object], writer: int) -> NoReturn:
    answer: object = None
    refusal: _Refusal | None = None
    try:
        try:
            answer = asked()
        except SandboxError as error:
            refusal = (error.message, error.step, error.errno, error.hint)
        with open(writer, "wb") as file:
            marshal.dump((answer, refusal), file)  # type: ignore[arg-type]
    finally:  # whatever happens, there must not be a second one of the process that asks
        os._exit(0)
