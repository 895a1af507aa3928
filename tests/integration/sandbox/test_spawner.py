"""The fork server as its client sees it: descriptors, listeners, refusals, cancellation, many at once."""

from __future__ import annotations

import asyncio
import ctypes
import os
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from sandbox.errors import SandboxError
from sandbox.spawner import Spawner
from sandbox.spec import Bind, SandboxSpec
from tests.support.sandbox import Maker, maker, pipe

ENV = {"PATH": "/usr/local/bin:/usr/bin:/bin"}


def shell(script: str, **fields: object) -> SandboxSpec:
    return SandboxSpec(argv=("sh", "-c", script), env=ENV, **fields)  # type: ignore[arg-type]


async def said(spawner: Spawner, spec: SandboxSpec) -> str:
    with pipe() as (reader, writer):
        sandbox = await spawner.spawn(spec, {1: writer.fileno()})
        writer.close()
        text = reader.read()
    await sandbox.wait()
    return text


async def said_or_refused(spawner: Spawner, spec: SandboxSpec) -> str:
    try:
        return await said(spawner, spec)
    except SandboxError as error:
        return f"refused at {error.step}"


async def test_descriptors_have_the_numbers_that_were_asked_for(spawner: Spawner) -> None:
    """Also those above the numbers that the server itself uses on the way, and in an order in which one hides another."""
    code = "import os, sys\nfor word in sys.argv[1:]: os.write(int(word), b'for %s' % word.encode())"
    for numbers in ((5,), (64, 65, 3), (68, 5, 66), (1, 2), (3, 1, 67, 200)):
        pipes = {number: os.pipe() for number in numbers}
        spec = SandboxSpec(argv=("python3", "-I", "-S", "-c", code, *map(str, numbers)), env=ENV)
        sandbox = await spawner.spawn(spec, {number: writer for number, (_, writer) in pipes.items()})
        for _, writer in pipes.values():
            os.close(writer)
        assert (await sandbox.wait()).code == 0
        for number, (reader, _) in pipes.items():
            assert os.read(reader, 100) == f"for {number}".encode()
            os.close(reader)


async def test_what_the_fork_server_itself_inherits_ends_with_it(tmp_path: Path) -> None:
    """It gets the lock as a descriptor that any child inherits: a sandbox that held it would hold up the next daemon."""
    with (tmp_path / "lock").open("w") as lock:
        spawner = Spawner.start(cgroup_name=f"test-lock-{os.getpid()}", lock_fd=lock.fileno())
        try:
            code = "import os; print([n for n in os.listdir('/proc/self/fd') if os.path.exists('/proc/self/fd/' + n)])"
            for init in (False, True):
                spec = SandboxSpec(argv=("python3", "-I", "-S", "-c", code), env=ENV, init=init)
                assert await said(spawner, spec) == "['0', '1', '2']\n"
        finally:
            await spawner.aclose()


async def test_standard_descriptors_that_are_not_given_are_dev_null(spawner: Spawner) -> None:
    code = "import os; os.write(9, ' '.join(os.readlink(f'/proc/self/fd/{number}') for number in range(3)).encode())"
    with pipe() as (reader, writer):
        sandbox = await spawner.spawn(SandboxSpec(argv=("python3", "-I", "-S", "-c", code), env=ENV), {9: writer.fileno()})
        writer.close()
        await sandbox.wait()
        assert reader.read() == "/dev/null /dev/null /dev/null"


async def test_too_many_descriptors_are_refused_and_the_server_lives(spawner: Spawner) -> None:
    with pytest.raises(SandboxError, match="65 descriptors"):
        await spawner.spawn(shell("true"), dict.fromkeys(range(65), 0))
    ended = await (await spawner.spawn(shell("exit 3"), dict.fromkeys(range(64), 2))).wait()
    assert ended.code == 3


async def test_listeners_are_of_the_inside_and_the_callers(spawner: Spawner) -> None:
    code = """
import socket
for port in (8080, 8081):
    connection = socket.create_connection(("127.0.0.1", port))
    connection.sendall(b"to %d" % port)
    connection.close()
"""
    spec = SandboxSpec(argv=("python3", "-I", "-S", "-c", code), env=ENV, loopback_listen=(8080, 8081))
    sandbox = await spawner.spawn(spec, {2: 2})
    try:
        assert [listener.getsockname() for listener in sandbox.listeners] == [("127.0.0.1", 8080), ("127.0.0.1", 8081)]
        for listener in sandbox.listeners:
            assert not os.get_inheritable(listener.fileno())
            connection, _ = await asyncio.to_thread(listener.accept)
            with connection:
                assert connection.recv(100) == b"to %d" % listener.getsockname()[1]
    finally:
        for listener in sandbox.listeners:
            listener.close()
    assert (await sandbox.wait()).code == 0
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", 8081))


async def test_what_the_client_receives_is_not_passed_on_to_its_children(spawner: Spawner) -> None:
    sandbox = await spawner.spawn(shell("read x", loopback_listen=(80,)), {})
    inherited = await asyncio.to_thread(_inherited_by_a_child)
    await sandbox.wait()
    for listener in sandbox.listeners:
        listener.close()
    assert inherited == await asyncio.to_thread(_inherited_by_a_child)


