"""Corners of the kernel that no namespace divides, or where the holes have been; and ways around a filter."""

from __future__ import annotations

from tests.escape.attempt import Course, Family, Verdict, effect, leak
from tests.escape.host import Host, Secret

family = Family("kernel")


@family.attempt("""
def take(ring):
    key = call("keyctl", 10, ring, b"user", b"escape", 0)
    held = ctypes.create_string_buffer(64)
    length = call("keyctl", 11, key, held, 64)
    return held.raw[:length].decode("latin-1")
for name, ring in (("session", -3), ("process", -2), ("user", -4), ("user session", -5)):
    trying(name, take, ring)
trying("list", read, "/proc/keys")
""")
def callers_keyring(host: Host) -> Course:
    """Reads a key out of the session keyring that it inherits from its caller."""
    outcome = yield {}
    return leak(outcome, Secret(host.session_key))


family.effects(
    {
        "own_keys": (
            "Adds keys to the user's keyring, which the host's programs of that user search",
            """
for name, ring in (("session", -3), ("user", -4), ("user session", -5)):
    trying(name, call, "add_key", b"user", b"planted", b"x", 1, ring)
""",
        ),
        "io_uring": (
            "Sets up io_uring, whose operations no filter sees",
            """
trying("setup", call, "io_uring_setup", 4, ctypes.create_string_buffer(120))
""",
        ),
        "bpf_program": (
            "Loads a BPF program",
            """
code = ctypes.create_string_buffer(struct.pack('=QQ', 0xb7, 0x95), 16)
license = ctypes.create_string_buffer(b'GPL')
fields = struct.pack('=IIQQ', 1, 2, ctypes.addressof(code), ctypes.addressof(license))
given = ctypes.create_string_buffer(fields + b'\\0' * 100)
trying("load", call, "bpf", 5, given, 48)
map = ctypes.create_string_buffer(struct.pack('=IIII', 2, 4, 4, 1) + b'\\0' * 100)
trying("map", call, "bpf", 0, map, 48)
""",
        ),
        "performance_counters": (
            "Opens performance counters, its own and the machine's",
            """
given = ctypes.create_string_buffer(struct.pack('=IIQ', 1, 128, 0) + b'\\0' * 112)
ctypes.memmove(ctypes.addressof(given) + 40, struct.pack('=Q', 1 << 5 | 1 << 6), 8)
trying("own", call, "perf_event_open", given, 0, -1, -1, 0)
trying("processor", call, "perf_event_open", given, -1, 0, -1, 0)
""",
        ),
        "userfaultfd": (
            "Handles page faults by userfaultfd, which makes races in the kernel easy",
            """
trying("call", call, "userfaultfd", os.O_CLOEXEC)
trying("user mode", call, "userfaultfd", os.O_CLOEXEC | 1)
trying("device", lambda: os.open("/dev/userfaultfd", os.O_RDWR))
""",
        ),
        "x32_calls": (
            "Calls by the x32 numbers, past a filter that knows only x86-64's",
            """
def x32(number):
    result = libc.syscall(0x40000000 | number)
    if result == -1:
        raise OSError(ctypes.get_errno(), '')
    return result
for name, number in (("getpid", 39), ("getuid", 102)):
    in_child(name, x32, number)
""",
        ),
        "calls_of_32_bit": (
            "Calls by int 0x80, past a filter that knows only x86-64's numbers",
            """
import mmap
def int80(number):
    page = mmap.mmap(-1, 4096, prot=7)
    page.write(b'\\xb8' + struct.pack('<I', number) + b'\\xcd\\x80\\xc3')
    entry = ctypes.addressof(ctypes.c_char.from_buffer(page))
    result = ctypes.CFUNCTYPE(ctypes.c_int)(entry)()
    if result < 0:
        raise OSError(-result, '')
    return result
for name, number in (("getpid", 20), ("getuid", 199)):
    in_child(name, int80, number)
""",
        ),
        "modify_ldt": (
            "Writes descriptors of its own for 16-bit code",
            """
entry = ctypes.create_string_buffer(struct.pack('=IIII', 0, 0, 0xfffff, 0x51), 16)
trying("write", call, "modify_ldt", 1, entry, 16)
""",
        ),
        "personality": (
            "Lowers the defences of programs started later: memory that may be run, fixed addresses",
            """
for name, value in (("executable", 0x0400000), ("32 bit", 0x0800000), ("mmap 0", 0x0100000)):
    in_child(name, call, 'personality', value)
""",
        ),
        "further_watching": (
            "Watches a whole mount by fanotify, and hides memory from the kernel",
            """
trying("fanotify", call, "fanotify_init", 0, 0)
trying("memfd_secret", call, "memfd_secret", 0)
""",
        ),
        "new_calls": (
            "Calls that are newer than most filters: statmount, listmount, openat2",
            """
given = ctypes.create_string_buffer(struct.pack('=IIQQQ', 32, 0, 0xffffffffffffffff, 0, 0), 32)
answer = ctypes.create_string_buffer(512)
trying("listmount", call, "listmount", given, answer, 32, 0)
""",
        ),
    },
)

