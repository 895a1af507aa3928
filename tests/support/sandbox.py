"""Sandboxes for tests: made by root and by an ordinary user, with `python -m sandbox`; and looks at what is left of them."""

from __future__ import annotations

import atexit
import compileall
import contextlib
import functools
import json
import os
import re
import select
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Any, NamedTuple

import msgspec
import psutil
import pyseccomp
import pytest

import sandbox
from sandbox.cgroup_paths import parse_cgroup, parse_mountinfo
from sandbox.spawner import Spawner
from sandbox.spec import Bind, SandboxSpec

PACKAGE = Path(sandbox.__file__).parent
ORDINARY = 12345
MIB = 1 << 20
TIMEOUT_S = 60

LOOK = r"""
import json, os, resource, socket, sys
descriptors = sorted(int(name) for name in os.listdir("/proc/self/fd") if os.path.exists(f"/proc/self/fd/{name}"))
status = dict(line.split(":", 1) for line in open("/proc/self/status").read().splitlines())
def names(path):
    return sorted(os.listdir(path))
print(json.dumps({
    "root": names("/"), "etc": names("/etc"), "dev": names("/dev"), "home": names("/root"), "passwd": open("/etc/passwd").read(),
    "pids": sorted(int(name) for name in names("/proc") if name.isdigit()), "pid": os.getpid(),
    "hostname": socket.gethostname(), "uids": os.getresuid(), "gids": os.getresgid(), "groups": os.getgroups(),
    "status": {name: value.strip() for name, value in status.items()},
    "interfaces": [name for _, name in socket.if_nameindex()],
    "namespaces": {name: os.readlink(f"/proc/self/ns/{name}") for name in ("mnt", "pid", "net", "ipc", "uts", "user", "cgroup")},
    "descriptors": descriptors,
    "environment": dict(line.split("=", 1) for line in open("/proc/self/environ").read().split("\0") if line),
    "umask": os.umask(0), "cwd": os.getcwd(), "session": os.getsid(0),
    "limits": {name: resource.getrlimit(getattr(resource, "RLIMIT_" + name)) for name in ("CORE", "NOFILE", "FSIZE")},
    "mounts": [line.split()[1] for line in open("/proc/self/mounts")],
}))
"""
"""Tells what a program sees of the world."""


class Maker(NamedTuple):
    """Who makes sandboxes, how his interpreter is started, and a directory that he may use."""

    name: str
    uid: int
    interpreter: tuple[str, ...]
    path: str
    home: Path

    def environment(self) -> dict[str, str]:
        usual = {name: os.environ[name] for name in ("PATH", "LANG", "TERM") if name in os.environ}
        return {**usual, "HOME": str(self.home), "PYTHONPATH": self.path, "PYTHONDONTWRITEBYTECODE": "1"}

    def start(
        self, *arguments: str, stdin: int = subprocess.DEVNULL, optional: bool = True, **options: Any
    ) -> subprocess.Popen[str]:
        """`python -m sandbox` with these arguments.

        An ordinary user may lack cgroups here, and the limits that they hold: with `optional` he goes on without.
        """
        if optional and self.name == "ordinary" and arguments[:1] == ("run",):
            arguments = ("run", "--optional", "cgroup", *arguments[1:])
        options = {"cwd": self.home, "env": self.environment(), "text": True, **options}
        argv = [*self.interpreter, "-m", "sandbox", *arguments]
        return subprocess.Popen(argv, stdin=stdin, stdout=subprocess.PIPE, stderr=subprocess.PIPE, **options)

    def call(self, *arguments: str, **options: Any) -> subprocess.CompletedProcess[str]:
        with self.start(*arguments, **options) as process:
            try:
                stdout, stderr = process.communicate(timeout=TIMEOUT_S)
                stderr = without_notice(stderr)
            except BaseException:
                process.kill()
                raise
        return subprocess.CompletedProcess(process.args, process.returncode, stdout, stderr)

    def run(self, *command: str, options: Sequence[str] = (), **more: Any) -> subprocess.CompletedProcess[str]:
        """`python -m sandbox run OPTIONS -- COMMAND`."""
        return self.call("run", *options, "--", *command, **more)

    def python(self, code: str, *words: str, options: Sequence[str] = (), **more: Any) -> Any:
        """What Python code prints inside, as JSON."""
        done = self.run("python3", "-I", "-S", "-c", code, *words, options=options, **more)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    def directory(self, name: str, owner: int | None = None, mode: int = 0o755) -> Path:
        """A new directory in his own, of his unless root gives it to another."""
        made = Path(tempfile.mkdtemp(prefix=f"{name}-", dir=self.home))
        made.chmod(mode)
        if os.geteuid() == 0:
            os.chown(made, owner or self.uid, owner or self.uid)
        return made

    def profile(self, text: str) -> str:
        """A profile file."""
        path = self.directory("profile") / "test.toml"
        path.write_text(text)
        return str(path)


@contextlib.contextmanager
def maker(name: str) -> Iterator[Maker]:
    """Root, or an ordinary user; skips, saying why, where this user cannot be."""
    if name == "root" and os.geteuid() != 0:
        pytest.skip("the tests were not started by root")
    # Not in pytest's own directory, which only its owner may enter.
    home = Path(tempfile.mkdtemp(prefix=f"sandbox-{name}-"))
    home.chmod(0o755)
    try:
        if name == "ordinary" and os.geteuid() == 0:
            os.chown(home, ORDINARY, ORDINARY)
            become = ("setpriv", f"--reuid={ORDINARY}", f"--regid={ORDINARY}", "--clear-groups")
            yield Maker(name, ORDINARY, (*become, reachable_interpreter(become)), str(_readable_packages()), home)
        else:
            yield Maker(name, os.geteuid(), (sys.executable,), str(PACKAGE.parent), home)
    finally:
        shutil.rmtree(home)


