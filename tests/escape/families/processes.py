"""Other processes: reading, writing, tracing and killing them, and outliving the sandbox."""

from __future__ import annotations

import os
import subprocess
import time
from pathlib import Path

from tests.escape.attempt import Course, Family, Judged, Verdict, effect, leak, reached
from tests.escape.host import Host, new_token, processes_with

family = Family("processes")


@family.attempt("""
trying("list", lambda: [read(f"/proc/{pid}/cmdline") for pid in processes()])
trying("it", read, f"/proc/{words['pid']}/cmdline")
trying("status", read, f"/proc/{words['pid']}/status")
""")
def process_list(host: Host) -> Course:
    """Sees the processes of the host, with their arguments."""
    victim = host.victim()
    outcome = yield {"pid": victim.pid}
    return leak(outcome, victim.secret)


@family.attempt("""
def attach(pid):
    call("ptrace", 16, pid, 0, 0)
    os.waitpid(pid, 0)
    value = call("ptrace", 2, pid, words["address"], ctypes.byref(ctypes.c_long()))
    call("ptrace", 17, pid, 0, 0)
    return value
trying("attach", attach, words["pid"])
trying("seize", call, "ptrace", 0x4206, words["pid"], 0, 0)
""")
def trace_a_sibling(host: Host) -> Course:
    """Attaches to a process of the host by ptrace."""
    victim = host.victim()
    outcome = yield {"pid": victim.pid, "address": victim.address}
    return reached(outcome, bool(outcome.did))


@family.attempt("""
child = os.fork()
if child == 0:
    time.sleep(30)
    os._exit(0)
trying("child", call, "ptrace", 16, child, 0, 0)
for pid in {1, os.getppid()} - {os.getpid()}:
    trying(f"init {pid}", call, "ptrace", 0x4206, pid, 0, 0)
os.kill(child, signal.SIGKILL)
""")
def trace_inside(host: Host) -> Course:
    """Traces its own child, and the first process of the sandbox."""
    outcome = yield {}
    return effect(outcome)


VECTORS = """
class Vector(ctypes.Structure):
    _fields_ = [("base", ctypes.c_void_p), ("length", ctypes.c_size_t)]
def vectors(local):
    return ctypes.byref(Vector(ctypes.addressof(local), len(local))), 1, ctypes.byref(Vector(words["address"], len(local))), 1
"""


@family.attempt(
    VECTORS
    + """
local = ctypes.create_string_buffer(40)
for pid in [words["pid"], 1]:
    def take():
        call("process_vm_readv", pid, *vectors(local), 0)
        return local.raw.decode("latin-1")
    trying(str(pid), take)
"""
)
def read_memory(host: Host) -> Course:
    """Reads another process's memory by process_vm_readv."""
    victim = host.victim()
    outcome = yield {"pid": victim.pid, "address": victim.address}
    return leak(outcome, victim.secret)


@family.attempt(
    VECTORS
    + """
local = ctypes.create_string_buffer(b"overwritten by the sandbox")
trying("write", lambda: call("process_vm_writev", words["pid"], *vectors(local), 0))
"""
)
def write_memory(host: Host) -> Course:
    """Writes another process's memory by process_vm_writev."""
    victim = host.victim()
    outcome = yield {"pid": victim.pid, "address": victim.address}
    with Path(f"/proc/{victim.pid}/mem").open("rb", buffering=0) as memory:
        memory.seek(victim.address)
        changed = memory.read(11) == b"overwritten"
    return reached(outcome, changed)


@family.attempt("""
for number in (signal.SIGTERM, signal.SIGKILL):
    trying(number.name, os.kill, words["pid"], number)
trying("group", os.killpg, words["group"], signal.SIGKILL)
""")
def kill_a_sibling(host: Host) -> Course:
    """Kills a process of the host by its number."""
    victim = host.victim()
    outcome = yield {"pid": victim.pid, "group": 2**22 - 7}
    return reached(outcome, _dies(victim.process))


@family.attempt("""
def by_descriptor():
    descriptor = call("pidfd_open", words["pid"], 0)
    return call("pidfd_send_signal", descriptor, signal.SIGKILL, None, 0)
trying("pidfd", by_descriptor)
trying("proc", lambda: call("pidfd_send_signal", os.open(f"/proc/{words['pid']}", os.O_RDONLY), signal.SIGKILL, None, 0))
""")
def kill_by_descriptor(host: Host) -> Course:
    """Kills a process of the host through a pidfd."""
    victim = host.victim()
    outcome = yield {"pid": victim.pid}
    return reached(outcome, _dies(victim.process))