# Each with arguments that the kernel refuses as nonsense, but only to those who may ask: EPERM or ENOSYS is "you may not".
_PROBES = {
    "load_a_module": (
        "Loads and removes kernel modules",
        """
probe("init", "init_module", None, 0, b"")
probe("finit", "finit_module", -1, b"", 0)
probe("delete", "delete_module", None, 0)
""",
    ),
    "another_kernel": (
        "Starts another kernel",
        """
probe("load", "kexec_load", 0, 1 << 20, None, 0)
probe("file", "kexec_file_load", -1, -1, 0, None, 1 << 30)
""",
    ),
    "reboot": (
        "Reboots the machine",
        """
probe("reboot", "reboot", 0, 0, 0, None)
""",
    ),
    "swap_and_accounting": (
        "Turns on swap and process accounting",
        """
probe("swapon", "swapon", None, 0)
probe("acct", "acct", ctypes.c_char_p(1))
""",
    ),
    "clock": (
        "Sets the clock",
        """
given = ctypes.create_string_buffer(208)
struct.pack_into('=I', given, 0, 0x4000)
probe('tick', 'adjtimex', given)
""",
    ),
    "names_of_the_host": (
        "Renames the host",
        """
probe("hostname", "sethostname", None, -1)
""",
    ),
    "ports_of_the_hardware": (
        "Takes the right to the hardware's ports",
        """
probe("iopl", "iopl", 3)
probe("ioperm", "ioperm", 0x80, 1, 1)
""",
    ),
}
_PROBE = """
def probe(name, *arguments):
    try:
        call(*arguments)
    except OSError as error:
        if error.errno not in (errno.EPERM, errno.ENOSYS, errno.EACCES):
            tell(did={name: "asked: " + errno.errorcode[error.errno]})
        else:
            tell(refused={name: errno.errorcode[error.errno]})
    else:
        tell(did={name: "done"})
"""
for _name, (_what, _program) in _PROBES.items():
    family.effects({_name: (_what, _PROBE + _program)}, mounts=True, host_wide=True)


@family.attempt(
    _PROBE
    + """
trying("vm", lambda: os.open("/dev/kvm", os.O_RDWR))
trying("input", lambda: os.open("/dev/input/event0", os.O_RDONLY))
trying("gpu", lambda: os.open("/dev/dri/card0", os.O_RDWR))
trying("msr", lambda: os.open("/dev/cpu/0/msr", os.O_RDONLY))
trying("watchdog", lambda: os.stat("/dev/watchdog"))
"""
)
def hardware_devices(host: Host) -> Course:
    """Opens devices: virtual machines, keyboards, graphics, registers."""
    outcome = yield {}
    return effect(outcome, Verdict.ESCAPED)
