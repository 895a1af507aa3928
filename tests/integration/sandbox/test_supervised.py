"""What a supervised sandbox tells of what its program tries, and that its answers stay what they are without."""

from __future__ import annotations

import asyncio
import errno
import os
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from sandbox.notify_events import Attempt, Event, Follower, Missed
from sandbox.spawner import Exit, Spawner
from sandbox.spec import SandboxSpec
from tests.support.sandbox import Maker, remains

TRIES = """
import ctypes, json, os, socket, sys
libc = ctypes.CDLL(None, use_errno=True)
number, CLONE_NEWUSER = {"ptrace": 101, "keyctl": 250}, 0x10000000
def failed(result):
    return ctypes.get_errno() if result == -1 else 0
def error_of(work):
    try:
        work()
    except OSError as error:
        return error.errno
    return 0
def sockets(kind, address):
    with socket.socket(kind, socket.SOCK_STREAM) as sock:
        sock.connect(address)
answers = {
    "mount": failed(libc.mount(b"none", b"/mnt", b"tmpfs", 0, None)),
    "ptrace": failed(libc.ptrace(16, 1, 0, 0)),
    "unshare": failed(libc.unshare(CLONE_NEWUSER)),
    "chmod": error_of(lambda: os.chmod("/tmp", 0o4755)),
    "ioctl": failed(libc.ioctl(0, 0x5412, b"x")),
    "vsock": error_of(lambda: socket.socket(40, socket.SOCK_STREAM, 0)),
    "connect": error_of(lambda: sockets(socket.AF_INET, ("192.0.2.1", 443))),
    "loopback": error_of(lambda: sockets(socket.AF_INET, ("127.0.0.1", 9))),
    "docker": error_of(lambda: sockets(socket.AF_UNIX, "/var/run/docker.sock")),
    "shadow": error_of(lambda: open("/etc/shadow")),
    "usr": error_of(lambda: open("/usr/made", "w")),
    "own": error_of(lambda: open("/tmp/made", "w")),
    "unlink": error_of(lambda: os.unlink("/etc/os-release")),
}
print(json.dumps(answers))
"""
REFUSED = [
    'refused mount("/mnt") by pid 2 (python3): EPERM',
    "refused ptrace(request 16, pid 1) by pid 2 (python3): EPERM",
    "refused unshare(flags 0x10000000) by pid 2 (python3): EPERM",
    'refused chmod("/tmp", mode 0o4755) by pid 2 (python3): EPERM',
    "refused ioctl(request 0x5412) by pid 2 (python3): EPERM",
    "refused socket(family 40, type 1, protocol 0) by pid 2 (python3): EAFNOSUPPORT",
    'has no network: connect("192.0.2.1:443") by pid 2 (python3)',
    'hid "unix:/var/run/docker.sock": connect by pid 2 (python3)',
]
HIDDEN = [
    'hid "/etc/shadow": openat by pid 2 (python3)',
    'kept "/usr/made" read-only: openat by pid 2 (python3)',
    'kept "/etc/os-release" read-only: unlink by pid 2 (python3)',
]


def told(stderr: str) -> list[str]:
    return [line.removeprefix("sandbox: the sandbox ") for line in stderr.splitlines()]


def tried(by: Maker, group: str) -> tuple[str, list[str]]:
    done = by.run("python3", "-I", "-S", "-c", TRIES, options=("--supervise", group))
    assert done.returncode == 0, done.stderr
    return done.stdout, told(done.stderr)


def test_what_is_tried_in_vain_is_told_and_answered_as_ever(by: Maker) -> None:
    unsupervised, nothing = tried(by, "off")
    assert nothing == []
    assert tried(by, "refused") == (unsupervised, REFUSED)
    answers, lines = tried(by, "files")
    assert (answers, sorted(lines)) == (unsupervised, sorted(REFUSED + HIDDEN))


def test_a_profile_can_ask_for_it(by: Maker) -> None:
    done = by.run("unshare", "--user", "true", options=("--profile", by.profile('supervise = "refused"\n')))
    assert "sandbox: the sandbox refused unshare(flags 0x10000000) by pid 2 (unshare): EPERM" in done.stderr
    done = by.run("true", options=("--profile", by.profile('supervise = "record"\n')))
    assert (done.returncode, "supervise" in done.stderr) == (125, True)


