"""No address but one of the public Internet, in whatever clothes."""

from __future__ import annotations

import ipaddress
import socket
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from supervisord_agents.gateway.addresses import is_global
from supervisord_agents.gateway.egress import Denied, Streams, connect, parse_authority
from supervisord_agents.hosts import AllowedHosts, is_name

IANA = [
    # The two registries of special purposes of IANA (RFC 6890), and the multicast, reserved and unassigned blocks.
    *("0.0.0.0/8", "0.0.0.0/32", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12", "192.0.0.0/24"),
    *("192.0.0.0/29", "192.0.0.8/32", "192.0.0.9/32", "192.0.0.10/32", "192.0.0.170/32", "192.0.0.171/32", "192.0.2.0/24"),
    *("192.31.196.0/24", "192.52.193.0/24", "192.88.99.0/24", "192.88.99.2/32", "192.168.0.0/16", "192.175.48.0/24"),
    *("198.18.0.0/15", "198.51.100.0/24", "203.0.113.0/24", "240.0.0.0/4", "255.255.255.255/32", "224.0.0.0/4"),
    *("::1/128", "::/128", "64:ff9b:1::/48", "100::/64", "100:0:0:1::/64", "2001::/23", "2001::/32", "2001:1::1/128"),
    *("2001:1::2/128", "2001:1::3/128", "2001:2::/48", "2001:3::/32", "2001:4:112::/48", "2001:10::/28", "2001:20::/28"),
    *("2001:30::/28", "2001:db8::/32", "2002::/16", "2620:4f:8000::/48", "3fff::/20", "5f00::/16", "fc00::/7", "fe80::/10"),
    *("fec0::/10", "ff00::/8", "::/96", "4000::/3", "8000::/1"),
]
PRIVATE = ["127.0.0.1", "10.0.0.1", "172.16.0.1", "192.168.0.1", "169.254.169.254", "100.64.0.1", "0.0.0.0", "224.0.0.1"]
PUBLIC = "93.184.215.14"


@st.composite
def special(draw: st.DrawFn) -> str:
    """An address in a range that is not for hosts of the public Internet."""
    network = ip_network(draw(st.sampled_from(IANA)))
    offset = draw(st.integers(0, network.num_addresses - 1) | st.sampled_from([0, network.num_addresses - 1]))
    return str(network[offset])


private_v4 = st.sampled_from([network for network in map(ip_network, IANA) if network.version == 4]).flatmap(
    lambda network: st.integers(0, network.num_addresses - 1).map(lambda offset: IPv4Address(int(network[0]) + offset))
)


def embedded(prefix: str, inner: IPv4Address, shift: int = 0, more: int = 0) -> str:
    return str(IPv6Address(int(IPv6Network(prefix)[0]) | int(inner) << shift | more))


@given(special())
def test_nothing_of_the_special_purpose_registries_is_global(address: str) -> None:
    assert not is_global(address)


@given(private_v4)
def test_nothing_private_is_global_inside_an_ipv6_address(inner: IPv4Address) -> None:
    for address in (
        embedded("::ffff:0:0/96", inner),
        embedded("::/96", inner),
        embedded("64:ff9b::/96", inner),
        embedded("64:ff9b:1::/96", inner),
        embedded("::ffff:0:0:0/96", inner),  # SIIT, RFC 2765
        embedded("2002::/16", inner, 80),
        embedded("2001::/32", inner, 64),  # Teredo's server
        embedded("2001::/32", IPv4Address(int(inner) ^ 0xFFFFFFFF)),  # and its client
        embedded("2600::/64", inner, more=0x00005EFE << 32),  # ISATAP
        embedded("2600::/64", inner, more=0x02005EFE << 32),
    ):
        assert not is_global(address), address


@given(st.ip_addresses() | st.integers(0, 2**128 - 1).map(IPv6Address))
def test_what_python_does_not_call_global_is_not(ip: IPv4Address | IPv6Address) -> None:
    wrapped = isinstance(ip, IPv6Address) and (ip.ipv4_mapped or ip in ip_network("64:ff9b::/96"))
    if not ip.is_global and not wrapped:
        assert not is_global(str(ip))


@given(st.sampled_from(["%lo", "%1", "%eth0", "%25eth0"]))
def test_no_address_with_a_zone_is_global(zone: str) -> None:
    assert is_global("2606:2800:21f:cb07:6820:80da:af6b:8b2c")
    assert not is_global(f"2606:2800:21f:cb07:6820:80da:af6b:8b2c{zone}")
    assert not is_global(f"fe80::1{zone}")


def other_forms(address: str) -> list[str]:
    """How inet_aton(3), browsers and people write the same IPv4 address."""
    number = int(IPv4Address(address))
    parts = [number >> shift & 255 for shift in (24, 16, 8, 0)]
    return [
        str(number),
        hex(number),
        hex(number).upper(),
        f"0{number:o}",
        ".".join(map(hex, parts)),
        ".".join(f"0{part:o}" for part in parts),
        ".".join(f"{part:03}" for part in parts),
        f"{parts[0]}.{number & 0xFFFFFF}",
        f"{parts[0]}.{parts[1]}.{number & 0xFFFF}",
        f"{parts[0]}.0x{number & 0xFFFFFF:x}",
        f"{address}.",
        f"{address}..",
        f" {address}",
        f"{address} ",
        f"{address}\t",
        f"[{address}]",
        f"::ffff:{address}",
        f"[::ffff:{address}]",
        address.replace(".", "。"),
        address.translate(str.maketrans("0123456789", "０１２３４５６７８９")),
    ]


@pytest.mark.parametrize("address", [*PRIVATE, PUBLIC])
def test_an_address_in_another_form_is_no_name_and_cannot_be_allowed(address: str) -> None:
    everything = AllowedHosts(["*.example.org", "example.org"])
    for form in other_forms(address):
        assert not is_name(form), form
        assert (form, 443) not in everything
        if form != address:
            assert not is_global(form) or form == f"[{address}]" or ":" in form, form
        try:
            host, _ = parse_authority(f"{form}:443")
        except ValueError:
            continue
        assert ipaddress.ip_address(host), form


@given(st.integers(0, 2**32 - 1))
def test_nothing_that_inet_aton_reads_as_an_address_is_taken_for_a_name(number: int) -> None:
    for form in other_forms(str(IPv4Address(number))):
        try:
            socket.inet_aton(form)
        except (OSError, ValueError):
            continue
        assert not is_name(form), form


@given(st.text(st.sampled_from("0123456789abcdefx.-"), min_size=1, max_size=20))
def test_a_name_is_never_read_as_an_address_by_the_resolver(text: str) -> None:
    if is_name(text):
        with pytest.raises(OSError, match="illegal IP address"):
            socket.inet_aton(text)


@given(st.lists(special() | st.just(PUBLIC), min_size=1, max_size=5))
async def test_one_address_that_is_not_public_refuses_the_host_before_anything_is_dialled(answers: list[str]) -> None:
    dialled = []

    async def resolve(host: str, port: int) -> list[str]:
        return answers

    async def dial(address: str, port: int) -> Streams:
        dialled.append(address)
        raise OSError

    with pytest.raises((Denied, OSError)) as caught:
        await connect("example.org", 443, resolve, dial)
    public = set(answers) == {PUBLIC}
    assert isinstance(caught.value, OSError) is public
    assert dialled == (answers if public else [])