def _inherited_by_a_child() -> bytes:
    """How many descriptors a child has that closes none of its own accord."""
    code = "import os; print(len(os.listdir('/proc/self/fd')))"
    return subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, close_fds=False).stdout


async def test_refusals_name_the_step_and_the_server_goes_on(spawner: Spawner, tmp_path: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to(tmp_path)
    for spec, step, told in (
        (shell("true", uid=0), "spec", "uid"),
        (shell("true", cwd="/not/there"), "cwd", "/not/there: No such file or directory inside the sandbox."),
        (shell("true", binds=(Bind("/not/there"),)), "bind", "/not/there: No such file or directory."),
        (shell("true", binds=(Bind(str(link), writable=True),)), "bind", f"{link}: is reached through a symbolic link."),
        (SandboxSpec(argv=("nosuch",), env=ENV), "exec", "nosuch is not there inside."),
        (SandboxSpec(argv=("sh", "x" * 140_000), env=ENV), "spec", "the limit is"),
    ):
        with pytest.raises(SandboxError) as refused:
            await spawner.spawn(spec, {})
        assert refused.value.step == step
        assert told in refused.value.message
    assert await said(spawner, shell("echo still here")) == "still here\n"


async def test_without_init_the_program_is_pid_1_and_dies_of_what_it_handles(spawner: Spawner) -> None:
    assert await said(spawner, shell("echo $$")) == "1\n"
    with pipe() as (reader, writer):
        sandbox = await spawner.spawn(shell("trap 'exit 9' TERM; echo on; while true; do read x; done"), {1: writer.fileno()})
        assert reader.readline() == "on\n"
        sandbox.signal(signal.SIGTERM)
        assert (await sandbox.wait()).code == 9


async def test_every_sandbox_has_its_own_files_and_processes(spawner: Spawner) -> None:
    script = "echo $1 >/tmp/mine; sleep 0.01; ls /tmp; cat /tmp/mine; ls -d /proc/[0-9]* | wc -l"
    texts = await asyncio.gather(
        *(said(spawner, SandboxSpec(argv=("sh", "-c", script, "sh", f"number-{number}"), env=ENV)) for number in range(20))
    )
    assert [text.split()[:2] for text in texts] == [["mine", f"number-{number}"] for number in range(20)]
    assert all(int(text.split()[2]) <= 4 for text in texts)


async def test_a_cancelled_spawn_leaves_nothing_running(spawner: Spawner) -> None:
    with pipe() as (reader, writer):
        spec = shell("echo on; exec sleep 1000", loopback_listen=(80,))
        tasks = [asyncio.create_task(spawner.spawn(spec, {1: writer.fileno()})) for _ in range(10)]
        await asyncio.sleep(0)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        writer.close()
        assert await asyncio.to_thread(reader.read) in ["on\n" * count for count in range(11)]


async def test_waiting_may_be_given_up_and_taken_up_again(spawner: Spawner) -> None:
    sandbox = await spawner.spawn(shell("exec sleep 1000"), {})
    waiting = asyncio.create_task(sandbox.wait())
    await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    sandbox.kill()
    assert (await sandbox.wait()).signal == signal.SIGKILL
    assert (await sandbox.wait()).signal == signal.SIGKILL


async def test_a_second_fork_server_of_the_same_name_is_refused(spawner: Spawner) -> None:
    if spawner.cgroup == "none":
        pytest.skip("names are those of cgroups, and this host has none for us")
    with pytest.raises(SandboxError, match="used by another process"):
        Spawner.start(cgroup_name=f"test-spawner-{os.getpid()}")


@pytest.mark.skipif(os.geteuid() != 0, reason="for a user who is not root the kernel's own rights decide")
async def test_a_workspace_that_is_swapped_for_a_link_is_never_followed(spawner: Spawner) -> None:
    """Its owner exchanges it for a link to what only root may read, again and again while sandboxes are made."""
    owner = 23456
    with maker("root") as by:
        secret = by.directory("secret", mode=0o700)
        (secret / "file").write_text("the secret")
        real = _workspace_with_link(by, owner, secret)
        swapping = threading.Event()
        swapper = threading.Thread(target=_swap, args=(real, real.with_name("link"), swapping))
        swapper.start()
        texts: list[str] = []
        try:
            spec = shell("cat /workspace/file", binds=(Bind(str(real), "/workspace", writable=True),))
            texts += [await said_or_refused(spawner, spec) for _ in range(60)]
        finally:
            swapping.set()
            swapper.join()
    assert set(texts) <= {"the workspace", "refused at bind"}


def _workspace_with_link(by: Maker, owner: int, secret: Path) -> Path:
    home = by.directory("owned", owner)
    real = home / "real"
    real.mkdir()
    (real / "file").write_text("the workspace")
    (home / "link").symlink_to(secret)
    for path in (real, real / "file"):
        os.chown(path, owner, owner)
    return real


def _swap(one: Path, other: Path, stop: threading.Event) -> None:
    exchange = 2  # RENAME_EXCHANGE of renameat2(2)
    libc = ctypes.CDLL(None, use_errno=True)
    while not stop.is_set():
        assert libc.renameat2(-100, os.fsencode(one), -100, os.fsencode(other), exchange) == 0, ctypes.get_errno()
