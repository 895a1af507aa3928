"""The sandboxes of a client that has died are there for its successor, which finds their fork server by its door."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from sandbox import protocol, rendezvous
from sandbox.spawner import Exit, Sandbox, Spawner
from sandbox.spec import SandboxSpec
from tests.support.fork_server import end_server
from tests.support.sandbox import PACKAGE, await_end, cgroup_directories, line_of

ENV = {"PATH": "/usr/local/bin:/usr/bin:/bin"}
PREDECESSOR = """
import asyncio, json, os, socket, sys
from pathlib import Path
from sandbox.spawner import Spawner
from sandbox.spec import SandboxSpec
async def main():
    door, name, grace_s, specs = sys.argv[1:]
    spawner = Spawner.start(cgroup_name=name, orphan_grace_s=float(grace_s), door=Path(door))
    for label, argv in json.loads(specs).items():
        ours, theirs = socket.socketpair()
        spec = SandboxSpec(argv=argv, env={"PATH": "/usr/local/bin:/usr/bin:/bin"}, loopback_listen=(8099,))
        await spawner.spawn(spec, {0: theirs.fileno(), 1: theirs.fileno()}, label=label.encode(), kept=[ours.fileno()])
    print("made", flush=True)
    sys.stdin.read()
    spawner.leave()
