"""Changing what is mounted, and new namespaces to do it in. Nothing here may run without a sandbox around it."""

from __future__ import annotations

import os

from tests.escape.attempt import Course, Family, Judged, Verdict, effect, leak
from tests.escape.host import Host

family = Family("mounts")

NESTED = """
def nested(flags, what):
    child = os.fork()
    if child == 0:
        try:
            call("unshare", CLONE["user"] | flags)
        except OSError as error:
            tell(refused={"user namespace": errno.errorcode[error.errno]})
            os._exit(0)
        tell(did={"user namespace": "made"})
        uid, gid = words.get("uid", 0), words.get("gid", 0)
        for path, text in (("setgroups", "deny"), ("uid_map", f"0 {uid} 1"), ("gid_map", f"0 {gid} 1")):
            trying(path, write, f"/proc/self/{path}", text)
        what()
        os._exit(0)
    os.waitpid(child, 0)
words["uid"], words["gid"] = os.getuid(), os.getgid()
"""

family.effects(
    {
        "mount_tmpfs": (
            "Mounts a tmpfs",
            """
trying("mount", call, "mount", b"none", b"/tmp", b"tmpfs", 0, None)
""",
        ),
        "mount_proc": (
            "Mounts a fresh proc",
            """
os.mkdir("p")
trying("mount", call, "mount", b"proc", b"p", b"proc", 0, None)
""",
        ),
        "remount_writable": (
            "Remounts the system writable",
            """
for path in (b"/", b"/usr", b"/etc"):
    trying(path.decode(), call, "mount", None, path, None, 0x20 | 0x1000, None)
    trying("all " + path.decode(), call, "mount", None, path, None, 0x20, None)
""",
        ),
        "bind_mount": (
            "Binds one directory over another",
            """
os.mkdir("m")
trying("bind", call, "mount", b"/usr", b"m", None, 0x1000, None)
""",
        ),
        "make_shared": (
            "Makes its mounts propagate to the host",
            """
trying("shared", call, "mount", None, b"/", None, 0x100000 | 0x4000, None)
""",
        ),
        "unmount": (
            "Unmounts what hides something",
            """
for path in (b"/proc", b"/dev", b"/tmp", b"/sys", b"/usr", b"/home"):
    trying(path.decode(), call, "umount2", path, 2)
""",
        ),
        "pivot_root": (
            "Changes the root by pivot_root",
            """
os.makedirs("r/old")
trying("pivot", call, "pivot_root", b"r", b"r/old")
""",
        ),
        "mount_namespace": (
            "Makes a mount namespace",
            """
trying("unshare", call, "unshare", CLONE["mnt"])
""",
        ),
        "user_namespace": (
            "Makes a user namespace",
            """
in_child("unshare", call, "unshare", CLONE["user"])
""",
        ),
        "other_namespaces": (
            "Makes network, IPC, UTS, PID, cgroup and time namespaces",
            """
for name in ("net", "ipc", "uts", "pid", "cgroup", "time"):
    in_child(name, call, "unshare", CLONE[name])
""",
        ),
        "clone_namespace": (
            "Makes a user namespace by clone(2)",
            """
def clone():
    pid = call("clone", CLONE["user"] | signal.SIGCHLD, None, None, None, None)
    if pid == 0:
        os._exit(0)
    os.waitpid(pid, 0)
    return pid
trying("clone", clone)
""",
        ),
        "clone3_namespace": (
            "Makes a user namespace by clone3(2), whose flags no filter sees (CVE-2021-41133)",
            """
arguments = struct.pack("=11Q", CLONE["user"] | CLONE["mnt"], 0, 0, 0, signal.SIGCHLD, 0, 0, 0, 0, 0, 0)
def clone():
    pid = call("clone3", ctypes.create_string_buffer(arguments, 88), 88)
    if pid == 0:
        os._exit(0)
    os.waitpid(pid, 0)
    return pid
trying("clone3", clone)
""",
        ),
        "fsopen": (
            "Makes a file system by the new mount API",
            """
trying("fsopen", call, "fsopen", b"tmpfs", 0)
""",
        ),
        "open_tree": (
            "Copies a mount by open_tree(2)",
            """
trying("clone", call, "open_tree", -100, b"/usr", 1)
trying("recursive", call, "open_tree", -100, b"/", 1 | 0x8000)
""",
        ),
        "mount_setattr": (
            "Takes read-only off a mount by mount_setattr(2)",
            """
given = ctypes.create_string_buffer(struct.pack("=4Q", 0, 1, 0, 0), 32)
trying("setattr", call, "mount_setattr", -100, b"/usr", 0, given, 32)
""",
        ),
        "move_mount": (
            "Moves a mount",
            """
os.mkdir("mm")
trying("move", call, "move_mount", -100, b"/usr", -100, b"mm", 0)
""",
        ),
        "fuse": (
            "Opens /dev/fuse",
            """
trying("fuse", lambda: os.open("/dev/fuse", os.O_RDWR))
""",
        ),
    },
    mounts=True,
)


