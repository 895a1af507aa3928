"""What a question asks, by its words: which tasks it names, and which way it looks along what waits for what."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from enum import Enum
from typing import NamedTuple

from supervisord_agents.core.digest import Digest
from supervisord_agents.core.picture import Node
from supervisord_agents.core.task import ID, graph_of
from supervisord_agents.tracker.claims import DRAWN

MEANT = 5
"""Tasks that a question is taken to be about."""
WORDS = 100
"""Of a question that are looked at."""
_WORD = re.compile(r"[\w.-]+(?:['\u2019]\w+)?")
_FULL_ID = re.compile(rf"{ID}\.{ID}")
_NUMBER = re.compile(r"[\d.]+")
_PARTS = re.compile(r"[\W_]+")
NAME = "\0"
"""Stands for a task's name in the words of a question."""


class Word(NamedTuple):
    """As it was written, and where."""

    text: str
    start: int
    end: int

    @property
    def forms(self) -> tuple[str, ...]:
        """What it may stand for: names may end in what also ends a sentence."""
        return tuple(dict.fromkeys((self.text, self.text.rstrip("."), self.text.strip(".-_"))))


class Way(Enum):
    """Along what waits for what."""

    BEFORE = "before"
    """What others must end before."""
    AFTER = "after"
    """What waits."""


class Question:
    """`names` are the tasks that are meant, in the order of the question, of several of a kind the open ones first."""

    def __init__(self, text: str, digest: Digest) -> None:
        words = words_of(text)
        found = _found(words, digest)
        self.places = [(word, nodes) for word in words if (nodes := found.get(word, []))]
        all_named = list({node.id: node for _, nodes in self.places for node in nodes}.values())
        self.names = all_named[:MEANT]
        self.more = len(all_named) - len(self.names)
        self.asked = _without(text, [word for word, _ in self.places], words)
        """Its words, with NAME for each name."""
        self.strange = [word.text.rstrip(".") for word in words if _is_strange(word, found, digest)]
        """Full ids of tasks that are not there."""
        self.other = _unknown(words, found, digest.graph_ids | {digest.subject})
        """Words that stand where a name does, and name nothing."""
        self.wants_words = _WRITE.search(self.asked) is not None
        """That somebody writes, or has an opinion: the rules do neither."""

    def way(self) -> tuple[Way, Sequence[Node]] | None:
        """Whether it asks what a task waits for, or what waits for a task, and which one."""
        match = _WAITS.search(self.asked) or _BLOCKS.search(self.asked) or _IS_BLOCKED.search(self.asked)
        if match is None or not self.names:
            return None
        count = self.asked[: match.start()].count(NAME)
        before, after = self._named(0, count), self._named(count, len(self.places))
        if match.re is _IS_BLOCKED:
            return Way.BEFORE, self.names
        if match.re is _WAITS:
            return (Way.BEFORE, before) if before else (Way.AFTER, after)
        return (Way.BEFORE, after) if after else (Way.AFTER, before)

    def _named(self, start: int, stop: int) -> Sequence[Node]:
        nodes = {node.id for _, some in self.places[start:stop] for node in some}
        return [node for node in self.names if node.id in nodes]


def words_of(text: str) -> list[Word]:
    """Without what is said after an apostrophe."""
    words = [Word(re.split("['\u2019]", match.group())[0], match.start(), match.end()) for match in _WORD.finditer(text)]
    return words[:WORDS]


def names_in(text: str) -> list[str]:
    """What may be a name of a graph or of a task in a question."""
    forms = (form for word in words_of(text) for form in word.forms)
    return list(dict.fromkeys(form for form in forms if form and not is_common(form)))


def is_common(word: str) -> bool:
    """A single capital letter is a name, not an article."""
    return (word if len(word) < 2 else word.casefold()) in _COMMON


def _found(words: Sequence[Word], digest: Digest) -> dict[Word, list[Node]]:
    """The tasks that each word names: by full or short id, else by type, else by a part of one of these."""
    nodes = sorted(digest.nodes, key=lambda node: (node.ended, node.order))
    exact = {form: word for word in reversed(words) for form in word.forms}
    if full := {node.id: [node] for node in nodes if node.id in exact}:
        return _by(full, exact)
    wanted = {form.casefold(): word for word in reversed(words) for form in word.forms if form and not is_common(form)}
    for keys in (_full, _short, _type, _parts):
        matches: dict[str, list[Node]] = {}
        for node in nodes:
            for key in keys(digest, node):
                if key in wanted:
                    matches.setdefault(key, []).append(node)
        if matches:
            return _by(matches, wanted)
    return {}


def _by(matches: dict[str, list[Node]], words: dict[str, Word]) -> dict[Word, list[Node]]:
    found: dict[Word, list[Node]] = {}
    for key, nodes in matches.items():
        found.setdefault(words[key], []).extend(nodes)
    return found


def _full(digest: Digest, node: Node) -> Iterable[str]:
    return (node.id.casefold(),)


def _short(digest: Digest, node: Node) -> Iterable[str]:
    return (node.id.partition(".")[2].casefold(),)


