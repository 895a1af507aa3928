"""The check of prose: what a model's sentences say of the tasks, as far as words can be held against the graph."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Iterator, Sequence

from supervisord_agents.core.digest import Digest
from supervisord_agents.core.outline import printable
from supervisord_agents.core.picture import Node
from supervisord_agents.tracker import claims

SUMMARY_CHARACTERS = 800
NAMED = 5
"""Ids of one problem that a refusal names."""
MANY = 3
"""Of more tasks that failed, or run, their count says as much as the name of one."""
ROUND_WORDS, ROUND_TIMES = 6, 3
"""So many words one after the other, so often, are no sentence of sense."""

_ECHO = re.compile(r"\bthe (?:summary|answer) (?:leaves out|names tasks|says (?:that|the same)|is empty|repeats)\b", re.I)
"""What a model is told of an answer that is refused: small ones give it back."""
_END = re.compile(r"[.;!?](?:\s|$)")
_NUMBER = re.compile(r"(?<![\w.,-])\d[\d,]*(?![\w-]|[.,]\d)")


def lies(digest: Digest, text: str, where: str, *, old: bool = False) -> Iterator[str]:
    """What is not true in a text, which is the `where` of an answer."""
    if not plain(text):
        yield f"the {where} is empty"
    if _ECHO.search(text):
        yield f"the {where} repeats what was wrong with the last one"
    if _goes_round(text):
        yield f"the {where} says the same again and again"
    text = text[: 2 * SUMMARY_CHARACTERS]  # of which `plain` is made
    if unknown := claims.unknown_ids(text, digest):
        yield f"the {where} names tasks that do not exist: {some(unknown)}"
    yield from (f"the {where} says that {lie}" for lie in claims.lies(digest, text, old=old))


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


def _goes_round(text: str) -> bool:
    """As small models do when they do not come to an end."""
    words = text.casefold().split()
    runs = Counter(zip(*(words[start:] for start in range(ROUND_WORDS)), strict=False))
    return max(runs.values(), default=0) >= ROUND_TIMES


class _Said:
    def __init__(self, text: str) -> None:
        self._ids = {match.group() for match in claims.NAME.finditer(text)}
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
    words = " ".join(printable(text[: 2 * SUMMARY_CHARACTERS]).split())
    return words if len(words) <= SUMMARY_CHARACTERS else words[: SUMMARY_CHARACTERS - 1] + "…"


def some(names: Collection[str]) -> str:
    """The first of them."""
    return ", ".join(short(name) for name in list(names)[:NAMED]) + (
        f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    )


def short(name: str) -> str:
    """What may be no name at all."""
    return plain(name)[:64]
