"""The system calls that a sandboxed process may make: the policy as tables, read by `seccomp`.

Three answers are possible. A call in ALLOWED reaches the kernel, unless an entry of REFUSED_WHEN matches its arguments. A call
in REFUSED is answered EPERM. Everything else, above all calls newer than this table, is answered ENOSYS, which programs take as
"not in this kernel" and for which they have a fallback; ABSENT lists the ones so treated on purpose.

A worker has no capabilities, so the kernel itself would refuse much of what is refused here. The filter is there because it
takes the code behind those calls, where the holes have been, out of reach.

Names and numbers: Linux's arch/x86/entry/syscalls/syscall_64.tbl; arguments: section 2 of the manual. Names that an architecture
lacks are skipped.
"""

from __future__ import annotations

import errno
import stat
from dataclasses import dataclass
from enum import Enum, auto

ALLOWED: dict[str, tuple[str, ...]] = {
    "descriptors": (
        "close", "close_range", "copy_file_range", "dup", "dup2", "dup3", "fcntl", "flock", "ioctl", "lseek", "pipe", "pipe2",
        "pread64", "preadv", "preadv2", "pwrite64", "pwritev", "pwritev2", "read", "readv", "sendfile", "splice", "tee",
        "vmsplice", "write", "writev",
    ),
    "files": (
        "access", "chdir", "chmod", "chown", "creat", "faccessat", "faccessat2", "fadvise64", "fallocate", "fchdir", "fchmod",
        "fchmodat", "fchmodat2", "fchown", "fchownat", "fdatasync", "fstat", "fstatfs", "fsync", "ftruncate", "futimesat",
        "getcwd", "getdents", "getdents64", "lchown", "link", "linkat", "lstat", "mkdir", "mkdirat", "mknod", "mknodat",
        "newfstatat", "open", "openat", "readahead", "readlink", "readlinkat", "rename", "renameat", "renameat2", "rmdir",
        "stat", "statfs", "statx", "symlink", "symlinkat", "sync", "sync_file_range", "syncfs", "truncate", "umask", "unlink",
        "unlinkat", "utime", "utimensat", "utimes",
    ),
    "extended attributes": (
        "fgetxattr", "flistxattr", "fremovexattr", "fsetxattr", "getxattr", "lgetxattr", "listxattr", "llistxattr",
        "lremovexattr", "lsetxattr", "removexattr", "setxattr",
    ),
    "file watching": ("inotify_add_watch", "inotify_init", "inotify_init1", "inotify_rm_watch"),
    "waiting": (
        "epoll_create", "epoll_create1", "epoll_ctl", "epoll_pwait", "epoll_pwait2", "epoll_wait", "eventfd", "eventfd2",
        "poll", "ppoll", "pselect6", "select",
    ),
    "asynchronous input and output": ("io_cancel", "io_destroy", "io_getevents", "io_pgetevents", "io_setup", "io_submit"),
    "memory": (
        "brk", "madvise", "map_shadow_stack", "membarrier", "memfd_create", "mincore", "mlock", "mlock2", "mlockall", "mmap",
        "mprotect", "mremap", "mseal", "msync", "munlock", "munlockall", "munmap", "pkey_alloc", "pkey_free", "pkey_mprotect",
        "remap_file_pages",
    ),
    "processes": (
        "arch_prctl", "clone", "execve", "execveat", "exit", "exit_group", "fork", "getpgid", "getpgrp", "getpid", "getppid",
        "getsid", "gettid", "pidfd_open", "pidfd_send_signal", "prctl", "rseq", "set_tid_address", "setpgid", "setsid",
        "vfork", "wait4", "waitid",
    ),
    "identity": (
        "capget", "capset", "getegid", "geteuid", "getgid", "getgroups", "getresgid", "getresuid", "getuid", "setfsgid",
        "setfsuid", "setgid", "setgroups", "setregid", "setresgid", "setresuid", "setreuid", "setuid",
    ),
    "further confinement": ("landlock_add_rule", "landlock_create_ruleset", "landlock_restrict_self", "seccomp"),
    "signals": (
        "kill", "pause", "restart_syscall", "rt_sigaction", "rt_sigpending", "rt_sigprocmask", "rt_sigqueueinfo",
        "rt_sigreturn", "rt_sigsuspend", "rt_sigtimedwait", "rt_tgsigqueueinfo", "sigaltstack", "signalfd", "signalfd4",
        "tgkill", "tkill",
    ),
    "time": (
        "alarm", "clock_getres", "clock_gettime", "clock_nanosleep", "getitimer", "gettimeofday", "nanosleep", "setitimer",
        "time", "timer_create", "timer_delete", "timer_getoverrun", "timer_gettime", "timer_settime", "timerfd_create",
        "timerfd_gettime", "timerfd_settime", "times",
    ),
    "scheduling": (
        "getcpu", "getpriority", "ioprio_get", "ioprio_set", "sched_get_priority_max", "sched_get_priority_min",
        "sched_getaffinity", "sched_getattr", "sched_getparam", "sched_getscheduler", "sched_rr_get_interval",
        "sched_setaffinity", "sched_setattr", "sched_setparam", "sched_setscheduler", "sched_yield", "setpriority",
    ),
    "locks": (
        "futex", "futex_requeue", "futex_wait", "futex_waitv", "futex_wake", "get_robust_list", "set_robust_list",
    ),
    "messages between processes": (
        "mq_getsetattr", "mq_notify", "mq_open", "mq_timedreceive", "mq_timedsend", "mq_unlink", "msgctl", "msgget", "msgrcv",
        "msgsnd", "semctl", "semget", "semop", "semtimedop", "shmat", "shmctl", "shmdt", "shmget",
    ),
    "network": ("accept", "accept4", "bind", "connect", "listen", "socket"),
    "sockets that are there": (
        "getpeername", "getsockname", "getsockopt", "recvfrom", "recvmmsg", "recvmsg", "sendmmsg", "sendmsg", "sendto",
        "setsockopt", "shutdown", "socketpair",
    ),
    "system information": ("getrandom", "getrlimit", "getrusage", "prlimit64", "setrlimit", "sysinfo", "uname"),
}  # fmt: skip

