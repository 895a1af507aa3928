"""Parked sandboxes: half made before anybody asks, used up by requests, replaced, and true to the host."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import psutil
import pytest

from sandbox.notify_events import Attempt, Event, Follower
from sandbox.spawner import Spawner
from sandbox.spec import Bind, SandboxSpec
from tests.support.sandbox import PACKAGE, cgroup_directories, pipe

ENV = {"PATH": "/usr/local/bin:/usr/bin:/bin"}
WANTED = 2
TRUE = SandboxSpec(argv=("true",), env=ENV)
SLEEP = SandboxSpec(argv=("sleep", "1000"), env=ENV)
HOST_MOUNTS_LATER = """
import asyncio, json, os, sys
sys.path.insert(0, sys.argv[1])
from sandbox import linux, mounts
linux.unshare(linux.CLONE_NEWNS)
own = mounts.PrivateMounts()
from sandbox.spawner import Spawner
from sandbox.spec import Bind, SandboxSpec
import psutil

async def look(spawner, place):
    reader, writer = os.pipe()
    spec = SandboxSpec(argv=("ls", "/seen"), env={"PATH": "/usr/bin:/bin"}, binds=(Bind(place, "/seen"),))
    sandbox = await spawner.spawn(spec, {1: writer})
    os.close(writer)
    await sandbox.wait()
    with open(reader) as said:
        return sandbox.pid, said.read().split()

async def main():
    place = sys.argv[2]
    spawner = Spawner.start(cgroup_name=f"test-parked-{os.getpid()}", parked=2)
    server = psutil.Process(spawner._process.pid).children()[0]
    while len(parked := {child.pid for child in server.children()}) < 2:
        await asyncio.sleep(0.01)
    own.tmpfs(place, 1 << 20, 100)
    open(f"{place}/new", "w").close()
    pid, seen = await look(spawner, place)
    print(json.dumps([seen, pid in parked]))
    await spawner.aclose()

asyncio.run(main())
"""


@pytest.fixture
async def spawner() -> AsyncIterator[Spawner]:
    started = Spawner.start(cgroup_name=f"test-parked-{os.getpid()}", parked=WANTED)
    await parked_in(server_of(started))
    yield started
    await started.aclose()


def server_of(spawner: Spawner) -> psutil.Process:
    assert spawner._process is not None
    [server] = psutil.Process(spawner._process.pid).children()
    return server


async def until(true: Callable[[], bool]) -> None:
    async with asyncio.timeout(60):
        while not true():
            await asyncio.sleep(0.01)


async def parked_in(server: psutil.Process, without: frozenset[int] = frozenset()) -> set[int]:
    """The processes that are parked, when there are as many as should be, and all wait for their orders."""

    def found() -> set[int]:
        return {child.pid for child in server.children() if child.pid not in without and waits(child.pid)}

    await until(lambda: len(found()) == WANTED)
    return found()


def waits(pid: int) -> bool:
    """A child's root, once it has one of its own, shows no home of ours; the last thing that it does is to bring up `lo`."""
    try:
        up = Path(f"/proc/{pid}/net/if_inet6").read_text() or Path(f"/proc/{pid}/net/fib_trie").read_text()
        return "lo" in up or "127.0.0.1" in up
    except OSError:
        return False


async def test_requests_use_what_is_parked_and_it_is_replaced(spawner: Spawner) -> None:
    server = server_of(spawner)
    first = await parked_in(server)
    sandboxes = [await spawner.spawn(SLEEP, {}) for _ in range(WANTED + 1)]
    running = [sandbox.pid for sandbox in sandboxes]
    assert set(running[:WANTED]) == first
    assert running[WANTED] not in first  # made on demand
    assert not await parked_in(server, frozenset(running)) & first
    for sandbox in sandboxes:
        sandbox.kill()
        await sandbox.wait()
    assert len(await parked_in(server)) == WANTED


async def test_they_are_supervised_when_they_are_to_be(spawner: Spawner) -> None:
    parked = await parked_in(server_of(spawner))
    argv = ("unshare", "--user", "true")
    for supervise in ("refused", "off"):
        sandbox = await spawner.spawn(SandboxSpec(argv=argv, env=ENV, supervise=supervise), {})  # type: ignore[arg-type]
        assert sandbox.pid in parked
        assert (sandbox.events is not None) == (supervise == "refused")
        assert (await sandbox.wait()).code == 1
        if sandbox.events is not None:
            events: list[Event] = []
            await Follower(sandbox.events, events.append).drained(30.0)
            assert [(event.syscall, event.decision) for event in events if isinstance(event, Attempt)] == [("unshare", "EPERM")]


