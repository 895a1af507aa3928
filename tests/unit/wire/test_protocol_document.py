"""docs/PROTOCOL.md against the code, in both directions: what one of them has, the other has too."""

from __future__ import annotations

import ast
import importlib
import inspect
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import pytest

from supervisord_agents.core.model import END_STATES, TRANSITIONS, State, When
from supervisord_agents.core.policy import EDGE_RULES
from supervisord_agents.core.task import Moment
from supervisord_agents.errors import ErrorCode
from supervisord_agents.wire import envelope, frames
from supervisord_agents.wire import messages as m
from supervisord_agents.wire.framing import FrameReader, frame
from supervisord_agents.wire.methods import METHODS

ROOT = Path(__file__).resolve().parents[3]
PACKAGE = ROOT / "supervisord_agents"
TEXT = (ROOT / "docs" / "PROTOCOL.md").read_text(encoding="utf-8")
EVERY_CONSTANT_OF = (
    "wire.frames",
    "wire.framing",
    "wire.messages",
    "rpc.calls",
    "rpc.channel",
    "rpc.connection",
    "rpc.endpoint",
    "rpc.faults",
    "rpc.server",
    "daemon.feed",
    "daemon.handlers",
    "daemon.pictures",
    "daemon.plans",
    "daemon.views",
    "workers.ending",
    "workers.runtime",
    "workers.uplink",
)
CODES_MAY_BE_NAMED_IN = ("errors.py", "cli/exits.py")
"""Without being in use."""


class Table(NamedTuple):
    head: list[str]
    rows: list[list[str]]


def cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip().strip("|").split("|")]


def tables() -> list[Table]:
    blocks = re.findall(r"(?:^\|.*\n)+", TEXT, re.MULTILINE)
    found = [[cells(line) for line in block.splitlines()] for block in blocks]
    assert all(set("".join(rows[1])) == {"-"} for rows in found)
    return [Table(rows[0], rows[2:]) for rows in found]


def table(*head: str) -> Table:
    (found,) = [item for item in tables() if tuple(item.head[: len(head)]) == head]
    return found


def quoted(text: str) -> list[str]:
    return re.findall(r"`([^`]+)`", text)


def name_in(cell: str) -> str:
    (name,) = quoted(cell)
    return name


# The code, in the document's notation


def structs_of(types: Any) -> Iterator[type[msgspec.Struct]]:
    """Every struct that a type names, itself included."""
    pending = [msgspec.inspect.type_info(types)]
    seen: set[type[msgspec.Struct]] = set()
    for info in pending:  # grows meanwhile
        if isinstance(info, msgspec.inspect.StructType):
            if info.cls in seen:
                continue
            seen.add(info.cls)
            pending += [field.type for field in info.fields]
        elif isinstance(info, msgspec.inspect.UnionType):
            pending += info.types
        elif isinstance(info, msgspec.inspect.DictType):
            pending.append(info.value_type)
        elif isinstance(info, (msgspec.inspect.ListType, msgspec.inspect.VarTupleType)):
            pending.append(info.item_type)
    yield from seen


def all_structs() -> dict[str, type[msgspec.Struct]]:
    roots = [envelope.Call, envelope.Answer, frames.ToWorker, frames.FromWorker, Moment, *METHODS.values()]
    return {struct.__name__: struct for root in roots for struct in structs_of(root)}


SIMPLE = {
    msgspec.inspect.StrType: "str",
    msgspec.inspect.IntType: "int",
    msgspec.inspect.FloatType: "float",
    msgspec.inspect.BoolType: "bool",
    msgspec.inspect.BytesType: "bin",
    msgspec.inspect.AnyType: "any",
    msgspec.inspect.RawType: "any",
    msgspec.inspect.NoneType: "nil",
}


def notation(info: Any) -> str:
    match info:
        case msgspec.inspect.StructType() | msgspec.inspect.EnumType():
            name: str = info.cls.__name__
            return name
        case msgspec.inspect.ListType() | msgspec.inspect.VarTupleType():
            return f"[{notation(info.item_type)}]"
        case msgspec.inspect.DictType():
            return f"{{{notation(info.key_type)}: {notation(info.value_type)}}}"
        case msgspec.inspect.UnionType():
            if {getattr(item, "cls", None) for item in info.types} == set(METHODS):
                return "Request"
            return " or ".join(notation(item) for item in info.types)
        case msgspec.inspect.LiteralType():
            return "str"
    return SIMPLE[type(info)]


