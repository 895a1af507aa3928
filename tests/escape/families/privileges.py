"""Gaining rights: setuid programs, capabilities, another user's ids, the caller's terminal, core dumps."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
from pathlib import Path

from tests.escape.attempt import Course, Family, Judged, NotApplicableError, Verdict, effect, reached
from tests.escape.host import Host

family = Family("privileges")

SETUID = r"""
#include <fcntl.h>
#include <stdio.h>
#include <unistd.h>
int main(void) {
    int made = open("made-by-setuid", O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW, 0644);
    printf("euid %d made %d\n", geteuid(), made >= 0);
    return 0;
}
"""


@family.attempt(
    """
import subprocess
trying("run", lambda: subprocess.run(["./setuid"], capture_output=True, text=True, check=True).stdout)
""",
    alone=True,
)
def setuid_program(host: Host) -> Course:
    """Runs a setuid program of root that lies in its workspace."""
    if os.geteuid() != 0:
        raise NotApplicableError("needs root to make one")
    if shutil.which("cc") is None:
        raise NotApplicableError("needs a C compiler to make one")
    program = host.workspace / "setuid"
    subprocess.run(["cc", "-x", "c", "-static", "-o", program, "-"], input=SETUID, text=True, check=True)
    program.chmod(0o4755)
    outcome = yield {}
    made = host.workspace / "made-by-setuid"
    said = str(outcome.sound().did.get("run", outcome.refused))
    # Where root is the caller, and so the workspace's owner, what is made there is root's in any case.
    by_root = made.exists() and made.stat().st_uid == 0 and host.uid != 0
    return Judged(Verdict.ESCAPED if by_root or "euid 0 " in said else Verdict.BLOCKED, said.strip())


@family.attempt("""
tell(refused={"none": "EPERM"})
for path in ("/usr/bin/su", "/usr/bin/passwd", "/usr/bin/mount", "/usr/bin/newgrp", "/usr/bin/chsh"):
    if os.path.exists(path):
        child = os.fork()
        if child == 0:
            os.dup2(os.open("/dev/null", os.O_RDWR), 0)
            os.execv(path, [path, "--help"])
        for _ in range(200):
            try:
                uids = [line for line in read(f"/proc/{child}/status").splitlines() if line.startswith("Uid:")][0].split()[1:]
            except (OSError, IndexError):
                break
            if uids[1] != str(os.getuid()):
                tell(did={path: uids})
                break
        os.waitpid(child, 0)
""")
def setuid_programs_of_the_system(host: Host) -> Course:
    """Runs su, passwd, mount and chsh, and looks whether they are root."""
    outcome = yield {}
    return effect(outcome, Verdict.ESCAPED)


@family.attempt("""
import shutil
shutil.copy("/usr/bin/env", "mine")
trying("chmod", os.chmod, "mine", 0o4755)
trying("fchmod", lambda: os.fchmod(os.open("mine", os.O_RDONLY), 0o6755))
trying("open", lambda: os.open("made", os.O_CREAT | os.O_WRONLY, 0o4755))
trying("mknod", os.mknod, "made2", stat.S_IFREG | 0o4755)
trying("setgid", os.chmod, "mine", 0o2755)
trying("copied", lambda: shutil.copy2("/usr/bin/passwd", "copied"))
""")
def make_a_setuid_file(host: Host) -> Course:
    """Makes a setuid program in the workspace, to be run on the host later as the workspace's owner."""
    outcome = yield {}
    found = [entry.name for entry in host.workspace.iterdir() if entry.lstat().st_mode & (stat.S_ISUID | stat.S_ISGID)]
    return (
        reached(outcome, bool(found))
        if found or not outcome.did
        else Judged(Verdict.BLOCKED, ", ".join(outcome.refused.values()))
    )


@family.attempt("""
write("capable", "x")
capabilities = struct.pack("<IIIII", 0x02000001, 0xffffffff, 0, 0xff, 0)
trying("capability", os.setxattr, "capable", "security.capability", capabilities)
trying("trusted", os.setxattr, "capable", "trusted.overlay.opaque", b"y")
trying("owner", os.chown, "capable", 0, 0)
trying("attributes", lambda: fcntl.ioctl(os.open("capable", os.O_RDONLY), 0x40086602, struct.pack("l", 0x10)))
""")
def capabilities_on_files(host: Host) -> Course:
    """Gives a file capabilities, another owner, and the immutable flag."""
    outcome = yield {}
    made = host.workspace / "capable"
    capable = "security.capability" in os.listxattr(made) or made.stat().st_uid not in (host.uid, host.inner_uid)
    return reached(outcome, capable)


