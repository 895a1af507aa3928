"""What a sandbox costs: /bin/true from the request to its known exit, in milliseconds, and 100 of them at once.

Four ways take turns in one run, so that the ratios hold on a busy machine too:

    posix_spawn    no sandbox: the floor
    bwrap          the same namespaces, binds, /proc, /dev and /tmp, and a seccomp filter of about the size of ours
    on demand      this project's
    parked         the same with sandboxes parked, which are replaced between two turns

and what memory parked ones and warm workers have that they share with no other process.

    python benchmarks/bench_spawn.py [--json] [-n 60]
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import shutil
import socket
import statistics
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import NamedTuple

import psutil
import pyseccomp

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from sandbox import protocol
from sandbox.spawner import Sandbox, Spawner
from sandbox.spec import Bind, SandboxSpec
from supervisord_agents.wire import frames
from supervisord_agents.workers.shape import RUNTIME_MODULE, runtime_paths

AT_ONCE = 100
ROUNDS_AT_ONCE = 3
WARM_UP = 3
GAP_S = 0.01
"""The kernel takes namespaces down after the exit is known: without a pause, one way pays for the other's."""

PARKED = 4
REPLACED_S = 0.08
"""Long enough for a parked sandbox to be replaced."""
WORKERS = 3
BUDGETS = {"on demand": 1.0, "parked": 0.5}
"""Of bwrap."""
BUDGET_WORKER_MB = 12
TRUE = shutil.which("true") or "/bin/true"
UID = 1_900_000_000

DENIED = """
    acct add_key adjtimex bpf chroot clock_adjtime clock_settime clone3 create_module delete_module fanotify_init finit_module
    fsconfig fsmount fsopen fspick get_kernel_syms get_mempolicy init_module io_uring_enter io_uring_register io_uring_setup
    ioperm iopl kcmp kexec_file_load kexec_load keyctl lookup_dcookie mbind migrate_pages modify_ldt mount mount_setattr
    move_mount move_pages name_to_handle_at nfsservctl open_by_handle_at open_tree perf_event_open personality pidfd_getfd
    pivot_root process_madvise process_vm_readv process_vm_writev ptrace query_module quotactl quotactl_fd reboot request_key
    set_mempolicy setdomainname sethostname setns settimeofday swapoff swapon sysfs syslog umount2 unshare uselib userfaultfd
    ustat vhangup vmsplice
"""

Way = Callable[[], Awaitable[None]]


class Figures(NamedTuple):
    """What is measured: times of each way, and memory."""

    times: dict[str, dict[str, float]]
    mb: dict[str, float]


def filter_descriptor() -> int:
    """A memory file with a compiled filter that refuses what ours does, for `bwrap --seccomp`."""
    rules = pyseccomp.SyscallFilter(pyseccomp.ALLOW)
    for name in DENIED.split():
        if pyseccomp.resolve_syscall(pyseccomp.system_arch(), name) > 0:
            rules.add_rule(pyseccomp.ERRNO(1), name)
    for request in (0x5412, 0x541C):  # TIOCSTI, TIOCLINUX
        rules.add_rule(pyseccomp.ERRNO(1), "ioctl", pyseccomp.Arg(1, pyseccomp.MASKED_EQ, 0xFFFFFFFF, request))
    for family in (*range(3, 10), *range(11, 16), *range(17, 46)):  # all but UNIX, INET, INET6 and NETLINK
        rules.add_rule(pyseccomp.ERRNO(97), "socket", pyseccomp.Arg(0, pyseccomp.EQ, family))
    descriptor = os.memfd_create("filter")
    with os.fdopen(os.dup(descriptor), "wb") as file:
        rules.export_bpf(file)
    return descriptor


def bwrap_arguments(seccomp: int) -> list[str]:
    merged = [argument for name in ("bin", "lib", "lib64", "sbin") for argument in ("--symlink", f"usr/{name}", f"/{name}")]
    return [
        shutil.which("bwrap") or "bwrap",
        *("--unshare-all", "--die-with-parent", "--new-session", "--cap-drop", "ALL"),
        *("--ro-bind", "/usr", "/usr", *merged, "--ro-bind", "/etc/ld.so.cache", "/etc/ld.so.cache"),
        *("--proc", "/proc", "--dev", "/dev", "--tmpfs", "/tmp", "--seccomp", str(seccomp), "--", TRUE),
    ]


class Plain:
    """A child of this process, started by posix_spawn: /bin/true itself, or bwrap with a filter."""

    def __init__(self, seccomp: int | None = None) -> None:
        self._seccomp = seccomp

    async def __call__(self) -> None:
        pid = self._start()
        descriptor = os.pidfd_open(pid)
        exited = asyncio.Event()
        loop = asyncio.get_running_loop()
        loop.add_reader(descriptor, exited.set)
        try:
            await exited.wait()
        finally:
            loop.remove_reader(descriptor)
            os.close(descriptor)
        succeeded(reaped(pid))

    def _start(self) -> int:
        if self._seccomp is None:
            return os.posix_spawn(TRUE, [TRUE], {})
        # Opened anew for each: concurrent readers must not share a position.
        descriptor = os.open(f"/proc/self/fd/{self._seccomp}", os.O_RDONLY)
        os.set_inheritable(descriptor, True)
        try:
            arguments = bwrap_arguments(descriptor)
            return os.posix_spawn(arguments[0], arguments, {"PATH": "/usr/bin:/bin"})
        finally:
            os.close(descriptor)


def reaped(pid: int) -> int:
    """The exit code of a child that has ended."""
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def succeeded(code: int) -> None:
    if code:
        raise SystemExit(f"/bin/true ended with {code}: this way of starting it does not work here")


