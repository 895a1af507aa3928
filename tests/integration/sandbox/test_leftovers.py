"""Two hundred sandboxes, of every kind of end, leave nothing behind; `make leftovers` makes 10,000.

A namespace lives as long as a process in it, a descriptor or a mount of it: what is counted here is what keeps one.
"""

from __future__ import annotations

import asyncio
import os
from collections import Counter
from pathlib import Path
from typing import NamedTuple

import psutil
import pytest

from sandbox.errors import SandboxError
from sandbox.spawner import Spawner
from sandbox.spec import MIB, Bind, SandboxSpec
from tests.support.sandbox import Remains, cgroup_directories, remains

SPAWNS = int(os.environ.get("LEFTOVER_SPAWNS", "200"))
ENV = {"PATH": "/usr/local/bin:/usr/bin:/bin"}


def kinds(workspace: Path) -> list[SandboxSpec]:
    """Ends that are had: by itself, with daemons left, killed, refused at each step, out of memory."""
    writable = Bind(str(workspace), "/workspace", writable=True)
    limits = {"memory_bytes": 64 * MIB, "pids": 20, "cpu_percent": 100, "optional_layers": ("cgroup",)}
    return [
        SandboxSpec(argv=("true",), env=ENV),
        SandboxSpec(argv=("sh", "-c", "setsid sleep 1000 & touch /workspace/x"), env=ENV, binds=(writable,), init=True),
        SandboxSpec(argv=("sleep", "1000"), env=ENV, loopback_listen=(80, 81), **limits),  # type: ignore[arg-type]
        SandboxSpec(argv=("nosuch",), env=ENV, loopback_listen=(80,), **limits),  # type: ignore[arg-type]
        SandboxSpec(argv=("true",), env=ENV, binds=(writable, Bind("/not/there"))),
        SandboxSpec(argv=("true",), env=ENV, binds=(writable, writable), cwd="/not/there"),
        SandboxSpec(argv=("true",), env=ENV, binds=(writable, Bind("/usr/share", "/usr/not/there"))),
        SandboxSpec(argv=("tail", "/dev/zero"), env=ENV, **{**limits, "memory_bytes": 16 * MIB}),  # type: ignore[arg-type]
    ]


class Tally(NamedTuple):
    """What is there, without the numbers and names that change when parked sandboxes are replaced."""

    descriptors: Counter[str]
    processes: int
    mounts: tuple[str, str]
    cgroups: int

    @classmethod
    def of(cls, found: Remains) -> Tally:
        descriptors = [entry.split(" ", 1)[1] for entry in (*found.server_descriptors, *found.client_descriptors)]
        return cls(Counter(descriptors), len(found.processes), (found.mounts, found.server_mounts), len(found.cgroups))


async def settled(server: psutil.Process, cgroup_name: str, parked: int) -> Tally:
    """The server clears up, and parks, after it has told of an end: what there is when it has."""
    before: Tally | None = None
    async with asyncio.timeout(30):
        while (now := Tally.of(remains(server, cgroup_name))).processes != parked or now != before:
            before = now
            await asyncio.sleep(0.1)
    return now


async def one(spawner: Spawner, spec: SandboxSpec) -> str:
    null = os.open("/dev/null", os.O_RDWR)
    try:
        sandbox = await spawner.spawn(spec, {0: null, 1: null, 7: null})
    except SandboxError as error:
        return f"refused at {error.step}"
    finally:
        os.close(null)
    if spec.argv[0] in ("sleep", "tail" if spawner.cgroup == "none" else ""):
        sandbox.kill()
    ended = await sandbox.wait()
    for listener in sandbox.listeners:
        listener.close()
    return f"ended {ended.code} {ended.signal}"


@pytest.mark.parametrize("parked", [0, 3])
async def test_hundreds_leave_nothing(tmp_path: Path, parked: int) -> None:
    name = f"test-leftovers-{os.getpid()}"
    before = {child.pid for child in psutil.Process().children()}
    spawner = Spawner.start(cgroup_name=name, parked=parked)
    [keeper] = [child for child in psutil.Process().children() if child.pid not in before]
    [server] = keeper.children()
    at_first = await settled(server, name, parked)
    specs = kinds(tmp_path)
    os.chown(tmp_path, *(2 * [23456] if os.geteuid() == 0 else [-1, -1]))
    tmp_path.parent.chmod(0o755)
    first = [await one(spawner, spec) for spec in specs]
    assert first == [
        "ended 0 0",
        "ended 0 0",
        "ended -1 9",
        "refused at exec",
        "refused at bind",
        "refused at cwd",
        "refused at bind",
        "ended -1 9",
    ]
    for number in range(SPAWNS // len(specs)):
        if number % 3:
            assert [await one(spawner, spec) for spec in specs] == first
        else:  # all at once
            assert await asyncio.gather(*(one(spawner, spec) for spec in specs)) == first
    assert await settled(server, name, parked) == at_first
    await spawner.aclose()
    assert not keeper.is_running()
    assert not server.is_running()
    assert cgroup_directories(name) == []


async def test_a_closed_spawner_leaves_no_descriptor() -> None:
    def descriptors() -> list[str]:
        return sorted(os.listdir("/proc/self/fd"))

    await asyncio.to_thread(int)  # the loop's own thread pool has what it needs
    before = descriptors()
    for _ in range(3):
        spawner = Spawner.start(cgroup_name=f"test-closed-{os.getpid()}")
        sandbox = await spawner.spawn(SandboxSpec(argv=("sleep", "1000"), env=ENV), {2: 2})
        await spawner.aclose()
        await sandbox.wait()
    assert descriptors() == before