REFUSED: dict[str, tuple[str, ...]] = {
    "mounts": ("chroot", "mount", "pivot_root", "umount2"),
    "namespaces": ("setns", "unshare"),
    "files by handle, which lead out of the mount tree": ("name_to_handle_at", "open_by_handle_at"),
    "watching a whole mount": ("fanotify_init", "fanotify_mark"),
    "other processes": (
        "kcmp", "pidfd_getfd", "process_madvise", "process_mrelease", "process_vm_readv", "process_vm_writev", "ptrace",
    ),
    "kernel programs and tracing": ("bpf", "lookup_dcookie", "perf_event_open", "userfaultfd"),
    "keyrings, which no namespace divides": ("add_key", "keyctl", "request_key"),
    "the kernel itself": (
        "delete_module", "finit_module", "init_module", "kexec_file_load", "kexec_load", "reboot", "syslog",
    ),
    "host settings": (
        "acct", "adjtimex", "clock_adjtime", "clock_settime", "quotactl", "quotactl_fd", "setdomainname", "sethostname",
        "settimeofday", "swapoff", "swapon", "vhangup",
    ),
    "hardware": ("ioperm", "iopl", "modify_ldt"),
    "memory hidden from the kernel": ("memfd_secret",),
}  # fmt: skip

ABSENT: dict[str, tuple[str, ...]] = {
    "arguments behind a pointer, where a filter cannot look": ("clone3", "openat2"),
    "a ring that a filter cannot watch": ("io_uring_enter", "io_uring_register", "io_uring_setup"),
    "the newer interface to mounts": (
        "fsconfig", "fsmount", "fsopen", "fspick", "mount_setattr", "move_mount", "open_tree",
    ),
    "placement on memory nodes": (
        "get_mempolicy", "mbind", "migrate_pages", "move_pages", "set_mempolicy", "set_mempolicy_home_node",
    ),
    "page cache statistics": ("cachestat",),
    "dead in every current kernel": (
        "_sysctl", "afs_syscall", "create_module", "epoll_ctl_old", "epoll_wait_old", "get_kernel_syms", "get_thread_area",
        "getpmsg", "nfsservctl", "putpmsg", "query_module", "security", "set_thread_area", "sysfs", "tuxcall", "uselib",
        "ustat", "vserver",
    ),
}  # fmt: skip


