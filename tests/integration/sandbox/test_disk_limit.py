"""What a sandbox may add to the host's disks: how it is counted, and that it ends with more than that."""

from __future__ import annotations

import errno
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec
import psutil
import pytest

from sandbox.disk import Count, Counted
from sandbox.spawner import Spawner
from sandbox.spec import Bind, SandboxSpec
from sandbox.tally import DEEPEST, Room, Tally
from tests.support.sandbox import MIB, TIMEOUT_S, Maker, maker, pipe

LIMIT = 32 * MIB
FILES = 3000
ENV = {"PATH": "/usr/local/bin:/usr/bin:/bin"}
BEGINNING = """
import ctypes, os, signal, socket
def append(name):
    with open(name, "ab", buffering=0) as file:
        for _ in range(4000):
            file.write(bytes(1 << 20))
"""
WITHOUT_END = {
    "one file": "append('one')",
    "many files": "for i in range(4000): open(f'{i}', 'wb').write(bytes(1 << 20))",
    "files without a name": """
held = []
for i in range(400):
    held.append(open('file', 'wb'))
    os.unlink('file')
    held[-1].write(bytes(10 << 20))
""",
    "more of an old file": "append('old')",
    "room for a file": "os.posix_fallocate(os.open('large', os.O_CREAT | os.O_WRONLY), 0, 4 << 30); signal.pause()",
    "below a closed directory": """
os.makedirs('a/b')
os.chdir('a/b')
os.chmod('..', 0)
append('one')
""",
    "far below": f"""
for _ in range({DEEPEST} + 2):
    os.mkdir('d')
    os.chdir('d')
append('one')
""",
    "files that another thread holds": """
import threading
held, full = [], threading.Event()
def hold():
    for i in range(400):
        held.append(open('file', 'wb'))
        os.unlink('file')
        held[-1].write(bytes(10 << 20))
    signal.pause()
threading.Thread(target=hold).start()
ctypes.CDLL(None).pthread_exit(None)
""",
    "files under way between processes": """
ours, theirs = socket.socketpair()
for i in range(400):
    with open('file', 'wb') as file:
        os.unlink('file')
        file.write(bytes(10 << 20))
        socket.send_fds(ours, [b'.'], [file.fileno()])
""",
    "empty files": "for i in range(400_000): os.mknod(f'{i}')",
}


@pytest.fixture
def work(tmp_path: Path) -> Iterator[Path]:
    """Removed at once with all beside it: it is large."""
    made = tmp_path / "work"
    made.mkdir()
    (made / "old").write_bytes(bytes(MIB))
    if os.geteuid() == 0:
        for path in (made, made / "old"):
            os.chown(path, 12345, 12345)
    yield made
    shutil.rmtree(tmp_path, ignore_errors=True)


def specification(bind: Bind, code: str) -> SandboxSpec:
    argv = ("python3", "-I", "-S", "-c", BEGINNING + code)
    return SandboxSpec(argv=argv, env=ENV, binds=(bind,), cwd=bind.source, disk_bytes=LIMIT, disk_files=FILES)


@pytest.mark.parametrize("code", WITHOUT_END.values(), ids=WITHOUT_END)
async def test_who_adds_without_end_is_killed(spawner: Spawner, work: Path, code: str) -> None:
    sandbox = await spawner.spawn(specification(Bind(str(work), writable=True), code), {})
    ended = await sandbox.wait()
    assert (ended.signal, ended.disk_limit_hit) == (signal.SIGKILL, True)


@pytest.mark.skipif(os.geteuid() != 0, reason="the view is made by root, and another test makes one as a user")
async def test_what_is_written_to_a_view_counts(spawner: Spawner, work: Path, tmp_path: Path) -> None:
    layers = tmp_path / "layers"
    for directory in (layers, layers / "upper", layers / "work"):
        directory.mkdir()
        os.chown(directory, 12345, 12345)
    bind = Bind(str(work), writable=True, layers=str(layers))
    for kind in ("many files", "files without a name"):
        ended = await (await spawner.spawn(specification(bind, WITHOUT_END[kind]), {})).wait()
        assert (ended.signal, ended.disk_limit_hit) == (signal.SIGKILL, True)
    assert os.listdir(work) == ["old"]


