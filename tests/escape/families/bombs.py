"""Using up what the host has: processes, memory, disk, inodes, descriptors.

Each stops by itself at a bound that it should not reach.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from tests.escape.attempt import Course, Family, Held, Judged, Verdict
from tests.escape.host import Host, processes_with
from tests.escape.jails import BOUNDS

family = Family("bombs")
MIB = 1 << 20
PROGRESS = """
written = os.open("progress", os.O_WRONLY | os.O_CREAT, 0o644)
def progress(count):
    # Never cut first: it may be killed at any moment.
    os.pwrite(written, b"%012d" % count, 0)
"""


def _bounded(host: Host, most: int, unit: str = "") -> Course:
    """By how far it came, which it writes into the workspace as it goes: it may not live to tell."""
    outcome = yield {"most": most}
    path = host.workspace / "progress"
    came = int(path.read_text() or 0) if path.exists() else 0
    if came == 0:
        # Only where it has tried: a program that never ran has reached nothing either.
        return Judged(Verdict.BLOCKED, ", ".join(outcome.sound().refused.values()))
    most = outcome.did.get("most", most)
    return Judged(Verdict.ESCAPED if came >= most else Verdict.CONTAINED, f"{came} of {most}{unit}")


@family.attempt(
    """
count = 0
def bomb():
    global count
    for count in range(words["most"]):
        if os.fork() == 0:
            signal.alarm(20)
            signal.pause()
            os._exit(0)
    count += 1
trying("fork", bomb)
time.sleep(0.3)
tell(did={"count": count})
""",
    held=Held.BY_GROUPS,
    timeout_s=20,
)
def fork_bomb(host: Host) -> Course:
    """Forks without end."""
    most = BOUNDS.pids * 3
    return (yield from _counted(host, most, lambda: len(processes_with(str(host.workspace / ".attempts")))))


def _counted(host: Host, most: int, count: Callable[[], int]) -> Course:
    """By how many processes or threads the host sees at a time."""
    peak = 0

    def look() -> bool:
        nonlocal peak
        peak = max(peak, count())
        return False

    over = host.meanwhile(look)
    outcome = yield {"most": most}
    over()
    outcome.sound()
    return Judged(Verdict.ESCAPED if peak >= most else Verdict.CONTAINED, f"{peak} of {most} at a time")


@family.attempt(
    """
count = 0
def bomb():
    global count
    for count in range(words["most"]):
        try:
            threading.Thread(target=time.sleep, args=(2,), daemon=True).start()
        except RuntimeError as error:
            raise OSError(errno.EAGAIN, "") from error
    count += 1
threading.stack_size(65536)
trying("threads", bomb)
time.sleep(0.3)
tell(did={"count": count})
""",
    held=Held.BY_GROUPS,
    timeout_s=20,
)
def thread_bomb(host: Host) -> Course:
    """Starts threads without end."""

    def count() -> int:
        found = processes_with(str(host.workspace / ".attempts"))
        return sum(_threads(pid) for pid in found)

    return (yield from _counted(host, BOUNDS.pids * 3, count))


def _threads(pid: int) -> int:
    try:
        return len(list(Path(f"/proc/{pid}/task").iterdir()))
    except OSError:
        return 0


@family.attempt(
    PROGRESS
    + """
def bomb():
    held = []
    for count in range(words["most"]):
        try:
            held.append(bytearray(os.urandom(4096)) * 256)
        except MemoryError as error:
            raise OSError(errno.ENOMEM, "") from error
        progress(count + 1)
in_child("bytes", bomb)
""",
    held=Held.BY_GROUPS,
    timeout_s=30,
)
def memory_bomb(host: Host) -> Course:
    """Takes memory without end."""
    return (yield from _bounded(host, 2 * BOUNDS.memory_bytes // MIB, " MiB"))


@family.attempt(
    PROGRESS
    + """
