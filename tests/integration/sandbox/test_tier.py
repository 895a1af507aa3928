"""Sandboxes of a user whom the host forbids namespaces: refused unless they may be missing, and what holds then."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from sandbox import landlock, tier
from sandbox.errors import SandboxError
from sandbox.plan import Host, make
from sandbox.spec import Bind, SandboxSpec
from tests.support import forbidding
from tests.support.sandbox import TIMEOUT_S, Maker, maker, without_notice

pytestmark = pytest.mark.skipif(
    landlock.version() < landlock.MINIMUM, reason=f"this kernel has version {landlock.version()} of Landlock"
)
NOTICE = "sandbox: without namespaces, as optional_layers allows: held by Landlock and the filter alone.\n"
ALLOWED = ("--optional", "namespaces")


@pytest.fixture(scope="module")
def by() -> Iterator[Maker]:
    """An ordinary user without user namespaces."""
    with maker("ordinary") as found:
        script = found.home / "forbidding.py"
        shutil.copy(forbidding.__file__, script)
        python = found.interpreter[-1]
        yield found._replace(interpreter=(*found.interpreter, str(script), forbidding.USER_NAMESPACES, "--", python, "-P"))


def run(by: Maker, *command: str, options: tuple[str, ...] = (), **more: Any) -> subprocess.CompletedProcess[str]:
    return by.run(*command, options=(*ALLOWED, *options), **more)


def answers(by: Maker, code: str, *words: str, options: tuple[str, ...] = ()) -> Any:
    """What Python code, with `tried`, prints inside as JSON."""
    done = run(by, "python3", "-I", "-S", "-c", TRIED + code, *words, options=options)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


TRIED = """
import ctypes, errno, json, os, resource, signal, socket, sys
libc = ctypes.CDLL(None, use_errno=True)
def tried(what):
    try:
        result = what()
    except OSError as error:
        return errno.errorcode[error.errno]
    return "done" if result is None or not isinstance(result, int) or result >= 0 else errno.errorcode[ctypes.get_errno()]
"""


def test_it_is_refused_unless_namespaces_may_be_missing(by: Maker) -> None:
    done = by.run("true")
    assert done.returncode == 125
    assert done.stderr.startswith("sandbox: user namespace: this host does not let user ")
    assert "--optional namespaces" in done.stderr
    allowed = run(by, "true")
    assert (allowed.returncode, without_notice(allowed.stderr)) == (0, NOTICE)


def test_who_has_namespaces_gets_them_all_the_same() -> None:
    with maker("ordinary") as by:
        done = run(by, "sh", "-c", "echo $$; cat /proc/1/comm")
    assert done.returncode == 0, done.stderr
    assert NOTICE not in done.stderr
    assert int(done.stdout.split()[0]) < 10


def test_files_of_the_host_are_closed(by: Maker) -> None:
    secret = by.directory("secret") / "key"
    secret.write_text("x")
    os.chown(secret, by.uid, by.uid)
    code = """
secret, own = sys.argv[1], os.environ["TMPDIR"]
print(json.dumps({
    "read": tried(lambda: open(secret)), "write": tried(lambda: open(secret, "w")),
    "truncate": tried(lambda: os.truncate(secret, 0)), "remove": tried(lambda: os.unlink(secret)),
    "link": tried(lambda: os.link(secret, own + "/link")), "move": tried(lambda: os.rename(secret, own + "/moved")),
    "list": tried(lambda: os.listdir(os.path.dirname(secret))), "tmp": tried(lambda: open("/tmp/of-a-test-of-the-tier", "w")),
    "shm": tried(lambda: open("/dev/shm/of-a-test-of-the-tier", "w")),
    "parent": tried(lambda: open(f"/proc/{os.getppid()}/environ")),
    "processes": tried(lambda: os.listdir("/proc")), "terminals": tried(lambda: os.listdir("/dev/pts")),
    "own": tried(lambda: open(own + "/file", "w")), "program": tried(lambda: open("/usr/bin/env")),
}))
"""
    found = answers(by, code, str(secret))
    assert found.pop("link") in ("EACCES", "EXDEV")
    assert found.pop("move") in ("EACCES", "EXDEV")
    assert (found.pop("own"), found.pop("program")) == ("done", "done")
    assert set(found.values()) == {"EACCES"}, found
    assert secret.read_text() == "x"


def test_there_is_no_network_and_no_way_to_other_programs(by: Maker) -> None:
    code = """