def _type(digest: Digest, node: Node) -> Iterable[str]:
    kind = digest.note(node).type.casefold()
    return kind, f"{kind}s"


def _parts(digest: Digest, node: Node) -> Iterable[str]:
    short, kind = node.id.partition(".")[2].casefold(), digest.note(node).type.casefold()
    parts = {*_PARTS.split(short), *_PARTS.split(kind)}
    return parts | {f"{part}s" for part in parts}


def _is_strange(word: Word, found: dict[Word, list[Node]], digest: Digest) -> bool:
    name = word.text.rstrip(".")
    if word in found or name in digest.by_id or _NUMBER.fullmatch(name) or not _FULL_ID.fullmatch(name):
        return False
    graph = graph_of(name)
    return bool(DRAWN.fullmatch(graph)) or graph in digest.graph_ids


def _unknown(words: Sequence[Word], found: dict[Word, list[Node]], graphs: frozenset[str]) -> list[str]:
    befores = ["", *(word.text.casefold() for word in words)]
    afters = [*(word.forms[-1].casefold() for word in words[1:]), ""]
    places = zip(befores, words, afters, strict=False)
    # What stands before a noun is no name: "in friendly words".
    alone = [(before, word) for before, word, after in places if after in {"", *_USUAL}]
    unknown = (word for before, word in alone if before in _BEFORE_NAMES and word not in found and not graphs & {*word.forms})
    return [form for word in unknown if (form := word.forms[-1]) and form.casefold() not in _USUAL]


def _without(text: str, named: Sequence[Word], words: Sequence[Word]) -> str:
    """What is said besides names."""
    parts, place = [], 0
    for word in words:
        name = word in named
        if name or re.search(r"\w[-_.]\w", word.text):
            parts += [text[place : word.start], NAME if name else " "]
            place = word.start + len(word.text)
    return "".join([*parts, text[place:]])


_THAT = rf"(?:\s+(?:the|task|tasks|of|graph|type))*\W*{NAME}"
_WAITS = re.compile(
    r"\b(?:depend(?:s|ing|ent)?\s+(?:up)?on|wait(?:s|ing)?\s+(?:for|on)"
    r"|(?:block|hold|delay)(?:ed|s)?(?:\s+up|\s+back)?\s+(?:by|on|behind)|(?:held|stuck)(?:\s+up|\s+back)?\s+(?:by|on|behind)"
    rf"|(?:dependents|dependants)\s+of|(?:after|behind|needs?|needing|requires?){_THAT}|(?<={NAME})\s+(?:needs?|requires?))",
    re.I,
)
"""Who waits is named before it."""
_BLOCKS = re.compile(
    r"(?<!on )\b(?:(?:block(?:s|ing)?|blockers?|hold(?:s|ing)?(?:\s+up|\s+back)?|delay(?:s|ing)?|keep(?:s|ing)?\b(?=.*\bfrom)"
    rf"|prevent(?:s|ing)?|bottlenecks?|prerequisites|dependencies)\b|before{_THAT})",
    re.I,
)
"""Who waits is named after it."""
_IS_BLOCKED = re.compile(r"\b(?:blocked|held|stuck|hold|delayed|wait(?:s|ing)?|needs?|depends?)\b", re.I)
_WRITE = re.compile(r"\b(?:write|draft|compose|rephrase|translate|compare|suggest|recommend|advise)\b", re.I)
_BEFORE_NAMES = frozenset(
    re.findall(
        r"\w+", "about are block blocking blocks by can did do does for has have how in is of on task the was when why will"
    )
)
_COMMON = frozenset(
    re.findall(
        r"\w+",
        """
    a all an and any are at be been being block blocked blocking blocks by can do does doing done ended error errors eta
    fail failed failing fails failure failures finish finished first for from go going graph happening has have held hold
    holding holds how i in is it its left long many me my need needs next no not now of on or our progress ready run running
    runs should so start state status still story stuck summary task tasks tell than that the them there these they this time to
    up us wait waiting waits was we were what when which who why will with work wrong you
    """,
    )
)
"""They are no names."""
_USUAL = _COMMON | frozenset(
    re.findall(
        r"\w+",
        """
    about actionable active after again already also anybody anyone anything as because before behind blocker blockers broken
    bottleneck bottlenecks cancel cancelled cancels complete completed completes could crash crashed current currently dead
    deadline delay delayed delaying delays depend dependants dependencies dependency dependent dependents depending depends did
    didn different don each else end ending ends ever every everybody everything exactly far finishes finishing get gets getting
    give gives graphs had happened happens hasn haven help here if into isn job jobs just keep keeping keeps know last late
    later let letter letters list longer main more most much must needed needing nobody nothing off ones only open other
    others out over own part pause paused pauses percent percentage please prerequisites prevent preventing prevents problem
    problems queue queued really remain remaining remains require required requires requiring retried retries retry retrying
    right say see show slow some somebody something soon started starting starts stop stopped stops succeed succeeded succeeds
    success take takes taking then thing things today told tried until update use well went where whether while whole won worker
    working works would yet your
    """,
    )
)
"""It is not remarkable that no task has such a name."""
