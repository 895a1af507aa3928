"""However a sandbox ends, everything in it ends; and it ends when those who made it do."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys

import psutil
import pytest

from sandbox.errors import SandboxError
from sandbox.spawner import Spawner
from sandbox.spec import SandboxSpec
from tests.support.sandbox import PACKAGE, Maker, await_end, cgroup_directories, line_of, pipe, without_notice

ENV = {"PATH": "/usr/local/bin:/usr/bin:/bin"}
DAEMON = """
import os, signal, sys
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        for number in set(range(1, 32)) - {signal.SIGKILL, signal.SIGSTOP, signal.SIGCHLD}:
            signal.signal(number, signal.SIG_IGN)
        print("up", flush=True)
        while True:
            signal.pause()
    os._exit(0)
os.wait()
"""
"""A daemon by the book, which no signal to a process group would reach, and which minds no signal but SIGKILL."""


def daemon_then(what: str) -> tuple[str, ...]:
    return ("python3", "-I", "-S", "-c", f"{DAEMON}\n{what}")


@pytest.mark.parametrize("init", [False, True])
async def test_when_the_program_ends_its_daemons_end(spawner: Spawner, init: bool) -> None:
    with pipe() as (reader, writer):
        spec = SandboxSpec(argv=daemon_then("sys.stdin.read(); os._exit(7)"), env=ENV, init=init)
        with pipe() as (stdin, ours):
            sandbox = await spawner.spawn(spec, {0: stdin.fileno(), 1: writer.fileno()})
            writer.close()
            assert reader.readline() == "up\n"
            ours.close()
            assert (await sandbox.wait()).code == 7
        # Had one of them lived on, this would have no end.
        assert reader.read() == ""


@pytest.mark.parametrize("init", [False, True])
async def test_killed_is_killed_whole(spawner: Spawner, init: bool) -> None:
    with pipe() as (reader, writer):
        spec = SandboxSpec(argv=daemon_then("signal.pause()"), env=ENV, init=init)
        sandbox = await spawner.spawn(spec, {1: writer.fileno()})
        writer.close()
        assert reader.readline() == "up\n"
        sandbox.kill()
        ended = await sandbox.wait()
        assert (ended.code, ended.signal) == (-1, signal.SIGKILL)
        assert reader.read() == ""
    sandbox.kill()
    sandbox.signal(signal.SIGTERM)


async def test_closing_the_spawner_kills_all_of_its_sandboxes() -> None:
    spawner = Spawner.start(cgroup_name=f"test-closing-{os.getpid()}")
    with pipe() as (reader, writer):
        spec = SandboxSpec(argv=daemon_then("signal.pause()"), env=ENV)
        sandboxes = [await spawner.spawn(spec, {1: writer.fileno()}) for _ in range(4)]
        writer.close()
        assert [reader.readline() for _ in sandboxes] == ["up\n"] * 4
        await spawner.aclose()
        assert reader.read() == ""
    assert [(await sandbox.wait()).signal for sandbox in sandboxes] == [signal.SIGKILL] * 4
    await spawner.gone()
    await spawner.aclose()
    with pytest.raises(SandboxError, match="has ended"):
        await spawner.spawn(spec, {})


async def test_the_death_of_the_fork_server_is_the_death_of_its_sandboxes() -> None:
    """Those that run and those that are being made, whatever the moment."""
    for moment in range(5):
        spawner = Spawner.start(cgroup_name=f"test-death-{os.getpid()}-{moment}")
        with pipe() as (reader, writer):
            spec = SandboxSpec(argv=daemon_then("signal.pause()"), env=ENV)
            sandbox = await spawner.spawn(spec, {1: writer.fileno()})
            being_made = [asyncio.create_task(spawner.spawn(spec, {1: writer.fileno()})) for _ in range(3)]
            for _ in range(moment):
                await asyncio.sleep(0)
            assert reader.readline() == "up\n"
            server = psutil.Process(psutil.Process(sandbox.pid).ppid())
            server.kill()
            await spawner.gone()
            made = await asyncio.gather(*being_made, return_exceptions=True)
            writer.close()
            assert set(reader.read().split()) <= {"up"}
        assert (await sandbox.wait()).signal == signal.SIGKILL
        for each in made:
            assert isinstance(each, SandboxError) or (await each.wait()).signal == signal.SIGKILL
        with pytest.raises(SandboxError, match="has ended"):
            await spawner.spawn(spec, {})
        await spawner.aclose()
        # The next of the same name sweeps what the dead one had to leave.
        await Spawner.start(cgroup_name=f"test-death-{os.getpid()}-{moment}").aclose()
        assert cgroup_directories(f"test-death-{os.getpid()}-{moment}") == []


CLIENT = """
import asyncio, json, os, sys
from sandbox.spawner import Spawner
from sandbox.spec import SandboxSpec
async def main():
    spawner = Spawner.start(cgroup_name=sys.argv[1], orphan_grace_s=float(sys.argv[2]), lock_fd=int(sys.argv[3]))
    spec = SandboxSpec(argv=json.loads(sys.argv[4]), env={"PATH": "/usr/bin:/bin"})
    sandbox = await spawner.spawn(spec, {0: 0, 1: 1})
    print(sandbox.pid, file=sys.stderr, flush=True)
    await sandbox.wait()