IN, UNIX, STREAM, DGRAM = socket.AF_INET, socket.AF_UNIX, socket.SOCK_STREAM, socket.SOCK_DGRAM
print(json.dumps({
    "tcp": tried(lambda: socket.socket(IN, STREAM)), "udp": tried(lambda: socket.socket(IN, DGRAM)),
    "tcp6": tried(lambda: socket.socket(socket.AF_INET6, STREAM)), "unix": tried(lambda: socket.socket(UNIX, STREAM)),
    "netlink": tried(lambda: socket.socket(socket.AF_NETLINK, socket.SOCK_RAW)),
    "pair": tried(lambda: socket.socketpair(UNIX, STREAM)),
    "packets": tried(lambda: socket.socketpair(UNIX, socket.SOCK_SEQPACKET)),
    "datagrams": tried(lambda: socket.socketpair(UNIX, DGRAM | socket.SOCK_CLOEXEC)),
    "shm": tried(lambda: libc.shmget(1, 4096, 0o1600)), "semaphores": tried(lambda: libc.semget(1, 1, 0o1600)),
    "limits": tried(lambda: resource.prlimit(os.getppid(), resource.RLIMIT_CPU, (1, 1))),
    "own limits": tried(lambda: resource.setrlimit(resource.RLIMIT_CPU, (1000, 1000))),
    "all": tried(lambda: os.kill(-1, 0)), "first": tried(lambda: os.kill(os.getppid(), 0)),
    "unshare": tried(lambda: libc.unshare(0x10000000)), "ptrace": tried(lambda: libc.ptrace(16, os.getppid(), 0, 0)),
}))
"""
    found = answers(by, code)
    assert {name for name, answer in found.items() if answer == "done"} - {"all", "first"} == {"pair", "packets", "own limits"}
    if landlock.version() >= landlock.SCOPES_SINCE:
        assert found["first"] == "EPERM"


def test_a_workspace_is_written_and_what_is_read_only_is_not(by: Maker) -> None:
    work, seen = by.directory("work"), by.directory("seen")
    options = ("--write", str(work), "--read", str(seen))
    code = """
print(json.dumps([tried(lambda: open(sys.argv[1] + "/made", "w")), tried(lambda: open(sys.argv[2] + "/made", "w")),
                  tried(lambda: os.listdir(sys.argv[2]))]))
