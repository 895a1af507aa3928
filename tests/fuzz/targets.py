"""What is fuzzed: each target takes any bytes, and raises if a parser does what it does not say that it does."""

from __future__ import annotations

import contextlib
import ipaddress
import itertools
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import dns.message
import msgspec

from sandbox import plan, protocol
from sandbox.errors import SandboxError
from sandbox.spec import check
from supervisord_agents import config
from supervisord_agents.core.events import encode_event
from supervisord_agents.core.model import MAX_TOKENS
from supervisord_agents.daemon import recovery
from supervisord_agents.errors import ConfigError, JournalCorrupt, ProtocolError
from supervisord_agents.gateway import keys, server, usage
from supervisord_agents.gateway.addresses import is_global
from supervisord_agents.gateway.egress import parse_authority
from supervisord_agents.gateway.names import Names
from supervisord_agents.gateway.questions import Unnamed, answer
from supervisord_agents.gateway.refusal import how_to_allow
from supervisord_agents.gateway.routes import Route
from supervisord_agents.hosts import AllowedHosts, is_name
from supervisord_agents.journal import segment
from supervisord_agents.rpc.calls import BadCall, read_call
from supervisord_agents.wire import envelope, frames
from supervisord_agents.wire.framing import FrameReader
from supervisord_agents.wire.methods import METHODS
from supervisord_agents.workers import worker
from supervisord_agents.workers.label import Label

Target = Callable[[bytes], None]
MAX_FRAME = 64
"""Small, so that the limit is met often."""
HOST = plan.Host({"/bin": "usr/bin"}, ("/usr", "/etc/ssl"), ("/dev/null",))
PROVIDER = config.Provider(base_url="https://api.example.org/base/v1", input_usd_per_mtok=1.0)
DIALECTS = ("openai", "anthropic", "gemini")
KEY = keys.Key("kk-ak")
SEGMENT = segment.Header(epoch=(3 << 32) | 0x5EED, first_sequence=41)
SEGMENT_PATH = Path(segment.segment_name(SEGMENT))
KNOWN = {"a.example.org": "127.64.1.2"}


def framing(data: bytes) -> None:
    """However a stream is cut, the same frames come out, and the same error."""
    whole = _frames([data[1:]])
    assert _frames(_pieces(data)) == whole
    assert all(len(payload) <= MAX_FRAME for payload in whole[0])


def calls(data: bytes) -> None:
    """A client's frame is a call, which can be written again, or an error in words."""
    try:
        call = read_call(data)
    except BadCall:
        return
    written = envelope.call_encoder.encode(call)
    assert envelope.call_encoder.encode(read_call(written)) == written


def answers(data: bytes) -> None:
    """What a client is answered."""
    try:
        said = envelope.answer_decoder.decode(data)
    except envelope.DECODE_ERRORS:
        return
    for body in METHODS.values():
        with contextlib.suppress(*envelope.DECODE_ERRORS):
            msgspec.msgpack.decode(said.body, type=body)


def worker_frames(data: bytes) -> None:
    """A worker's frame is one of its protocol, which can be written again, or a ProtocolError."""
    try:
        frame = worker._decoded(data)
    except ProtocolError:
        return
    written = frames.encoder.encode(frame)
    assert frames.encoder.encode(worker._decoded(written)) == written


def daemon_frames(data: bytes) -> None:
    """What a worker is told, and what a later daemon finds written on its sandbox."""
    Label.read(data)
    with contextlib.suppress(*envelope.DECODE_ERRORS):
        frames.to_worker_decoder.decode(data)


def sandbox_requests(data: bytes) -> None:
    """A packet to the fork server is a request, or misunderstood; a specification has a plan, or is refused."""
    ours, theirs = protocol.pair()
    with ours, theirs:
        ours.send(data or b"\0")
        try:
            received = protocol.receive_request(theirs)
        except protocol.Misunderstood:
            return
    assert received is not None
    request, _ = received
    if isinstance(request, protocol.Spawn):
        with contextlib.suppress(SandboxError):
            check(request.spec)
            assert str(plan.make(request.spec, HOST, 1000, 1000))


