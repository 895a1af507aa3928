"""Reading what was not given."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

from tests.escape.attempt import Course, Family, Judged, NotApplicableError, Verdict, effect, leak
from tests.escape.host import Host, new_token

family = Family("files")

READ = """
for path in words["paths"]:
    trying(path, read, path)
"""


@family.attempt(READ)
def ssh_key(host: Host) -> Course:
    """Reads ~/.ssh/id_ed25519."""
    secret = host.secret(host.home / ".ssh" / "id_ed25519")
    outcome = yield {"paths": [secret.path, f"/proc/self/root{secret.path}"]}
    return leak(outcome, secret)


@family.attempt(READ)
def cloud_keys(host: Host) -> Course:
    """Reads ~/.aws/credentials, ~/.netrc and ~/.config/gcloud."""
    found = [host.secret(host.home / name) for name in (".aws/credentials", ".netrc", ".config/gcloud/credentials.db")]
    outcome = yield {"paths": [secret.path for secret in found]}
    return leak(outcome, *found)


@family.attempt(READ)
def browser_profile(host: Host) -> Course:
    """Reads the cookies of a browser and the history of a shell."""
    found = [host.secret(host.home / name) for name in (".mozilla/firefox/p/cookies.sqlite", ".bash_history")]
    outcome = yield {"paths": [secret.path for secret in found]}
    return leak(outcome, *found)


@family.attempt("""
import hashlib
for path in ("/etc/shadow", "/etc/gshadow", "/etc/shadow-"):
    trying(path, lambda: hashlib.sha256(open(path, "rb").read()).hexdigest())
""")
def shadow(host: Host) -> Course:
    """Reads /etc/shadow."""
    outcome = yield {}
    if os.geteuid() == 0:
        real = {hashlib.sha256(Path(path).read_bytes()).hexdigest() for path in ("/etc/shadow", "/etc/gshadow")}
        if real & set(map(str, outcome.did.values())):
            return Judged(Verdict.ESCAPED, "the real one")
    return effect(outcome)


@family.attempt("""
trying("list", lambda: [read(p) for top, _, names in os.walk(words["beside"]) for p in (os.path.join(top, n) for n in names)])
for path in words["paths"]:
    trying(path, read, path)
""")
def other_workspace(host: Host) -> Course:
    """Reads the workspace of another task."""
    secret = host.secret(host.directory("workspace") / "result.json")
    outcome = yield {"beside": str(host.home), "paths": [secret.path]}
    return leak(outcome, secret)


@family.attempt("""
tell(did={"environment": dict(os.environ)})
""")
def own_environment(host: Host) -> Course:
    """Finds the caller's secret in its own environment."""
    host.environment["ANTHROPIC_API_KEY"] = token = new_token()
    outcome = yield {}
    return Judged(Verdict.ESCAPED, "the variable was passed on") if token in outcome.output else Judged(Verdict.BLOCKED)


@family.attempt("""
trying("1", read, "/proc/1/environ", 65536)
for pid in others():
    trying(str(pid), read, f"/proc/{pid}/environ", 65536)
trying("victim", read, f"/proc/{words['pid']}/environ")
""")
def process_environments(host: Host) -> Course:
    """Reads /proc/1/environ, and that of every process it can see."""
    host.environment["CALLERS_SECRET"] = token = new_token()
    victim = host.victim()
    outcome = yield {"pid": victim.pid}
    # The caller's variable may have been passed on to PID 1 as to the program itself: another attempt is about that.
    del token
    return leak(outcome, victim.secret)


@family.attempt("""
def memory(pid, address):
    with open(f"/proc/{pid}/mem", "rb") as file:
        file.seek(address)
        return file.read(64).decode("latin-1")
for pid in [words["pid"], *others()]:
    trying(str(pid), memory, pid, words["address"])
""")
def daemon_memory(host: Host) -> Course:
    """Reads the memory of a process of the host by /proc/PID/mem."""
    victim = host.victim()
    outcome = yield {"pid": victim.pid, "address": victim.address}
    return leak(outcome, victim.secret)


@family.attempt("""
for pid in [words["pid"], 1, *others()]:
    for number in range(3, 64):
        if os.path.lexists(f"/proc/{pid}/fd/{number}") or number == 9:
            trying(f"{pid}/{number}", lambda: os.pread(os.open(f"/proc/{pid}/fd/{number}", os.O_RDONLY | os.O_NONBLOCK), 64, 0))
""")
def daemon_descriptors(host: Host) -> Course:
    """Opens what a process of the host has open, by /proc/PID/fd."""
    victim = host.victim()
    outcome = yield {"pid": victim.pid}
    return leak(outcome, victim.secret)


