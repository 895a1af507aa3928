"""What clients read: nothing that is not on disk, whatever happens while they wait for the disk."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from supervisord_agents.core.events import CancelRequested, Started
from supervisord_agents.core.model import State
from supervisord_agents.daemon.handlers import Handlers
from supervisord_agents.daemon.waiters import Waiters
from supervisord_agents.rpc.peer import Peer
from supervisord_agents.wire import messages as m
from tests.support.archive import NoArchive
from tests.support.engine import Machine

TURNS = 5
"""Of the loop, in which the answer is made; a sync takes longer."""
PEER = Peer(pid=1, uid=0, gid=0)


@pytest.fixture
async def machine(tmp_path: Path) -> AsyncIterator[Machine]:
    machine = Machine(tmp_path)
    yield machine
    await machine.aclose()


def reader(machine: Machine) -> Handlers:
    """Handlers that can list and wait, and nothing else."""
    nothing: Any = SimpleNamespace(signs={}, watch=None, estimate=None, submit=None, story=None, ask=None, chain=None)
    nothing.attach = lambda *of: None
    archive: Any = NoArchive()
    return Handlers(
        machine.engine,
        nothing,
        nothing,
        nothing,
        nothing,
        nothing,
        nothing,
        nothing,
        Waiters(),
        archive,
        nothing,
        submissions=nothing,
        keeper=nothing,
        advisor=nothing,
        pictures=nothing,
        tracking=nothing,
    )


@pytest.mark.parametrize("request_", [m.ListTasks(), m.Wait(tasks=["g"], mode="any")], ids=["list", "wait"])
async def test_what_happens_while_a_reader_waits_for_the_disk_is_not_told(machine: Machine, request_: m.Request) -> None:
    """As when the record that it waits for makes a task ready, which starts in the same turn of the loop."""
    handlers = reader(machine)
    machine.submit("g", tasks=2)
    machine.engine.feed(CancelRequested(task="g.t1"))
    looking = asyncio.create_task(handlers.handle(request_, PEER))
    for _ in range(TURNS):
        await asyncio.sleep(0)
    machine.engine.feed(Started(task="g.t0", attempt=1, worker="w"))
    reply: Any = await looking
    assert {view.id: view.state for view in reply.tasks} == {"g.t0": State.READY, "g.t1": State.CANCELLED}
