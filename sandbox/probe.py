"""What this host enforces, found by trying: one Layer a mechanism, with the one thing to do where it does not work.

Nothing is concluded from version numbers or configuration when it can be tried. The kernel's mechanisms are tried by
`probe_child.py` in a process of its own, the cgroup limits on a small child that breaks them, and the whole by a real sandbox.
"""

from __future__ import annotations

import json
import os
import platform
import select
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from sandbox import apparmor, landlock
from sandbox.cgroup import RESOURCES, Cgroups, Group
from sandbox.errors import SandboxError

MINIMUM_KERNEL = (5, 14)
"""The release with cgroup.kill; Landlock, id-mapped mounts, pidfds and close_range are all older."""

TRIAL_MEMORY_BYTES = 48 << 20
TRIAL_PIDS = 4
TRIAL_TIMEOUT_S = 20.0

_BREAK_LIMITS = f"""
import os, signal, sys
sys.stdin.buffer.read(1)
try:
    for _ in range({2 * TRIAL_PIDS}):
        if os.fork() == 0:
            signal.pause()
    print("no limit", flush=True)
except BlockingIOError:
    print("refused", flush=True)
b"x" * {2 * TRIAL_MEMORY_BYTES}
"""
"""Forks until it is refused, then takes more memory than it may; it starts when it has been put into its group."""

_REMEDIES = {
    "no_new_privs": "Use a stock kernel: this has been in Linux since 3.5.",
    "seccomp": "Use a kernel with CONFIG_SECCOMP_FILTER, or let the container's own filter allow seccomp(2).",
    "libseccomp": "Install the package libseccomp2, and pyseccomp for this Python.",
    "landlock files": "Boot Linux 5.19 or newer with `landlock` in the lsm= list.",
    "landlock scopes": "Use Linux 6.12 or newer.",
    "pidfd": "Use Linux 5.4 or newer.",
    "close_range": "Use Linux 5.9 or newer.",
    "id-mapped mounts": "Run as the system service (root), on Linux 5.12 or newer.",
    "copy-on-write views": "Use Linux 5.19 or newer with CONFIG_OVERLAY_FS, or the workspace mode `copy` instead of `overlay`.",
    "pid namespace": "Use a kernel with CONFIG_PID_NS.",
    "net namespace": "Use a kernel with CONFIG_NET_NS.",
    "ipc namespace": "Use a kernel with CONFIG_IPC_NS.",
    "uts namespace": "Use a kernel with CONFIG_UTS_NS.",
    "cgroup namespace": "Use a kernel with CONFIG_CGROUPS.",
    "time namespace": "Use a kernel with CONFIG_TIME_NS.",
    "mount namespace": "Let the container that this runs in mount: give it CAP_SYS_ADMIN or user namespaces.",
    "pivot_root": "Let the container that this runs in call pivot_root(2): its filter refuses it.",
}
NOT_NEEDED = frozenset(
    {"copy-on-write views", "id-mapped mounts", "landlock scopes", "other groups", "apparmor", "time namespace", "yama"}
)
"""What a sandbox can do without, whoever makes it."""
_CONDITIONS = frozenset({"libseccomp", "pidfd", "close_range"})
_HERE = str(Path(__file__).parent.parent)
_START = "import sys; sys.path.insert(0, sys.argv.pop(1)); from sandbox.{0} import main; sys.exit(main())"
"""-I keeps the environment and the working directory out of the import path; ours must be in it even when it is not installed."""
_NEEDS_PRIVILEGE = ("mount namespace", "pivot_root", "copy-on-write views")


@dataclass(frozen=True, slots=True)
class Layer:
    """A mechanism: whether it works here, how that was seen, and what to do when it does not.

    A sandbox can do without a layer that is not `needed`: it is told for information. A `condition` is no layer, but what the
    layers stand on, or a setting of the host that explains them.
    """

    name: str
    enforced: bool
    how: str
    remedy: str = ""
    needed: bool = True
    condition: bool = False


def probe(cgroups: Cgroups | None = None, *, whole: bool = False) -> list[Layer]:
    """Try everything, in about a second; call it before an event loop runs, for it blocks. `whole`: make a real sandbox, too.

    Give it the `cgroups` that the caller holds; without, it takes and releases a directory of its own, which on v2 moves this
    process as `Cgroups.detect` says. Raises SandboxError when the trials cannot be started at all.
    """
    mechanisms = _mechanisms()
    layers = [_kernel(), *mechanisms, _groups(), *_host_policies(), *_ways(mechanisms), *([_whole()] if whole else [])]
    if cgroups is not None:
        return [*layers, *_cgroup_layers(cgroups)]
    taken = Cgroups.detect(f"sandbox-probe-{os.getpid()}")
    try:
        return [*layers, *_cgroup_layers(taken)]
    finally:
        taken.close()


