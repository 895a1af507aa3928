"""What a profile grants or takes away beside paths of the host: hidden paths, memory, groups of calls, devices, time."""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from sandbox.spawner import Spawner
from sandbox.spec import Bind, SandboxSpec
from tests.support.sandbox import TIMEOUT_S, Maker, cgroup_file, pipe

ENV = {"PATH": "/usr/local/bin:/usr/bin:/bin"}
AGENT = 'extends = "agent"\n'


def test_masked_paths_are_empty_and_closed(by: Maker) -> None:
    here = by.directory("here")
    (here / "secrets").mkdir()
    (here / "secrets" / "key").write_text("secret")
    (here / ".env").write_text("secret")
    (here / "link").symlink_to(".env")
    (here / "open").write_text("open")
    for path in here.rglob("*"):
        if os.geteuid() == 0:
            os.chown(path, by.uid, by.uid, follow_symlinks=False)
    masked = ", ".join(f'"{here}/{name}"' for name in (".env", "secrets", "missing", "missing/too"))
    script = (
        "cat .env link secrets/key open; ls secrets; rm -rf .env secrets; mv secrets x; chmod 777 .env; echo x >.env; cat .env"
    )
    done = by.run("sh", "-c", script, options=("--profile", by.profile(f"{AGENT}masked = [{masked}]")), cwd=here)
    assert "secret" not in done.stdout
    assert done.stdout == "open"
    assert "Permission denied" in done.stderr
    assert (here / ".env").read_text() == (here / "secrets" / "key").read_text() == "secret"
    assert not (here / "missing").exists()


def test_a_mask_covers_what_a_link_of_that_name_leads_to(by: Maker) -> None:
    here = by.directory("here")
    (here / "real").write_text("secret")
    (here / "name").symlink_to("real")
    done = by.run("cat", "name", "real", options=("--profile", by.profile(f'{AGENT}masked = ["{here}/name"]')), cwd=here)
    assert (done.stdout, done.stderr.count("Permission denied")) == ("", 2)


def test_more_private_directories(by: Maker) -> None:
    here = by.directory("here")
    (here / "cache").mkdir()
    (here / "cache" / "mine").write_text("of the host")
    if os.geteuid() == 0:
        os.chown(here / "cache", by.uid, by.uid)
    profile = by.profile(f'{AGENT}tmpfs = ["/opt/scratch", "{here}/cache"]')
    script = "ls cache; echo x >cache/new; echo y >/opt/scratch/new; cat cache/new /opt/scratch/new; ls /run"
    done = by.run("sh", "-c", script, options=("--profile", profile), cwd=here)
    assert (done.returncode, done.stdout) == (0, "x\ny\n"), done.stderr
    assert [path.name for path in (here / "cache").iterdir()] == ["mine"]
    refused = by.run("true", options=("--profile", by.profile(f'{AGENT}tmpfs = ["{here}/none"]')), cwd=here)
    assert refused.returncode == 125
    assert f"tmpfs: {here}/none: No such file or directory." in refused.stderr


TRACE = """
import ctypes, os, signal
libc = ctypes.CDLL(None, use_errno=True)
child = os.fork()
if child == 0:
    signal.pause()
attached = libc.ptrace(16, child, 0, 0)
print(attached, ctypes.get_errno(), flush=True)
os.kill(child, signal.SIGKILL)
"""


def test_a_debugger_works_where_it_is_granted_alone(by: Maker) -> None:
    def traced(text: str) -> str:
        done = by.run("python3", "-c", TRACE, options=("--profile", by.profile(text)))
        assert done.returncode == 0, done.stderr
        return str(done.stdout)

    assert traced("") == "-1 1\n"
    assert traced('allow_syscalls = ["debugging"]') == "0 0\n"
    assert traced('allow_syscalls = ["debugging"]\ndeny_syscalls = ["debugging"]') == "-1 1\n"


def test_a_group_of_calls_can_be_taken_away(by: Maker) -> None:
    code = "import socket; a, b = socket.socketpair(); a.send(b'x'); print(b.recv(1)); socket.socket()"
    done = by.run("python3", "-c", code, options=("--profile", by.profile('deny_syscalls = ["network"]')))
    assert done.stdout == "b'x'\n"
    assert "PermissionError" in done.stderr