asyncio.run(main())
"""
TALK = ("sh", "-c", "while read word; do echo $word again; [ $word = end ] && exit 7; done; exit 9")


class Predecessor:
    """A client in a process of its own, which makes sandboxes and goes away."""

    def __init__(self, door: Path, grace_s: float = 600.0) -> None:
        self.door = door
        self.cgroup = f"test-succession-{os.getpid()}"
        self._grace_s = grace_s

    def make(self, argv_by_label: dict[str, tuple[str, ...]]) -> None:
        arguments = [str(self.door), self.cgroup, str(self._grace_s), json.dumps(argv_by_label)]
        self.process = subprocess.Popen(
            [sys.executable, "-c", PREDECESSOR, *arguments],
            env={**os.environ, "PYTHONPATH": str(PACKAGE.parent)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert line_of(self.process.stdout) == "made"

    def die(self) -> None:
        with self.process:
            self.process.kill()

    def leave(self) -> None:
        with self.process:
            self.process.communicate(timeout=60)
        assert self.process.returncode == 0


@pytest.fixture
def before(tmp_path: Path) -> Iterator[Predecessor]:
    made = Predecessor(tmp_path / "door")
    yield made
    end_server(made.door)
    assert cgroup_directories(made.cgroup) == []


def succeed(before: Predecessor) -> tuple[Spawner, dict[str, Sandbox]]:
    spawner = Spawner.find(before.door)
    assert spawner is not None
    return spawner, {sandbox.label.decode(): sandbox for sandbox in spawner.adopt()}


def ask(sandbox: Sandbox, word: str) -> str:
    (kept,) = sandbox.kept
    os.write(kept, f"{word}\n".encode())
    return os.read(kept, 100).decode()


def close(sandbox: Sandbox) -> None:
    for descriptor in sandbox.kept:
        os.close(descriptor)
    for listener in sandbox.listeners:
        listener.close()


@pytest.mark.parametrize("way", ["die", "leave"])
async def test_a_successor_has_the_sandboxes_as_if_it_had_made_them(before: Predecessor, way: str) -> None:
    before.make({"one": TALK, "two": TALK})
    getattr(before, way)()
    spawner, sandboxes = succeed(before)
    assert sorted(sandboxes) == ["one", "two"]
    for label, sandbox in sandboxes.items():
        assert ask(sandbox, label) == f"{label} again\n"
        assert [listener.getsockname() for listener in sandbox.listeners] == [("127.0.0.1", 8099)]
    assert ask(sandboxes["one"], "end") == "end again\n"
    assert (await sandboxes["one"].wait()).code == 7
    sandboxes["two"].kill()
    assert (await sandboxes["two"].wait()).signal == signal.SIGKILL
    # Its own come beside them, under numbers that were not in use.
    sandbox = await spawner.spawn(SandboxSpec(argv=("sh", "-c", "exit 3"), env=ENV), {})
    assert (await sandbox.wait()).code == 3
    for sandbox in sandboxes.values():
        close(sandbox)
    await spawner.aclose()


async def test_how_a_sandbox_ended_meanwhile_is_told(before: Predecessor) -> None:
    before.make({"talks": TALK, "fails": ("sh", "-c", "read word; exit 3")})
    before.die()
    first, sandboxes = succeed(before)
    first.leave()
    pidfds = [os.pidfd_open(sandbox.pid) for sandbox in sandboxes.values()]
    ask(sandboxes["talks"], "end")
    os.write(sandboxes["fails"].kept[0], b"now\n")
    for sandbox, pidfd in zip(sandboxes.values(), pidfds, strict=True):
        await_end(pidfd)
        close(sandbox)
    second, ended = succeed(before)
    exits = {label: await sandbox.wait() for label, sandbox in ended.items()}
    for sandbox in ended.values():
        close(sandbox)
    assert {label: (exit.code, exit.signal) for label, exit in exits.items()} == {"talks": (7, 0), "fails": (3, 0)}
    await second.aclose()


async def test_what_has_no_label_ends_with_its_client(before: Predecessor) -> None:
    before.make({"": TALK, "kept": TALK})
    before.die()
    spawner, sandboxes = succeed(before)
    assert list(sandboxes) == ["kept"]
    close(sandboxes["kept"])
    await spawner.aclose()


async def test_what_was_not_running_yet_ends_with_its_client(before: Predecessor) -> None:
    """Its successor could not know of it: it is not told of its start or end either, and can use the server."""
    before.make({"kept": TALK})
    before.die()
    first = rendezvous.connect(before.door)
    assert first is not None
    with first:
        for _ in ("started", "found"):
            protocol.receive_answer(first)
        begun = protocol.Spawn(77, SandboxSpec(argv=("sleep", "1000"), env=ENV), (), label=b"begun")
        first.send(protocol.encode(begun))
        spawner, sandboxes = succeed(before)
    sandbox = await spawner.spawn(SandboxSpec(argv=("sh", "-c", "exit 3"), env=ENV), {})
    assert (await sandbox.wait()).code == 3
    if "begun" not in sandboxes:  # else it was quick enough to run already
        async with asyncio.timeout(60):
            while len({path.name for path in cgroup_directories(before.cgroup)} - {before.cgroup}) > len(sandboxes):
                await asyncio.sleep(0.01)
    for found in sandboxes.values():
        close(found)
    await spawner.aclose()


async def test_the_second_successor_takes_the_place_of_the_first(before: Predecessor) -> None:
    before.make({"one": TALK})
    before.die()
    first, of_first = succeed(before)
    second, of_second = succeed(before)
    await asyncio.wait_for(first.gone(), 60)
    assert ask(of_second["one"], "still") == "still again\n"
    for sandbox in (*of_first.values(), *of_second.values()):
        close(sandbox)
    await second.aclose()


async def test_after_the_grace_nobody_is_there(tmp_path: Path) -> None:
    before = Predecessor(tmp_path / "door", grace_s=0.1)
    before.make({"one": TALK})
    before.die()
    async with asyncio.timeout(60):
        while (spawner := Spawner.find(before.door)) is not None:
            spawner.leave()  # which begins a grace of its own
            await asyncio.sleep(0.2)
    assert cgroup_directories(before.cgroup) == []


async def test_a_successor_of_another_version_ends_the_server(before: Predecessor, monkeypatch: pytest.MonkeyPatch) -> None:
    before.make({"one": TALK})
    before.die()
    monkeypatch.setattr(protocol, "VERSION", protocol.VERSION + 1)
    assert Spawner.find(before.door) is None
    while (control := rendezvous.connect(before.door)) is not None:
        control.close()
    assert cgroup_directories(before.cgroup) == []


async def test_left_sandboxes_cannot_be_killed_any_more(before: Predecessor) -> None:
    before.make({"one": TALK})
    before.die()
    first, sandboxes = succeed(before)
    first.leave()
    assert await sandboxes["one"].wait() == Exit(code=-1, signal=signal.SIGKILL)
    sandboxes["one"].kill()
    close(sandboxes["one"])
    second, again = succeed(before)
    assert ask(again["one"], "alive") == "alive again\n"
    close(again["one"])
    await second.aclose()


def test_a_door_is_for_its_own_user_and_its_path_may_be_long(tmp_path: Path) -> None:
    path = tmp_path / ("d" * 200) / "door"
    path.parent.mkdir()
    assert rendezvous.connect(path) is None
    umask = os.umask(0)
    try:
        door = rendezvous.listen(path)
    finally:
        os.umask(umask)
    with door:
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        client = rendezvous.connect(path)
        assert client is not None
        client.close()
    assert rendezvous.connect(path) is None
    rendezvous.listen(path).close()
