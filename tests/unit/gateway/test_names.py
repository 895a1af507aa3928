"""Addresses that stand for names."""

from __future__ import annotations

from ipaddress import ip_address, ip_network

from hypothesis import given
from hypothesis import strategies as st

from supervisord_agents.gateway import names
from supervisord_agents.gateway.names import MAX_NAMES, Names


def test_a_name_has_the_same_address_everywhere_and_always() -> None:
    first, second = Names(["a.example.org"]), Names(["b.example.org"])
    address = first.address_of("a.example.org")
    assert address == second.address_of("a.example.org")
    assert first.name_of(str(address)) == "a.example.org"
    assert ip_address(str(address)) in ip_network("127.64.0.0/10")


def test_names_are_forgotten_but_the_lasting_ones() -> None:
    kept = Names(["a.example.org"])
    lasting, other = kept.address_of("a.example.org"), kept.address_of("b.example.org")
    kept.forget()
    assert kept.name_of(str(lasting)) == "a.example.org"
    assert kept.name_of(str(other)) is None
    assert kept.address_of("b.example.org") == other


def test_there_are_only_so_many_names() -> None:
    kept = Names(["a.example.org"])
    given = [kept.address_of(f"n{number}.example.org") for number in range(MAX_NAMES + 1)]
    assert given[-1] is None
    assert None not in given[:-1]
    assert kept.address_of("n0.example.org") == given[0]
    kept.forget()
    assert kept.address_of(f"n{MAX_NAMES}.example.org") is not None


@given(st.lists(st.sampled_from([f"n{number}" for number in range(30)]), max_size=60))
def test_no_two_names_share_an_address_however_few_there_are(asked: list[str]) -> None:
    room, names.COUNT = names.COUNT, 32
    try:
        kept = Names(["n0", "n1"])
        for name in asked:
            kept.address_of(name)
        addresses = {name: kept.address_of(name) for name in {*asked, "n0", "n1"}}
        assert len(set(addresses.values())) == len(addresses)
        assert all(kept.name_of(str(address)) == name for name, address in addresses.items())
    finally:
        names.COUNT = room