def test_what_takes_too_long_is_killed_with_all_its_processes(by: Maker) -> None:
    script = "trap '' TERM INT HUP; sleep 1000 & sleep 1000"
    done = by.run("sh", "-c", script, options=("--profile", by.profile("wall_s = 0.5")))
    assert done.returncode == 137
    assert done.stderr.endswith("sandbox: killed: it was not done within 0.5 s.\n")


def test_what_is_done_in_time_is_not_told_of_it(by: Maker) -> None:
    assert by.run("true", options=("--profile", by.profile(f"wall_s = {TIMEOUT_S}"))).stderr == ""


async def test_the_weight_of_the_processor_is_set(spawner: Spawner) -> None:
    if spawner.limits["cpu weight"] != spawner.cgroup:
        pytest.skip(spawner.limits["cpu weight"])
    sandbox = await spawner.spawn(SandboxSpec(argv=("sleep", "1000"), env=ENV, cpu_weight=50), {})
    weight = cgroup_file(sandbox.pid, "cpu", "cpu.shares", "cpu.weight")
    sandbox.kill()
    await sandbox.wait()
    assert weight in ("512", "50")


async def test_what_is_read_from_disks_and_written_is_limited(spawner: Spawner) -> None:
    if spawner.limits["io"] != spawner.cgroup:
        pytest.skip(spawner.limits["io"])
    spec = SandboxSpec(argv=("sleep", "1000"), env=ENV, io_read_bytes_per_s=1_000_000, io_write_bytes_per_s=2_000_000)
    sandbox = await spawner.spawn(spec, {})
    read = cgroup_file(sandbox.pid, "blkio", "blkio.throttle.read_bps_device", "io.max")
    written = cgroup_file(sandbox.pid, "blkio", "blkio.throttle.write_bps_device", "io.max")
    sandbox.kill()
    await sandbox.wait()
    assert "1000000" in read
    assert "2000000" in written


async def test_swap_is_limited_beside_memory(spawner: Spawner) -> None:
    if spawner.limits["memory"] != spawner.cgroup:
        pytest.skip(spawner.limits["memory"])
    for swap, v1, v2 in ((0, 64 << 20, "0"), (16 << 20, 80 << 20, str(16 << 20))):
        spec = SandboxSpec(argv=("sleep", "1000"), env=ENV, memory_bytes=64 << 20, swap_bytes=swap)
        sandbox = await spawner.spawn(spec, {})
        try:
            found = cgroup_file(sandbox.pid, "memory", "memory.memsw.limit_in_bytes", "memory.swap.max")
        except AssertionError:
            pytest.skip("this kernel does not count swap")
        finally:
            sandbox.kill()
            await sandbox.wait()
        assert found == (str(v1) if spawner.cgroup == "v1" else v2)


@pytest.fixture
def gpu() -> Iterator[str]:
    """A device of the name of a GPU's, which is /dev/zero, and of a group that is not root's."""
    path = "/dev/nvidia-of-a-test"
    try:
        os.mknod(path, stat.S_IFCHR | 0o660, os.makedev(1, 5))
    except OSError as error:
        pytest.skip(f"no device can be made here: {error}")
    try:
        os.chown(path, 0, 4242)
        os.chmod(path, 0o660)
        yield path
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)


async def test_a_device_is_there_where_it_is_granted_and_usable_by_its_group(spawner: Spawner, gpu: str) -> None:
    async def seen(*devices: str) -> str:
        with pipe() as (reader, writer):
            script = f"ls /dev | grep nvidia; head -c 3 {gpu} | od -An -tx1; id -G"
            spec = SandboxSpec(argv=("sh", "-c", script), env=ENV, devices=devices, hostname="g")
            sandbox = await spawner.spawn(spec, {1: writer.fileno()})
            writer.close()
            await sandbox.wait()
            return reader.read()

    assert await seen() == "1900000000\n"
    assert await seen("/dev/nvidia*", "/dev/kfd") == "nvidia-of-a-test\n 00 00 00\n1900000000 4242\n"


async def test_a_file_that_calls_itself_a_gpu_is_none(spawner: Spawner, tmp_path: Path, gpu: str) -> None:
    os.unlink(gpu)
    Path(gpu).write_text("no device")
    with pytest.raises(Exception, match="is no character device"):
        await spawner.spawn(SandboxSpec(argv=("true",), env=ENV, devices=(gpu,), binds=(Bind(str(tmp_path)),)), {})