"""
    assert answers(by, code, str(work), str(seen), options=options) == ["done", "EACCES", "done"]
    assert (work / "made").exists()


def test_a_writable_directory_behind_a_link_is_refused(by: Maker) -> None:
    """Which a command that was there before may have laid."""
    work, other = by.directory("work"), by.directory("other")
    (work / "link").symlink_to(other)
    profile = by.profile(f'[[paths]]\nsource = "{work}/link"\nwritable = true\n')
    done = by.run("touch", f"{work}/link/made", options=(*ALLOWED, "--profile", profile))
    assert done.returncode == 125
    assert list(other.iterdir()) == []


def test_private_directories_are_elsewhere_and_go(by: Maker) -> None:
    done = run(by, "sh", "-c", 'mkdir -p ~/deep/er && chmod 0 ~/deep && pwd && echo "$TMPDIR" && ls -a "$0"', "/tmp")
    assert done.returncode == 0, done.stderr
    home, temporary = done.stdout.split()[:2]
    assert home.removesuffix("/home") == temporary.removesuffix("/tmp")
    assert done.stdout.split()[2:] == [".", ".."]
    assert not Path(home).parent.parent.exists()


def test_what_cannot_be_had_is_refused(by: Maker) -> None:
    source = by.directory("moved")
    profile = by.profile(f'[[paths]]\nsource = "{source}"\ntarget = "/elsewhere"\n')
    done = by.run("true", options=(*ALLOWED, "--profile", profile))
    assert done.returncode == 125
    assert f"binds: {source} cannot be seen at /elsewhere without namespaces." in done.stderr
    for text, why in (
        ('supervise = "refused"\n', "supervise: what is tried in vain cannot be told without namespaces."),
        (f'masked = ["{source}"]\n', "masked: no path of the host can be hidden without namespaces."),
    ):
        done = by.run("true", options=(*ALLOWED, "--profile", by.profile(text)))
        assert (done.returncode, why in done.stderr) == (125, True), done.stderr


SRV = (Bind("/srv", writable=True),)


@pytest.mark.parametrize(
    ("fields", "refusal"),
    [
        ({"binds": (Bind("/srv", writable=True, layers="/layers"),)}, "binds: no copy-on-write view of /srv can be had"),
        ({"binds": (Bind("/srv", "/data"),)}, "binds: /srv cannot be seen at /data"),
        ({"masked": ("/srv/secret",)}, "masked: no path of the host can be hidden"),
        ({"tmpfs": ("/data",)}, "tmpfs: no directory but "),
        ({"tmpfs": ("/srv/cache",), "binds": SRV}, "tmpfs: no directory but "),
        ({"tmpfs": ("/tmp/x",), "binds": (Bind("/tmp", writable=True),)}, "tmpfs: no directory but "),
        ({"loopback_listen": (80,)}, "loopback_listen: a port would be the host's"),
        ({"loopback_any": (443,)}, "loopback_any: a port would be the host's"),
        ({"dns": True}, "dns: a port would be the host's"),
        ({"supervise": "refused"}, "supervise: what is tried in vain cannot be told"),
    ],
)
def test_what_it_cannot_hold_is_refused_by_its_field(fields: dict[str, Any], refusal: str) -> None:
    spec = SandboxSpec(argv=("true",), optional_layers=("namespaces",), **fields)
    with pytest.raises(SandboxError) as refused:
        tier.check(spec, make(spec, Host.look(), 1000, 1000), SandboxError("forbidden."))
    assert refused.value.message.startswith(refusal)


def test_its_own_private_directories_may_be_named() -> None:
    spec = SandboxSpec(argv=("true",), optional_layers=("namespaces",), tmpfs=("/tmp", "/dev/shm"))
    tier.check(spec, make(spec, Host.look(), 1000, 1000), SandboxError("forbidden."))


def left(mark: str) -> list[int]:
    return [process.pid for process in psutil.process_iter(["cmdline"]) if mark in (process.info["cmdline"] or [])]


LEAVE = "setsid sleep {mark} & (setsid sh -c 'trap \"\" TERM; sleep {mark}; :' &) ; "


def test_what_a_command_leaves_behind_is_ended(by: Maker) -> None:
    mark = f"7{os.getpid()}1"
    done = run(by, "sh", "-c", LEAVE.format(mark=mark) + "exit 3")
    assert done.returncode == 3
    assert left(mark) == []


@pytest.mark.parametrize("whom", ["first process", "fork server", "client"])
def test_nothing_outlives_its_maker(by: Maker, whom: str) -> None:
    mark = f"7{os.getpid()}2"
    script = LEAVE.format(mark=mark) + f'echo "$TMPDIR"; sleep {mark}'
    with by.start("run", *ALLOWED, "--", "sh", "-c", script) as client:
        assert client.stdout is not None
        private = Path(client.stdout.readline().strip())
        keeper = psutil.Process(client.pid).children()[0]
        server = keeper.children()[0]
        first = server.children()[0]
        {"first process": first, "fork server": server, "client": psutil.Process(client.pid)}[whom].send_signal(signal.SIGKILL)
        client.wait(TIMEOUT_S)
        psutil.wait_procs([keeper, server, first], timeout=TIMEOUT_S)
    assert left(mark) == []
    assert private.name == "tmp"
    assert not private.parent.parent.exists()


def test_signals_reach_the_command(by: Maker) -> None:
    with by.start("run", *ALLOWED, "--", "sh", "-c", "trap 'exit 9' TERM; echo ready; while :; do sleep 0.1; done") as client:
        assert client.stdout is not None
        assert client.stdout.readline() == "ready\n"
        client.send_signal(signal.SIGTERM)
        assert client.wait(TIMEOUT_S) == 9


PROGRAMS = {
    "git": "git init -q . && git config user.email a@b && git config user.name n && echo x >f && git add . && git commit -qm m",
    "gcc": """printf '#include <stdio.h>\\nint main(){puts("compiled");}' >a.c && gcc -pipe a.c -o a && ./a""",
    "node": """node -e 'const {execSync} = require("child_process"); require("fs").writeFileSync("f", execSync("echo hi"))'""",
    "npm": "mkdir dep app && cd dep && npm init -y && cd ../app && npm init -y && npm install --offline ../dep",
    "bash": "sleep 100 & kill %1; wait; echo x | cat >f; exec 3<>/dev/null; [ $(cat f) = x ]",
    "python3": 'python3 -c \'import subprocess, sqlite3; subprocess.run(["true"], check=True); sqlite3.connect("d")\'',
}


@pytest.mark.parametrize("program", sorted(PROGRAMS))
def test_programs_work(by: Maker, program: str) -> None:
    if shutil.which(program) is None:
        pytest.skip(f"{program} is not installed")
    work = by.directory("work")
    done = run(by, "bash", "-c", f"cd {work}\n{PROGRAMS[program]}", options=("--write", str(work)))
    assert done.returncode == 0, done.stdout + done.stderr


SEVERAL = """
import asyncio, os, sys
from sandbox.spawner import Spawner
from sandbox.spec import Bind, SandboxSpec

async def main(other, work):
    spawner = Spawner.start(cgroup_name=f"test-tier-{os.getpid()}")
    async def started(work, *argv):
        spec = SandboxSpec(
            argv=argv, env={"PATH": "/usr/bin:/bin"}, binds=(Bind(work, writable=True),), cwd=work, disk_bytes=32 << 20,
            optional_layers=("namespaces", "cgroup"),
        )
        return await spawner.spawn(spec, {})
    long = await started(other, "sleep", "1000")
    ended = [await (await started(work, "sh", "-c", script)).wait() for script in ("exit 6", "exit 7", "cat /dev/zero >filled")]
    print([(exit.code, exit.disk_limit_hit) for exit in ended])
    long.kill()
    print((await long.wait()).disk_limit_hit)
    await spawner.aclose()

asyncio.run(main(*sys.argv[1:]))
"""


def test_the_end_of_one_ends_no_other_and_what_each_adds_to_disks_is_limited(by: Maker) -> None:
    argv = [*by.interpreter, "-c", SEVERAL, str(by.directory("other")), str(by.directory("work"))]
    done = subprocess.run(argv, cwd=by.home, env=by.environment(), capture_output=True, text=True, timeout=TIMEOUT_S, check=False)
    assert done.stdout.splitlines() == ["[(6, False), (7, False), (-1, True)]", "False"], done