async def test_who_adds_less_or_takes_it_away_again_goes_on(spawner: Spawner, work: Path) -> None:
    code = f"""
for _ in range(20):
    open('file', 'wb').write(bytes({LIMIT} // 2))
    os.unlink('file')
for i in range({FILES} // 2):
    os.mknod(f'{{i}}')
"""
    ended = await (await spawner.spawn(specification(Bind(str(work), writable=True), code), {})).wait()
    assert (ended.code, ended.signal, ended.disk_limit_hit) == (0, 0, False)


async def test_what_was_added_before_a_renewal_does_not_count(spawner: Spawner, work: Path) -> None:
    code = f"""
for name in 'abc':
    open(name, 'wb').write(bytes({LIMIT} // 2))
    os.write(1, b'.')
    os.read(0, 1)
signal.pause()
"""
    with pipe() as (said, told), pipe() as (heard, answer):
        spec = specification(Bind(str(work), writable=True), code)
        sandbox = await spawner.spawn(spec, {0: heard.fileno(), 1: told.fileno()})
        told.close()
        for _ in range(2):
            assert said.read(1) == "."
            spawner.renew(sandbox)
            answer.write("\n")
            answer.flush()
        assert said.read(1) == "."
        assert psutil.pid_exists(sandbox.pid)
        sandbox.kill()
        assert not (await sandbox.wait()).disk_limit_hit


async def test_without_a_counter_nobody_goes_on_who_is_limited(spawner: Spawner, work: Path) -> None:
    limited = await spawner.spawn(specification(Bind(str(work), writable=True), "signal.pause()"), {})
    spec = SandboxSpec(argv=("sleep", "1000"), env=ENV)
    free = await spawner.spawn(spec, {})
    server = psutil.Process(free.pid).parent()
    assert server is not None
    (counter,) = (child.pid for child in server.children() if namespace_of(child.pid) == namespace_of(server.pid))
    os.kill(counter, signal.SIGKILL)
    assert (await limited.wait()).disk_limit_hit
    again = await spawner.spawn(specification(Bind(str(work), writable=True), "pass"), {})
    assert (await again.wait()).code == 0
    free.kill()
    assert not (await free.wait()).disk_limit_hit


def namespace_of(pid: int) -> int:
    return os.stat(f"/proc/{pid}/ns/pid").st_ino


def test_the_user_is_told_why_it_was_killed(by: Maker) -> None:
    profile = by.profile(f'extends = ""\nhere = "write"\ndisk_bytes = {LIMIT}\ndisk_files = {FILES}\n')
    work = by.directory("work")
    code = WITHOUT_END["one file"]
    done = by.run("python3", "-c", BEGINNING + code, options=("--profile", profile), cwd=work)
    assert done.returncode == 128 + signal.SIGKILL
    assert f"sandbox: killed: it added more than {LIMIT} bytes or {FILES} files to the disk" in done.stderr


@pytest.mark.parametrize("kind", ["files without a name", "files that another thread holds", "below a closed directory"])
def test_what_is_hidden_counts_for_everybody(by: Maker, kind: str) -> None:
    profile = by.profile(f'extends = ""\nhere = "write"\ndisk_bytes = {LIMIT}\n')
    done = by.run("python3", "-c", BEGINNING + WITHOUT_END[kind], options=("--profile", profile), cwd=by.directory("work"))
    assert "sandbox: killed: it added more than" in done.stderr, done


def test_a_process_that_has_ended_hides_nothing(by: Maker) -> None:
    """Of a dead child that nobody has waited for, an ordinary user may see nothing."""
    code = """
import os
from sandbox.tally import Room, Tally
if os.fork() == 0:
    os._exit(0)
os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOWAIT)
Tally(0, Room()).held_by(os.getpid(), trusted=False)
print("counted")
"""
    done = subprocess.run(
        [*by.interpreter, "-c", code],
        cwd=by.home,
        env=by.environment(),
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    )
    assert done.stdout == "counted\n", done


@pytest.mark.skipif(os.geteuid() != 0, reason="an ordinary user has no directories of others")
def test_what_is_closed_to_the_user_is_passed_over() -> None:
    with maker("ordinary") as by:
        work = by.directory("work")
        for name, mode in (("names can be read", 0o744), ("nothing can be read", 0o700)):
            (work / name).mkdir()
            (work / name / "file").touch()
            (work / name).chmod(mode)
        profile = by.profile(f'extends = ""\nhere = "write"\ndisk_bytes = {LIMIT}\n')
        code = f"open('less', 'wb').write(bytes({LIMIT} // 2)); os.unlink('less'); append('one')"
        done = by.run("python3", "-c", BEGINNING + code, options=("--profile", profile), cwd=work)
    assert "sandbox: killed: it added more than" in done.stderr, done


