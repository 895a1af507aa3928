"""What a supervisor makes of paths and addresses, and how its events read."""

from __future__ import annotations

import socket
import struct

import msgspec
import pytest

from sandbox import notify_calls
from sandbox.notify import Sight
from sandbox.notify_events import Attempt, Missed, line
from sandbox.plan import Host, make
from sandbox.shield import Shielded
from sandbox.spec import Bind, SandboxSpec

HOST = Host({"/bin": "usr/bin", "/lib": "usr/lib"}, ("/usr", "/etc/ssl/certs"), ("/dev/null",))
SPEC = SandboxSpec(argv=("true",), binds=(Bind("/srv/work", writable=True), Bind("/opt/tool"), Bind("/srv/work/.git/hooks")))
SIGHT = Sight.of(make(SPEC, HOST, 1000, 1000))


@pytest.mark.parametrize(
    ("path", "reading", "writing"),
    [
        ("/etc/shadow", "absent", "read-only"),
        ("/root/.ssh/id_rsa", "absent", "absent"),
        ("/home/ann", "absent", "absent"),
        ("/var/run/docker.sock", "absent", "read-only"),
        ("/opt/other", "absent", "absent"),
        ("/opt/tool/x", "", "read-only"),
        ("/opt/toolbox", "absent", "absent"),
        ("/usr/bin/git", "", "read-only"),
        ("/bin/git", "", "read-only"),
        ("/lib/none", "", "read-only"),
        ("/etc/passwd", "", "read-only"),
        ("/etc/ssl/certs/a", "", "read-only"),
        ("/", "", "read-only"),
        ("/srv", "", "read-only"),
        ("/run", "", "read-only"),
        ("/srv/work/a/b", "", ""),
        ("/srv/work/.git/hooks/x", "", "read-only"),
        ("/tmp/x", "", ""),
        ("/var/tmp/x", "", ""),
        ("/home/worker/.cache", "", ""),
        ("/proc/1/environ", "", ""),
        ("/dev/null", "", ""),
    ],
)
def test_a_path_is_judged_by_what_the_plan_shows(path: str, reading: str, writing: str) -> None:
    assert SIGHT.judge(path, written=False) == reading
    assert SIGHT.judge(path, written=True) == writing


@pytest.mark.parametrize(
    ("path", "reading", "writing"),
    [
        ("/srv/work/.git/config", "", "read-only"),
        ("/srv/work/.git/hooks/x", "", "read-only"),
        ("/srv/work/.git/configs", "", ""),
        ("/srv/work/.env", "absent", "absent"),
        ("/opt/tool/keys/a", "absent", "absent"),
        ("/opt/tool/cache/a", "", ""),
        ("/opt/tool/x", "", "read-only"),
        ("/srv/own/a", "", ""),
    ],
)
def test_what_is_private_protected_or_hidden_within_what_is_shown(path: str, reading: str, writing: str) -> None:
    spec = msgspec.structs.replace(SPEC, tmpfs=("/opt/tool/cache", "/srv/own"), masked=("/opt/tool/keys", "/srv/work/.env"))
    shielded = [Shielded("/srv/work/.git/config", hidden=False)]
    shielded += [Shielded(path, hidden=True) for path in ("/opt/tool/keys", "/srv/work/.env")]
    sight = Sight.of(make(spec, HOST, 1000, 1000)).with_shielded(shielded)
    assert sight.judge(path, written=False) == reading
    assert sight.judge(path, written=True) == writing


def inet(host: str, port: int) -> bytes:
    return struct.pack("=H", socket.AF_INET) + struct.pack("!H4s8x", port, socket.inet_aton(host))


def inet6(host: str, port: int) -> bytes:
    return struct.pack("=H", socket.AF_INET6) + struct.pack("!HI16sI", port, 0, socket.inet_pton(socket.AF_INET6, host), 0)


@pytest.mark.parametrize(
    ("packed", "text", "outside"),
    [
        (inet("192.0.2.1", 443), "192.0.2.1:443", True),
        (inet("127.8.8.8", 1), "127.8.8.8:1", False),
        (inet("0.0.0.0", 8000), "0.0.0.0:8000", False),
        (inet6("2001:db8::1", 80), "[2001:db8::1]:80", True),
        (inet6("::1", 80), "[::1]:80", False),
        (inet6("::ffff:127.0.0.1", 80), "[::ffff:7f00:1]:80", False),
        (inet6("::ffff:192.0.2.1", 80), "[::ffff:c000:201]:80", True),
        (struct.pack("=H", 1) + b"/run/x.sock\0\0", "unix:/run/x.sock", False),
        (struct.pack("=H", 1) + b"\0abstract", "unix:@abstract", False),
    ],
)
def test_addresses(packed: bytes, text: str, outside: bool) -> None:
    found = notify_calls.address(packed)
    assert found is not None
    assert (found.text, found.outside) == (text, outside)


@pytest.mark.parametrize("packed", [b"", b"\1", b"\1\0", b"\2\0\1", b"\x0a\0\0\0\0\0", b"\x10\0\0\0\0\0\0\0", b"\xff\xff"])
def test_no_address(packed: bytes) -> None:
    assert notify_calls.address(packed) is None


@pytest.mark.parametrize(
    ("event", "text"),
    [
        (Attempt("mount", "/mnt", 17, "git", "EPERM"), 'the sandbox refused mount("/mnt") by pid 17 (git): EPERM'),
        (Attempt("bpf", "", 0, "", "EPERM", "command 5"), "the sandbox refused bpf(command 5) by a thread: EPERM"),
        (Attempt("openat", "/x", 3, "sh", "absent"), 'the sandbox hid "/x": openat by pid 3 (sh)'),
        (Attempt("unlink", "/x", 3, "sh", "read-only"), 'the sandbox kept "/x" read-only: unlink by pid 3 (sh)'),
        (Attempt("connect", "a:1", 3, "sh", "no network"), 'the sandbox has no network: connect("a:1") by pid 3 (sh)'),
        (
            Attempt("mount", 'a"\x1b\n\u202e', 3, "s\r", "EPERM"),
            r'the sandbox refused mount("a\"\x1b\n\u202e") by pid 3 (s\r): EPERM',
        ),
        (Missed(7), "the sandbox refused or hid 7 more"),
    ],
)
def test_an_event_in_words(event: Attempt | Missed, text: str) -> None:
    assert line(event) == text


def test_what_writes() -> None:
    assert not notify_calls.writes("openat", (0, 0, 0o2000000, 0, 0, 0))
    for flags in (1, 2, 0o100, 0o1000):
        assert notify_calls.writes("openat", (0, 0, flags, 0, 0, 0))
    assert notify_calls.writes("unlink", (0,) * 6)
    assert not notify_calls.writes("execve", (1,) * 6)
