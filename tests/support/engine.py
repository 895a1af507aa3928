"""An engine over a real journal, without the rest of a daemon."""

from __future__ import annotations

import asyncio
from pathlib import Path

from supervisord_agents.core.events import Changed, Decision, Submitted
from supervisord_agents.core.graph import normalise
from supervisord_agents.core.model import TaskSpec
from supervisord_agents.core.scheduler import Scheduler
from supervisord_agents.daemon.clock import Clock
from supervisord_agents.daemon.engine import Engine, Growth
from supervisord_agents.errors import JournalError
from supervisord_agents.journal.committer import Committer
from supervisord_agents.journal.files import Files
from tests.support.journal import StepFiles, open_journal


class Machine:
    """It runs until `aclose`; `told` are the tasks of the decisions that it released, and `raises` says which of them fail."""

    def __init__(self, directory: Path, files: Files | None = None) -> None:
        self.steps = StepFiles()
        self.journal, _ = open_journal(directory, files=files or self.steps)
        self.committer = Committer(self.journal)
        self.scheduler = Scheduler()
        self.told: list[str] = []
        self.raises: dict[str, Exception] = {}
        self.engine = Engine(self.scheduler, self.committer, Clock(), self._released, Growth())
        self.running = asyncio.create_task(self.engine.run())

    def _released(self, sequence: int, decision: Decision) -> None:
        assert isinstance(decision, Changed)
        assert sequence <= self.journal.durable
        if decision.task in self.raises:
            raise self.raises[decision.task]
        self.told.append(decision.task)

    def submit(self, graph: str, tasks: int = 1) -> int:
        """A graph of tasks t0, t1, …; gives the sequence of its record."""
        specs = normalise([TaskSpec(id=f"t{number}", pool="p") for number in range(tasks)])
        return self.engine.feed(Submitted(graph=graph, specs=specs)).sequence

    async def aclose(self) -> None:
        """End it, whether or not its journal is broken."""
        self.steps.fail = None
        self.running.cancel()
        await asyncio.wait([self.running])
        try:
            await self.committer.aclose()
        except JournalError:
            assert not self.journal.accepting