async def test_one_that_does_not_fit_leaves_the_sandbox_as_it_should_be(spawner: Spawner, tmp_path: Path) -> None:
    """A bind in the place of something that all have in common, or below what is a link otherwise: the root is made anew."""
    tmp_path.chmod(0o755)
    (tmp_path / "mine").touch()
    first = await parked_in(server_of(spawner))
    with pipe() as (reader, writer):
        binds = (Bind(str(tmp_path), "/etc/alternatives"), Bind(str(tmp_path), "/var/tmp/given"))
        spec = SandboxSpec(argv=("ls", "/etc/alternatives", "/var/tmp/given"), env=ENV, binds=binds)
        sandbox = await spawner.spawn(spec, {1: writer.fileno()})
        writer.close()
        assert (await sandbox.wait()).code == 0
        assert reader.read().split() == ["/etc/alternatives:", "mine", "/var/tmp/given:", "mine"]
    assert sandbox.pid not in first


async def test_what_was_refused_costs_nobody_else_anything(spawner: Spawner) -> None:
    for _ in range(WANTED + 1):
        with pytest.raises(Exception, match="nosuch"):
            await spawner.spawn(SandboxSpec(argv=("nosuch",), env=ENV), {})
    assert (await (await spawner.spawn(TRUE, {})).wait()).code == 0
    await parked_in(server_of(spawner))


async def test_parked_ones_that_ended_are_not_used(spawner: Spawner) -> None:
    server = server_of(spawner)
    for pid in await parked_in(server):
        os.kill(pid, signal.SIGKILL)
    await until(lambda: not server.children())
    assert (await (await spawner.spawn(TRUE, {})).wait()).code == 0
    await parked_in(server)


async def test_a_parked_one_holds_nothing_of_the_server(spawner: Spawner) -> None:
    for pid in await parked_in(server_of(spawner)):
        kept = [os.readlink(f"/proc/{pid}/fd/{number}") for number in os.listdir(f"/proc/{pid}/fd") if int(number) > 2]
        assert sum(target.startswith("socket:") for target in kept) == 1, kept  # the one by which its order comes
        assert not [target for target in kept if not target.startswith(("socket:", "/"))], kept  # the rest are directories


@pytest.mark.parametrize("victim", ["server", "keeper"])
async def test_none_outlives_the_server(victim: str) -> None:
    spawner = Spawner.start(cgroup_name=f"test-parked-end-{os.getpid()}", parked=WANTED)
    server = server_of(spawner)
    parked = [psutil.Process(pid) for pid in await parked_in(server)]
    assert spawner._process is not None
    os.kill(server.pid if victim == "server" else spawner._process.pid, signal.SIGKILL)
    await spawner.gone()
    await spawner.aclose()
    await until(lambda: not any(process.is_running() for process in parked))


async def test_they_do_not_keep_a_server_that_nobody_needs(tmp_path: Path) -> None:
    name = f"test-parked-door-{os.getpid()}"
    spawner = Spawner.start(cgroup_name=name, parked=WANTED, orphan_grace_s=600.0, door=tmp_path / "door")
    server = server_of(spawner)
    await parked_in(server)
    assert (await (await spawner.spawn(TRUE, {})).wait()).code == 0
    spawner.leave()
    await spawner.aclose()
    assert not server.is_running()
    assert cgroup_directories(name) == []


async def test_one_that_is_parked_costs_little_memory(spawner: Spawner) -> None:
    for pid in await parked_in(server_of(spawner)):
        assert psutil.Process(pid).memory_full_info().uss < 5 << 20


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount a file system for others to see")
def test_what_the_host_mounts_later_is_seen(tmp_path: Path) -> None:
    """In a mount namespace of its own, made and left to PrivateMounts, which is the host of the fork server there."""
    before = Path("/proc/self/mountinfo").read_text()
    argv = [sys.executable, "-c", HOST_MOUNTS_LATER, str(PACKAGE.parent), str(tmp_path)]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == [["new"], False]
    assert Path("/proc/self/mountinfo").read_text() == before
