"""From a JSON schema to a grammar of llama.cpp (GBNF) that has nothing but such JSON, written in one way only.

The converter of llama_cpp lets control characters into strings, which is no JSON, and nests a group for each character of one.
Here every property is required, in the order given, as tracker.story writes its schemas.
"""

from __future__ import annotations

import json
from typing import Any, NamedTuple

_CHARACTER = 'char ::= [^"\\\\\\x00-\\x1f\\x7f] | "\\\\" ["\\\\/bfnrt]'
"""No escape by number: half of a surrogate pair would be none, and every character can stand for itself."""


class Form(NamedTuple):
    """Of an answer: what it begins with whatever a model thinks, and the grammar of the rest."""

    beginning: str
    gbnf: str


class NoGrammar(ValueError):
    """The schema says something that has no grammar here."""


def form_of(schema: Any) -> Form:
    """The form of answers of a schema; raises NoGrammar.

    What is given need not be drawn token by token: a model reads it faster than it writes it.
    """
    rules = _Rules()
    properties: dict[str, Any] = schema["properties"] if _kind(schema) == "object" else {}
    given = _given(properties)
    if not given:
        return Form("", rules.text(rules.of(schema)))
    beginning = "{" + ", ".join(f"{_dumped(name)}: {_dumped(properties[name]['enum'][0])}" for name in given)
    rest = {name: inner for name, inner in properties.items() if name not in given}
    if not rest:
        return Form(beginning, rules.text(_literal("}")))
    # The blank is for the token that follows it.
    return Form(f"{beginning},", rules.text(f"{_literal(' ')} {rules.members(rest)} {_literal('}')}"))


def _given(properties: dict[str, Any]) -> list[str]:
    """The first properties, as many as can have only one value."""
    names = []
    for name, schema in properties.items():
        if len(schema.get("enum", ())) != 1:
            break
        names.append(name)
    return names


class _Rules:
    """Rules by their text, so that equal ones are one."""

    def __init__(self) -> None:
        self._names: dict[str, str] = {}

    def text(self, root: str) -> str:
        rules = [f"{name} ::= {body}" for body, name in self._names.items()]
        return "\n".join([f"root ::= {root}", *rules, _CHARACTER, ""])

    def of(self, schema: Any) -> str:
        """A name, or an expression that needs no parentheses."""
        match _kind(schema):
            case "enum":
                return self._named(" | ".join(_literal(_dumped(value)) for value in schema["enum"]))
            case "anyOf":
                return self._named(" | ".join(self.of(option) for option in schema["anyOf"]))
            case "object":
                return self._named(f"{_literal('{')} {self.members(schema['properties'])} {_literal('}')}")
            case "array":
                return self._named(self._array(schema))
            case "string":
                return (
                    f"{_literal(chr(34))} char{_times(schema.get('minLength', 0), schema.get('maxLength'))} {_literal(chr(34))}"
                )
            case "integer":
                return self._named('"-"? ([0-9] | [1-9] [0-9]{1,15})')
            case "boolean":
                return self._named('"true" | "false"')
            case "null":
                return _literal("null")
            case other:
                raise NoGrammar(f"no grammar for {other!r} in a schema")

    def members(self, properties: dict[str, Any]) -> str:
        """What stands between the braces of an object."""
        parts = [f"{_literal(f'{_dumped(name)}: ')} {self.of(inner)}" for name, inner in properties.items()]
        return f" {_literal(', ')} ".join(parts)

    def _array(self, schema: Any) -> str:
        low, high = schema.get("minItems", 0), schema.get("maxItems")
        if high == 0:
            return _literal("[]")
        item = self.of(schema["items"])
        more = _times(max(low - 1, 0), None if high is None else high - 1)
        items = f"{item} ({_literal(', ')} {item}){more}"
        return f"{_literal('[')} {items if low else f'({items})?'} {_literal(']')}"

    def _named(self, body: str) -> str:
        return self._names.setdefault(body, f"r{len(self._names)}")


def _kind(schema: Any) -> str:
    if not isinstance(schema, dict):
        raise NoGrammar(f"no schema: {schema!r}")
    if schema.get("enum"):
        return "enum"
    if schema.get("anyOf"):
        return "anyOf"
    kind = str(schema.get("type"))
    needed = {"object": "properties", "array": "items"}.get(kind)
    if needed and not schema.get(needed):
        raise NoGrammar(f"an {kind} without {needed}")
    return kind


def _times(low: int, high: int | None) -> str:
    return f"{{{low},{'' if high is None else high}}}"


def _dumped(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


def _literal(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{"".join(letter if letter.isprintable() else _by_number(letter) for letter in escaped)}"'


def _by_number(letter: str) -> str:
    code = ord(letter)
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"
