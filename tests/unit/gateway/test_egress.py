"""Which hosts CONNECT may reach."""

from __future__ import annotations

from typing import Any, cast

import pytest

from supervisord_agents.errors import ConfigError
from supervisord_agents.gateway.addresses import is_global
from supervisord_agents.gateway.egress import Denied, Streams, connect, parse_authority
from supervisord_agents.hosts import AllowedHosts

GLOBAL = "93.184.215.14"
STREAMS = cast(Streams, (object(), object()))


def test_an_exact_name_allows_only_itself_on_the_https_port() -> None:
    allowed = AllowedHosts(["Example.org"])
    assert ("example.org", 443) in allowed
    assert ("EXAMPLE.org.", 443) in allowed
    for other in (("www.example.org", 443), ("example.org", 80), ("example.org.evil.net", 443), ("evilexample.org", 443)):
        assert other not in allowed


def test_a_wildcard_allows_names_below_and_not_the_domain_itself() -> None:
    allowed = AllowedHosts(["*.example.org"])
    assert ("a.example.org", 443) in allowed
    assert ("a.b.example.org", 443) in allowed
    assert ("example.org", 443) not in allowed
    assert ("evilexample.org", 443) not in allowed


def test_an_entry_may_name_another_port() -> None:
    allowed = AllowedHosts(["example.org:8443", "*.example.net:22"])
    assert ("example.org", 8443) in allowed
    assert ("example.org", 443) not in allowed
    assert ("a.example.net", 22) in allowed


@pytest.mark.parametrize(
    "entry", ["*.com", "*", "*.", "", "a..b", "10.0.0.1", "a/b", "*.*.org", "[::1]", "x:0", "x:99999", "x:y", "-a.org"]
)
def test_entries_that_are_no_names_or_too_wide_are_refused(entry: str) -> None:
    with pytest.raises(ConfigError, match=r"gateway\.allowed_hosts"):
        AllowedHosts([entry])


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1",
        "10.1.2.3",
        "172.16.0.1",
        "192.168.1.1",
        "169.254.169.254",
        "100.64.0.1",
        "0.0.0.0",
        "224.0.0.1",
        "240.0.0.1",
        "255.255.255.255",
        "::1",
        "::",
        "fe80::1",
        "fe80::1%eth0",
        "fd00::1",
        "ff02::1",
        "::ffff:127.0.0.1",
        "::ffff:10.0.0.1",
        "64:ff9b::7f00:1",
        "2002:7f00:1::",
        "2001:0:0:0:0:0:80ff:fffe",
        "not an address",
    ],
)
def test_addresses_off_the_public_internet_are_not_global(address: str) -> None:
    assert not is_global(address)


@pytest.mark.parametrize("address", [GLOBAL, "2606:2800:21f:cb07:6820:80da:af6b:8b2c", "64:ff9b::5db8:d70e"])
def test_public_addresses_are_global(address: str) -> None:
    assert is_global(address)


@pytest.mark.parametrize(
    "text", ["example.org", ":443", "example.org:", "example.org:0", "example.org:99999", "example.org:٣", ""]
)
def test_a_target_that_is_not_host_and_port_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="host:port"):
        parse_authority(text)


@pytest.mark.parametrize(
    "host",
    [
        "a..example.org",
        ".example.org",
        "a" * 64 + ".org",
        "a." * 126 + "org",
        "ü.org",
        "a b.org",
        "a@b.org",
        "-a.org",
        "[a]",
        "1.2.3",
    ],
)
def test_a_target_whose_host_is_neither_a_name_nor_an_address_is_refused(host: str) -> None:
    with pytest.raises(ValueError, match="not a host name"):
        parse_authority(f"{host}:443")


def test_targets_are_taken_apart() -> None:
    assert parse_authority("example.org:443") == ("example.org", 443)
    assert parse_authority("EXAMPLE.org.:443") == ("EXAMPLE.org.", 443)
    assert parse_authority("xn--bcher-kva.example.org:443") == ("xn--bcher-kva.example.org", 443)
    assert parse_authority("10.0.0.1:80") == ("10.0.0.1", 80)
    assert parse_authority("[::1]:443") == ("::1", 443)


class Network:
    """A resolver and a dialler that remember what they were asked."""

    def __init__(self, addresses: list[str], dead: tuple[str, ...] = ()) -> None:
        self.addresses = addresses
        self.dead = dead
        self.dialled: list[str] = []
        self.resolved = 0

    async def resolve(self, host: str, port: int) -> list[str]:
        self.resolved += 1
        return self.addresses

    async def dial(self, address: str, port: int) -> Any:
        self.dialled.append(address)
        if address in self.dead:
            raise ConnectionRefusedError(111, "Connection refused")
        return STREAMS


async def test_the_connection_goes_to_the_address_that_was_checked() -> None:
    network = Network([GLOBAL])
    assert await connect("example.org", 443, network.resolve, network.dial) is STREAMS
    assert (network.resolved, network.dialled) == (1, [GLOBAL])


async def test_one_local_address_among_the_answers_refuses_the_host() -> None:
    network = Network([GLOBAL, "10.0.0.1"])
    with pytest.raises(Denied, match=r"example\.org resolves to 10\.0\.0\.1"):
        await connect("example.org", 443, network.resolve, network.dial)
    assert network.dialled == []


async def test_the_next_address_is_tried_when_one_does_not_answer() -> None:
    network = Network(["93.184.215.13", GLOBAL], dead=("93.184.215.13",))
    assert await connect("example.org", 443, network.resolve, network.dial) is STREAMS
    assert network.dialled == ["93.184.215.13", GLOBAL]


async def test_a_host_that_does_not_answer_is_an_oserror() -> None:
    network = Network([GLOBAL], dead=(GLOBAL,))
    with pytest.raises(ConnectionRefusedError):
        await connect("example.org", 443, network.resolve, network.dial)
    with pytest.raises(OSError, match="no address"):
        await connect("example.org", 443, Network([]).resolve, network.dial)