def default_of(field: Any) -> str:
    if field.required:
        return "required"
    value = field.default if field.default is not msgspec.NODEFAULT else field.default_factory()
    if isinstance(value, msgspec.Raw):
        value = msgspec.msgpack.decode(value)
    return f"`{json.dumps(json.loads(msgspec.json.encode(value)))}`"


def fields_of(struct: type[msgspec.Struct]) -> list[tuple[str, str, str]]:
    info = msgspec.inspect.type_info(struct)
    assert isinstance(info, msgspec.inspect.StructType)
    return [(field.encode_name, notation(field.type), default_of(field)) for field in info.fields]


def tag_of(struct: type[msgspec.Struct]) -> str:
    return str(struct.__struct_config__.tag)


def constants_of(module: str) -> dict[str, object]:
    """The public numbers, and strings that are no sentences, that a module defines."""
    path = PACKAGE / f"{module.replace('.', '/')}.py"
    values = importlib.import_module(f"supervisord_agents.{module}")
    names = [
        target.id
        for statement in ast.parse(path.read_text(encoding="utf-8")).body
        if isinstance(statement, ast.Assign)
        for target in statement.targets
        if isinstance(target, ast.Name) and re.fullmatch(r"[A-Z][A-Z0-9_]*", target.id)
    ]
    found = {name: getattr(values, name) for name in names}
    return {name: v for name, v in found.items() if isinstance(v, (int, float)) or (isinstance(v, str) and " " not in v)}


def looked_up(reference: str) -> object:
    """The value of `module:NAME`, or of `module:Struct.field` its default."""
    module, _, path = reference.partition(":")
    value: Any = importlib.import_module(f"supervisord_agents.{module}")
    for part in path.split("."):
        value = getattr(value, part)
        if isinstance(value, type):
            value = value()
    return value


def product_sources() -> dict[str, str]:
    return {str(path.relative_to(PACKAGE)): path.read_text(encoding="utf-8") for path in PACKAGE.rglob("*.py")}


# Maps

FIELD_TABLES = [item for item in tables() if item.head[1:3] == ["type", "default"]]


def test_every_map_with_fields_has_one_table_and_every_table_is_a_map() -> None:
    documented = [item.head[0] for item in FIELD_TABLES]
    assert len(documented) == len(set(documented))
    assert set(documented) == {name for name, struct in all_structs().items() if struct.__struct_fields__}


@pytest.mark.parametrize("found", FIELD_TABLES, ids=lambda found: found.head[0])
def test_fields_types_and_defaults(found: Table) -> None:
    assert found.head[3:] == ["meaning"]
    documented = [(name_in(row[0]), name_in(row[1]), row[2]) for row in found.rows]
    assert documented == fields_of(all_structs()[found.head[0]])


def test_the_envelopes_are_arrays_in_the_order_of_their_tables() -> None:
    assert {struct for struct in all_structs().values() if struct.__struct_config__.array_like} == {
        envelope.Call,
        envelope.Answer,
        Moment,
    }
    assert msgspec.structs.asdict(Moment(1.0, State.READY)).keys() == {name for name, _, _ in fields_of(Moment)}


def test_which_maps_refuse_unknown_fields() -> None:
    rows = table("maps", "a field they do not know").rows
    assert [row[1] for row in rows] == ["is refused", "is ignored"]
    assert rows[0][0].startswith("all requests, ")
    strict = {name for name, struct in all_structs().items() if struct.__struct_config__.forbid_unknown_fields}
    # A Call is an array of two, which 3.1 says; it is no map.
    assert strict - {"Call"} == {request.__name__ for request in METHODS} | set(quoted(rows[0][0]))


# Methods and frames


def test_methods_and_their_replies() -> None:
    documented = [tuple(map(name_in, row[:3])) for row in table("method", "request", "reply").rows]
    assert documented == [(tag_of(request), request.__name__, reply.__name__) for request, reply in METHODS.items()]


