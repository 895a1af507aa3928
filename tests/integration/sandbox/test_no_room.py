"""A client that has run out of descriptors when its sandbox is ready."""

from __future__ import annotations

import asyncio
import errno
import os
import resource

import pytest

from sandbox.errors import SandboxError
from sandbox.spawner import Spawner
from sandbox.spec import SandboxSpec


@pytest.mark.parametrize("room", [0, 1], ids=["none", "for one of two"])
async def test_a_sandbox_whose_descriptors_have_no_room_is_ended_and_refused(room: int) -> None:
    spawner = Spawner.start(cgroup_name=f"test-no-room-{os.getpid()}")
    spec = SandboxSpec(argv=("/bin/sleep", "1000"), loopback_listen=(8080,), optional_layers=("cgroup",))
    try:
        await (await _ended(spawner, spec))  # the loop is attached now
        spawning = asyncio.ensure_future(spawner.spawn(spec, {}))
        await asyncio.sleep(0)  # it is on its way
        before = resource.getrlimit(resource.RLIMIT_NOFILE)
        free = os.dup(0)
        os.close(free)
        resource.setrlimit(resource.RLIMIT_NOFILE, (free + room, before[1]))
        try:
            with pytest.raises(SandboxError) as refused:
                await spawning
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, before)
        assert refused.value.errno == errno.EMFILE
        async with asyncio.timeout(20):
            while spawner._running:
                await asyncio.sleep(0)
        await (await _ended(spawner, spec))
    finally:
        await spawner.aclose()


async def _ended(spawner: Spawner, spec: SandboxSpec) -> asyncio.Future[object]:
    sandbox = await spawner.spawn(spec, {})
    for listener in sandbox.listeners:
        listener.close()
    sandbox.kill()
    return asyncio.ensure_future(sandbox.wait())