def report(layers: list[Layer]) -> str:
    """The layers as lines for a person: what works, what is missing and what to do about it. Ends without a newline."""
    width = max((len(layer.name) for layer in layers), default=0)
    lines = []
    told = ""
    for layer in layers:
        mark = "ok     " if layer.enforced else "MISSING" if layer.needed else "off    "
        lines.append(f"{mark}  {layer.name:{width}}  {layer.how}")
        if layer.remedy and layer.remedy != told:
            lines.append(f"{'':9}{'':{width}}  -> {layer.remedy}")
            told = layer.remedy
    missing = sum(layer.needed and not layer.enforced for layer in layers)
    lines.append(f"{missing} of {len(layers)} layers missing." if missing else "Every layer that is needed works here.")
    return "\n".join(lines)


def _kernel() -> Layer:
    release = platform.release()
    numbers = tuple(int(part) for part in release.split("-")[0].split(".")[:2] if part.isdigit())
    good = numbers >= MINIMUM_KERNEL
    wanted = ".".join(map(str, MINIMUM_KERNEL))
    remedy = "" if good else f"Use Linux {wanted} or newer."
    return Layer("kernel", good, f"Linux {release} on {platform.machine()}", remedy, condition=True)


def _mechanisms() -> list[Layer]:
    launcher = apparmor.launcher()
    argv = [launcher, "trials"] if launcher else [sys.executable, "-I", "-c", _START.format("probe_child"), _HERE]
    try:
        done = subprocess.run(
            argv,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            check=True,
            timeout=TRIAL_TIMEOUT_S,
        )
    except (OSError, subprocess.SubprocessError) as error:
        raise SandboxError(f"the trials did not run: {error}", step="probe", hint="Try again on a quieter machine.") from error
    found: dict[str, dict[str, str | bool]] = json.loads(done.stdout)
    users = bool(found["user namespace"]["ok"])
    layers = []
    for name, outcome in found.items():
        works, how = bool(outcome["ok"]), str(outcome["how"])
        # Root's sandboxes do without.
        spare = name == "user namespace" and os.geteuid() == 0
        remedy = "" if works else _remedy(name, users=users)
        layers.append(Layer(name, works, how, remedy, name not in NOT_NEEDED and not spare, spare or name in _CONDITIONS))
    return layers


def _remedy(name: str, *, users: bool) -> str:
    if name == "user namespace":
        return _user_namespace_remedy()
    if os.geteuid() != 0 and not users and (name.endswith(" namespace") or name in _NEEDS_PRIVILEGE):
        return "Make user namespaces work first."
    return _REMEDIES[name]


def _user_namespace_remedy() -> str:
    if apparmor.restricted():
        return "Run once: sudo agentctl install apparmor; or run as the system service."
    if _sysctl("kernel/unprivileged_userns_clone") == "0":
        return "Run `sysctl -w kernel.unprivileged_userns_clone=1`, or run as the system service."
    if _sysctl("user/max_user_namespaces") == "0":
        return "Run `sysctl -w user.max_user_namespaces=15000`, or run as the system service."
    return "Run as the system service, or let the container that this runs in make user namespaces."


def _groups() -> Layer:
    """A user namespace of an ordinary user must deny setgroups(2), so that groups which take rights away stay (CVE-2014-8989)."""
    name = "other groups"
    if os.geteuid() == 0:
        return Layer(name, True, "a worker is in none", needed=False, condition=True)
    own = os.getegid()
    kept = [group for group in os.getgroups() if group != own]
    if not kept:
        return Layer(name, True, "this user is in none", needed=False, condition=True)
    how = f"a worker keeps this user's: {', '.join(map(str, kept))}; one of the system service has none"
    return Layer(name, False, how, needed=False, condition=True)


def _whole() -> Layer:
    """A real sandbox, by the way that people make one."""
    options = ["--optional", "cgroup", "--optional", "landlock"]
    arguments = [sys.executable, "-I", "-c", _START.format("cli"), _HERE, "run", *options, "--", "true"]
    try:
        done = subprocess.run(
            arguments, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=TRIAL_TIMEOUT_S, check=False
        )
    except (OSError, subprocess.SubprocessError) as error:
        return Layer("a sandbox", False, f"did not run: {error}", "Try again on a quieter machine.")
    if done.returncode == 0:
        return Layer("a sandbox", True, "was made, and a program ran in it")
    said = (done.stderr.strip().splitlines() or [f"it ended with {done.returncode}"])[-1]
    return Layer("a sandbox", False, said, "See what is missing above.")


def _host_policies() -> list[Layer]:
    """Settings of the host that are no layer of ours but explain what is seen above."""
    ptrace = _sysctl("kernel/yama/ptrace_scope")
    return [
        _apparmor(),
        Layer(
            "yama",
            ptrace not in ("", "0"),
            f"ptrace_scope {ptrace}" if ptrace else "not in this kernel",
            "Run `sysctl -w kernel.yama.ptrace_scope=1`." if ptrace == "0" else "",
            needed=False,
            condition=True,
        ),
    ]