OPTIONAL: dict[str, tuple[str, ...]] = {
    "debugging": ("kcmp", "process_vm_readv", "process_vm_writev", "ptrace"),
    "memory nodes": ("get_mempolicy", "mbind", "set_mempolicy", "set_mempolicy_home_node"),
}  # fmt: skip
"""Groups of REFUSED and ABSENT calls that a sandbox may be granted.

`debugging` reaches processes of the same sandbox and user alone: the PID namespace shows no others, and the kernel runs the
filter on what a tracer makes of a call (ptrace(2), seccomp(2), since Linux 4.8). `memory nodes` is for programs that place
memory themselves, as those for GPUs and the JVM do; moving that of others stays out of reach.
"""

DENIABLE = frozenset(
    {
        "asynchronous input and output",
        "extended attributes",
        "file watching",
        "further confinement",
        "messages between processes",
        "network",
        "scheduling",
    }
)
"""Groups of ALLOWED that a sandbox may do without; no program starts without the others. Denied calls are answered EPERM."""


class Comparison(Enum):
    """How an argument, a 64-bit register, is compared. MASKED looks only at the bits of the mask."""

    EQUAL = auto()
    NOT_EQUAL = auto()
    GREATER = auto()
    MASKED = auto()


@dataclass(frozen=True, slots=True)
class Condition:
    """One comparison of the argument at position `argument` (0 to 5); no two conditions of a rule may name the same argument."""

    argument: int
    comparison: Comparison
    value: int
    mask: int = 0


@dataclass(frozen=True, slots=True)
class ArgumentRule:
    """Calls that are allowed, but answered `errno` when all conditions hold."""

    syscalls: tuple[str, ...]
    conditions: tuple[Condition, ...]
    errno: int = errno.EPERM


def is_bit_set(argument: int, bit: int) -> Condition:
    return Condition(argument, Comparison.MASKED, bit, bit)


def is_int(argument: int, value: int) -> Condition:
    """The argument as a C int: the kernel drops the upper half of the register, so it must not be compared."""
    return Condition(argument, Comparison.MASKED, value, 0xFFFFFFFF)


def is_field(argument: int, mask: int, value: int) -> Condition:
    return Condition(argument, Comparison.MASKED, value, mask)


# linux/sched.h. CLONE_NEWTIME is out of reach of clone(2): its bit is a part of the exit signal there.
_CLONE_NEW = {
    "mount": 0x00020000,
    "cgroup": 0x02000000,
    "uts": 0x04000000,
    "ipc": 0x08000000,
    "user": 0x10000000,
    "pid": 0x20000000,
    "net": 0x40000000,
}
# asm-generic/ioctls.h
_TIOCSTI, _TIOCLINUX, _TIOCSETD = 0x5412, 0x541C, 0x5423
# asm-generic/fcntl.h: O_TMPFILE without O_DIRECTORY, whose value depends on the architecture
_O_CREAT, _O_TMPFILE = 0o100, 0o20000000
# linux/socket.h, linux/net.h
_AF_UNIX, _AF_INET, _AF_INET6, _AF_NETLINK = 1, 2, 10, 16
_SOCK_TYPE_MASK = 0xF
_SOCK_STREAM, _SOCK_DGRAM = 1, 2
_IPPROTO_ICMPV6, _IPPROTO_DCCP = 58, 33
_NETLINK_ROUTE = 0
# linux/personality.h
_PERSONALITY_QUERY, _ADDR_NO_RANDOMIZE = 0xFFFFFFFF, 0x0040000