@family.attempt("""
in_child("setuid", os.setuid, 0)
in_child("setresuid", os.setresuid, 0, 0, 0)
in_child("setgid", os.setgid, 0)
in_child("groups", os.setgroups, [0])
""")
def become_root(host: Host) -> Course:
    """Becomes root by setuid and its relatives."""
    outcome = yield {}
    return effect(outcome, Verdict.CONTAINED)


@family.attempt("""
status = dict(line.split(":", 1) for line in open("/proc/self/status").read().splitlines())
for name in ("CapEff", "CapPrm", "CapBnd", "CapInh", "CapAmb"):
    value = int(status[name], 16)
    tell(**({"did": {name: hex(value)}} if value else {"refused": {name: "none"}}))
if status["NoNewPrivs"].strip() != "1":
    tell(did={"no_new_privs": 0})
if status["Seccomp"].strip() != "2":
    tell(did={"no filter": 1})
""")
def capabilities_left(host: Host) -> Course:
    """Finds capabilities left to it, in its bounding set too, no_new_privs off, or no filter."""
    outcome = yield {}
    return effect(outcome)


@family.attempt(
    """
import termios
def push(descriptor):
    for byte in b"echo escaped\\n":
        fcntl.ioctl(descriptor, termios.TIOCSTI, bytes([byte]))
for number in (0, 1, 2):
    trying(str(number), push, number)
trying("tty", lambda: push(os.open("/dev/tty", os.O_RDWR)))
def high():
    if libc.ioctl(0, ctypes.c_ulong(0x5412 | 1 << 32), b"e") != 0:
        raise OSError(ctypes.get_errno(), "")
trying("high bits", high)
""",
    terminal=True,
)
def type_into_the_terminal(host: Host) -> Course:
    """Types a command into the caller's terminal by TIOCSTI (CVE-2017-5226)."""
    outcome = yield {}
    typed = b"escaped" in host.typed or host.typed.startswith(b"e")
    return reached(outcome, typed)


@family.attempt(
    """
trying("paste", fcntl.ioctl, 0, 0x541C, b"\\x03" + b"\\0" * 15)
trying("discipline", fcntl.ioctl, 0, 0x5423, struct.pack("i", 13))
trying("console", lambda: os.open("/dev/console", os.O_WRONLY))
trying("tty1", lambda: os.open("/dev/tty1", os.O_WRONLY))
""",
    terminal=True,
)
def terminal_controls(host: Host) -> Course:
    """Pastes by TIOCLINUX (CVE-2023-28100), loads a line discipline, opens the console."""
    outcome = yield {}
    return effect(outcome)


@family.attempt("""
limit = resource.getrlimit(resource.RLIMIT_CORE)
trying("raise", resource.setrlimit, resource.RLIMIT_CORE, (resource.RLIM_INFINITY, limit[1]))
child = os.fork()
if child == 0:
    libc.prctl(4, 1, 0, 0, 0)
    os.abort()
status = os.waitpid(child, 0)[1]
tell(**({"did": {"dumped": 1}} if os.WCOREDUMP(status) else {"refused": {"dump": "no core"}}))
""")
def core_dump(host: Host) -> Course:
    """Dumps core, which a handler of the host may read as root."""
    pattern = Path("/proc/sys/kernel/core_pattern").read_text()
    outcome = yield {}
    outcome.sound()
    if "dumped" not in outcome.did:
        return Judged(Verdict.BLOCKED, "no core")
    return Judged(Verdict.ESCAPED, "to the host's handler") if pattern.startswith("|") else Judged(Verdict.CONTAINED, "a file")


@family.attempt("""
for name in ("NOFILE", "NPROC", "FSIZE", "CORE", "MEMLOCK", "SIGPENDING", "MSGQUEUE", "RTPRIO", "NICE"):
    number = getattr(resource, "RLIMIT_" + name, None) or {"SIGPENDING": 11, "NICE": 13}.get(name)
    if number is None:
        continue
    hard = resource.getrlimit(number)[1]
    if hard != resource.RLIM_INFINITY:
        trying(name, resource.setrlimit, number, (hard + 1, hard + 1))
tell(refused={"none": "EPERM"})
""")
def raise_limits(host: Host) -> Course:
    """Raises its hard resource limits."""
    outcome = yield {}
    return effect(outcome, Verdict.ESCAPED)