asyncio.run(main())
"""


def client(grace_s: float, argv: tuple[str, ...], lock_fd: int = -1) -> tuple[subprocess.Popen[str], int]:
    """A process whose fork server runs one sandbox; the process, and a pidfd of the fork server."""
    arguments = [f"test-client-{os.getpid()}", str(grace_s), str(lock_fd), json.dumps(argv)]
    process = subprocess.Popen(
        [sys.executable, "-c", CLIENT, *arguments],
        env={**os.environ, "PYTHONPATH": str(PACKAGE.parent)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        pass_fds=[lock_fd] if lock_fd >= 0 else [],
    )
    pid = int(line_of(process.stderr))
    return process, os.pidfd_open(psutil.Process(pid).ppid())


def test_the_death_of_the_client_without_a_grace() -> None:
    process, server = client(0.0, daemon_then("signal.pause()"))
    with process:
        assert line_of(process.stdout) == "up"
        process.kill()
        assert process.stdout is not None
        assert process.stdout.read() == ""
        await_end(server)


def test_after_the_death_of_the_client_sandboxes_end_when_the_grace_is_over() -> None:
    process, server = client(0.3, daemon_then("signal.pause()"))
    with process:
        assert line_of(process.stdout) == "up"
        process.kill()
        assert process.stdout is not None
        assert process.stdout.read() == ""
        await_end(server)


def test_within_the_grace_sandboxes_finish_what_they_do_and_hold_the_lock() -> None:
    with pipe() as (held, lock):
        process, server = client(600.0, ("sh", "-c", "echo on; read word; echo finished $word"), lock.fileno())
        lock.close()
        with process:
            assert line_of(process.stdout) == "on"
            process.kill()
            os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
            os.set_blocking(held.fileno(), False)
            with pytest.raises(BlockingIOError):
                os.read(held.fileno(), 1)  # somebody still holds the lock
            # The client is dead, and the sandbox goes on.
            assert process.stdin is not None
            assert process.stdout is not None
            process.stdin.write("work\n")
            process.stdin.flush()
            assert process.stdout.read() == "finished work\n"
            # With its last sandbox the server ends, long before the grace is over.
            await_end(server)
            os.set_blocking(held.fileno(), True)
            assert os.read(held.fileno(), 1) == b""  # its keeper ends after it


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_ends_the_command_line_with_128_and_its_number(by: Maker, number: signal.Signals) -> None:
    with by.start("run", "--", "sh", "-c", "echo on; exec sleep 1000") as process:
        assert line_of(process.stdout) == "on"
        process.send_signal(number)
        assert process.wait(60) == 128 + number
        assert process.stdout is not None
        assert process.stdout.read() == ""


def test_a_program_that_minds_a_signal_may_finish(by: Maker) -> None:
    code = "import signal, sys\nsignal.signal(15, lambda *_: sys.exit('bye'))\nprint('on', flush=True)\nsignal.pause()"
    with by.start("run", "--", "python3", "-c", code) as process:
        assert line_of(process.stdout) == "on"
        process.send_signal(signal.SIGTERM)
        _, said = process.communicate(timeout=60)
    assert (process.returncode, without_notice(said)) == (1, "bye\n")


def test_the_death_of_the_command_line_is_the_end_of_its_sandbox(by: Maker) -> None:
    with by.start("run", "--", *daemon_then("signal.pause()")) as process:
        assert line_of(process.stdout) == "up"
        process.kill()
        assert process.stdout is not None
        assert process.stdout.read() == ""