def authorities(data: bytes) -> None:
    """The target of a CONNECT request is a name or an address, and never the one in the clothes of the other."""
    try:
        host, port = parse_authority(_text(data))
    except ValueError:
        return
    assert 0 < port < 65536
    assert how_to_allow(host, port)
    if not is_name(host):
        ipaddress.ip_address(host)
        assert not is_global(host) or _is_public(host)
        return
    assert set(host.lower()) <= set("abcdefghijklmnopqrstuvwxyz0123456789-_.")
    with contextlib.suppress(OSError):
        socket.inet_aton(host)
        raise AssertionError(f"{host} is an address")
    names = Names([])
    assert names.name_of(str(names.address_of(host.lower()))) == host.lower()
    with contextlib.suppress(ConfigError):
        assert (host, port) in AllowedHosts([f"{host}:{port}"])


def entries(data: bytes) -> None:
    """An entry of a list of hosts is taken or refused, and is never for all the world."""
    try:
        allowed = AllowedHosts([_text(data)])
    except ConfigError:
        return
    assert len(allowed.ports) == 1
    assert (
        not any((host, port) in allowed for host in ("a.org", "10.0.0.1", "localhost.") for port in allowed.ports)
        or allowed.names
    )


def addresses(data: bytes) -> None:
    """An address that is dialled is public by the reckoning of Python too, and has one meaning."""
    text = data.decode("latin-1")
    if is_global(text):
        assert _is_public(text)


def request_targets(data: bytes) -> None:
    """A request goes below the provider's base, or nowhere."""
    text = _text(data)
    route = Route("openai", PROVIDER)
    path, _, query = text.partition("?")
    with contextlib.suppress(ValueError):
        url = str(route.url(path, query))
        assert url.startswith("https://api.example.org/base/v1/")
        assert "/../" not in url.partition("?")[0]
    own = server.Attachment.own_target(_Own(), text)  # type: ignore[arg-type]
    assert own == text or own.startswith("/")
    assert str(server._plain_proxy_refused(text)).isprintable()


def answer_usage(data: bytes) -> None:
    """However an answer is cut, the same counts come out, and they are in bounds."""
    dialect = DIALECTS[(data or b"\0")[0] % 3]
    for kind in ("text/event-stream", "application/json"):
        whole, cut = usage.reader(dialect, kind), usage.reader(dialect, kind)
        whole.feed(data[1:])
        for piece in _pieces(data):
            cut.feed(piece)
        whole.finish()
        cut.finish()
        assert whole.tokens == cut.tokens
        assert all(count is None or 0 <= count <= MAX_TOKENS for count in (whole.tokens.input, whole.tokens.output))
        assert usage.priced(whole.tokens, PROVIDER).cost_usd >= 0


def usage_tails(data: bytes) -> None:
    """The end of a document that was too large to keep."""
    for dialect in DIALECTS:
        usage._from_tail(dialect, data)


def redaction(data: bytes) -> None:
    """However an answer is cut, the key is struck out of it and nothing else is."""
    redactor = keys.Redactor(KEY)
    out = b"".join(map(redactor.feed, _pieces(data))) + redactor.finish()
    assert out == data[1:].replace(KEY.reveal().encode(), b"*" * len(KEY.reveal()))


def questions(data: bytes) -> None:
    """A question for a name has one short answer that can be read, or none."""
    given = answer(data, lambda name: KNOWN.get(name, Unnamed.NOT_ALLOWED))
    if given is None:
        return
    assert given.wire[:2] == data[:2]
    assert len(given.wire) <= 512
    said = dns.message.from_wire(given.wire)
    assert [str(rrset[0]) for rrset in said.answer] in ([], list(KNOWN.values()))
    assert not given.name or is_name(given.name)