def test_every_method_has_its_section() -> None:
    sections = re.findall(r"^#### (.+)$", TEXT, re.MULTILINE)
    assert sections == [tag_of(request) for request in METHODS]


def test_the_tag_of_requests_and_frames_is_the_field_type() -> None:
    tagged = {struct for struct in all_structs().values() if struct.__struct_config__.tag is not None}
    assert {struct.__struct_config__.tag_field for struct in tagged} == {"type"}
    assert tagged == {*METHODS, *frames.ToWorker.__args__, *frames.FromWorker.__args__}


def test_frames_and_who_sends_them() -> None:
    documented = {tuple(map(name_in, row[:2])): row[2] for row in table("frame", "map", "from").rows}
    senders = {"daemon": frames.ToWorker, "worker": frames.FromWorker}
    assert documented == {
        (tag_of(struct), struct.__name__): sender for sender, union in senders.items() for struct in union.__args__
    }


# Words


def test_error_codes() -> None:
    rows = table("error code", "where").rows
    assert sorted(name_in(row[0]) for row in rows) == sorted(ErrorCode)
    assert {row[1] for row in rows} <= {"answer", "failure", "answer, failure", "reserved"}
    source = "".join(text for name, text in product_sources().items() if name not in CODES_MAY_BE_NAMED_IN)
    used = set(re.findall(r"\bErrorCode\.([A-Z_]+)\b", source))
    assert {name_in(row[0]) for row in rows if row[1] == "reserved"} == {code.name for code in ErrorCode} - used


def test_states_and_what_may_follow() -> None:
    documented = {name_in(row[0]): (row[1] == "yes", quoted(row[2])) for row in table("State", "end").rows}
    assert documented == {
        str(state): (state in END_STATES, sorted(str(after) for after in TRANSITIONS[state])) for state in State
    }


def test_conditions_of_dependencies() -> None:
    documented = {name_in(row[0]): set(row[1].split(", ")) for row in table("When", "satisfied by").rows}
    for ends in documented.values():
        if ends == {"every end"}:
            ends.clear()
            ends.update(END_STATES)
    assert documented == {when: {end for end, doom in ends.items() if doom is None} for when, ends in EDGE_RULES.items()}
    assert list(documented) == list(When)


def test_kinds_of_items() -> None:
    documented = {name_in(row[0]): set(quoted(row[2])) for row in table("kind", "means", "has").rows}
    sources = product_sources()
    used = re.findall(r'\bkind="(\w+)"|_tell\("(\w+)"', sources["daemon/feed.py"] + sources["daemon/attempts.py"])
    assert set(documented) == {first or second for first, second in used}
    assert set(documented) == set(quoted(m.Item.__doc__ or "")) - {"kind", "token"}
    assert set().union(*documented.values()) == {name for name, _, _ in fields_of(m.Item)} - {"kind", "token", "at"}


def test_streams_of_a_log_frame() -> None:
    (row,) = [row for row in table("Log", "type").rows if row[0] == "`stream`"]
    said = re.findall(r'stream: str\n    """(.*)"""', inspect.getsource(frames.Log))
    assert quoted(row[3]) == quoted(said[0])


# Numbers


def constant_rows() -> list[list[str]]:
    return [row for item in tables() if item.head == ["code", "value", "meaning"] for row in item.rows]


@pytest.mark.parametrize("row", constant_rows(), ids=lambda row: row[0].strip("`"))
def test_constants_and_configured_defaults(row: list[str]) -> None:
    reference, value = name_in(row[0]), ast.literal_eval(name_in(row[1]))
    assert looked_up(reference) == value
    if reference.startswith("config:"):
        struct, _, field = reference.removeprefix("config:").partition(".")
        assert row[2] == "" or row[2].startswith(f"`{struct.lower()}.{field}`")


@pytest.mark.parametrize("module", EVERY_CONSTANT_OF)
def test_no_constant_is_left_out(module: str) -> None:
    documented = [name_in(row[0]) for row in constant_rows()]
    assert len(documented) == len(set(documented))
    assert {f"{module}:{name}" for name in constants_of(module)} <= set(documented)


