"""The sandboxes that attempts run in: ours, and others as people use them."""

from __future__ import annotations

import contextlib
import json
import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar, NamedTuple

from tests.escape.attempt import Held
from tests.escape.host import SYSTEM_PYTHON, Host
from tests.support.sandbox import ORDINARY, Maker, maker

ROOT = Path(__file__).resolve().parents[2]
PEERS = ROOT / "build" / "escape"
"""Where `.ci/setup escape` installs those that Debian does not have."""
ACCOUNT = "escape-peers"
"""Made by `.ci/setup escape`: firejail serves none but those in /etc/passwd."""
WORKER_UID = 1_900_000_000
MIB = 1 << 20


class Bounds(NamedTuple):
    """What the attempts against limits are held against; their programs stop by themselves at twice as much or more."""

    memory_bytes: int = 256 * MIB
    pids: int = 64
    open_files: int = 256
    tmp_bytes: int = 48 * MIB
    file_bytes: int = 32 * MIB
    disk_bytes: int = 48 * MIB


BOUNDS = Bounds()


class Jail:
    """One kind of sandbox."""

    name: ClassVar[str]
    peer: ClassVar[bool] = True

    def missing(self) -> str:
        """Why it cannot be used here; empty: it can."""
        return ""

    @contextlib.contextmanager
    def host(self) -> Iterator[Host]:
        """Of an ordinary user: the account that was made for it if there is one."""
        with contextlib.ExitStack() as stack:
            try:
                account = pwd.getpwnam(ACCOUNT)
                uid, home = account.pw_uid, Path(account.pw_dir)
            except KeyError:
                uid, home = ORDINARY, Path(tempfile.mkdtemp(prefix="escape-", dir="/var/tmp"))
                stack.callback(shutil.rmtree, home, True)
                home.chmod(0o755)
                os.chown(home, uid, uid)
            yield stack.enter_context(Host(uid=uid, inner_uid=uid, home=home))

    def command(self, host: Host, argv: list[str], held: Held) -> list[str]:
        """What its user would type to run `argv` in the workspace."""
        raise NotImplementedError

    def environment(self, host: Host) -> dict[str, str]:
        return {"PATH": "/usr/local/bin:/usr/bin:/bin", "LANG": "C.UTF-8", "HOME": str(host.home)}

    def become(self, host: Host) -> list[str]:
        return ["setpriv", f"--reuid={host.uid}", f"--regid={host.uid}", "--clear-groups"] if os.geteuid() == 0 else []


class Ours(Jail):
    """`python -m sandbox run`."""

    peer = False

    def __init__(self, by: str) -> None:
        self._by = by
        self._maker: Maker | None = None

    @property
    def name(self) -> str:  # type: ignore[override]
        return "ours" if self._by == "root" else "ours, as a user"

    def missing(self) -> str:
        return "the tests were not started by root" if self._by == "root" and os.geteuid() != 0 else ""

    @contextlib.contextmanager
    def host(self) -> Iterator[Host]:
        with maker(self._by) as self._maker:
            inner = WORKER_UID if self._by == "root" else self._maker.uid
            with Host(uid=self._maker.uid, inner_uid=inner, home=self._maker.home) as host:
                yield host

    def command(self, host: Host, argv: list[str], held: Held) -> list[str]:
        assert self._maker is not None
        options = ["--profile", self._limited(self._maker, held)] if held is not Held.NONE else []
        if held is Held.NONE and self._by != "root":
            options += ["--optional", "cgroup"]
        return [*self._maker.interpreter, "-m", "sandbox", "run", *options, "--write", str(host.workspace), "--", *argv]

    def environment(self, host: Host) -> dict[str, str]:
        assert self._maker is not None
        return self._maker.environment()

    def become(self, host: Host) -> list[str]:
        return []

    def _limited(self, by: Maker, held: Held) -> str:
        limits = {"open_files": BOUNDS.open_files, "tmp_bytes": BOUNDS.tmp_bytes, "file_size_bytes": BOUNDS.file_bytes}
        limits["disk_bytes"] = BOUNDS.disk_bytes
        if held is Held.BY_GROUPS:
            limits |= {"memory_bytes": BOUNDS.memory_bytes, "pids": BOUNDS.pids}
        extends = "strict" if held is Held.BY_GROUPS else ""  # which has limits that an ordinary user's login may not hold
        return by.profile(f'extends = "{extends}"\n' + "".join(f"{name} = {value}\n" for name, value in limits.items()))


class Nothing(Jail):
    """No sandbox: what an attempt does where nothing holds it."""

    name = "no sandbox"

    def command(self, host: Host, argv: list[str], held: Held) -> list[str]:
        return argv


