"""Steps that the attempts of a task have begun and finished: what the next attempt need not do again (research, section 6).

An attempt says that it begins a step, and gives the step's result when it is done; each is journalled before it goes on. So what
is done has its result here, and what was begun and is not done may have happened. A task that succeeds needs its steps no more;
one that ended otherwise keeps them for another round, until the room is needed: then those that ended first lose theirs.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec

from supervisord_agents.core.events import Checkpointed
from supervisord_agents.core.model import END_STATES, State
from supervisord_agents.core.nesting import MAX_NESTING, too_deep
from supervisord_agents.errors import InvalidInput, Unavailable

MAX_STEPS = 1_000
"""Of one task."""
MAX_NAME_CHARACTERS = 200
MAX_RESULT_BYTES = 64 * 1024
MAX_TASK_BYTES = 1024 * 1024
"""Names and results of one task's steps."""
MAX_ALL_BYTES = 256 * 1024 * 1024
"""Of all tasks together, with STEP_BYTES for each step."""
STEP_BYTES = 256
"""What a step takes in memory beside its name and its result."""
_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder()


class Step(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A step of a task; times are seconds since the Unix epoch."""

    name: str
    attempt: int
    """That finished it, else the last that began it."""
    begun_at: float
    done_at: float = 0.0
    """0: begun, and not finished: it may have happened."""
    packed: bytes = b""
    """The result, as msgpack."""

    @property
    def done(self) -> bool:
        return bool(self.done_at)

    @property
    def result(self) -> Any:
        """None if it is not done."""
        return _decoder.decode(self.packed) if self.packed else None

    @property
    def size(self) -> int:
        """Bytes that count towards MAX_TASK_BYTES."""
        return len(self.name.encode()) + len(self.packed)


Kept = tuple[str, tuple[Step, ...]]
"""A task and its steps, as a snapshot has them."""


class _Steps:
    """Of one task, by name, in the order in which they were first heard of."""

    def __init__(self, steps: Iterable[Step] = ()) -> None:
        self.by_name = {step.name: step for step in steps}
        self.size = sum(step.size for step in self.by_name.values())

    @property
    def room(self) -> int:
        """What they take of MAX_ALL_BYTES."""
        return self.size + STEP_BYTES * len(self.by_name)


class Checkpoints:
    """The steps of all tasks."""

    def __init__(self) -> None:
        self._open: dict[str, _Steps] = {}
        """Of tasks that go on."""
        self._ended: dict[str, _Steps] = {}
        """Of tasks that ended without success, in the order of their ends."""
        self.room = 0
        """What all of them take of MAX_ALL_BYTES."""

    def __bool__(self) -> bool:
        return bool(self._open or self._ended)

    def of(self, task: str) -> tuple[Step, ...]:
        """In the order in which they were first heard of."""
        steps = self._open.get(task) or self._ended.get(task)
        return tuple(steps.by_name.values()) if steps else ()

    def news(self, event: Checkpointed) -> bool:
        """Whether it says anything that is not known: what an attempt repeats, or what is done already, is not."""
        steps = self._open.get(event.task)
        known = steps.by_name.get(event.step) if steps else None
        return known is None or not (known.done or (known.attempt == event.attempt and not event.done))

    def check(self, event: Checkpointed) -> None:
        """Raise InvalidInput, or Unavailable if all tasks together keep too much, for what must not be journalled."""
        if not 0 < len(event.step) <= MAX_NAME_CHARACTERS:
            raise InvalidInput(f"the name of a step has 1 to {MAX_NAME_CHARACTERS} characters.", field="step")
        if not self.news(event):
            return
        if too_deep(event.result):
            raise InvalidInput(
                f"the result of the step `{event.step}` is nested deeper than {MAX_NESTING} levels.", field="result"
            )
        step, before = _step(event, 0.0, None), self._open.get(event.task) or _Steps()
        refuse_large(event.step, len(step.packed))
        if event.step not in before.by_name and len(before.by_name) >= MAX_STEPS:
            raise InvalidInput(f"a task has at most {MAX_STEPS} steps.", field="step", hint="Put several into one.")
        if before.size + step.size > MAX_TASK_BYTES:
            raise InvalidInput(f"the results of a task's steps are kept up to {MAX_TASK_BYTES} bytes together.", field="result")
        if self.room > MAX_ALL_BYTES and not self._ended:
            raise Unavailable(f"the steps of all tasks take more than {MAX_ALL_BYTES >> 20} MiB.", hint="Try again later.")

    def record(self, event: Checkpointed, now: float) -> None:
        """Take up a step of a running attempt."""
        if not self.news(event):
            return
        steps = self._open.setdefault(event.task, _Steps())
        before = steps.by_name.get(event.step)
        step = steps.by_name[event.step] = _step(event, now, before)
        steps.size += step.size - (before.size if before else 0)
        self.room += step.size - (before.size if before else -STEP_BYTES)
        while self.room > MAX_ALL_BYTES and self._ended:
            self.forget(next(iter(self._ended)))

    def moved(self, task: str, after: State) -> None:
        """The task has come into this state."""
        if after is State.SUCCEEDED:
            self.forget(task)
        elif after in END_STATES:
            if (steps := self._open.pop(task, None)) is not None:
                self._ended[task] = steps
        elif (steps := self._ended.pop(task, None)) is not None:
            self._open[task] = steps

    def forget(self, task: str) -> None:
        """Its steps are of no use any more."""
        steps = self._open.pop(task, None) or self._ended.pop(task, None)
        if steps is not None:
            self.room -= steps.room

    def picture(self) -> list[Kept]:
        """All of it as it is now, which later changes leave alone."""
        both = (self._ended, self._open)
        return [(task, tuple(steps.by_name.values())) for kept in both for task, steps in kept.items()]

    def restore(self, kept: Iterable[Kept], ended: Iterable[str]) -> None:
        """Take up a picture; `ended` are those of its tasks that have."""
        over = frozenset(ended)
        for task, steps in kept:
            found = (self._ended if task in over else self._open)[task] = _Steps(steps)
            self.room += found.room


def refuse_large(step: str, size: int) -> None:
    """Raise InvalidInput for a result of more than MAX_RESULT_BYTES."""
    if size > MAX_RESULT_BYTES:
        raise InvalidInput(
            f"the result of the step `{step}` is {size} bytes; at most {MAX_RESULT_BYTES} are kept.",
            field="result",
            hint="Write it into a file of the workspace, and give the name of that as the result.",
        )


def _step(event: Checkpointed, now: float, before: Step | None) -> Step:
    begun_at = before.begun_at if before is not None and before.attempt == event.attempt else now
    if not event.done:
        return Step(event.step, event.attempt, begun_at)
    return Step(event.step, event.attempt, begun_at, now, _encoder.encode(event.result))
