"""The network: services of the host and of its surroundings, and ways to get a few bytes out."""

from __future__ import annotations

import socket

from tests.escape.attempt import Course, Family, Judged, NotApplicableError, Outcome, Verdict, effect, reached
from tests.escape.host import Host, new_token

family = Family("network")

CONNECT = """
for number, (family, address) in enumerate(words["addresses"]):
    def speak():
        with socket.socket(family, socket.SOCK_STREAM, words.get("protocol", 0)) as client:
            client.settimeout(1.5)
            if words.get("fast"):
                return client.sendto(b"from the sandbox", 0x20000000, tuple(address))
            client.connect(tuple(address))
            return client.send(b"from the sandbox")
    trying(f"{address[0]} {number}", speak)
"""


@family.attempt(CONNECT)
def loopback_service(host: Host) -> Course:
    """Connects to a service on 127.0.0.1 of the host, such as a database."""
    ear = host.ear(socket.AF_INET, ("127.0.0.1", 0))
    outcome = yield {"addresses": [(socket.AF_INET, ear.address), (socket.AF_INET, ("0.0.0.0", ear.address[1]))]}
    return reached(outcome, ear.heard)


@family.attempt(CONNECT)
def loopback_service_by_ipv6(host: Host) -> Course:
    """Connects to a service on ::1 of the host."""
    try:
        ear = host.ear(socket.AF_INET6, ("::1", 0))
    except OSError as error:
        raise NotApplicableError("the host has no ::1") from error
    outcome = yield {"addresses": [(socket.AF_INET6, ear.address)]}
    return reached(outcome, ear.heard)


@family.attempt(CONNECT)
def service_on_the_hosts_address(host: Host) -> Course:
    """Connects to a service on the host's own address in its network."""
    address = _own_address()
    ear = host.ear(socket.AF_INET, (address, 0))
    outcome = yield {"addresses": [(socket.AF_INET, ear.address)]}
    return reached(outcome, ear.heard)


@family.attempt(CONNECT)
def fast_open(host: Host) -> Course:
    """Connects by the first datagram of TCP Fast Open, past a filter of connect(2)."""
    ear = host.ear(socket.AF_INET, ("127.0.0.1", 0))
    outcome = yield {"addresses": [(socket.AF_INET, ear.address)], "fast": True}
    return reached(outcome, ear.heard)


@family.attempt(CONNECT)
def multipath(host: Host) -> Course:
    """Connects by multipath TCP, past a filter of TCP."""
    ear = host.ear(socket.AF_INET, ("127.0.0.1", 0))
    outcome = yield {"addresses": [(socket.AF_INET, ear.address)], "protocol": 262}
    return reached(outcome, ear.heard)


@family.attempt("""
def send(text):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        return client.sendto(text, tuple(words["address"]))
trying("datagram", send, b"from the sandbox")
""")
def loopback_datagram(host: Host) -> Course:
    """Sends a datagram to a service on 127.0.0.1 of the host."""
    ear = host.ear(socket.AF_INET, ("127.0.0.1", 0), socket.SOCK_DGRAM)
    outcome = yield {"address": ear.address}
    return reached(outcome, ear.heard)