class Bubblewrap(Jail):
    """The command of its README and of its demos/bubblewrap-shell.sh, without that one's network."""

    name = "bubblewrap"

    def missing(self) -> str:
        return "" if shutil.which("bwrap") else "bwrap is not installed"

    def command(self, host: Host, argv: list[str], held: Held) -> list[str]:
        links = [word for name in ("lib", "lib64", "bin", "sbin") for word in ("--symlink", f"usr/{name}", f"/{name}")]
        runtime = f"/run/user/{host.uid}"
        return [
            *("bwrap", "--ro-bind", "/usr", "/usr", *links, "--dir", "/tmp", "--dir", "/var", "--symlink", "../tmp", "var/tmp"),
            *("--proc", "/proc", "--dev", "/dev", "--ro-bind", "/etc/resolv.conf", "/etc/resolv.conf"),
            *("--unshare-all", "--die-with-parent", "--new-session", "--dir", runtime, "--setenv", "XDG_RUNTIME_DIR", runtime),
            *("--bind", str(host.workspace), str(host.workspace), "--chdir", str(host.workspace), "--", *argv),
        ]


class SandboxRuntime(Jail):
    """Anthropic's, with the settings of its README's example and no domain."""

    name = "sandbox-runtime"
    _cli = PEERS / "srt/node_modules/@anthropic-ai/sandbox-runtime/dist/cli.js"

    def missing(self) -> str:
        return "" if self._cli.exists() else "not installed: .ci/setup escape"

    def command(self, host: Host, argv: list[str], held: Held) -> list[str]:
        settings = host.home / f"srt-{host.workspace.name}.json"
        if not settings.exists():
            filesystem = {"denyRead": ["~/.ssh"], "allowRead": [], "allowWrite": [".", "/tmp"], "denyWrite": [".env"]}
            rules = {"network": {"allowedDomains": [], "deniedDomains": []}, "filesystem": filesystem}
            host.file(settings, json.dumps(rules))
        return ["node", str(self._cli), "--settings", str(settings), "--", *argv]


class Sandlock(Jail):
    """With the paths of its README; where attempts are against limits, with those that it has."""

    name = "sandlock"
    _python = PEERS / "sandlock/bin/python"

    def missing(self) -> str:
        return "" if self._python.exists() else "not installed: .ci/setup escape"

    def command(self, host: Host, argv: list[str], held: Held) -> list[str]:
        given: dict[str, object] = {
            "fs_readable": ["/usr", "/lib", "/lib64", "/bin", "/etc", "/proc", "/dev"],
            "fs_writable": [str(host.workspace), "/tmp"],
            "cwd": str(host.workspace),
        }
        if held is not Held.NONE:
            given |= {"max_memory": BOUNDS.memory_bytes, "max_processes": BOUNDS.pids, "max_open_files": BOUNDS.open_files}
            given |= {"workdir": str(host.workspace), "max_disk": BOUNDS.tmp_bytes}
        code = f"import sys; from sandlock import Sandbox; sys.exit(Sandbox(**{given!r}).run_interactive({argv!r}))"
        return [str(self._python), "-c", code]


class Firejail(Jail):
    """With its default profile, no network, and its limits where attempts are against limits."""

    name = "firejail"

    def missing(self) -> str:
        if not shutil.which("firejail"):
            return "not installed: .ci/setup escape"
        with contextlib.suppress(KeyError):
            pwd.getpwnam(ACCOUNT)
            return ""
        return f"it serves none but those in /etc/passwd, and there is no account {ACCOUNT}: .ci/setup escape"

    def command(self, host: Host, argv: list[str], held: Held) -> list[str]:
        bounds = []
        if held is not Held.NONE:
            sizes = [f"--rlimit-as={BOUNDS.memory_bytes}", f"--rlimit-fsize={BOUNDS.file_bytes}"]
            bounds = [*sizes, f"--rlimit-nproc={BOUNDS.pids}", f"--rlimit-nofile={BOUNDS.open_files}"]
        return ["firejail", "--quiet", "--net=none", *bounds, "--", *argv]


class Nsjail(Jail):
    """Its README's way to run a shell over a part of the system, without root."""

    name = "nsjail"

    def missing(self) -> str:
        return "" if shutil.which("nsjail") else "not installed; Debian 12 does not have it"

    def command(self, host: Host, argv: list[str], held: Held) -> list[str]:
        seen = [word for path in ("/bin", "/lib", "/lib64", "/usr") for word in ("-R", path)]
        bounds = ["--rlimit_nofile", str(BOUNDS.open_files), "--rlimit_nproc", str(BOUNDS.pids)] if held is not Held.NONE else []
        where = ["-B", str(host.workspace), "-T", "/tmp", "-D", str(host.workspace)]
        return ["nsjail", "-Mo", "-Q", "--user", "99999", "--group", "99999", *seen, *where, *bounds, "--", *argv]


OURS = (Ours("root"), Ours("ordinary"))
PEER_JAILS = (Bubblewrap(), SandboxRuntime(), Sandlock(), Firejail(), Nsjail())


def works(jail: Jail) -> str:
    """Why not even a harmless program runs in it; empty: one does."""
    if why := jail.missing():
        return why
    with jail.host() as host:
        argv = [*jail.become(host), *jail.command(host, [SYSTEM_PYTHON, "-c", "print('it runs')"], Held.NONE)]
        environment = jail.environment(host)
        try:
            done = subprocess.run(
                argv, capture_output=True, text=True, env=environment, cwd=host.workspace, timeout=60, check=False
            )
        except subprocess.TimeoutExpired:
            return "a harmless program does not end in it"
    return "" if "it runs" in done.stdout else f"a harmless program does not run in it: {done.stderr.strip()[-200:]}"