@family.attempt(
    """
for name in ("mnt", "user", "pid", "net", "ipc", "uts", "cgroup"):
    for pid in (1, os.getppid(), words["pid"]):
        def enter():
            descriptor = os.open(f"/proc/{pid}/ns/{name}", os.O_RDONLY)
            if os.readlink(f"/proc/self/fd/{descriptor}") == os.readlink(f"/proc/self/ns/{name}"):
                raise OSError(errno.EINVAL, "its own")
            return call("setns", descriptor, 0)
        trying(f"{name} {pid}", enter)
trying("pidfd", lambda: call("setns", call("pidfd_open", words["pid"], 0), CLONE["mnt"] | CLONE["net"]))
""",
    mounts=True,
)
def set_namespace(host: Host) -> Course:
    """Joins the namespaces of PID 1 and of processes of the host."""
    victim = host.victim()
    outcome = yield {"pid": victim.pid}
    outcome.sound()
    own = {os.readlink(f"/proc/{victim.pid}/ns/{name}") for name in ("mnt", "net", "pid")}
    return Judged(Verdict.ESCAPED, ", ".join(outcome.did)) if outcome.did and own else effect(outcome)


@family.attempt(
    """
def out():
    os.makedirs("jail", exist_ok=True)
    outside = os.open(".", os.O_RDONLY)
    call("chroot", b"jail")
    os.fchdir(outside)
    for _ in range(30):
        os.chdir("..")
    call("chroot", b".")
    return read(words["path"])
trying("chroot", out)
""",
    mounts=True,
)
def change_root(host: Host) -> Course:
    """Breaks out by the classic double chroot."""
    secret = host.hidden()
    outcome = yield {"path": secret.path}
    return leak(outcome, secret) if not outcome.did else effect(outcome)


@family.attempt(
    """
for name, number in (("disk", os.makedev(254, 0)), ("disk2", os.makedev(8, 0)), ("loop", os.makedev(7, 0))):
    trying(name, os.mknod, name, stat.S_IFBLK | 0o666, number)
    trying("read " + name, read, name, 16)
for name, number in (("mem", os.makedev(1, 1)), ("kmsg", os.makedev(1, 11)), ("fuse-node", os.makedev(10, 229))):
    trying(name, os.mknod, name, stat.S_IFCHR | 0o666, number)
    trying("read " + name, read, name, 16)
    trying("tmp " + name, os.mknod, "/tmp/node-" + name, stat.S_IFCHR | 0o666, number)
    trying("read tmp " + name, read, "/tmp/node-" + name, 16)
""",
    mounts=True,
)
def device_nodes(host: Host) -> Course:
    """Makes nodes for disks and for memory, in the workspace and in /tmp."""
    outcome = yield {}
    made = [entry.name for entry in host.workspace.iterdir() if entry.is_block_device() or entry.is_char_device()]
    return Judged(Verdict.ESCAPED, f"{made} on the host") if made else effect(outcome)


@family.attempt(
    NESTED
    + """
def inner():
    trying("tmpfs", call, "mount", b"none", b"/tmp", b"tmpfs", 0, None)
    trying("writable", call, "mount", None, b"/usr", None, 0x20 | 0x1000, None)
    trying("can write", can_write, "/usr/bin/env")
nested(CLONE["mnt"] | CLONE["pid"], inner)
""",
    mounts=True,
)
def nested_mounts(host: Host) -> Course:
    """Becomes root of a user namespace of its own and mounts there."""
    outcome = yield {}
    return Judged(Verdict.ESCAPED, "a file of the system is writable") if "can write" in outcome.did else effect(outcome)


@family.attempt(
    NESTED
    + """
def inner():
    for name in ("lower", "upper", "wk", "over"):
        os.makedirs(name, exist_ok=True)
    trying("overlay", call, "mount", b"overlay", b"over", b"overlay", 0, b"lowerdir=lower,upperdir=upper,workdir=wk,userxattr")
    trying("fuse", lambda: os.open("/dev/fuse", os.O_RDWR))
    trying("cgroup", call, "mount", b"none", b"over", b"cgroup2", 0, None)
    trying("bpf", call, "mount", b"none", b"over", b"bpf", 0, None)
nested(CLONE["mnt"] | CLONE["cgroup"], inner)
""",
    mounts=True,
)
def nested_file_systems(host: Host) -> Course:
    """Mounts overlayfs, cgroup and bpf file systems in a user namespace, where their holes have been."""
    outcome = yield {}
    return effect(outcome)


@family.attempt(
    """
seen = [line.split()[3:5] for line in open("/proc/self/mountinfo")]
tell(did={"mounts": len(seen)})
print(json.dumps(seen))
""",
    mounts=True,
)
def sight_of_mounts(host: Host) -> Course:
    """Learns from /proc/self/mountinfo what directories of the host it is made of, other tasks' among them."""
    beside = host.directory("workspace")
    outcome = yield {}
    outcome.sound()
    other = str(beside) in outcome.output
    return Judged(Verdict.ESCAPED, "another task's is named") if other else Judged(Verdict.CONTAINED, "its own alone")
