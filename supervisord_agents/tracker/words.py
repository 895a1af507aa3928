"""The check of prose: what a model's sentences say of the tasks, as far as words can be held against the graph."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Sequence

from supervisord_agents.core.digest import Digest
from supervisord_agents.core.model import State
from supervisord_agents.core.picture import Node

SUMMARY_CHARACTERS = 800
NAMED = 5
"""Ids of one problem that a refusal names."""
MANY = 3
"""Of more tasks that failed, or run, their count says as much as the name of one."""

_NAME = re.compile(r"(?<![\w.-])[A-Za-z0-9_-]{1,64}\.[A-Za-z0-9_-]{1,64}")
DRAWN = re.compile(r"g[a-z2-9]{7}")
"""A graph's id, unless a client chose it."""
_STATE_WORDS: dict[str, frozenset[State]] = {
    "running": frozenset({State.RUNNING}),
    "ready": frozenset({State.READY}),
    "blocked": frozenset({State.BLOCKED}),
    "cancelled": frozenset({State.CANCELLED}),
    "failed": frozenset({State.FAILED, State.DEAD, State.BACKING_OFF}),
    "dead": frozenset({State.DEAD}),
    "succeeded": frozenset({State.SUCCEEDED}),
    "completed": frozenset({State.SUCCEEDED}),
    "finished": frozenset({State.SUCCEEDED}),
    "done": frozenset({State.SUCCEEDED}),
}
_SAID = re.compile(
    rf"[\s:(]+(?:(?:is|has|was|now|been|already|just|still|as|marked|state|status)\s+){{0,3}}({'|'.join(_STATE_WORDS)})\b", re.I
)
_WAITS = re.compile(
    r"\s+(?:now\s+)?(?:waits? (?:for|on)|is waiting (?:for|on)|is blocked (?:by|on)|depends on|needs)\s+"
    r"([A-Za-z0-9_-]{1,64}\.[A-Za-z0-9_-]{1,64})"
)
_ALL_WELL = re.compile(
    r"\b(?:all|every|everything)\b(?:\s+(?:of|the|tasks?|work|graphs?|is|are|has|have|been|now))*\s+"
    r"(succeeded|successful|completed?|done|finished|ended|over)\b",
    re.I,
)
_WELL = ("succeeded", "successful")
_NOTHING = re.compile(
    r"\b(?:nothing|none|no tasks?)\b(?:\s+(?:of|the|tasks?|is|are|has|have|been|now))*\s+(blocked|running|failed)\b", re.I
)

_END = re.compile(r"[.;!?](?:\s|$)")
_NUMBER = re.compile(r"(?<![\w.,-])\d[\d,]*(?![\w-]|[.,]\d)")


def ids_in(text: str, digest: Digest) -> list[str]:
    """What looks like full ids in a text, of tasks that may not exist."""
    graphs = {name.partition(".")[0] for name in digest.by_id}
    found = dict.fromkeys(match.group() for match in _NAME.finditer(text))
    return [name for name in found if (graph := name.partition(".")[0]) in graphs or DRAWN.fullmatch(graph)]


def lies(digest: Digest, text: str, where: str) -> Iterator[str]:
    """What is not true in a text, which is the `where` of an answer."""
    if not plain(text):
        yield f"the {where} is empty"
    unknown = [name for name in ids_in(text, digest) if name not in digest.by_id]
    if unknown:
        yield f"the {where} names tasks that do not exist: {some(unknown)}"
    for match in _NAME.finditer(text):
        node = digest.by_id.get(match.group())
        if node is not None:
            yield from (f"the {where} says that {node.id} {lie}" for lie in _lies_about(digest, node, text, match.end()))
    yield from (f"the {where} says that {lie}" for lie in _lies_about_all(digest, text))


def _lies_about(digest: Digest, node: Node, text: str, place: int) -> Iterator[str]:
    """What is said of a task behind its name, which ends at that place."""
    said = _SAID.match(text, place)
    if said is not None and node.state not in _STATE_WORDS[said.group(1).lower()]:
        yield f"is {said.group(1).lower()}, but it is {node.state}"
    waits = _WAITS.match(text, place)
    before = digest.by_id.get(waits.group(1)) if waits is not None else None
    if before is not None and not digest.depends(node, before):
        yield f"waits for {before.id}, but it does not"


def _lies_about_all(digest: Digest, text: str) -> Iterator[str]:
    for match in _NOTHING.finditer(text):
        word = match.group(1).lower()
        nodes = {"blocked": digest.blocked, "running": digest.running, "failed": digest.failed}[word]
        if nodes:
            yield f"nothing is {word}, but {nodes[0].id} is {nodes[0].state}"
    for match in _ALL_WELL.finditer(text):
        word = match.group(1).lower()
        if digest.open_count or any(digest.others.values()):
            yield f"all is {word}, but {digest.open_count} tasks have not ended"
        elif word in _WELL and (bad := [*digest.failed, *digest.cancelled]):
            yield f"all is {word}, but {bad[0].id} is {bad[0].state}"


def left_out(digest: Digest, text: str) -> str:
    """What matters most, if a summary does not speak of it; empty: it does, or nothing has to be said.

    That is what failed of itself, the last first; else what holds up blocked work; else what runs. A graph of which nothing
    failed, waits or runs may be told in as few words as one likes.
    """
    said = _Said(plain(text))
    if digest.failed:
        own = [node for node in digest.failed if not digest.note(node).secondary] or digest.failed
        if said.names(own[:1]) or said.counts("fail|dead", own, digest.failed):
            return ""
        return f"{own[0].id}, which failed"
    if holders := digest.cycle or digest.holders[:1]:
        return "" if said.names(holders) else f"{holders[0].id}, on which others are blocked"
    running = digest.running
    if not running or said.names(running) or said.counts("run", running):
        return ""
    return f"{running[0].id}, which runs"


class _Said:
    def __init__(self, text: str) -> None:
        self._ids = {match.group() for match in _NAME.finditer(text)}
        self._sentences = _END.split(text)

    def names(self, nodes: Sequence[Node]) -> bool:
        """Any of them."""
        return any(node.id in self._ids for node in nodes)

    def counts(self, what: str, nodes: Sequence[Node], more: Sequence[Node] = ()) -> bool:
        """How many they are, or are with more, in one sentence with that word; only of MANY is it enough."""
        if len(nodes) <= MANY:
            return False
        counts = {form for count in (len(nodes), len(more) or len(nodes)) for form in (f"{count}", f"{count:,}")}
        about = [sentence for sentence in self._sentences if re.search(what, sentence, re.I)]
        return any(counts & set(_NUMBER.findall(sentence)) for sentence in about)


def plain(text: str) -> str:
    """One paragraph of printable characters, of bounded length."""
    words = " ".join("".join(letter if letter.isprintable() else " " for letter in text[: 2 * SUMMARY_CHARACTERS]).split())
    return words if len(words) <= SUMMARY_CHARACTERS else words[: SUMMARY_CHARACTERS - 1] + "…"


def some(names: Collection[str]) -> str:
    """The first of them."""
    return ", ".join(short(name) for name in list(names)[:NAMED]) + (
        f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    )


def short(name: str) -> str:
    """What may be no name at all."""
    return plain(name)[:64]
