"""Landlock: what it enforces by itself, what it adds to a sandbox, and what programs can still do under it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from sandbox import landlock
from sandbox.spawner import Spawner
from sandbox.spec import SandboxSpec
from tests.support import forbidding
from tests.support.sandbox import PACKAGE, Maker

pytestmark = pytest.mark.skipif(
    landlock.version() < landlock.MINIMUM, reason=f"this kernel has version {landlock.version()} of Landlock"
)
ENV = {"PATH": "/usr/local/bin:/usr/bin:/bin"}

ALONE = """
import json, os, signal, socket, sys
sys.path.insert(0, sys.argv[1])
from sandbox import landlock, linux
work, abi = sys.argv[2], int(sys.argv[3])
server = socket.create_server(("127.0.0.1", 0))
address = server.getsockname()
abstract = socket.socket(socket.AF_UNIX)
abstract.bind(b"\\0landlock-test-%d" % os.getpid())
abstract.listen()
parent, name = os.getpid(), abstract.getsockname()
reader, writer = os.pipe()
signal.signal(signal.SIGUSR1, signal.SIG_IGN)
if os.fork() == 0:
    rights = {"/": landlock.READ & ~landlock.READ_FILE, work: landlock.CHANGE, f"{work}/a/file": landlock.READ}
    rules = landlock.ruleset(abi, rights, tcp=True)
    linux.prctl(linux.PR_SET_NO_NEW_PRIVS, 1)
    landlock.restrict(rules)
    def tried(what):
        try:
            what()
        except OSError as error:
            return error.errno
        return 0
    def connect():
        socket.socket().connect(address)
    def abstract_connect():
        socket.socket(socket.AF_UNIX).connect(name)
    found = {
        "read": tried(lambda: open("/etc/passwd")),
        "write": tried(lambda: open("/tmp/of-landlock-test", "w")),
        "truncate": tried(lambda: os.truncate(sys.argv[4], 0)),
        "write in": tried(lambda: open(f"{work}/new", "w")),
        "rename": tried(lambda: os.rename(f"{work}/new", f"{work}/a/new")),
        "rename out": tried(lambda: os.rename(f"{work}/a/new", sys.argv[4])),
        "device": tried(lambda: os.mknod(f"{work}/null", 0o20600, os.makedev(1, 3))),
        "connect": tried(connect),
        "bind": tried(lambda: socket.socket().bind(("127.0.0.1", 0))),
        "abstract": tried(abstract_connect),
        "signal": tried(lambda: os.kill(parent, signal.SIGUSR1)),
        "signal own": tried(lambda: os.kill(os.getpid(), 0)),
    }
    os.write(writer, json.dumps(found).encode())
    os._exit(0)
os.close(writer)
print(os.read(reader, 65536).decode())
"""


def alone(directory: Path, abi: int) -> dict[str, str]:
    """What a process under rules of this version tried, with the kernel's answers by name, without any namespace."""
    (directory / "work" / "a").mkdir(parents=True)
    (directory / "work" / "a" / "file").write_text("x")
    other = directory / "other"
    other.write_text("x")
    argv = [sys.executable, "-c", ALONE, str(PACKAGE.parent), str(directory / "work"), str(abi), str(other)]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    names = {0: "done", 1: "EPERM", 13: "EACCES", 18: "EXDEV"}
    return {name: names.get(number, str(number)) for name, number in json.loads(done.stdout).items()}


def test_each_kind_of_rule_refuses_what_it_should(tmp_path: Path) -> None:
    abi = landlock.version()
    tcp = "EACCES" if abi >= landlock.NET_SINCE else "done"
    scope = "EPERM" if abi >= landlock.SCOPES_SINCE else "done"
    found = alone(tmp_path, abi)
    assert found.pop("rename out") in ("EACCES", "EXDEV")
    assert found == {
        "read": "EACCES",
        "write": "EACCES",
        "truncate": "EACCES" if abi >= 3 else "done",
        "write in": "done",
        "rename": "done",
        "device": "EACCES",
        "connect": tcp,
        "bind": tcp,
        "abstract": scope,
        "signal": scope,
        "signal own": "done",
    }


def test_an_older_kernel_is_asked_for_no_more_than_it_has(tmp_path: Path) -> None:
    found = alone(tmp_path, 2)
    assert (found["read"], found["rename"]) == ("EACCES", "done")
    later = ("truncate", "connect", "bind", "abstract", "signal")
    assert {name: found[name] for name in later} == dict.fromkeys(later, "done")


def test_nothing_below_proc_can_be_written(by: Maker) -> None:
    code = """
import json, os
answers = {}
for path in ("/proc/self/comm", "/proc/self/oom_score_adj", "/proc/self/mem", "/dev/null"):
    try:
        os.close(os.open(path, os.O_WRONLY))
        answers[path] = 0
    except OSError as error:
        answers[path] = error.errno
print(json.dumps(answers))
"""
    found = by.python(code)
    assert found == {"/proc/self/comm": 13, "/proc/self/oom_score_adj": 13, "/proc/self/mem": 13, "/dev/null": 0}


async def test_a_descriptor_of_the_host_leads_nowhere(spawner: Spawner, tmp_path: Path) -> None:
    """Even the way out of the root that a leak would be."""
    host = os.open("/", os.O_PATH)
    told = tmp_path / "told"
    with told.open("w") as file:
        code = "import os; os.open('etc/os-release', os.O_RDONLY, dir_fd=5)"
        spec = SandboxSpec(argv=("python3", "-I", "-S", "-c", code), env=ENV, optional_layers=("cgroup",))
        sandbox = await spawner.spawn(spec, {2: file.fileno(), 5: host})
        exit = await sandbox.wait()
    os.close(host)
    assert exit.code == 1
    assert "PermissionError: [Errno 13]" in told.read_text()


