"""Limits, as the kernel holds them: those of the process for everybody, those of cgroups where this host has them."""

from __future__ import annotations

import os
import signal

import pytest

from sandbox.errors import SandboxError
from sandbox.spawner import Spawner
from sandbox.spec import SandboxSpec
from tests.support.sandbox import MIB, Maker, cgroup_file, line_of, pipe

PAGE = os.sysconf("SC_PAGE_SIZE")
PYTHON = ("python3", "-I", "-S", "-c")
ENV = {"PATH": "/usr/local/bin:/usr/bin:/bin"}
FORK_UNTIL_REFUSED = """
import os, signal
made = 0
try:
    while made < 50:
        if os.fork() == 0:
            signal.pause()
        made += 1
except BlockingIOError:
    pass
print(made, flush=True)
"""


def needs(spawner: Spawner, limit: str) -> None:
    if spawner.limits[limit] != spawner.cgroup:
        if os.environ.get("CI"):
            pytest.fail(f"in CI nothing may be missing: {spawner.limits[limit]}")
        pytest.skip(spawner.limits[limit])


async def test_more_memory_than_allowed_ends_all_of_it(spawner: Spawner) -> None:
    needs(spawner, "memory")
    bomb = "import os\nos.fork()\nheld = []\nwhile True: held.append(bytearray(1 << 20))"
    sandbox = await spawner.spawn(SandboxSpec(argv=(*PYTHON, bomb), env=ENV, memory_bytes=48 * MIB), {})
    ended = await sandbox.wait()
    assert (ended.code, ended.signal, ended.oom_killed) == (-1, signal.SIGKILL, True)
    assert 40 * MIB < ended.memory_peak_bytes <= 48 * MIB


@pytest.mark.parametrize("pages", range(4))
async def test_what_lies_in_tmp_counts_as_memory(spawner: Spawner, pages: int) -> None:
    needs(spawner, "memory")
    fill = "dd if=/dev/zero of=/tmp/x bs=1M count=100 2>/dev/null && exit 3; exit 4"
    limit = 32 * MIB + pages * PAGE
    spec = SandboxSpec(argv=("sh", "-c", fill), env=ENV, memory_bytes=limit, tmp_bytes=200 * MIB)
    ended = await (await spawner.spawn(spec, {})).wait()
    assert ended.memory_peak_bytes <= limit
    killed, refused = (-1, signal.SIGKILL, True), (4, 0, False)
    # Which of the two it is on v1 hangs on whether the last free page goes to the file or to the program.
    assert (ended.code, ended.signal, ended.oom_killed) in ([killed] if spawner.cgroup == "v2" else [killed, refused])


async def test_forks_over_the_limit_are_refused_and_told(spawner: Spawner) -> None:
    needs(spawner, "pids")
    with pipe() as (reader, writer):
        sandbox = await spawner.spawn(SandboxSpec(argv=(*PYTHON, FORK_UNTIL_REFUSED), env=ENV, pids=6), {1: writer.fileno()})
        writer.close()
        ended = await sandbox.wait()
        assert reader.read() == "5\n"
    assert ended.pids_limit_hit
    assert not ended.oom_killed


async def test_one_that_stays_within_its_limits_is_told_of_none(spawner: Spawner) -> None:
    needs(spawner, "memory")
    spec = SandboxSpec(argv=(*PYTHON, "x = bytes(1 << 20)"), env=ENV, memory_bytes=128 * MIB, pids=20, cpu_percent=100)
    ended = await (await spawner.spawn(spec, {})).wait()
    assert (ended.code, ended.oom_killed, ended.pids_limit_hit) == (0, False, False)
    assert 0 < ended.memory_peak_bytes < 128 * MIB
    assert ended.cpu_s > 0


async def test_the_share_of_the_processor_is_set(spawner: Spawner) -> None:
    needs(spawner, "cpu")
    sandbox = await spawner.spawn(SandboxSpec(argv=("sleep", "1000"), env=ENV, cpu_percent=50), {})
    quota = cgroup_file(sandbox.pid, "cpu", "cpu.cfs_quota_us", "cpu.max")
    sandbox.kill()
    await sandbox.wait()
    assert quota.split()[0] == "50000"


