"""Sockets of the host: by name, by path, inherited, and families that no sandboxed program needs."""

from __future__ import annotations

import os
import socket
from pathlib import Path

from tests.escape.attempt import Course, Family, Judged, NotApplicableError, Verdict, effect, reached
from tests.escape.host import Ear, Host, new_token

family = Family("sockets")

CONNECT = """
for address in words["addresses"]:
    def speak():
        with socket.socket(socket.AF_UNIX, getattr(socket, words.get("kind", "SOCK_STREAM"))) as client:
            client.settimeout(2)
            client.connect(address)
            return client.send(b"from the sandbox")
    trying(address.replace("\\0", "@"), speak)
"""


@family.attempt(CONNECT)
def abstract_socket(host: Host) -> Course:
    """Connects to an abstract socket of the host, as X and the session bus have had."""
    name = f"\0{new_token()}"
    ear = host.ear(socket.AF_UNIX, name)
    outcome = yield {"addresses": [name]}
    return reached(outcome, ear.heard)


@family.attempt(CONNECT)
def abstract_datagram(host: Host) -> Course:
    """Sends a datagram to an abstract socket of the host."""
    name = f"\0{new_token()}"
    ear = host.ear(socket.AF_UNIX, name, socket.SOCK_DGRAM)
    outcome = yield {"addresses": [name], "kind": "SOCK_DGRAM"}
    return reached(outcome, ear.heard)


def _service(host: Host, path: Path) -> Ear:
    return host.ear(socket.AF_UNIX, str(path))


@family.attempt(CONNECT)
def docker_socket(host: Host) -> Course:
    """Commands Docker by /run/docker.sock, whose owner is root."""
    path = Path("/run/docker.sock")
    if os.geteuid() != 0 or path.exists():
        raise NotApplicableError("needs root, and a host without Docker, to put a socket into its place")
    ear = _service(host, path)
    outcome = yield {"addresses": ["/run/docker.sock", "/var/run/docker.sock", "/proc/1/root/run/docker.sock"]}
    return reached(outcome, ear.heard)


@family.attempt(CONNECT)
def session_bus(host: Host) -> Course:
    """Talks to the session bus, which starts programs outside for whoever asks."""
    path = host.directory("runtime") / "bus"
    ear = _service(host, path)
    host.environment |= {"DBUS_SESSION_BUS_ADDRESS": f"unix:path={path}", "XDG_RUNTIME_DIR": str(path.parent)}
    outcome = yield {"addresses": [str(path)]}
    return reached(outcome, ear.heard)


@family.attempt(CONNECT)
def system_bus(host: Host) -> Course:
    """Talks to the system bus at /run/dbus/system_bus_socket."""
    path = Path("/run/dbus/system_bus_socket")
    if os.geteuid() != 0 or path.exists() or not path.parent.is_dir():
        raise NotApplicableError("needs root, and a host without a bus, to put a socket into its place")
    ear = _service(host, path)
    outcome = yield {"addresses": [str(path), f"/var{path}"]}
    return reached(outcome, ear.heard)


@family.attempt(CONNECT)
def ssh_agent(host: Host) -> Course:
    """Signs with the keys of the user's agent, by SSH_AUTH_SOCK."""
    path = host.directory("ssh") / "agent.1"
    ear = _service(host, path)
    host.environment["SSH_AUTH_SOCK"] = str(path)
    outcome = yield {"addresses": [str(path)]}
    return reached(outcome, ear.heard)


@family.attempt(CONNECT)
def socket_in_tmp(host: Host) -> Course:
    """Connects to a socket in the host's /tmp."""
    path = Path("/tmp") / f"{new_token()}.sock"
    ear = _service(host, path)
    outcome = yield {"addresses": [str(path)]}
    return reached(outcome, ear.heard)


@family.attempt(CONNECT)
def daemon_socket(host: Host) -> Course:
    """Submits tasks of its own to the daemon's socket, to be run without its limits."""
    path = host.directory("agent-supervisor") / "supervisor.sock"
    ear = _service(host, path)
    outcome = yield {"addresses": [str(path), f"/proc/1/root{path}"]}
    return reached(outcome, ear.heard)


@family.attempt(
    """
for number in range(3, 1024):
    try:
        if stat.S_ISSOCK(os.fstat(number).st_mode):
            trying(str(number), os.write, number, b"from the sandbox")
    except OSError:
        pass
tell(refused={"none": "EBADF"})
""",
    alone=True,
)
def inherited_socket(host: Host) -> Course:
    """Speaks on a connection that the caller forgot to close."""
    ours, theirs = socket.socketpair()
    host.later(ours.close)
    host.leaks(theirs.detach())
    outcome = yield {}
    ours.setblocking(False)
    try:
        heard = bool(ours.recv(100))
    except BlockingIOError:
        heard = False
    return reached(outcome, heard)


@family.attempt("""
trying("vsock", lambda: socket.socket(40, socket.SOCK_STREAM))
def hypervisor():
    with socket.socket(40, socket.SOCK_STREAM) as client:
        client.settimeout(1)
        client.connect((2, 1))
try:
    hypervisor()
    tell(did={"reached": 1})
except OSError as error:
    tell(refused={"connect": errno.errorcode.get(error.errno or 110, "?")})
""")
def hypervisor_socket(host: Host) -> Course:
    """Talks to the hypervisor by AF_VSOCK, which no network namespace holds."""
    outcome = yield {}
    outcome.sound()
    if "vsock" in outcome.did:
        return Judged(Verdict.ESCAPED, f"the socket is there; connecting: {outcome.refused.get('connect', 'done')}")
    return effect(outcome)


family.effects(
    {
        "packet_socket": (
            "Opens a packet socket",
            """
trying("packet", socket.socket, 17, socket.SOCK_RAW, 0x0300)
trying("datagram", socket.socket, 17, socket.SOCK_DGRAM, 0)
""",
        ),
        "crypto_socket": (
            "Opens an AF_ALG socket, into the kernel's ciphers",
            """
trying("alg", socket.socket, 38, socket.SOCK_SEQPACKET)
""",
        ),
        "odd_families": (
            "Opens sockets of rare families, which load modules",
            """
for number in {*range(3, 45)} - {7, 10, 14, 16, 17, 18, 19, 25, 32, 34, 36, 38, 40}:
    for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM, socket.SOCK_RAW, socket.SOCK_SEQPACKET):
        trying(f"{number}/{int(kind)}", socket.socket, number, kind)
""",
        ),
        "netlink": (
            "Opens netlink sockets to the audit log, netfilter, xfrm and the kernel's events",
            """
kinds = {"audit": 9, "netfilter": 12, "xfrm": 6, "uevent": 15, "connector": 11, "generic": 16, "crypto": 21}
for name, number in kinds.items():
    trying(name, socket.socket, 16, socket.SOCK_RAW, number)
""",
        ),
    },
)