@family.attempt("""
def steal(pid):
    return os.pread(call("pidfd_getfd", call("pidfd_open", pid, 0), 9, 0), 64, 0).decode("latin-1")
trying("victim", steal, words["pid"])
trying("init", lambda: call("pidfd_getfd", call("pidfd_open", 1, 0), 0, 0))
""")
def steal_a_descriptor(host: Host) -> Course:
    """Takes an open file out of a process of the host by pidfd_getfd."""
    victim = host.victim()
    outcome = yield {"pid": victim.pid}
    return leak(outcome, victim.secret) if victim.secret.token in outcome.output or not outcome.did else effect(outcome)


@family.attempt("""
trying("limit", resource.prlimit, words["pid"], resource.RLIMIT_NOFILE, (7, 7))
trying("affinity", os.sched_setaffinity, words["pid"], {0})
trying("priority", os.setpriority, os.PRIO_PROCESS, words["pid"], 19)
trying("oom", write, f"/proc/{words['pid']}/oom_score_adj", "1000")
""")
def limits_of_a_sibling(host: Host) -> Course:
    """Changes limits, processors, priority and OOM score of a process of the host."""
    victim = host.victim()
    before = _settings(victim.pid)
    outcome = yield {"pid": victim.pid}
    return reached(outcome, _settings(victim.pid) != before)


@family.attempt(
    """
trying("compare", call, "kcmp", os.getpid(), 1, 1, 0, 0)
trying("advice", lambda: call("pidfd_open", 1, 0))
trying("signal", os.kill, 1, signal.SIGTERM)
trying("stop", os.kill, 1, signal.SIGSTOP)
trying("kill", os.kill, 1, signal.SIGKILL)
""",
    alone=True,
)
def kill_the_first_process(host: Host) -> Course:
    """Kills PID 1 of its own world."""
    victim = host.victim()
    outcome = yield {}
    if victim.alive and not outcome.ended:
        return Judged(Verdict.CONTAINED, "it ended its own sandbox")
    return reached(outcome, not victim.alive)


@family.attempt(
    """
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
            signal.signal(number, signal.SIG_IGN)
        signal.alarm(40)
        stay = "import signal; signal.alarm(40); signal.pause()"
        os.execv("/usr/bin/python3", ["python3", "-I", "-S", "-c", stay, words["token"]])
    os._exit(0)
time.sleep(0.3)
tell(did={"left behind": 1})
""",
    alone=True,
)
def outlive_the_sandbox(host: Host) -> Course:
    """Leaves a process in a session of its own that goes on when the sandbox has ended."""
    token = new_token()
    outcome = yield {"token": token}
    until = time.monotonic() + 2
    while (left := processes_with(token)) and time.monotonic() < until:
        time.sleep(0.05)
    for pid in left:
        os.kill(pid, 9)
    return reached(outcome, bool(left))


@family.attempt("""
trying("protect", lambda: (write("/proc/self/oom_score_adj", "-1000"), int(read("/proc/self/oom_score_adj")))[1])
trying("nice", os.setpriority, os.PRIO_PROCESS, 0, -20)
trying("real time", os.sched_setscheduler, 0, os.SCHED_FIFO, os.sched_param(50))
trying("memory lock", lambda: resource.setrlimit(resource.RLIMIT_MEMLOCK, (1 << 40, 1 << 40)))
""")
def favours_of_the_scheduler(host: Host) -> Course:
    """Takes real-time priority, and protection when memory runs out."""
    outcome = yield {}
    return effect(outcome, Verdict.ESCAPED)


def _dies(process: subprocess.Popen[str]) -> bool:
    """A signal that was sent is on its way for a moment."""
    try:
        process.wait(0.2)
    except subprocess.TimeoutExpired:
        return False
    return True


def _settings(pid: int) -> tuple[object, ...]:
    return (
        Path(f"/proc/{pid}/limits").read_text(),
        os.sched_getaffinity(pid),
        os.getpriority(os.PRIO_PROCESS, pid),
        Path(f"/proc/{pid}/oom_score_adj").read_text(),
    )