@pytest.mark.parametrize("mode", ["r", "r+", "a"])
def test_what_it_was_given_can_be_opened_again(by: Maker, mode: str) -> None:
    given = by.directory("given") / "file"
    given.write_text("before\n")
    given.chmod(0o666)
    way = {"r": "cat /dev/stdin", "r+": "cat /dev/stdin; echo after >>/dev/stdin", "a": "echo after >>/dev/stdin"}[mode]
    with given.open(mode) as file:
        done = by.run("sh", "-c", way, stdin=file)
    assert done.returncode == 0, done.stderr
    assert given.read_text() == ("before\n" if mode == "r" else "before\nafter\n")


PROGRAMS = {
    "git": """
        git init -q . && git config user.email a@b && git config user.name n && mkdir -p one two && echo x >one/f
        git add . && git commit -qm m && git mv one/f two/f && git commit -qm moved && git gc -q && git clone -q . ../clone
        git checkout -qb b && git stash list && git worktree add -q ../tree && git fsck""",
    "gcc": """printf '#include <stdio.h>\\nint main(){puts("compiled");}' >a.c && gcc -pipe a.c -o a && ./a""",
    "ssh-keygen": "ssh-keygen -q -t ed25519 -N '' -f key && ssh-keygen -lf key.pub",
    "bash": """
        set -m; sleep 0.2 & fg >/dev/null; cat <(echo process) <<<"here"; exec 3<>/dev/null; echo x >&3; kill -0 $$
        sleep 100 & kill %1; wait; trap 'exit 0' USR1; kill -USR1 $$; exit 1""",
    "node": """node -e '
        const fs = require("fs"), {execSync} = require("child_process"), {Worker} = require("worker_threads");
        fs.mkdirSync("d"); fs.writeFileSync("f", "x"); fs.renameSync("f", "d/f"); fs.cpSync("d", "e", {recursive: true});
        if (execSync("echo hi").toString() !== "hi\\n") process.exit(1);
        require("http").createServer((q, s) => s.end("ok")).listen(0, "127.0.0.1", function () {
            fetch("http://127.0.0.1:" + this.address().port).then(r => r.text()).then(t => process.exit(+(t !== "ok"))) });'""",
    "npm": """
        mkdir dep app && cd dep && npm init -y >/dev/null && echo 'module.exports = 7' >index.js && npm pack >/dev/null
        cd ../app && npm init -y >/dev/null && npm install --offline ../dep/dep-1.0.0.tgz
        node -e 'process.exit(require("dep") - 7)'""",
    "python3": """python3 -c '
import multiprocessing, os, shutil, socket, sqlite3, subprocess, tempfile
os.makedirs("a/b"); open("a/f", "w").close(); os.replace("a/f", "a/b/f"); shutil.move("a/b", "c")
with multiprocessing.Pool(2) as pool: assert pool.map(abs, [-1, 2]) == [1, 2]
server = socket.create_server(("127.0.0.1", 0)); socket.create_connection(server.getsockname())
sqlite3.connect("db").execute("create table t (x)"); subprocess.run(["true"], check=True)
child, terminal = os.forkpty()
if child == 0: os.execvp("stty", ["stty", "size"])
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0'""",
    "tar": "mkdir d && touch d/f && mkfifo d/p && ln -s f d/l && tar cf t.tar d && mkdir o && tar xpf t.tar -C o && [ -p o/d/p ]",
}


@pytest.mark.parametrize("program", sorted(PROGRAMS))
@pytest.mark.parametrize("where", ["host", "private"])
def test_programs_work(by: Maker, program: str, where: str) -> None:
    """In a directory of the host, and in a private one."""
    if shutil.which(program) is None:
        pytest.skip(f"{program} is not installed")
    work = by.directory("work")
    (work / "project").mkdir()
    if os.geteuid() == 0:
        os.chown(work / "project", by.uid, by.uid)
    options = ("--write", str(work)) if where == "host" else ()
    start = f"cd {work}/project" if where == "host" else "cd ~ && mkdir project && cd project"
    done = by.run("bash", "-c", f"{start}\n{PROGRAMS[program]}", options=options)
    assert done.returncode == 0, done.stdout + done.stderr


def without(what: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    argv = [sys.executable, forbidding.__file__, what, "--", sys.executable, "-P", "-m", "sandbox", *arguments]
    return subprocess.run(
        argv, env={**os.environ, "PYTHONPATH": str(PACKAGE.parent)}, capture_output=True, text=True, timeout=60, check=False
    )


def test_a_kernel_without_it_is_refused_unless_it_may_be_missing() -> None:
    options = ("--optional", "cgroup")
    refused = without(forbidding.LANDLOCK, "run", *options, "--", "true")
    assert refused.returncode == 125
    assert "sandbox: landlock: this kernel has no Landlock." in refused.stderr
    assert "--optional landlock" in refused.stderr
    allowed = without(
        forbidding.LANDLOCK, "run", *options, "--optional", "landlock", "--", "sh", "-c", ">/proc/self/comm; echo ran"
    )
    assert (allowed.returncode, allowed.stdout) == (0, "ran\n"), allowed.stderr
