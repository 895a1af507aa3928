"""The way to the fork server never gets into a sandbox, and nothing that a caller hands over ends the server."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from sandbox.errors import SandboxError
from sandbox.spawner import Spawner
from sandbox.spec import SandboxSpec
from tests.support.sandbox import PACKAGE, Maker, without_notice

ENV = {"PATH": "/usr/local/bin:/usr/bin:/bin"}
WORKSPACE = ("run", "--optional", "cgroup", "--profile", "agent")
TELL = """
import json, os, stat
kinds = {}
for name in sorted(os.listdir("/proc/self/fd"), key=int):
    try:
        status = os.stat(int(name))
    except OSError:
        continue
    kinds[name] = "socket" if stat.S_ISSOCK(status.st_mode) else status.st_rdev
with open("told", "w") as file:
    json.dump(kinds, file)
"""


@pytest.mark.parametrize("closed", ["<&-", "<&- >&-", "<&- >&- 2>&-", "2>&-"])
def test_what_the_caller_had_closed_is_dev_null_inside(by: Maker, closed: str) -> None:
    """A socket opened where 0 was free would be passed on as standard input: the fork server's own, with root's rights."""
    here = by.directory("closed")
    argv = [
        *by.interpreter,
        "-m",
        "sandbox",
        "run",
        "--optional",
        "cgroup",
        "--profile",
        "agent",
        "--",
        "python3",
        "-c",
        TELL,
    ]
    shell = ["sh", "-c", f'exec "$@" {closed}', "sh", *argv]
    done = subprocess.run(shell, cwd=here, env=by.environment(), stdin=subprocess.DEVNULL, capture_output=True, timeout=60)
    assert done.returncode == 0, done.stderr
    kinds = json.loads((here / "told").read_text())
    assert "socket" not in kinds.values()
    null = os.stat("/dev/null").st_rdev
    assert [kinds[str(number)] for number, sign in enumerate(("<&-", ">&-", "2>&-")) if sign in closed.split()] == [
        null for sign in closed.split()
    ]


def test_the_sockets_of_a_client_with_nothing_open_are_no_standard_descriptors() -> None:
    code = """
import asyncio, os, sys
sys.path.insert(0, sys.argv[1])
from sandbox.spawner import Spawner
from sandbox.spec import SandboxSpec
lock = os.open(sys.argv[2], os.O_RDWR)
os.dup2(lock, 0)
os.close(1)
spawner = Spawner.start(cgroup_name=f"test-closed-{os.getpid()}", lock_fd=0)
async def run():
    sandbox = await spawner.spawn(SandboxSpec(argv=("true",), env={"PATH": "/usr/bin:/bin"}), {})
    held = [os.readlink(f"/proc/{spawner._process.pid}/fd/{n}") for n in os.listdir(f"/proc/{spawner._process.pid}/fd")]
    ended = await sandbox.wait()
    await spawner.aclose()
    print(spawner_control, ended.code, sys.argv[2] in held, file=sys.stderr)
spawner_control = spawner._control.fileno() > 2
asyncio.run(run())
"""
    with open(f"/tmp/test-lock-{os.getpid()}", "w") as lock:
        try:
            done = subprocess.run(
                [sys.executable, "-I", "-c", code, str(PACKAGE.parent), lock.name], capture_output=True, text=True, timeout=60
            )
        finally:
            os.unlink(lock.name)
    assert done.stderr.splitlines()[-1:] == ["True 0 True"], done.stderr


async def test_the_control_socket_is_not_handed_over_under_any_number(spawner: Spawner) -> None:
    control = spawner._control.fileno()
    copy = os.dup(control)
    try:
        for descriptor in (control, copy):
            with pytest.raises(SandboxError, match="the way to the fork server itself"):
                await spawner.spawn(SandboxSpec(argv=("true",), env=ENV), {0: descriptor})
    finally:
        os.close(copy)


@pytest.mark.parametrize(
    "descriptors", [dict.fromkeys(range(3, 70), 2), {-1: 2}, {1 << 20: 2}, {3: 9999}], ids=["many", "below", "above", "shut"]
)
async def test_descriptors_that_cannot_be_meant_are_refused_and_nothing_else_ends(
    spawner: Spawner, descriptors: dict[int, int]
) -> None:
    first = await spawner.spawn(SandboxSpec(argv=("sleep", "1000"), env=ENV), {})
    with pytest.raises(SandboxError) as refused:
        await spawner.spawn(SandboxSpec(argv=("true",), env=ENV), descriptors)
    assert refused.value.step == "spec"
    assert (await (await spawner.spawn(SandboxSpec(argv=("true",), env=ENV), {})).wait()).code == 0
    first.kill()
    assert (await first.wait()).signal == 9


@pytest.mark.parametrize("fields", [{"open_files": 1024.5}, {"memory_bytes": True}, {"cwd": "/tmp", "init": "yes"}])
async def test_a_request_of_wrong_types_is_refused_and_nothing_else_ends(spawner: Spawner, fields: dict[str, object]) -> None:
    spec = SandboxSpec(argv=("true",), env=ENV, **fields)  # type: ignore[arg-type]
    with pytest.raises(SandboxError) as refused:
        await spawner.spawn(spec, {1: 2})
    assert refused.value.step == "spec"
    assert (await (await spawner.spawn(SandboxSpec(argv=("true",), env=ENV), {})).wait()).code == 0


def test_a_deleted_directory_is_told(by: Maker) -> None:
    here = by.directory("gone")
    argv = [*by.interpreter, "-m", "sandbox", *WORKSPACE, "--", "true"]
    shell = ["sh", "-c", 'rmdir "$PWD"; exec "$@"', "sh", *argv]
    done = subprocess.run(shell, cwd=here, env=by.environment(), capture_output=True, text=True, timeout=60)
    assert (done.returncode, without_notice(done.stderr)) == (125, "sandbox: cwd: the current directory is gone.\n")


async def test_memory_may_be_handed_over(spawner: Spawner) -> None:
    """It lies on no path, and so no rule of Landlock can be on it."""
    memory = os.memfd_create("given")
    os.write(memory, b"given\n")
    spec = SandboxSpec(argv=("sh", "-c", "cat /proc/self/fd/5 && echo more >&5"), env=ENV)
    assert (await (await spawner.spawn(spec, {5: memory, 2: 2})).wait()).code == 0
    assert os.pread(memory, 100, 0) == b"given\nmore\n"
    os.close(memory)