ALLOWED_WHEN: dict[str, tuple[Condition, ...]] = {
    # The rest lowers the defences of programs started later, such as READ_IMPLIES_EXEC.
    "personality": tuple(is_int(0, value) for value in (0, _ADDR_NO_RANDOMIZE, _PERSONALITY_QUERY)),
}
"""Calls that reach the kernel only when one of the conditions holds, and are absent otherwise."""


def _namespaces() -> list[ArgumentRule]:
    return [ArgumentRule(("clone",), (is_bit_set(0, flag),)) for flag in _CLONE_NEW.values()]


def _terminals() -> list[ArgumentRule]:
    """Typing into a terminal that others read (CVE-2017-5226, CVE-2023-28100), and loading line disciplines (CVE-2017-2636)."""
    return [ArgumentRule(("ioctl",), (is_int(1, request),)) for request in (_TIOCSTI, _TIOCLINUX, _TIOCSETD)]


def _file_modes() -> list[ArgumentRule]:
    """No setuid or setgid file, which would lend the identity of the workspace's owner to whoever runs it; no device.

    open(2) reads its mode only when it creates a file: it may hold anything otherwise.
    """
    rules = []
    for bit in (stat.S_ISUID, stat.S_ISGID):
        rules.append(ArgumentRule(("chmod", "fchmod", "creat", "mkdir", "mknod"), (is_bit_set(1, bit),)))
        rules.append(ArgumentRule(("fchmodat", "fchmodat2", "mkdirat", "mknodat"), (is_bit_set(2, bit),)))
        for flag in (_O_CREAT, _O_TMPFILE):
            rules.append(ArgumentRule(("open",), (is_bit_set(1, flag), is_bit_set(2, bit))))
            rules.append(ArgumentRule(("openat",), (is_bit_set(2, flag), is_bit_set(3, bit))))
    for device in (stat.S_IFCHR, stat.S_IFBLK):
        rules.append(ArgumentRule(("mknod",), (is_field(1, 0o170000, device),)))
        rules.append(ArgumentRule(("mknodat",), (is_field(2, 0o170000, device),)))
    return rules


def _sockets() -> list[ArgumentRule]:
    """Unix, IPv4, IPv6 and routing netlink sockets; TCP, UDP and ICMP. Others load kernel modules on the asking.

    Families and protocols beyond the last allowed one are refused as 64-bit numbers, so garbage above a C int is refused too.
    """
    calls = ("socket", "socketpair")
    allowed = (_AF_UNIX, _AF_INET, _AF_INET6, _AF_NETLINK)
    families = [Condition(0, Comparison.EQUAL, family) for family in range(_AF_NETLINK) if family not in allowed]
    families.append(Condition(0, Comparison.GREATER, _AF_NETLINK))
    rules = [ArgumentRule(calls, (family,), errno.EAFNOSUPPORT) for family in families]
    netlink = Condition(0, Comparison.EQUAL, _AF_NETLINK)
    rules.append(ArgumentRule(calls, (netlink, Condition(2, Comparison.NOT_EQUAL, _NETLINK_ROUTE)), errno.EPROTONOSUPPORT))
    types = [kind for kind in range(_SOCK_TYPE_MASK + 1) if kind not in (_SOCK_STREAM, _SOCK_DGRAM)]
    for family in (_AF_INET, _AF_INET6):
        internet = Condition(0, Comparison.EQUAL, family)
        unwanted = [is_field(1, _SOCK_TYPE_MASK, kind) for kind in types]
        unwanted.append(is_int(2, _IPPROTO_DCCP))
        unwanted.append(Condition(2, Comparison.GREATER, _IPPROTO_ICMPV6))
        rules += [ArgumentRule(calls, (internet, condition), errno.EPROTONOSUPPORT) for condition in unwanted]
    return rules


REFUSED_WHEN: tuple[ArgumentRule, ...] = (*_namespaces(), *_terminals(), *_file_modes(), *_sockets())