def test_what_is_protected_and_hidden_is_told_and_what_is_private_is_not(by: Maker) -> None:
    here = by.directory("here")
    subprocess.run(["git", "init", "-q", here / "part"], check=True)
    (here / ".env").write_text("secret")
    (here / "cache").mkdir()
    if os.geteuid() == 0:
        subprocess.run(["chown", "-R", f"{by.uid}:{by.uid}", here], check=True)
    profile = by.profile(f'extends = "agent"\nsupervise = "files"\nmasked = ["{here}/.env"]\ntmpfs = ["{here}/cache"]\n')
    script = "cat .env; echo x >part/.git/hooks/new; echo x >.envrc; echo x >cache/new; echo x >new"
    done = by.run("sh", "-c", script, options=("--profile", profile), cwd=here)
    assert done.returncode == 0, done.stderr
    assert sorted(line for line in told(done.stderr) if line.startswith(("hid", "kept")) and str(here) in line) == [
        f'hid "{here}/.env": openat by pid 3 (cat)',
        f'kept "{here}/.envrc" read-only: openat by pid 2 (sh)',
        f'kept "{here}/part/.git/hooks/new" read-only: openat by pid 2 (sh)',
    ]


def test_names_cannot_write_into_a_terminal(by: Maker) -> None:
    code = "import os\ntry: os.open('/etc/\\x1b[31m\\n\\u202e\"x', 0)\nexcept OSError: pass"
    done = by.run("python3", "-I", "-S", "-c", code, options=("--supervise", "files"))
    assert told(done.stderr) == ['hid "/etc/\\x1b[31m\\n\\u202e\\"x": openat by pid 2 (python3)']


def test_threads_and_relative_paths(by: Maker) -> None:
    code = """
import os, threading
def work():
    for path in ("../etc/gshadow", "shadow"):
        try:
            os.open(path, os.O_RDONLY, dir_fd=os.open("/etc", os.O_RDONLY) if path == "shadow" else None)
        except OSError:
            pass
os.chdir("/usr")
thread = threading.Thread(target=work)
thread.start()
thread.join()
"""
    done = by.run("python3", "-I", "-S", "-c", code, options=("--supervise", "files"))
    assert told(done.stderr) == [f'hid "/etc/{name}": openat by pid 2 (python3)' for name in ("gshadow", "shadow")]


def server_of(spawner: Spawner) -> psutil.Process:
    assert spawner._process is not None
    (server,) = psutil.Process(spawner._process.pid).children()
    return server


def supervisor_of(server: psutil.Process) -> psutil.Process:
    """The only child that is in the mount namespace of the fork server."""
    (found,) = (child for child in server.children() if mounts_of(child) == mounts_of(server))
    return found


def mounts_of(process: psutil.Process) -> str:
    return os.readlink(f"/proc/{process.pid}/ns/mnt")


async def supervised(spawner: Spawner, group: str, *argv: str, on_event: Callable[[Event], None]) -> Exit:
    spec = SandboxSpec(argv=argv, env={"PATH": "/usr/bin:/bin"}, supervise=group)  # type: ignore[arg-type]
    sandbox = await spawner.spawn(spec, {2: 2})
    assert sandbox.events is not None
    follower = Follower(sandbox.events, on_event)
    exit = await sandbox.wait()
    await follower.drained(30.0)
    return exit


FLOOD = "import ctypes; libc = ctypes.CDLL(None)\nfor _ in range(5000): libc.ptrace(0, 0, 0, 0)"


async def test_a_flood_is_counted_and_no_call_of_it_is_lost(spawner: Spawner) -> None:
    events: list[Event] = []
    exit = await supervised(spawner, "refused", "python3", "-I", "-S", "-c", FLOOD, on_event=events.append)
    assert exit.code == 0
    one_by_one = [event for event in events if isinstance(event, Attempt)]
    assert 100 <= len(one_by_one) < 5000
    assert len(one_by_one) + sum(event.count for event in events if isinstance(event, Missed)) == 5000


async def test_nobody_who_listens_holds_nothing_up(spawner: Spawner) -> None:
    for listen in (True, False):
        spec = SandboxSpec(argv=("python3", "-I", "-S", "-c", FLOOD), env={"PATH": "/usr/bin"}, supervise="refused")
        sandbox = await spawner.spawn(spec, {2: 2})
        assert sandbox.events is not None
        if not listen:
            sandbox.events.close()
        assert (await asyncio.wait_for(sandbox.wait(), 60)).code == 0
        sandbox.events.close()


WITHOUT_SUPERVISOR = """
import ctypes, errno, sys
libc = ctypes.CDLL(None, use_errno=True)
sys.stdin.readline()
assert libc.mount(b"none", b"/tmp", b"tmpfs", 0, None) == -1
sys.exit(ctypes.get_errno())
"""


async def test_without_its_supervisor_a_call_fails_and_does_not_hang(spawner: Spawner) -> None:
    server = server_of(spawner)
    reader, writer = os.pipe()
    spec = SandboxSpec(argv=("python3", "-I", "-S", "-c", WITHOUT_SUPERVISOR), env={"PATH": "/usr/bin"}, supervise="refused")
    sandbox = await spawner.spawn(spec, {0: reader, 2: 2})
    supervisor = supervisor_of(server)
    os.kill(supervisor.pid, signal.SIGKILL)
    while psutil.pid_exists(supervisor.pid):
        await asyncio.sleep(0.01)
    os.write(writer, b"\n")
    assert (await asyncio.wait_for(sandbox.wait(), 60)).code == errno.ENOSYS
    for descriptor in (reader, writer):
        os.close(descriptor)
    assert sandbox.events is not None
    sandbox.events.close()