class Ours:
    """The spawner of this project."""

    def __init__(self, spawner: Spawner) -> None:
        self._spawner = spawner
        self._spec = SandboxSpec(argv=(TRUE,), env={"PATH": "/usr/bin:/bin"}, cwd="/", uid=UID)

    async def __call__(self) -> None:
        sandbox = await self._spawner.spawn(self._spec, {})
        succeeded((await sandbox.wait()).code)


async def one_by_one(ways: dict[str, Way], repeats: int) -> dict[str, float]:
    """Median milliseconds of each way."""
    taken: dict[str, list[float]] = {name: [] for name in ways}
    for number in range(WARM_UP + repeats):
        for name, way in ways.items():
            start = time.perf_counter()
            await way()
            if number >= WARM_UP:
                taken[name].append((time.perf_counter() - start) * 1e3)
            await asyncio.sleep(REPLACED_S if name == "parked" else GAP_S)
    return {name: statistics.median(values) for name, values in taken.items()}


async def at_once(ways: dict[str, Way]) -> dict[str, float]:
    """Milliseconds until AT_ONCE of them are done, median of the rounds."""
    taken: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(ROUNDS_AT_ONCE):
        for name, way in ways.items():
            start = time.perf_counter()
            await asyncio.gather(*(way() for _ in range(AT_ONCE)))
            taken[name].append((time.perf_counter() - start) * 1e3)
            await asyncio.sleep(20 * GAP_S)
    return {name: statistics.median(values) for name, values in taken.items()}


async def memory(spawner: Spawner) -> dict[str, float]:
    """MB that are a process's own: of a parked sandbox, and of a worker that waits for a task."""
    assert spawner._process is not None
    [server] = psutil.Process(spawner._process.pid).children()
    await asyncio.sleep(PARKED * REPLACED_S)
    parked = [own(child.pid) for child in server.children()]
    workers = [await worker(spawner) for _ in range(WORKERS)]
    figures = {"parked": parked, "worker": [own(sandbox.pid) for sandbox in workers]}
    for sandbox in workers:
        sandbox.kill()
        await sandbox.wait()
    return {name: round(statistics.median(values), 2) for name, values in figures.items()}


async def worker(spawner: Spawner) -> Sandbox:
    """One that has said that it is ready."""
    ours, theirs = socket.socketpair()
    _, handover = protocol.pair()
    outbox = os.memfd_create("outbox")
    spec = SandboxSpec(
        argv=(sys.executable, "-I", "-m", RUNTIME_MODULE),
        env={"PATH": "/usr/bin:/bin"},
        binds=tuple(map(Bind, runtime_paths())),
        uid=UID,
    )
    with theirs, handover:
        given = {frames.CHANNEL_FD: theirs.fileno(), frames.HANDOVER_FD: handover.fileno(), frames.OUTBOX_FD: outbox}
        sandbox = await spawner.spawn(spec, given)
    os.close(outbox)
    ours.setblocking(False)
    await asyncio.get_running_loop().sock_recv(ours, 1)
    ours.detach()  # open as long as this process: without it the worker would look for a new daemon
    return sandbox


def own(pid: int) -> float:
    return float(psutil.Process(pid).memory_full_info().uss / 1e6)


async def measure(on_demand: Spawner, parked: Spawner, repeats: int) -> Figures:
    ways: dict[str, Way] = {
        "posix_spawn": Plain(),
        "bwrap": Plain(filter_descriptor()),
        "on demand": Ours(on_demand),
        "parked": Ours(parked),
    }
    try:
        mb = await memory(parked)
        single, many = await one_by_one(ways, repeats), await at_once(ways)
    finally:
        await on_demand.aclose()
        await parked.aclose()
    times = {
        name: {
            "ms": round(single[name], 3),
            "ratio_to_bwrap": round(single[name] / single["bwrap"], 3),
            "at_once_ms": round(many[name], 1),
            "at_once_ratio_to_bwrap": round(many[name] / many["bwrap"], 3),
        }
        for name in ways
    }
    return Figures(times, mb)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("-n", type=int, default=60, metavar="N", help="sandboxes a way, one by one (60)")
    options = parser.parse_args()
    if shutil.which("bwrap") is None:
        print("bwrap is not installed: run `make bench`, which installs it", file=sys.stderr)
        return 2
    # They fork: before the event loop.
    on_demand = Spawner.start(cgroup_name=f"bench-{os.getpid()}-demand")
    parked = Spawner.start(cgroup_name=f"bench-{os.getpid()}-parked", parked=PARKED)
    times, mb = asyncio.run(measure(on_demand, parked, options.n))
    if options.json:
        print(json.dumps({**times, "own_mb": mb}))
        return 0
    print(f"{'/bin/true':12} {'median':>10} {'/ bwrap':>8} {f'{AT_ONCE} at once':>14} {'/ bwrap':>8}")
    for name, figure in times.items():
        print(
            f"{name:12} {figure['ms']:>7.2f} ms {figure['ratio_to_bwrap']:>8.2f} "
            f"{figure['at_once_ms']:>11.0f} ms {figure['at_once_ratio_to_bwrap']:>8.2f}"
        )
    for name, budget in BUDGETS.items():
        ratio = times[name]["ratio_to_bwrap"]
        print(f"budget: {name} at most {budget} of bwrap: {'kept' if ratio <= budget else 'exceeded'} ({ratio:.2f})")
    print(f"own memory: parked {mb['parked']:.2f} MB, warm worker {mb['worker']:.1f} MB of {BUDGET_WORKER_MB}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
