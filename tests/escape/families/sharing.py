"""Places that all processes of a host share unless somebody divides them: /tmp, shared memory, message queues."""

from __future__ import annotations

import ctypes
import fcntl
import os
import secrets
from pathlib import Path

from tests.escape.attempt import Course, Family, leak, reached
from tests.escape.host import Host, Secret, new_token

family = Family("sharing")
libc = ctypes.CDLL(None, use_errno=True)
IPC_CREAT, IPC_RMID, O_RDWR, O_CREAT = 0o1000, 0, 2, 0o100

READ = """
trying("list", os.listdir, os.path.dirname(words["path"]))
trying("read", read, words["path"])
"""
WRITE = """
trying("write", write, words["path"], "of the sandbox")
"""


@family.attempt(READ)
def read_tmp(host: Host) -> Course:
    """Reads another program's file in /tmp."""
    secret = host.secret(Path("/tmp") / new_token())
    outcome = yield {"path": secret.path}
    return leak(outcome, secret)


def _written(host: Host, directory: str) -> Course:
    path = Path(directory) / new_token()
    host.later(path.unlink, True)
    outcome = yield {"path": str(path)}
    return reached(outcome, path.exists())


@family.attempt(WRITE)
def write_tmp(host: Host) -> Course:
    """Leaves a file in the host's /tmp."""
    return (yield from _written(host, "/tmp"))


@family.attempt(WRITE)
def write_var_tmp(host: Host) -> Course:
    """Leaves a file in the host's /var/tmp."""
    return (yield from _written(host, "/var/tmp"))


@family.attempt(READ)
def read_shared_memory(host: Host) -> Course:
    """Reads another program's memory in /dev/shm."""
    secret = host.secret(Path("/dev/shm") / new_token())
    outcome = yield {"path": secret.path}
    return leak(outcome, secret)


@family.attempt(WRITE)
def write_shared_memory(host: Host) -> Course:
    """Leaves memory in the host's /dev/shm."""
    return (yield from _written(host, "/dev/shm"))


@family.attempt("""
def take():
    libc.shmat.restype = ctypes.c_void_p
    segment = call("shmget", words["key"], 0, 0)
    return ctypes.string_at(libc.shmat(segment, None, 0o10000), 64).decode("latin-1")
trying("attach", take)
trying("list", read, "/proc/sysvipc/shm")
""")
def system_v_memory(host: Host) -> Course:
    """Attaches a System V shared memory segment of the host."""
    token, key = new_token(), secrets.randbits(30)
    segment = libc.shmget(key, 4096, IPC_CREAT | 0o666)
    assert segment >= 0
    host.later(libc.shmctl, segment, IPC_RMID, None)
    libc.shmat.restype = ctypes.c_void_p
    address = libc.shmat(segment, None, 0)
    ctypes.memmove(address, token.encode(), len(token))
    libc.shmdt(ctypes.c_void_p(address))
    outcome = yield {"key": key}
    return leak(outcome, Secret(token))


@family.attempt("""
def send():
    queue = call("msgget", words["key"], 0o1000 | 0o666)
    return call("msgsnd", queue, ctypes.create_string_buffer(struct.pack("=q8s", 1, b"sandbox")), 8, 0o4000)
trying("send", send)
""")
def system_v_queue(host: Host) -> Course:
    """Makes a System V message queue that programs of the host see."""
    key = secrets.randbits(30)
    outcome = yield {"key": key}
    queue = libc.msgget(key, 0)
    if queue >= 0:
        libc.msgctl(queue, IPC_RMID, None)
    return reached(outcome, queue >= 0)


@family.attempt("""
def take():
    queue = call("mq_open", words["name"].encode(), os.O_RDONLY | os.O_NONBLOCK, 0, None)
    held = ctypes.create_string_buffer(8192)
    length = call("mq_timedreceive", queue, held, 8192, None, None)
    return held.raw[:length].decode("latin-1")
trying("receive", take)
""")
def posix_queue(host: Host) -> Course:
    """Takes a message from a POSIX message queue of the host."""
    name, token = new_token(), new_token()
    realtime = ctypes.CDLL("librt.so.1", use_errno=True)
    before = os.umask(0)
    queue = realtime.mq_open(f"/{name}".encode(), O_RDWR | O_CREAT, 0o666, None)
    os.umask(before)
    assert queue >= 0, os.strerror(ctypes.get_errno())
    host.later(realtime.mq_unlink, f"/{name}".encode())
    host.later(realtime.mq_close, queue)
    assert realtime.mq_send(queue, token.encode(), len(token), 0) == 0
    outcome = yield {"name": name}
    return leak(outcome, Secret(token))


@family.attempt("""
for name in ("hostname", "domainname"):
    trying(name, read, f"/proc/sys/kernel/{name}")
trying("node", lambda: os.uname().nodename)
trying("machine", read, "/etc/machine-id")
trying("product", read, "/sys/class/dmi/id/product_uuid")
trying("address", read, "/sys/class/net/eth0/address")
""")
def name_of_the_machine(host: Host) -> Course:
    """Learns which machine it is on: its name, machine-id, hardware address."""
    known = [text for path in ("/etc/machine-id", "/sys/class/net/eth0/address") if (text := _text(path))]
    outcome = yield {}
    outcome.sound()
    told = {str(value).strip() for value in outcome.did.values()}
    return reached(outcome, bool(told & {os.uname().nodename, *known}))


def _text(path: str) -> str:
    try:
        return Path(path).read_text().strip()
    except OSError:
        return ""


LOCK = """
def lock():
    descriptor = os.open(words["path"], os.O_RDONLY)
    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    time.sleep(0.5)
    return 1
trying("lock", lock)
"""


def _locked(host: Host, path: str) -> Course:
    def look() -> bool:
        with open(path) as file:
            try:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                return True
        return False

    was_locked = host.meanwhile(look)
    outcome = yield {"path": path}
    return reached(outcome, was_locked())


@family.attempt(LOCK)
def lock_a_file_of_the_host(host: Host) -> Course:
    """Locks a file that a program of the host wants to lock."""
    return (yield from _locked(host, str(host.file(host.outside / "lock"))))


@family.attempt(LOCK)
def lock_a_file_of_the_system(host: Host) -> Course:
    """Locks a file of the system that it may read, as scripts that lock themselves do."""
    return (yield from _locked(host, "/usr/bin/ldd"))