def test_limits_that_the_text_repeats() -> None:
    """Numbers in the meaning of a field, where a reader looks for them, are those of the tables of constants."""
    meanings = {(item.head[0], name_in(row[0])): row[3] for item in FIELD_TABLES for row in item.rows}
    for struct, field, reference in (
        ("ListTasks", "limit", "daemon.views:MAX_PAGE"),
        ("ShowGraph", "limit", "daemon.views:MAX_PAGE"),
        ("GetLogs", "limit_bytes", "daemon.handlers:MAX_LOG_CHUNK_BYTES"),
        ("Wait", "timeout_s", "daemon.handlers:MAX_WAIT_S"),
        ("TaskSpec", "max_retries", "core.admission:MAX_RETRIES_LIMIT"),
        ("TaskView", "waits_for", "daemon.views:MAX_WAITS_FOR"),
        ("TaskSpec", "priority", "core.model:LOWEST_PRIORITY"),
        ("TaskSpec", "backoff_s", "core.policy:BACKOFF_LIMIT_S"),
        ("TaskSpec", "input", "rpc.calls:MAX_NESTING"),
        ("ShowReply", "history", "core.task:HISTORY_LIMIT"),
    ):
        value = looked_up(reference)
        assert isinstance(value, (int, float))
        assert f"{value:.0f}" in re.findall(r"\d+", meanings[struct, field]), (struct, field)


def test_the_versions_in_the_introduction() -> None:
    said = re.findall(r"protocol, version (\d+)", TEXT.split("\n## ")[0].replace("\n", " "))
    assert said == [str(m.PROTOCOL_VERSION), str(frames.WORKER_PROTOCOL_VERSION)]


# Examples


class Example(NamedTuple):
    name: str
    codec: str
    value: Any
    data: bytes


def examples() -> list[Example]:
    values = re.findall(r"```json (\S+) (.+)\n(.+)\n```", TEXT)
    data = dict(re.findall(r"```hex (\S+)\n([^`]+)```", TEXT))
    assert [name for name, _, _ in values] == list(data)
    return [Example(name, codec, json.loads(value), bytes.fromhex(data[name])) for name, codec, value in values]


def coded_again(codec: str, payload: bytes) -> bytes:
    """The payload read by the receiver's decoder, and written by the sender's encoder."""
    if codec == "call":
        return envelope.call_encoder.encode(envelope.call_decoder.decode(payload))
    if codec == "worker":
        return frames.encoder.encode(frames.from_worker_decoder.decode(payload))
    if codec == "daemon":
        return frames.encoder.encode(frames.to_worker_decoder.decode(payload))
    kind, _, reply = codec.partition(" ")
    assert kind == "answer"
    answer = envelope.answer_decoder.decode(payload)
    body = msgspec.msgpack.decode(answer.body, type=all_structs()[reply]) if reply else None
    assert (body is None) == (answer.body == envelope.NO_BODY)
    return envelope.call_encoder.encode((answer.id, answer.error, body, answer.more))


@pytest.mark.parametrize("example", examples(), ids=lambda example: example.name)
def test_the_bytes_of_an_example_are_its_value_and_those_of_the_code(example: Example) -> None:
    (payload,) = FrameReader().feed(example.data)
    assert json.loads(msgspec.json.encode(msgspec.msgpack.decode(payload))) == example.value
    assert frame(payload) == example.data
    assert coded_again(example.codec, payload) == payload


def test_the_hello_of_the_examples_is_the_one_that_the_daemon_takes() -> None:
    (example,) = [item for item in examples() if item.name == "hello"]
    (payload,) = FrameReader().feed(example.data)
    assert envelope.call_decoder.decode(payload) == envelope.Call(1, m.Hello(version=m.PROTOCOL_VERSION, client="demo"))


def test_every_kind_of_frame_that_matters_has_an_example() -> None:
    shown = {item.value["type"] for item in examples() if isinstance(item.value, dict)}
    assert shown == {tag_of(struct) for struct in (*frames.ToWorker.__args__, *frames.FromWorker.__args__)} - {"usage"}
