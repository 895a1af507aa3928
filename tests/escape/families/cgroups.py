"""Control groups: raising a limit, leaving the group, and the release agent of version 1."""

from __future__ import annotations

from pathlib import Path

from tests.escape.attempt import Course, Family, Judged, Verdict, effect, reached
from tests.escape.families.mounts import NESTED
from tests.escape.host import Host

family = Family("cgroups")

FIND = """
def named(*wanted):
    found = [os.path.join(top, name) for top, _, names in os.walk("/sys/fs/cgroup") for name in names if name in wanted]
    return found[:200]
"""


@family.attempt(
    FIND
    + """
for path in named("memory.limit_in_bytes", "memory.max", "pids.max", "cpu.max", "cpu.cfs_quota_us"):
    trying(path, can_write, path)
for line in open("/proc/self/cgroup"):
    number, kinds, place = line.strip().split(":", 2)
    for name in ("memory.limit_in_bytes", "memory.max", "pids.max"):
        path = f"/sys/fs/cgroup/{kinds}{place}/{name}"
        trying(path, can_write, path)
"""
)
def raise_a_limit(host: Host) -> Course:
    """Opens the files of its own limits for writing."""
    outcome = yield {}
    return effect(outcome, Verdict.ESCAPED)


@family.attempt(
    FIND
    + """
for path in named("cgroup.procs", "tasks"):
    trying(path, write, path, str(os.getpid()))
trying("none", lambda: os.stat("/sys/fs/cgroup/cgroup.procs"))
time.sleep(0.1)
"""
)
def leave_the_group(host: Host) -> Course:
    """Moves itself into another group."""
    outcome = yield {}
    outcome.sound()
    moved = [path for path in outcome.did if path != "none"]
    return Judged(Verdict.ESCAPED, moved[0]) if moved else Judged(Verdict.BLOCKED, ", ".join(set(outcome.refused.values())))


@family.attempt(
    FIND
    + """
for path in named("release_agent", "notify_on_release", "devices.allow", "cgroup.kill", "cgroup.freeze", "freezer.state"):
    trying(path, can_write, path)
trying("none", can_write, "/sys/fs/cgroup/release_agent")
"""
)
def release_agent(host: Host) -> Course:
    """Opens the release agent, device rules, freezer and kill files of groups for writing."""
    outcome = yield {}
    return effect(outcome, Verdict.ESCAPED)


@family.attempt(
    NESTED
    + """
def inner():
    os.makedirs("cg", exist_ok=True)
    for kind, options in ((b"cgroup2", None), (b"cgroup", b"memory"), (b"cgroup", b"none,name=escape")):
        trying(f"mount {kind} {options}", call, "mount", b"none", b"cg", kind, 0, options)
        trying("release agent", can_write, "cg/release_agent")
        trying("kill", can_write, "cg/cgroup.procs")
        try:
            call("umount2", b"cg", 2)
        except OSError:
            pass
nested(CLONE["mnt"] | CLONE["cgroup"], inner)
""",
    mounts=True,
)
def mounted_group_file_system(host: Host) -> Course:
    """Mounts the group file system in a user namespace for its release agent (CVE-2022-0492)."""
    outcome = yield {}
    return Judged(Verdict.ESCAPED, "the release agent") if "release agent" in outcome.did else effect(outcome)


@family.attempt("""
trying("own", read, "/proc/self/cgroup")
trying("init", read, "/proc/1/cgroup")
trying("mounts", read, "/proc/self/mountinfo", 65536)
""")
def sight_of_groups(host: Host) -> Course:
    """Learns the names of the host's groups."""
    names = {Path(line.split(":", 2)[2].strip()).parts[1:] for line in Path("/proc/self/cgroup").read_text().splitlines()}
    outcome = yield {}
    outcome.sound()
    shown = [line.split(":", 2)[2] for line in str(outcome.did.get("own", "")).splitlines() if line.count(":") >= 2]
    outside = [place for place in shown if place.strip() != "/"]
    return reached(outcome, bool(outside)) if outside and any(names) else effect(outcome)