WAYS = ("way: service", "way: namespaces", "way: Landlock")


def _ways(mechanisms: list[Layer]) -> list[Layer]:
    """The three ways to sandboxes, best first; the first that works is taken. docs/sandbox.md says what each is."""
    root, launcher = os.geteuid() == 0, apparmor.launcher()
    users = next(layer for layer in mechanisms if layer.name == "user namespace")
    works = [root, not root and users.enforced, not root and landlock.version() >= landlock.MINIMUM]
    taken = works.index(True) if True in works else -1
    hows = [
        "root makes the namespaces, workers have uids of their own" if root else "needs root",
        "not needed by root" if root else f"by {launcher}, which has a profile" if users.enforced and launcher else users.how,
        "only for ordinary users"
        if root
        else f"version {landlock.version()}, lacks much; only with `namespaces` in optional_layers",
    ]
    remedies = ["Install the system service: docs/systemd.md.", _user_namespace_remedy(), _REMEDIES["landlock files"]]
    return [
        Layer(
            name,
            works[number],
            f"{hows[number]}{' (this one is taken)' if number == taken else ''}",
            "" if works[number] or root or taken in range(number) else remedies[number],
            needed=False,
            condition=True,
        )
        for number, name in enumerate(WAYS)
    ]


def _apparmor() -> Layer:
    if not _parameter("apparmor", "enabled").startswith("Y"):
        return Layer("apparmor", False, "not in this kernel, or switched off", needed=False, condition=True)
    restricted = _sysctl("kernel/apparmor_restrict_unprivileged_userns") == "1"
    how = "restricts user namespaces to programs with a profile" if restricted else "on; does not restrict user namespaces"
    return Layer("apparmor", True, how, needed=False, condition=True)


def _parameter(module: str, name: str) -> str:
    try:
        return Path("/sys/module", module, "parameters", name).read_text().strip()
    except OSError:
        return ""


def _sysctl(name: str) -> str:
    """The value of a sysctl; empty where the kernel does not have it."""
    try:
        return Path("/proc/sys", name).read_text().strip()
    except OSError:
        return ""


def _cgroup_layers(cgroups: Cgroups) -> list[Layer]:
    seen = cgroups.layers()
    limits = {"memory": TRIAL_MEMORY_BYTES, "pids": TRIAL_PIDS, "cpu": 100}
    asked = {name: limits[name] if seen[name] == cgroups.backend else 0 for name in RESOURCES}
    held: dict[str, str] = {}
    if cgroups.backend != "none":
        try:
            held = _try_limits(cgroups, asked)
        except (SandboxError, OSError, subprocess.SubprocessError) as error:
            seen = dict.fromkeys(RESOURCES, f"the trial failed: {error}")
    return [
        Layer(f"cgroup {name}", True, f"{seen[name]}, {held[name]}")
        if name in held
        else Layer(f"cgroup {name}", False, "not enforced" if seen[name] == cgroups.backend else seen[name], _CGROUP_REMEDY)
        for name in RESOURCES
    ]


_CGROUP_REMEDY = (
    "Start the daemon as the systemd service, which has Delegate=yes, or under `systemd-run --user --scope -p Delegate=yes`."
)


def _try_limits(cgroups: Cgroups, asked: dict[str, int]) -> dict[str, str]:
    """What was seen of each limit that holds, from a child that breaks them."""
    group = cgroups.create(f"trial-{os.getpid()}", memory_bytes=asked["memory"], pids=asked["pids"], cpu_percent=asked["cpu"])
    try:
        forked, status = _break_limits(group)
    finally:
        group.kill()
        group.remove()
    held = {"cpu": "quota set"} if asked["cpu"] else {}
    if forked == "refused" and group.events().pids_limit_hits:
        held["pids"] = "a fork over the limit was refused"
    if status == -signal.SIGKILL and group.events().oom_kills:
        held["memory"] = "a process over the limit was killed"
    return held


def _await_end(child: subprocess.Popen[str], group: Group) -> int:
    """The exit status of the child, which is killed here where the kernel leaves that to us."""
    if (memory := group.oom_descriptor()) >= 0:
        ended = os.pidfd_open(child.pid)
        try:
            select.select([memory, ended], [], [], TRIAL_TIMEOUT_S)
        finally:
            os.close(ended)
        group.kill()
    return child.wait(TRIAL_TIMEOUT_S)


def _break_limits(group: Group) -> tuple[str, int]:
    arguments = [sys.executable, "-I", "-S", "-c", _BREAK_LIMITS]
    with subprocess.Popen(
        arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as child:
        assert child.stdin is not None
        assert child.stdout is not None
        try:
            group.attach(child.pid)
            child.stdin.write("go")
            child.stdin.close()
            return child.stdout.readline().strip(), _await_end(child, group)
        finally:
            child.kill()
            group.kill()