async def test_a_limit_that_cannot_be_enforced_is_no_limit_but_a_refusal(spawner: Spawner) -> None:
    missing = [name for name, how in spawner.limits.items() if how != spawner.cgroup]
    if not missing:
        pytest.skip("this host enforces every limit, and that of the ordinary user is tried below")
    with pytest.raises(SandboxError) as refused:
        await spawner.spawn(SandboxSpec(argv=("true",), env=ENV, memory_bytes=MIB, pids=2, cpu_percent=1), {})
    assert refused.value.step == "cgroup"


def test_the_command_line_tells_what_memory_was_lacking(by: Maker) -> None:
    """With cgroups; without, and with no leave to go on without, there is no sandbox."""
    profile = by.profile(f'extends = ""\nmemory_bytes = {48 * MIB}\ntmp_bytes = {16 * MIB}')
    done = by.call("run", "--profile", profile, "--", *PYTHON, "held = bytearray(200 << 20)", optional=False)
    if done.returncode == 125:
        assert by.uid, done.stderr
        assert done.stderr.startswith(f"sandbox: cgroup: nothing here can hold memory_bytes = {48 * MIB}: ")
        assert "--optional cgroup" in done.stderr
    else:
        assert done.returncode == 128 + signal.SIGKILL
        assert done.stderr == f"sandbox: killed: more than {48 * MIB} bytes of memory were needed.\n"


def test_limits_of_the_process(by: Maker) -> None:
    code = """
import errno, json, os, resource, signal
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
def until_refused(act):
    count = 0
    try:
        while count < 100_000:
            act()
            count += 1
    except OSError as error:
        return [count, errno.errorcode[error.errno]]
files = until_refused(lambda: os.open("/dev/null", os.O_RDONLY))
os.closerange(3, 1000)
big = os.open("/dev/shm/big", os.O_CREAT | os.O_WRONLY, 0o600)
size = until_refused(lambda: os.write(big, bytes(4096)))
os.unlink("/dev/shm/big")
os.close(big)
PLACES = ("/tmp", "/home/worker", "/workspace", "/dev/shm")
def fill(numbers=iter(range(10**6))):
    number = next(numbers)
    file = os.open(f"{PLACES[number % 4]}/{number}", os.O_CREAT | os.O_WRONLY, 0o600)
    os.write(file, bytes(65536))
    os.close(file)
space = until_refused(fill)
raised = []
for name in ("NOFILE", "FSIZE", "CORE"):
    try:
        resource.setrlimit(getattr(resource, "RLIMIT_" + name), (1 << 30, 1 << 30))
        raised.append(name)
    except (ValueError, OSError):
        pass
print(json.dumps([files, size, space, raised]))
"""
    profile = by.profile(f"open_files = 40\nfile_size_bytes = {MIB}\ntmp_bytes = {4 * MIB}")
    files, size, space, raised = by.python(code, options=("--profile", profile))
    assert files == [37, "EMFILE"]
    assert size == [256, "EFBIG"]
    assert 50 <= space[0] <= 64, "four places that share 4 MiB"
    assert space[1] == "ENOSPC"
    assert raised == []


def test_a_program_that_crashes_leaves_no_core(by: Maker) -> None:
    workspace = by.directory("core")
    done = by.run("sh", "-c", "kill -SEGV $$", options=("--profile", "agent"), cwd=workspace)
    assert done.returncode == 128 + signal.SIGSEGV
    assert list(workspace.iterdir()) == []


def test_a_fork_bomb_ends_with_its_sandbox(by: Maker) -> None:
    """Where no cgroup holds it, the limit of its user does, which it takes upon itself here: this machine is not to suffer."""
    profile = by.profile("pids = 30")
    bomb = "import os, resource\nresource.setrlimit(resource.RLIMIT_NPROC, (200, 200))\nprint('on', flush=True)\n"
    bomb += "while True:\n  try: os.fork()\n  except OSError: pass"
    with by.start("run", "--profile", profile, "--", *PYTHON, bomb) as process:
        assert line_of(process.stdout) == "on"
        process.send_signal(signal.SIGTERM)
        # The bomb's first process dies of it, then PID 1, and so all: only then is there an end of what they write to.
        assert process.stdout is not None
        assert process.stdout.read() == ""
        assert process.wait(60) == 128 + signal.SIGTERM