@functools.cache
def reachable_interpreter(become: tuple[str, ...]) -> str:
    """An interpreter that the user may run and that takes the same compiled modules; ours may stand in a home closed to him."""
    wanted = f"{sys.version_info.major}.{sys.version_info.minor}"
    tell = "import sys; print('%d.%d' % sys.version_info[:2])"
    for candidate in dict.fromkeys((os.path.realpath(sys.executable), f"/usr/bin/python{wanted}", "/usr/local/bin/python3")):
        with contextlib.suppress(OSError):
            # By a shell: setpriv itself still has root's rights when it looks for the program.
            argv = [*become, "sh", "-c", f'"$0" -c "{tell}"', candidate]
            tried = subprocess.run(argv, capture_output=True, text=True, check=False, cwd="/")
            if tried.stdout.strip() == wanted:
                return candidate
    pytest.skip(f"user {ORDINARY} can run neither {os.path.realpath(sys.executable)} nor another Python {wanted}")


@functools.cache
def _readable_packages() -> Path:
    """A copy of the package and of what it imports: the fork server looks beside the package and nowhere else.

    Compiled once: he who uses it cannot write there, and would compile it at every start.
    """
    packages = Path(tempfile.mkdtemp(prefix="sandbox-packages-"))
    packages.chmod(0o755)
    atexit.register(shutil.rmtree, packages, ignore_errors=True)
    ignore = shutil.ignore_patterns("__pycache__")
    shutil.copytree(PACKAGE, packages / "sandbox", ignore=ignore)
    shutil.copytree(Path(msgspec.__file__).parent, packages / "msgspec", ignore=ignore)
    shutil.copy(pyseccomp.__file__, packages)
    compileall.compile_dir(packages, quiet=2)
    return packages


async def said(spawner: Spawner, script: str, *binds: Bind) -> str:
    """What a script prints in a sandbox."""
    with pipe() as (reader, writer):
        spec = SandboxSpec(
            argv=("sh", "-c", f"exec 2>&1; {script}"), env={"PATH": "/usr/local/bin:/usr/bin:/bin"}, binds=binds, cwd="/"
        )
        sandbox = await spawner.spawn(spec, {1: writer.fileno()})
        writer.close()
        await sandbox.wait()
        return reader.read().strip()


def without_notice(stderr: str) -> str:
    """What `run` says on standard error, but for the notice that an ordinary user has no limits here."""
    return "".join(line for line in stderr.splitlines(True) if not line.startswith("sandbox: not limited, "))


class Remains(NamedTuple):
    """What a fork server and its client hold: compare two of them."""

    server_descriptors: list[str]
    client_descriptors: list[str]
    processes: list[int]
    mounts: str
    server_mounts: str
    cgroups: list[str]


def remains(server: psutil.Process, cgroup_name: str) -> Remains:
    return Remains(
        server_descriptors=_descriptors(server.pid),
        client_descriptors=_descriptors(os.getpid()),
        processes=sorted(child.pid for child in server.children(recursive=True)),
        mounts=Path("/proc/self/mountinfo").read_text(),
        server_mounts=Path(f"/proc/{server.pid}/mountinfo").read_text(),
        cgroups=sorted(map(str, cgroup_directories(cgroup_name))),
    )


def cgroup_directories(name: str) -> list[Path]:
    """Every cgroup in a directory of this name, on any hierarchy of this machine."""
    points = {mount.point for mount in parse_mountinfo(Path("/proc/self/mountinfo").read_text())}
    # By os.walk, which minds nothing that others take away meanwhile.
    seen = [Path(path) for point in points for path, _, _ in os.walk(point)]
    return [path for path in seen if name in path.parts]


def cgroup_file(pid: int, v1_controller: str, v1_file: str, v2_file: str) -> str:
    """What a control file of a process's cgroup says."""
    paths = parse_cgroup(Path(f"/proc/{pid}/cgroup").read_text())
    for mount in parse_mountinfo(Path("/proc/self/mountinfo").read_text()):
        controller, file = ("", v2_file) if mount.version == 2 else (v1_controller, v1_file)
        if mount.version == 2 or controller in mount.controllers:
            found = mount.point / Path(paths[controller]).relative_to(mount.root) / file
            if found.exists():
                return found.read_text().strip()
    raise AssertionError(f"no {v1_file} or {v2_file} of process {pid}")


def _descriptors(pid: int) -> list[str]:
    """Number and target of each, without the numbers in targets such as pipe:[1] and the one that this look takes."""
    found = []
    for name in os.listdir(f"/proc/{pid}/fd"):
        with contextlib.suppress(FileNotFoundError):
            found.append(f"{name} {re.sub('[0-9]+', 'N', os.readlink(f'/proc/{pid}/fd/{name}'))}")
    return sorted(found)


def await_end(pidfd: int) -> None:
    """Wait until a process has ended."""
    assert select.select([pidfd], [], [], TIMEOUT_S)[0], "the process did not end"
    os.close(pidfd)


def line_of(stream: IO[str] | None) -> str:
    assert stream is not None
    return stream.readline().strip()


@contextlib.contextmanager
def pipe() -> Iterator[tuple[IO[str], IO[str]]]:
    """Both ends of a pipe. The reader sees the end when nobody holds the writer: close it here once it is passed on."""
    reader, writer = os.pipe()
    with open(reader) as readable, open(writer, "w") as writable:
        yield readable, writable
