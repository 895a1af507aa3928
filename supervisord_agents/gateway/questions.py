"""Questions for names (RFC 1035), and the answers that the gateway makes up itself: pure, bytes in, bytes out.

Nothing of a question goes out, so nothing can be carried out in one. A name is answered with the address that the gateway has it
at inside the sandbox, or it does not exist; there are no other types of records.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum
from typing import NamedTuple

import dns.exception
import dns.flags
import dns.message
import dns.opcode
import dns.rcode
import dns.rdataclass
import dns.rdatatype
import dns.rrset

from supervisord_agents.hosts import is_name

MAX_QUERY_BYTES = 1232
"""What fits in one packet everywhere; a question of one name has less than 300 (RFC 1035, 2.3.4)."""
TTL_S = 60
_HEADER_BYTES = 12


class Unnamed(Enum):
    """Why a name has no address."""

    NOT_ALLOWED = "not allowed"
    TOO_MANY = "too many"


Lookup = Callable[[str], str | Unnamed]
"""A host name in lower case to its IPv4 address inside the sandbox."""


class Answer(NamedTuple):
    """What to send back, and a host name that was asked for in vain, with the reason."""

    wire: bytes
    name: str = ""
    why: Unnamed | None = None


def answer(wire: bytes, lookup: Lookup) -> Answer | None:
    """The answer to a query; None for what is none, and gets no answer."""
    if len(wire) < _HEADER_BYTES:
        return None
    try:
        query = dns.message.from_wire(wire, question_only=True)
    except (dns.exception.DNSException, ValueError):
        return _malformed(wire)
    if query.flags & dns.flags.QR:
        return None
    if query.opcode() != dns.opcode.QUERY:
        return Answer(_reply(query, dns.rcode.NOTIMP).to_wire())
    if len(query.question) != 1:
        return Answer(_reply(query, dns.rcode.FORMERR).to_wire())
    return _of_one(query, lookup)


def _of_one(query: dns.message.Message, lookup: Lookup) -> Answer:
    (question,) = query.question
    if question.rdclass != dns.rdataclass.IN:
        return Answer(_reply(query, dns.rcode.REFUSED).to_wire())
    name = question.name.to_text(omit_final_dot=True).lower()
    found = lookup(name) if is_name(name) else Unnamed.NOT_ALLOWED
    if isinstance(found, Unnamed):
        code = dns.rcode.NXDOMAIN if found is Unnamed.NOT_ALLOWED else dns.rcode.SERVFAIL
        wanted = is_name(name) and question.rdtype in (dns.rdatatype.A, dns.rdatatype.AAAA)
        return Answer(_reply(query, code).to_wire(), name if wanted else "", found)
    reply = _reply(query, dns.rcode.NOERROR)
    if question.rdtype == dns.rdatatype.A:
        reply.answer.append(dns.rrset.from_text(question.name, TTL_S, "IN", "A", found))
    return Answer(reply.to_wire())


def _reply(query: dns.message.Message, code: dns.rcode.Rcode) -> dns.message.Message:
    reply = dns.message.make_response(query, recursion_available=True)
    reply.set_rcode(code)
    return reply


def _malformed(wire: bytes) -> Answer | None:
    if wire[2] & 0x80:
        return None
    reply = dns.message.Message(id=int.from_bytes(wire[:2], "big"))
    reply.flags |= dns.flags.QR
    reply.set_rcode(dns.rcode.FORMERR)
    return Answer(reply.to_wire())
