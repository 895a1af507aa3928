"""Answers to questions for names."""

from __future__ import annotations

import dns.flags
import dns.message
import dns.opcode
import dns.rcode
import pytest
from hypothesis import given
from hypothesis import strategies as st

from supervisord_agents.gateway.questions import Answer, Unnamed, answer

KNOWN = "a.example.org"


def look_up(name: str) -> str | Unnamed:
    return {KNOWN: "127.64.1.2", "full.example.org": Unnamed.TOO_MANY}.get(name, Unnamed.NOT_ALLOWED)


def ask(name: str, kind: str = "A", rdclass: str = "IN") -> tuple[Answer, dns.message.Message]:
    query = dns.message.make_query(name, kind, rdclass)
    given = answer(query.to_wire(), look_up)
    assert given is not None
    said = dns.message.from_wire(given.wire)
    assert query.is_response(said)
    return given, said


def test_a_known_name_has_one_address_in_the_case_it_was_asked_in() -> None:
    given, said = ask("A.Example.ORG")
    assert said.rcode() == dns.rcode.NOERROR
    assert str(said.answer[0]) == "A.Example.ORG. 60 IN A 127.64.1.2"
    assert said.flags & dns.flags.RA
    assert given.name == ""


@pytest.mark.parametrize("kind", ["AAAA", "TXT", "MX", "HTTPS", "ANY", "CNAME", "NS", "SOA", "NULL", "PTR"])
def test_a_known_name_has_nothing_but_an_address(kind: str) -> None:
    given, said = ask(KNOWN, kind)
    assert (said.rcode(), said.answer, said.authority, said.additional) == (dns.rcode.NOERROR, [], [], [])
    assert given.name == ""


@pytest.mark.parametrize("kind", ["A", "AAAA"])
def test_another_name_does_not_exist_and_is_named(kind: str) -> None:
    given, said = ask("B.example.org", kind)
    assert said.rcode() == dns.rcode.NXDOMAIN
    assert (given.name, given.why) == ("b.example.org", Unnamed.NOT_ALLOWED)


@pytest.mark.parametrize(
    ("name", "kind"), [("b.example.org", "TXT"), (r"a\000b.example.org", "A"), (".", "NS"), ("1.2.3.4", "A")]
)
def test_what_nobody_connects_to_does_not_exist_and_is_not_told(name: str, kind: str) -> None:
    given, said = ask(name, kind)
    assert said.rcode() == dns.rcode.NXDOMAIN
    assert given.name == ""


def test_one_name_too_many_is_another_error() -> None:
    given, said = ask("full.example.org")
    assert said.rcode() == dns.rcode.SERVFAIL
    assert (given.name, given.why) == ("full.example.org", Unnamed.TOO_MANY)


def test_other_classes_and_operations_are_refused() -> None:
    assert ask(KNOWN, rdclass="CH")[1].rcode() == dns.rcode.REFUSED
    query = dns.message.make_query(KNOWN, "A")
    query.set_opcode(dns.opcode.STATUS)
    given = answer(query.to_wire(), look_up)
    assert given is not None
    assert dns.message.from_wire(given.wire).rcode() == dns.rcode.NOTIMP


def test_what_is_no_query_gets_no_answer_and_what_is_broken_an_error() -> None:
    query = dns.message.make_query(KNOWN, "A").to_wire()
    assert answer(query[:11], look_up) is None
    assert answer(query[:2] + bytes([query[2] | 0x80]) + query[3:], look_up) is None
    assert answer(b"\0\7\x80" + query[3:20], look_up) is None
    for broken in (
        query[:-1],
        query[:12] + b"\xc0\x0c" + query[14:],
        query[:4] + b"\0\2" + query[6:],
        query[:4] + b"\0\0" + query[6:],
    ):
        given = answer(broken, look_up)
        assert given is not None
        assert given.wire[:2] == query[:2]
        assert dns.message.from_wire(given.wire, ignore_trailing=True).rcode() == dns.rcode.FORMERR


@given(st.binary(max_size=300))
def test_whatever_comes_is_answered_by_a_short_response_or_not_at_all(wire: bytes) -> None:
    given = answer(wire, look_up)
    if given is not None:
        assert given.wire[:2] == wire[:2]
        assert given.wire[2] & 0x80
        assert len(given.wire) <= 512