def segments(data: bytes) -> None:
    """A segment is read up to the first thing that is wrong, whatever stands there."""
    _scan(data)
    _scan(segment.encode_header(SEGMENT) + data)


def segment_records(data: bytes) -> None:
    """The same of records that check: `kind, step of the sequence, index, length, payload` each, then something to break."""
    written, sequence = segment.encode_header(SEGMENT), SEGMENT.first_sequence
    place = 2
    while place + 4 <= len(data):
        kind, step, index, length = data[place : place + 4]
        payload = data[place + 4 : place + 4 + length]
        sequence += step - 1 if step < 4 else 0
        written += segment.encode_record(sequence, payload, SEGMENT.checksum, kind % 5, index)
        sequence += 1
        place += 4 + length
    broken = bytearray(written + bytes(32))
    if len(data) > 1 and data[0]:
        broken[segment.HEADER.size + data[1] % (len(broken) - segment.HEADER.size)] ^= data[0]
    _scan(bytes(broken))


def events(data: bytes) -> None:
    """A journal's record is an event, which can be written again, or damage."""
    try:
        now, event = recovery._decoded(1, data)
    except JournalCorrupt:
        return
    written = encode_event(event, now)
    assert encode_event(*reversed(recovery._decoded(1, written))) == written


TARGETS: dict[str, Target] = {
    target.__name__: target
    for target in (
        framing,
        calls,
        answers,
        worker_frames,
        daemon_frames,
        sandbox_requests,
        authorities,
        entries,
        addresses,
        request_targets,
        answer_usage,
        usage_tails,
        redaction,
        questions,
        segments,
        segment_records,
        events,
    )
}

MESSAGES = frozenset({"calls", "answers", "worker_frames", "daemon_frames", "sandbox_requests", "events"})
"""Those whose input is MessagePack."""


class _Own:
    """An attachment, as far as its own address is concerned."""

    _port = 8080
    is_own = server.Attachment.is_own


def _pieces(data: bytes) -> Iterator[bytes]:
    """All but the first byte, which says how it is cut."""
    size = (data or b"\0")[0] // 8 + 1
    return (data[start : start + size] for start in range(1, len(data), size))


def _frames(pieces: Iterator[bytes] | list[bytes]) -> tuple[list[bytes], bool, bool]:
    """The payloads, whether an error ended them, and whether something is left over without one."""
    reader, payloads = FrameReader(MAX_FRAME), []
    try:
        for payload in itertools.chain.from_iterable(map(reader.feed, pieces)):
            payloads.append(payload)  # noqa: PERF402
    except ProtocolError:
        return payloads, True, False
    return payloads, False, reader.partial


def _scan(data: bytes) -> None:
    try:
        found = segment.scan(data, SEGMENT_PATH)
    except JournalCorrupt:
        return
    reading = found.reading
    assert segment.HEADER.size <= reading.end <= len(data)
    sequences = [sequence for sequence, _ in reading.payloads]
    assert sequences == sorted(set(sequences))
    assert not sequences or sequences[0] >= SEGMENT.first_sequence
    assert reading.next_sequence >= SEGMENT.first_sequence + len(sequences)
    end = reading.end
    for record in segment.records_after(data, reading.end, reading.next_sequence, found.header):
        assert end <= record.start < record.end <= len(data)
        end = record.end


def _is_public(address: str) -> bool:
    ip = ipaddress.ip_address(address)
    if isinstance(ip, ipaddress.IPv6Address) and (ip.ipv4_mapped or ip in ipaddress.ip_network("64:ff9b::/96")):
        ip = ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF)
    return ip.is_global and not (ip.is_private or ip.is_multicast or ip.is_loopback or ip.is_link_local or ip.is_reserved)


def _text(data: bytes) -> str:
    """As the HTTP server reads a request line."""
    return data.decode("utf-8", "surrogateescape")
