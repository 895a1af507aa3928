"""The steps of running attempts: recorded, and acknowledged when they are on disk."""

from __future__ import annotations

from collections.abc import Callable

import msgspec
import structlog

from supervisord_agents.core.checkpoints import Step
from supervisord_agents.core.events import Checkpointed
from supervisord_agents.core.scheduler import Scheduler
from supervisord_agents.daemon.engine import Engine
from supervisord_agents.daemon.refusals import refusal
from supervisord_agents.errors import DiskFull, JournalError, SupervisorError
from supervisord_agents.wire import frames
from supervisord_agents.wire.messages import StepView
from supervisord_agents.workers.jobs import Jobs

log = structlog.get_logger()


class Steps:
    """`answer` is given what its worker is to be told."""

    def __init__(self, answer: Callable[[frames.Checkpointed], None]) -> None:
        self._answer = answer
        self._engine: Engine
        self._jobs = Jobs("step")

    def attach(self, engine: Engine) -> None:
        """Feed events to this engine."""
        self._engine = engine

    def take(self, frame: frames.Checkpoint) -> None:
        """A running attempt says that it begins a step, or that it is done."""
        answer = frames.Checkpointed(task=frame.task, attempt=frame.attempt, step=frame.step, done=frame.done)
        event = Checkpointed(task=frame.task, attempt=frame.attempt, step=frame.step, done=frame.done, result=frame.result)
        try:
            sequence = self._record(event)
        except JournalError as error:
            if not isinstance(error, DiskFull):
                log.error("step_not_recorded", task=frame.task, error=str(error))
                return  # The worker says it again to the next daemon.
            self._answer(msgspec.structs.replace(answer, failure=refusal(error)))
        except SupervisorError as error:
            self._answer(msgspec.structs.replace(answer, failure=refusal(error)))
        else:
            self._jobs.spawn(self._acknowledge(sequence, answer))

    def _record(self, event: Checkpointed) -> int:
        """The record that has to be on disk for this step to be."""
        scheduler = self._engine.scheduler
        scheduler.check(event, self._engine.clock.now())
        if not scheduler.table.checkpoints.news(event):
            return self._engine.sequence
        return self._engine.feed(event, urgent=False).sequence

    async def _acknowledge(self, sequence: int, answer: frames.Checkpointed) -> None:
        try:
            await self._engine.released(sequence)
        except JournalError:
            return
        self._answer(answer)


def past_steps(scheduler: Scheduler, task: str) -> dict[str, frames.PastStep]:
    """What the next attempt is told."""
    return {
        step.name: frames.PastStep(attempt=step.attempt, done=step.done, result=step.result) for step in scheduler.steps(task)
    }


def views(steps: tuple[Step, ...]) -> list[StepView]:
    """As clients see them."""
    return [
        StepView(
            name=step.name, attempt=step.attempt, begun_at=step.begun_at, done_at=step.done_at, result_bytes=len(step.packed)
        )
        for step in steps
    ]