@family.attempt("""
def serve():
    with socket.socket() as server:
        server.bind(("127.0.0.1", words["port"]))
        server.listen()
        server.settimeout(1)
        try:
            return "reached from " + str(server.accept()[1])
        except TimeoutError:
            return "nobody came"
trying("serve", serve)
""")
def listen_on_the_hosts_loopback(host: Host) -> Course:
    """Listens on a port of the host's 127.0.0.1, in the place of a service."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]

    def look() -> bool:
        try:
            with socket.create_connection(("127.0.0.1", port), timeout=0.2):
                return True
        except OSError:
            return False

    was_there = host.meanwhile(look)
    outcome = yield {"port": port}
    return reached(outcome, was_there())


NO_WAY = {"ENETUNREACH", "EPERM", "EACCES", "EAFNOSUPPORT", "ENOSYS", "EPROTONOSUPPORT", "ENETDOWN", "SIGSYS"}
"""Before any packet is made. All else, a time-out or a refusal too, means that one may have gone out."""


def _on_its_way(outcome: Outcome) -> Judged:
    outcome.sound()
    sent = {name: how for name, how in outcome.refused.items() if how not in NO_WAY} | outcome.did
    if sent:
        return Judged(Verdict.ESCAPED, ", ".join(f"{name}: {how}" for name, how in sent.items()))
    return Judged(Verdict.BLOCKED, ", ".join(set(outcome.refused.values())))


@family.attempt(CONNECT)
def metadata_address(host: Host) -> Course:
    """Connects to where clouds give out credentials: 169.254.169.254, fd00:ec2::254, 100.100.100.200."""
    ipv4 = [(socket.AF_INET, (address, 80)) for address in ("169.254.169.254", "100.100.100.200")]
    outcome = yield {"addresses": [*ipv4, (socket.AF_INET6, ("fd00:ec2::254", 80))]}
    return _on_its_way(outcome)


@family.attempt(CONNECT)
def address_outside(host: Host) -> Course:
    """Connects to an address of the network outside."""
    outcome = yield {"addresses": [(socket.AF_INET, ("198.51.100.1", 443)), (socket.AF_INET6, ("2001:db8::1", 443))]}
    return _on_its_way(outcome)


@family.attempt("""
import struct
label = words["token"].encode()
query = struct.pack(">6H", 7, 0x100, 1, 0, 0, 0) + bytes([len(label)]) + label + b"\\x07invalid\\0" + struct.pack(">2H", 1, 1)
def ask(address):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        return client.sendto(query, address)
trying("resolver", ask, tuple(words["address"]))
""")
def dns_tunnel(host: Host) -> Course:
    """Carries bytes out in the name of a DNS question to the host's resolver."""
    try:
        ear = host.ear(socket.AF_INET, ("127.0.0.99", 53), socket.SOCK_DGRAM)
    except OSError:
        ear = host.ear(socket.AF_INET, ("127.0.0.99", 0), socket.SOCK_DGRAM)
    outcome = yield {"address": ear.address, "token": new_token()}
    return reached(outcome, ear.heard)


@family.attempt("""
trying("icmp", socket.socket, socket.AF_INET, socket.SOCK_RAW, 1)
trying("tcp", socket.socket, socket.AF_INET, socket.SOCK_RAW, 6)
trying("all", socket.socket, socket.AF_INET, socket.SOCK_RAW, 255)
trying("ipv6", socket.socket, socket.AF_INET6, socket.SOCK_RAW, 58)
""")
def raw_socket(host: Host) -> Course:
    """Opens raw sockets, to forge packets."""
    outcome = yield {}
    return effect(outcome)


@family.attempt("""
def ping():
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM, 1) as client:
        return client.sendto(struct.pack(">BBHHH", 8, 0, 0, 1, 1), (words["address"], 0))
trying("ping", ping)
def broadcast():
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
        return client.sendto(b"x", ("255.255.255.255", 9))
trying("broadcast", broadcast)
def multicast():
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        return client.sendto(b"x", ("224.0.0.251", 5353))
trying("multicast", multicast)
""")
def ping_and_broadcast(host: Host) -> Course:
    """Sends an ICMP echo, a broadcast and a multicast."""
    outcome = yield {"address": "198.51.100.1"}
    return _on_its_way(outcome)


@family.attempt("""
import fcntl
def configure(request, name, extra=b""):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        return fcntl.ioctl(client, request, struct.pack("16s24s", name, extra))
trying("up", configure, 0x8914, b"lo", struct.pack("h", 0x49))
trying("address", configure, 0x8916, b"lo", struct.pack("hh4s", 2, 0, bytes([10, 9, 8, 7])))
def tunnel():
    return fcntl.ioctl(os.open("/dev/net/tun", os.O_RDWR), 0x400454ca, struct.pack("16sH22s", b"tun0", 1, b""))
trying("tunnel", tunnel)
""")
def change_the_interfaces(host: Host) -> Course:
    """Changes addresses of interfaces, and makes a tunnel."""
    outcome = yield {}
    return effect(outcome)


@family.attempt("""
trying("interfaces", lambda: [name for _, name in socket.if_nameindex()])
trying("tcp", lambda: [line.split()[1] for line in read("/proc/net/tcp", 65536).splitlines()[1:]])
""")
def sight_of_the_network(host: Host) -> Course:
    """Learns the host's interfaces and open connections."""
    ear = host.ear(socket.AF_INET, ("127.0.0.1", 0))
    outcome = yield {}
    outcome.sound()
    port = f":{ear.address[1]:04X}"
    names = set(outcome.did.get("interfaces", ())) & {name for _, name in socket.if_nameindex()} - {"lo"}
    return reached(outcome, bool(names) or any(address.endswith(port) for address in outcome.did.get("tcp", ())))


def _own_address() -> str:
    """Of the interface that leads out; nothing is sent."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("198.51.100.1", 9))
        except OSError as error:
            raise NotApplicableError("the host has no address but loopback") from error
        address = str(probe.getsockname()[0])
    return address
