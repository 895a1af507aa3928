"""The steps of a task as a function sees them: what is done is not done again by a later attempt."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from supervisord_agents.core.model import Failure
from supervisord_agents.errors import ErrorCode
from supervisord_agents.wire.frames import PastStep
from supervisord_agents.workers.agents.base import AgentFailure, Reporter
from supervisord_agents.workers.ending import Refused, plain


class Steps:
    """Names are the function's own, and unique in a task. What the supervisor refuses to keep ends the attempt (AgentFailure)."""

    def __init__(self, past: Mapping[str, PastStep], reporter: Reporter) -> None:
        self.results = {name: step.result for name, step in past.items() if step.done}
        """Of the steps that are done, in this attempt or in an earlier one."""
        self.unfinished = tuple(name for name, step in past.items() if not step.done)
        """Begun by an earlier attempt, which was not heard to finish them: they may have happened."""
        self._reporter = reporter

    def run(self, name: str, function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
        """The result of the step `name`: of an earlier attempt if it is done, else `function` is called.

        It returns when the result is on disk. What it returns is what was kept, so values of JSON: a tuple becomes a list.
        """
        if name in self.results:
            return self.results[name]
        self.begin(name)
        return self.finish(name, function(*args, **kwargs))

    def begin(self, name: str) -> None:
        """Say that the step begins, for one that is no single call; returns when that is on disk."""
        self._reporter.checkpoint(name, done=False)

    def finish(self, name: str, result: Any = None) -> Any:
        """Say that the step is done; returns its result, as it is kept, when that is on disk."""
        try:
            kept = plain(result)
        except Refused as error:
            failure = Failure(code=ErrorCode.INVALID, message=f"step `{name}`: {error}", hint=error.hint, retriable=False)
            raise AgentFailure(failure) from error
        self._reporter.checkpoint(name, done=True, result=kept)
        self.results[name] = kept
        return kept