@pytest.mark.skipif(os.geteuid() != 0, reason="the view is made by root")
async def test_a_strange_name_is_no_reason_to_end_anybody(spawner: Spawner, work: Path, tmp_path: Path) -> None:
    other = await spawner.spawn(specification(Bind(str(work), writable=True), "signal.pause()"), {})
    strange = tmp_path / "a\rb"
    layers = tmp_path / "layers"
    for directory in (strange, layers, layers / "upper", layers / "work"):
        directory.mkdir()
        os.chown(directory, 12345, 12345)
    bind = Bind(str(strange), writable=True, layers=str(layers))
    ended = await (await spawner.spawn(specification(bind, WITHOUT_END["files without a name"]), {})).wait()
    assert ended.disk_limit_hit
    other.kill()
    assert not (await other.wait()).disk_limit_hit


@pytest.mark.skipif(os.geteuid() != 0, reason="root may write to the other file system")
async def test_every_file_system_counts(spawner: Spawner, work: Path) -> None:
    with tempfile.TemporaryDirectory(dir="/dev/shm") as shared:
        os.chown(shared, 12345, 12345)
        spec = specification(Bind(str(work), writable=True), f"os.chdir({shared!r}); append('one')")
        spec = msgspec.structs.replace(spec, binds=(*spec.binds, Bind(shared, writable=True)))
        assert (await (await spawner.spawn(spec, {})).wait()).disk_limit_hit


NOBODY = 4_194_303
"""No process has this number."""


def counted(path: Path, limit: Room) -> Counted:
    """Begun."""
    one = Counted(Count(1, NOBODY, False, (str(path),), limit, time.time_ns()))
    assert not one.passed()
    return one


def test_what_others_remove_is_not_for_it_to_take(work: Path, tmp_path: Path) -> None:
    (tmp_path / "of others").write_bytes(bytes(40 * MIB))
    one = counted(work, Room(8 * MIB, 0))
    (tmp_path / "of others").unlink()
    assert not one.passed()
    (work / "too much").write_bytes(bytes(10 * MIB))
    assert one.passed()
    one.close()


def test_what_others_add_to_the_file_system_does_not_count(work: Path, tmp_path: Path) -> None:
    one = counted(work, Room(8 * MIB, 0))
    (tmp_path / "of others").write_bytes(bytes(20 * MIB))
    assert not one.passed()
    (work / "mine").write_bytes(bytes(4 * MIB))
    (tmp_path / "more of others").write_bytes(bytes(20 * MIB))
    assert not one.passed()
    (work / "too much").write_bytes(bytes(5 * MIB))
    assert one.passed()
    one.close()


def test_what_has_no_limit_is_no_reason_to_count_again(work: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tallies = []
    monkeypatch.setattr(Tally, "below", lambda tally, root: tallies.append(tally))
    one = counted(work, Room(8 * MIB, 0))
    (tmp_path / "of others").write_bytes(bytes(10 * MIB))
    for number in range(20):
        assert not one.passed()
        (tmp_path / f"{number}").touch()
    assert len(tallies) == 1
    one.close()


def test_a_disk_that_is_gone_ends_nobody(work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one, other = counted(work, Room(MIB, 10)), Counted(Count(2, NOBODY, False, (str(work),), Room(MIB, 10), 0))

    def gone(descriptor: int) -> object:
        raise OSError(errno.ESTALE, "Stale file handle")

    monkeypatch.setattr(os, "fstatvfs", gone)
    assert not one.passed()
    assert not other.passed()
    one.close()
    other.close()


def test_a_file_with_several_names_counts_once(work: Path) -> None:
    one = counted(work, Room(12 * MIB, 0))
    (work / "file").write_bytes(bytes(8 * MIB))
    os.link(work / "file", work / "other")
    (work / "pad").write_bytes(bytes(3 * MIB))
    assert not one.passed()
    one.close()


def test_the_less_is_left_the_sooner_it_looks_again(work: Path) -> None:
    much, little = counted(work, Room(1 << 40, 0)), counted(work, Room(MIB, 0))
    assert not much.passed()
    assert not little.passed()
    assert little.due < much.due
    much.close()
    little.close()