async def test_nothing_is_left_of_supervised_sandboxes() -> None:
    name = f"test-supervised-{os.getpid()}"
    spawner = Spawner.start(cgroup_name=name)
    server = server_of(spawner)
    before = remains(server, name)
    for _ in range(10):
        await supervised(spawner, "files", "unshare", "-U", "true", on_event=lambda event: None)
    killed = SandboxSpec(argv=("sleep", "100"), env={"PATH": "/usr/bin"}, supervise="files")
    sandbox = await spawner.spawn(killed, {})
    sandbox.kill()
    assert sandbox.events is not None
    follower = Follower(sandbox.events, lambda event: None)
    await sandbox.wait()
    await follower.drained(30.0)
    deadline = asyncio.get_running_loop().time() + 30
    while remains(server, name) != before and asyncio.get_running_loop().time() < deadline:
        await asyncio.sleep(0.01)
    assert remains(server, name) == before
    await spawner.aclose()


async def test_a_supervisor_has_no_right_but_to_read_memory_and_no_descriptor_of_others(spawner: Spawner) -> None:
    server = server_of(spawner)
    sandbox = await spawner.spawn(SandboxSpec(argv=("sleep", "100"), env={"PATH": "/usr/bin"}, supervise="files"), {})
    supervisor = supervisor_of(server)
    status = Path(f"/proc/{supervisor.pid}/status").read_text()
    fields = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
    assert {int(fields[name], 16) for name in ("CapEff", "CapPrm")} == {1 << 19}
    assert fields["NoNewPrivs"] == "1"
    kinds = sorted(
        os.readlink(f"/proc/{supervisor.pid}/fd/{fd}").split(":")[0] for fd in os.listdir(f"/proc/{supervisor.pid}/fd")
    )
    assert [kind for kind in kinds if not kind.startswith(("/", "pipe"))] == ["anon_inode", "socket"]
    sandbox.kill()
    await sandbox.wait()
    assert sandbox.events is not None
    sandbox.events.close()


async def test_its_events_outlive_the_client(tmp_path: Path) -> None:
    """What is tried while there is no client is told to the next one."""
    door = tmp_path / "door"
    first = Spawner.start(cgroup_name=f"test-successor-{os.getpid()}", orphan_grace_s=60.0, door=door)
    reader, writer = os.pipe()
    spec = SandboxSpec(argv=("python3", "-I", "-S", "-c", WITHOUT_SUPERVISOR), env={"PATH": "/usr/bin"}, supervise="refused")
    sandbox = await first.spawn(spec, {0: reader, 2: 2}, label=b"label")
    assert sandbox.events is not None
    sandbox.events.close()
    first.leave()
    os.write(writer, b"\n")
    second = await asyncio.to_thread(Spawner.find, door)
    assert second is not None
    (found,) = second.adopt()
    assert found.events is not None
    events: list[Event] = []
    follower = Follower(found.events, events.append)
    assert (await asyncio.wait_for(found.wait(), 60)).code == errno.EPERM
    await follower.drained(30.0)
    assert [event.path for event in events if isinstance(event, Attempt)] == ["/tmp"]
    await second.aclose()
    await first.aclose()
    for descriptor in (reader, writer):
        os.close(descriptor)


def test_a_program_cannot_supervise_itself(by: Maker) -> None:
    """The kernel takes one supervisor for a process: no other can be put above ours."""
    code = """
import ctypes, struct
libc = ctypes.CDLL(None, use_errno=True)
rule = ctypes.create_string_buffer(struct.pack("=HBBI", 6, 0, 0, 0x7FC00000))
program = struct.pack("@HP", 1, ctypes.addressof(rule))
print(libc.syscall(317, 1, 8, program), ctypes.get_errno())
"""
    if os.uname().machine != "x86_64":
        pytest.skip("the number of seccomp(2) in the test is that of x86-64")
    done = by.run("python3", "-I", "-S", "-c", code, options=("--supervise", "refused"))
    assert done.stdout == f"-1 {errno.EBUSY}\n"


def test_nothing_of_it_leaks_into_the_sandbox(by: Maker) -> None:
    found = by.python(
        "import json, os; fds = [f'/proc/self/fd/{fd}' for fd in os.listdir('/proc/self/fd')];"
        "print(json.dumps([os.readlink(fd) for fd in fds if os.path.lexists(fd)]))",
        options=("--supervise", "files"),
    )
    assert not [link for link in found if "seccomp" in link or link.startswith("socket:")]
