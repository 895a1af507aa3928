"""Out of the workspace by its paths: `..`, links, renames and races of them."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from tests.escape.attempt import Course, Family, Judged, Verdict, effect, leak, reached
from tests.escape.host import Host

family = Family("paths")


@family.attempt("""
trying("..", read, words["relative"])
trying("deep", read, "../" * 40 + words["path"])
here = os.open(".", os.O_RDONLY)
for _ in range(20):
    here = os.open("..", os.O_RDONLY, dir_fd=here)
trying("openat", lambda: read(os.open(words["path"].lstrip("/"), os.O_RDONLY, dir_fd=here)))
""")
def dot_dot(host: Host) -> Course:
    """Climbs out by `..`, as a path and directory by directory."""
    secret = host.hidden()
    outcome = yield {"relative": os.path.relpath(secret.path, host.workspace), "path": secret.path}
    return leak(outcome, secret)


@family.attempt("""
trying("make", os.symlink, words["path"], "link")
trying("read", read, "link")
trying("directory", os.symlink, os.path.dirname(words["path"]), "directory")
trying("through", read, "directory/secret")
trying("magic", read, f"/proc/self/cwd/directory/secret")
""")
def symbolic_link(host: Host) -> Course:
    """Reads through a symbolic link that it makes in the workspace."""
    secret = host.hidden()
    outcome = yield {"path": secret.path}
    return leak(outcome, secret)


@family.attempt("""
def race():
    os.mkdir("real")
    write("real/secret", "harmless")
    over = time.monotonic() + 1
    def swap():
        while time.monotonic() < over:
            os.rename("real", "kept")
            os.symlink(os.path.dirname(words["path"]), "real")
            os.unlink("real")
            os.rename("kept", "real")
    thread = threading.Thread(target=swap)
    thread.start()
    seen = set()
    while time.monotonic() < over:
        try:
            seen.add(read("real/secret"))
        except OSError:
            pass
    thread.join()
    return sorted(seen)
trying("race", race)
""")
def link_race(host: Host) -> Course:
    """Swaps a directory for a link to the host, again and again, while another thread opens a file below it."""
    secret = host.hidden()
    outcome = yield {"path": secret.path}
    return leak(outcome, secret)


@family.attempt("""
trying("link", os.link, words["path"], "taken")
trying("read", read, "taken")
trying("by descriptor", call, "linkat", os.open(".", os.O_PATH), words["relative"].encode(), -100, b"taken2", 0)
trying("passwd", os.link, "/etc/passwd", "passwd")
trying("system", os.link, "/usr/bin/python3.11", "python")
""")
def hard_link(host: Host) -> Course:
    """Links a file of the host into the workspace."""
    secret = host.hidden()
    outcome = yield {"path": secret.path, "relative": os.path.relpath(secret.path, host.workspace)}
    there = [name for name in ("taken", "taken2", "python") if (host.workspace / name).exists()]
    return Judged(Verdict.ESCAPED, ", ".join(there)) if there else leak(outcome, secret)


@family.attempt("""
write("file", words["token"])
trying("rename", os.rename, "file", words["target"])
trying("exchange", call, "renameat2", -100, b"file", -100, words["victim"].encode(), 2)
os.mkdir("directory")
trying("directory", os.rename, "directory", words["target"] + "-directory")
trying("relative", os.rename, "file", words["relative"])
""")
def rename_out(host: Host) -> Course:
    """Renames a file over one outside, and exchanges the two."""
    victim = host.hidden()
    target = host.outside / "moved"
    outcome = yield {
        "token": "of the sandbox",
        "target": str(target),
        "victim": victim.path,
        "relative": os.path.relpath(target, host.workspace),
    }
    if target.exists() or list(host.outside.iterdir()) or victim.token not in Path(victim.path).read_text():
        return Judged(Verdict.ESCAPED, "it is on the host")
    return leak(outcome, victim)


@family.attempt("""
import subprocess
os.makedirs("a/b/c")
descriptor = os.open("a/b/c", os.O_RDONLY)
trying("away", os.rename, "a/b", words["outside"] + "/b")
trying("tmp", os.rename, "a/b", "/tmp/b-moved")
def climb():
    here = os.open("..", os.O_RDONLY, dir_fd=descriptor)
    for _ in range(12):
        here = os.open("..", os.O_RDONLY, dir_fd=here)
    return read(os.open(words["path"].lstrip("/"), os.O_RDONLY, dir_fd=here))
trying("climb", climb)
""")
def directory_moved_away(host: Host) -> Course:
    """Holds a directory open, has its parent moved, and climbs up from it."""
    secret = host.hidden()
    outcome = yield {"outside": str(host.outside), "path": secret.path}
    return leak(outcome, secret)


@family.attempt("""
for path in words["paths"]:
    trying(path, write, path, words["token"])
""")
def write_outside(host: Host) -> Course:
    """Writes beside the workspace, into the home directory and into the system."""
    token = f"escape-{os.getpid()}"
    paths = [
        host.outside / "written",
        host.home / "written-by-attempt",
        *(Path(p) / token for p in ("/usr/local/bin", "/etc", "/opt")),
    ]
    for path in paths:
        host.later(path.unlink, True)
    outcome = yield {"paths": [str(path) for path in paths], "token": token}
    return reached(outcome, any(path.exists() for path in paths))


@family.attempt("""
for path in ("/proc/self/exe", "/usr/bin/python3", "/usr/bin/env", "/lib64/ld-linux-x86-64.so.2", "/etc/ld.so.cache"):
    trying(path, can_write, path)
library = [line.split()[-1] for line in open("/proc/self/maps") if "libc.so" in line]
trying("libc", can_write, library[0])
descriptor = os.open("/usr/bin/env", os.O_RDONLY)
trying("reopen", can_write, f"/proc/self/fd/{descriptor}")
trying("chmod", os.chmod, "/usr/bin/env", 0o777)
trying("times", os.utime, "/usr/bin/env")
""")
def programs_of_the_system(host: Host) -> Course:
    """Opens programs and libraries of the host for writing, by /proc/self/exe too (CVE-2019-5736)."""
    outcome = yield {}
    return effect(outcome, Verdict.ESCAPED)


@family.attempt("""
trying("link", os.symlink, words["target"], "later")
trying("loop", os.symlink, "loop", "loop")
""")
def link_for_the_host(host: Host) -> Course:
    """Leaves a link in the workspace; a sandbox that is given what it leads to must not follow it."""
    secret = host.hidden()
    outcome = yield {"target": os.path.dirname(secret.path)}
    outcome.sound()
    return Judged(Verdict.CONTAINED, "only a link") if (host.workspace / "later").is_symlink() else Judged(Verdict.BLOCKED)


@family.attempt("""
trying("fifo", os.mkfifo, "fifo")
trying("socket", lambda: socket.socket(socket.AF_UNIX).bind("socket"))
trying("sparse", lambda: os.truncate(os.open("sparse", os.O_CREAT | os.O_WRONLY), 1 << 29))
trying("name", write, "-rf *; $(touch x)\\n\\x1b[2J", "x")
""")
def odd_files(host: Host) -> Course:
    """Leaves pipes, sockets, holes and names with control characters behind for the host to stumble over."""
    outcome = yield {}
    modes = [entry.lstat().st_mode for entry in host.workspace.iterdir()]
    if any(stat.S_ISCHR(mode) or stat.S_ISBLK(mode) or mode & (stat.S_ISUID | stat.S_ISGID) for mode in modes):
        return Judged(Verdict.ESCAPED, "a device, or a file with the rights of its owner")
    return effect(outcome)