def bomb():
    held = []
    libc.shmat.restype = ctypes.c_void_p
    for count in range(words["most"] // 16):
        segment = call("shmget", 0, 16 << 20, 0o1000 | 0o600)
        held.append(libc.shmat(segment, None, 0))
        libc.shmctl(segment, 0, None)
        if held[-1] in (None, ctypes.c_void_p(-1).value):
            raise OSError(errno.ENOMEM, "")
        ctypes.memset(held[-1], 1, 16 << 20)
        progress(16 * (count + 1))
in_child("segments", bomb)
""",
    held=Held.BY_GROUPS,
    timeout_s=30,
)
def shared_memory_bomb(host: Host) -> Course:
    """Takes System V shared memory without end."""
    return (yield from _bounded(host, 2 * BOUNDS.memory_bytes // MIB, " MiB"))


@family.attempt(
    PROGRESS
    + """
def bomb():
    block = b"x" * (1 << 20)
    for count in range(words["most"]):
        with open(f"{place}/bomb-{os.getppid()}-{count}", "wb") as file:
            made.append(file.name)
            file.write(block)
        progress(count + 1)
made = []
for place in ("/dev/shm", "/tmp"):
    trying(place, bomb)
for path in made:
    os.unlink(path)
""",
    held=Held.BY_ITSELF,
    timeout_s=30,
)
def temporary_files_bomb(host: Host) -> Course:
    """Fills /tmp and /dev/shm without end."""
    return (yield from _bounded(host, 3 * BOUNDS.tmp_bytes // MIB, " MiB"))


@family.attempt(
    PROGRESS
    + """
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
def bomb():
    block = b"x" * (1 << 20)
    with open("large", "wb", buffering=0) as file:
        for count in range(words["most"]):
            if file.write(block) < len(block):
                file.write(block)
            progress(count + 1)
trying("write", bomb)
trying("sparse", lambda: os.truncate("large", 1 << 40))
""",
    held=Held.BY_ITSELF,
    timeout_s=30,
)
def file_bomb(host: Host) -> Course:
    """Writes one file without end."""
    return (yield from _bounded(host, 2 * BOUNDS.file_bytes // MIB, " MiB"))


@family.attempt(
    PROGRESS
    + """
def bomb():
    block = b"x" * (1 << 20)
    for count in range(words["most"]):
        with open(f"bomb-{count}", "wb") as file:
            file.write(block)
        progress(count + 1)
trying("write", bomb)
""",
    held=Held.BY_ITSELF,
    timeout_s=30,
)
def workspace_bomb(host: Host) -> Course:
    """Fills the host's disk by its workspace, file by file."""
    return (yield from _bounded(host, 20 * BOUNDS.disk_bytes // MIB, " MiB"))


@family.attempt(
    PROGRESS
    + """
# No more than it takes on a disk, where they are slow to make and to remove.
most = words["most"] if os.statvfs("/tmp").f_files < 10_000_000 else 20_000
count = 0
def bomb():
    global count
    os.mkdir("/tmp/inodes")
    for count in range(1, most + 1):
        os.mknod(f"/tmp/inodes/{count}")
trying("nodes", bomb)
progress(count)
tell(did={"most": most})
import shutil
shutil.rmtree("/tmp/inodes")
""",
    held=Held.BY_ITSELF,
    timeout_s=60,
)
def inode_bomb(host: Host) -> Course:
    """Makes empty files in /tmp without end."""
    return (yield from _bounded(host, 220_000, " files"))


@family.attempt(
    PROGRESS
    + """
count, held = 0, []
def bomb():
    global count
    for count in range(1, words["most"] + 1):
        held.append(os.open("/dev/null", os.O_RDONLY))
trying("open", bomb)
for descriptor in held:
    os.close(descriptor)
progress(count)
""",
    held=Held.BY_ITSELF,
)
def descriptor_bomb(host: Host) -> Course:
    """Opens files without end."""
    return (yield from _bounded(host, BOUNDS.open_files * 4))