@family.attempt("""
for pid in ["1", "self", str(os.getppid()), str(words["pid"])]:
    for place in ("root", "cwd", "root/../../.."):
        trying(f"{pid}/{place}", read, f"/proc/{pid}/{place}{words['path']}")
""")
def roots_of_processes(host: Host) -> Course:
    """Reads a file through /proc/PID/root and /proc/PID/cwd."""
    secret, victim = host.hidden(), host.victim()
    outcome = yield {"path": secret.path, "pid": victim.pid}
    return leak(outcome, secret)


@family.attempt(
    """
for number in range(3, 1024):
    try:
        kind = os.fstat(number)
    except OSError:
        continue
    if stat.S_ISREG(kind.st_mode):
        trying(str(number), os.pread, number, 100, 0)
    elif stat.S_ISDIR(kind.st_mode):
        trying(str(number), lambda: read(os.open("secret", os.O_RDONLY, dir_fd=number)))
tell(refused={"none": "EBADF"})
""",
    alone=True,
)
def inherited_files(host: Host) -> Course:
    """Uses files and directories that the caller forgot to close."""
    secret = host.hidden()
    host.leaks(os.open(secret.path, os.O_RDONLY))
    host.leaks(os.open(os.path.dirname(secret.path), os.O_RDONLY))
    outcome = yield {}
    return leak(outcome, secret)


@family.attempt(READ)
def runtime_directory(host: Host) -> Course:
    """Reads the state and the settings of the daemon."""
    found = [
        host.secret(host.home / name)
        for name in (".local/state/agent-supervisor/journal/1.wal", ".config/agent-supervisor/config.toml")
    ]
    outcome = yield {"paths": [secret.path for secret in found]}
    return leak(outcome, *found)


family.effects(
    {
        "block_devices": (
            "Reads the host's disks",
            """
for name in ("vda", "sda", "nvme0n1", "dm-0", "loop0", "mem", "port", "nvram"):
    trying(name, read, f"/dev/{name}", 16)
""",
        ),
        "kernel_memory": (
            "Reads /proc/kcore",
            """
trying("kcore", read, "/proc/kcore", 16)
""",
        ),
        "kernel_log": (
            "Reads the kernel's log",
            """
trying("syslog", call, "syslog", 3, ctypes.create_string_buffer(4096), 4096)
trying("kmsg", lambda: os.read(os.open("/dev/kmsg", os.O_RDONLY | os.O_NONBLOCK), 4096))
""",
        ),
        "kernel_settings": (
            "Opens kernel settings for writing: core_pattern, modprobe, sysrq-trigger",
            """
names = "sys/kernel/core_pattern sys/kernel/modprobe sysrq-trigger sys/vm/drop_caches sys/fs/suid_dumpable"
for path in names.split():
    trying(path, can_write, f"/proc/{path}")
""",
        ),
        "device_settings": (
            "Opens /sys for writing: uevent_helper, power, debugfs, tracefs, efivars",
            """
names = "kernel/uevent_helper power/state kernel/debug kernel/tracing/current_tracer module/vt/parameters/default_utf8"
for path in names.split():
    trying(path, can_write, f"/sys/{path}")
""",
        ),
    },
    host_wide=True,
)


@family.attempt("""
class Handle(ctypes.Structure):
    _fields_ = [("length", ctypes.c_uint), ("type", ctypes.c_int), ("bytes", ctypes.c_ubyte * 128)]
handle, mount = Handle(128), ctypes.c_int()
trying("name", call, "name_to_handle_at", -100, words["at"].encode(), ctypes.byref(handle), ctypes.byref(mount), 0)
given = Handle(len(words["handle"]), words["type"], (ctypes.c_ubyte * 128)(*words["handle"]))
root = os.open(".", os.O_RDONLY)
def by_handle():
    return os.read(call("open_by_handle_at", root, ctypes.byref(given), os.O_RDONLY), 100).decode("latin-1")
trying("open", by_handle)
""")
def file_by_handle(host: Host) -> Course:
    """Opens a file of the host by its handle, past all mounts (the hole "shocker")."""
    secret = host.hidden()
    handle, kind = _handle(secret.path)
    outcome = yield {"at": ".", "handle": list(handle), "type": kind}
    return leak(outcome, secret)


def _handle(path: str) -> tuple[bytes, int]:
    import ctypes

    libc = ctypes.CDLL(None, use_errno=True)
    buffer = ctypes.create_string_buffer(8 + 128)
    ctypes.memmove(buffer, (128).to_bytes(4, "little"), 4)
    if libc.name_to_handle_at(-100, path.encode(), buffer, ctypes.byref(ctypes.c_int()), 0) != 0:
        raise NotApplicableError("the file system of the temporary directory has no file handles")
    length, kind = int.from_bytes(buffer.raw[:4], "little"), int.from_bytes(buffer.raw[4:8], "little", signed=True)
    return buffer.raw[8 : 8 + length], kind
