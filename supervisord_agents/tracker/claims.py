"""What a text claims of tasks, as far as words can be held against the graph.

Only plain claims are looked at: a task or a list of tasks and its state, counts, how far something is, when all will be done.
What is said under a condition (once, until, if, ...) or of the future claims nothing. Whatever is not understood passes, for a
model whose true sentences are refused is of no use.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence

from supervisord_agents.core.digest import NAMED, Digest
from supervisord_agents.core.model import END_STATES, State
from supervisord_agents.core.picture import Node
from supervisord_agents.core.task import ID, graph_of

DRAWN = re.compile(r"g[a-z2-9]{7}")
"""A graph's id, unless a client chose it."""
FILE_ENDINGS = frozenset(
    ["c", "css", "go", "h", "html", "js", "json", "log", "md", "py", "rs", "sh", "toml", "ts", "txt", "xml", "yaml", "yml"]
)
NAME = re.compile(rf"(?<![\w.-]){ID}\.{ID}")
_NUMBER = re.compile(r"\d+\.\d+")

_FAILED = frozenset({State.FAILED, State.DEAD})
_WORDS: dict[str, frozenset[State]] = {
    "running": frozenset({State.RUNNING}),
    "ready": frozenset({State.READY}),
    "blocked": frozenset({State.BLOCKED}),
    "paused": frozenset({State.PAUSED}),
    "cancelled": frozenset({State.CANCELLED}),
    "canceled": frozenset({State.CANCELLED}),
    "failed": _FAILED | {State.BACKING_OFF},
    "fail": _FAILED | {State.BACKING_OFF},
    "dead": frozenset({State.DEAD}),
    "ended": END_STATES,
    "started": frozenset({State.RUNNING}),
    **dict.fromkeys(
        ("succeeded", "succeed", "successful", "completed", "complete", "finished", "finish", "done"),
        frozenset({State.SUCCEEDED}),
    ),
}
_ENDS = frozenset({"completed", "complete", "finished", "finish", "done"})
"""What may also be said of what has failed, if that is said too."""
_NOW = frozenset({"running", "ready", "blocked", "paused"})
"""What was so need not be so now."""
_WORD = "|".join(_WORDS)
_ID = r"\x01\d+\x02"
_MORE = r"(?:\s*,\s*(?:and\s+|or\s+|&\s*)?|\s+(?:and|or|nor|&)\s+)(?:the\s+)?(?:task\s+)?"
_IN_BRACKETS = r"(?:\s*\([^()]*\))?"
_GROUP = rf"{_ID}(?:{_IN_BRACKETS}{_MORE}{_ID})*{_IN_BRACKETS}"
_AUX = (
    r"(?:(?:is|are|has|have|had|was|were|been|being|did|does|do|not|never|no\s+longer|yet|now|both|all|already|just|still"
    r"|currently|also|then|each|successfully|finally|as|marked|state|status)\s+)*"
)
_VERB = r"\s+(?:is|are|has|have|was|were|runs?|waits?|will|can|cannot|needs?|depends?|remains?|still|does|did|failed|succeeded)\b"
_UNDER_CONDITION = re.compile(
    r"\b(?:once|when(?:ever)?|until|till|after|before|if|unless|as soon as|provided|assuming|requires?|needs?|so that|in order)\b"
    rf"(?:{_GROUP}|[^,;:])*",
    re.I,
)
_SAID = re.compile(rf"({_GROUP})(\s*[:=–—-]\s*|,?\s+(?:which|that)\s+|\s+)({_AUX})({_WORD})\b", re.I)
_SAID_IN_BRACKETS = re.compile(rf"({_ID})(\s*\()({_AUX})({_WORD})\b", re.I)
_SAID_TOO = re.compile(
    rf"({_ID})(\s+)(?:is|has|was)\s+(?:been\s+)?\w+\s+(?:and|but)\s+((?:is|has|was)\s+{_AUX})({_WORD})\b", re.I
)
_LISTED = re.compile(rf"\b({_WORD})(?:\s+(?:tasks?|ones|jobs))?\s*(?::|\bare\b|\bis\b|\bincludes?\b|\(|–|—)\s*({_GROUP})", re.I)
_WAITS = re.compile(
    rf"({_GROUP})\s+(?:now\s+|also\s+|still\s+)*(?:waits?\s+(?:for|on)|(?:is|are)\s+(?:still\s+)?waiting\s+(?:for|on)"
    rf"|(?:is|are)\s+(?:still\s+)?blocked\s+(?:by|on)|depends?\s+on|needs?)\s+({_GROUP})",
    re.I,
)
_SHARE = re.compile(rf"({_ID})(?::|\s+{_AUX}|\s*\()\s*(?:about\s+|at\s+)?(\d+(?:\.\d+)?)\s*%\s*(?:done|complete)", re.I)
_NUMBERS = ("no", *["one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve"])
_COUNT = rf"\d{{1,6}}|{'|'.join(_NUMBERS[1:])}"
_COUNTED = re.compile(
    rf"(?<![\w.%-])({_COUNT})(?:\s+(?:out\s+)?of\s+(?:the\s+)?(?:{_COUNT}))?(\s+tasks?)?\s+({_AUX})({_WORD})\b(\s+tasks?\b)?",
    re.I,
)
_ALL_WELL = re.compile(
    rf"\b(?:all|every|everything)\b(?:\s+(?:of|the|tasks?|work|graphs?|is|are|has|have|been|now|already|successfully|{_COUNT}))*\s+"
    r"(succeeded|successful|completed?|done|finished|ended|over)\b",
    re.I,
)
_WELL = ("succeeded", "successful")
_NOTHING = re.compile(
    r"\b(?:nothing|none|no tasks?)\b(?:\s+(?:of|the|tasks?|is|are|has|have|been|now|currently))*\s+(blocked|running|failed)\b",
    re.I,
)
_SOME_ONLY = re.compile(r"\s+(?:tasks?|ones|jobs|but|except|apart|besides?|other|by|on|because|due|of|it|them|this|that)\b", re.I)
_IN_TIME = re.compile(
    r"\b(?:all|everything|the work|it)\b[^,;]*?\b(?:done|finished|completed?|ended|over)\s+(?:in|within)\s+"
    r"(?:about|around|approximately|roughly|~)?\s*(\d+(?:\.\d+)?)\s*(s|secs?|seconds?|min|minutes?|h|hours?|d|days?)\b",
    re.I,
)
_UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0}


def ids_in(text: str, digest: Digest) -> list[str]:
    """What looks like full ids in a text, of tasks that may not exist."""
    found = dict.fromkeys(match.group() for match in NAME.finditer(text))
    return [name for name in found if graph_of(name) in digest.graph_ids or DRAWN.fullmatch(graph_of(name))]


def unknown_ids(text: str, digest: Digest) -> list[str]:
    """Those of tasks that do not exist; what a task has waited for does, though it may be of another graph."""
    strange = [name for name in ids_in(text, digest) if name not in digest.by_id and not _NUMBER.fullmatch(name)]
    if not strange:
        return []
    known = {name for node in digest.nodes for name in digest.note(node).befores}
    known |= {name for name in strange if graph_of(name) not in digest.graph_ids and name.partition(".")[2] in FILE_ENDINGS}
    return [name for name in strange if name not in known]


def lies(digest: Digest, text: str, *, old: bool = False) -> Iterator[str]:
    """Such as `g.a is done, but it is running`; of an `old` text without what merely time makes untrue."""
    plain = re.sub(r"[\x01\x02`*\"“”]", "", text.replace("\u2019", "'")).replace("n't", " not")
    names: list[str] = []

    def marked(match: re.Match[str]) -> str:
        if match.group() not in digest.by_id:
            return match.group()
        names.append(match.group())
        return f"\1{len(names) - 1}\2"

    words = re.sub(rf"'({_ID})'", r"\1", NAME.sub(marked, plain))
    for sentence in re.split(r"(?<=[.!?;])\s+|\n", words):
        yield from _Sentence(sentence, names, digest).lies(old)


class _Sentence:
    """Names of tasks stand in it as numbers of `names`."""

    def __init__(self, text: str, names: Sequence[str], digest: Digest) -> None:
        self._whole = text
        self._text = _UNDER_CONDITION.sub(" ", text)
        self._names = names
        self._digest = digest

    def lies(self, old: bool) -> Iterator[str]:
        told: list[tuple[str, str]] = []
        for pattern in (_SAID, _SAID_TOO, _SAID_IN_BRACKETS):
            for match in pattern.finditer(self._text):
                for node in self._subjects(match):
                    told += self._lies_about(node, match)
        yield from (f"{id} {lie}" for id, lie in dict.fromkeys(told))
        for look in (self._listed, self._waits, self._counts, self._all, *(() if old else (self._shares, self._times))):
            yield from look()

    def _nodes(self, group: str) -> list[Node]:
        ids = re.findall(r"\x01(\d+)\x02", re.sub(r"\([^()]*\)", "", group))
        return [self._digest.by_id[self._names[int(id)]] for id in ids]

    def _subjects(self, match: re.Match[str]) -> list[Node]:
        """Of what the state is said: the whole list, or only its last, where the others may belong to what stands before."""
        nodes, link, aux = self._nodes(match[1]), match[2], match[3]
        before = self._text[: match.start()].rstrip()
        if not link.strip() and _OF_ANOTHER.search(before):
            nodes = nodes[1:]
        if len(nodes) < 2 or link.strip() or re.search(r"\b(?:is|has|was)\b", aux):
            return nodes[-1:]
        if not before or _BEGINS.search(before):
            return nodes
        return [] if "," not in match[1] else self._nodes(match[1].rpartition(",")[2])

    def _lies_about(self, node: Node, match: re.Match[str]) -> Iterator[tuple[str, str]]:
        aux, word, rest = match[3].casefold(), match[4].casefold(), self._text[match.end() :]
        if re.search(r"\b(?:was|were|had)\b", aux) and word in _NOW:
            return
        if _A_PART.match(rest) or (word in _DOES and not re.search(r"\b(?:is|are|was|were)\b", aux) and _OBJECT.match(rest)):
            return
        denied = re.search(r"\b(?:not|never|no\s+longer)\b", aux) or re.search(
            r"\b(?:neither|none of)\s+(?:the tasks?\s+)?$", self._text[: match.start()], re.I
        )
        if denied and self._is_surely(node, word):
            yield node.id, f"is not {word}, but it is {node.state}"
        elif not denied and not self._may_be(node, word):
            yield node.id, f"is {word}, but it is {node.state}"

    def _may_be(self, node: Node, word: str) -> bool:
        note, state = self._digest.note(node), node.state
        if state in _WORDS[word]:
            return True
        if word in ("failed", "fail"):  # earlier
            return note.attempt > (1 if state in (State.RUNNING, State.SUCCEEDED) else 0)
        if word == "started":
            return note.attempt > 0 or node.ended
        if word in ("blocked", "paused"):
            return bool(note.held or (note.kept and word == "blocked"))
        if word in _ENDS and node.ended:
            return bool(re.search(r"\b(?:fail|error|cancel|unsuccess|[A-Z]+_[A-Z]+)", self._whole))
        return False

    def _is_surely(self, node: Node, word: str) -> bool:
        note = self._digest.note(node)
        if word in ("failed", "fail"):
            return node.state in _FAILED
        return node.state in _WORDS[word] and not (word == "ready" and (note.held or note.kept))

    def _objects(self, group: str, rest: str) -> list[Node]:
        """The list, without the subjects of a verb behind it."""
        nodes = self._nodes(group)
        return nodes if not re.match(_VERB, rest) else nodes[: min(1, len(nodes) - 1)]

    def _listed(self) -> Iterator[str]:
        """Such as `Failed: g.a, g.b`."""
        for match in _LISTED.finditer(self._text):
            word, before = match[1].casefold(), self._text[: match.start()]
            here = re.split(r"[,;:(]", before)[-1]
            if "\1" in here or re.search(r"\b(?:not|no|never|yet|been)\s*$", before, re.I):
                continue
            for node in self._objects(match[2], self._text[match.end() :]):
                if not self._may_be(node, word):
                    yield f"{node.id} is {word}, but it is {node.state}"

    def _waits(self) -> Iterator[str]:
        for match in _WAITS.finditer(self._whole):
            for before in self._objects(match[2], self._whole[match.end() :]):
                node = self._nodes(match[1])[-1]
                if len(self._digest.note(node).befores) < NAMED and not self._digest.depends(node, before):
                    yield f"{node.id} waits for {before.id}, but it does not"

    def _shares(self) -> Iterator[str]:
        for match in _SHARE.finditer(self._text):
            (node,), share = self._nodes(match[1]), float(match[2])
            note = self._digest.note(node)
            right = 100.0 if node.state is State.SUCCEEDED else 100.0 * note.fraction
            if abs(share - right) > 1.5 and match[2] not in re.findall(r"\d+(?:\.\d+)?", note.message):
                yield f"{node.id} is {match[2]}% done, but " + (
                    f"it is {right:.0f}%" if right >= 0 else "nobody knows how far it is"
                )

    def _counts(self) -> Iterator[str]:
        digest = self._digest
        if digest.only_counted:
            return
        for match in _COUNTED.finditer(self._text):
            count, tasks, aux, word, after = match.groups()
            before, rest = self._text[: match.start()].rstrip(), self._text[match.end() :]
            if not (tasks or after) and not re.search(r"(?:^|[:,(]|\b(?:and|which|with))$", before):
                continue
            if after and not re.search(r"(?:^|\b(?:are|is|and|with|has|have)|,)$", before, re.I):
                continue
            if re.search(r"\b(?:not|never|no)\b", aux, re.I) or _NOT_ALL.search(before) or _OF_SOME.match(rest):
                continue
            number = int(count) if count.isdigit() else _NUMBERS.index(count.casefold())
            right = self._numbers(word.casefold())
            if right and number not in right:
                yield f"{number} tasks are {word.casefold()}, but that is not their number"

    def _numbers(self, word: str) -> set[int]:
        """How many tasks may be said to be so: of all, of a graph, of a type."""
        digest = self._digest
        found = {0} if len(digest.graphs()) > 1 else set[int]()
        if word == "started":
            return set()
        for rule in self._rules(word):
            nodes = [node for node in digest.inside if rule(node)]
            found |= {len(nodes), *Counter(graph_of(node.id) for node in nodes).values()}
            found |= set(Counter(digest.note(node).type for node in nodes).values())
        return found

    def _rules(self, word: str) -> Iterator[Callable[[Node], bool]]:
        note, states = self._digest.note, _WORDS[word]
        yield lambda node: node.state in states
        if word in ("failed", "fail"):
            yield lambda node: node.state in _FAILED
            yield lambda node: node.state in _FAILED and not note(node).secondary
        elif word in _ENDS:
            yield lambda node: node.ended
            yield lambda node: node.ended and node.state is not State.CANCELLED
        elif word in ("blocked", "ready", "paused"):
            yield lambda node: node.state in states and not (note(node).held or note(node).kept)
            yield lambda node: node.state is State.BLOCKED or bool(note(node).held or note(node).kept)
            yield lambda node: node.state is State.PAUSED or bool(note(node).held)

    def _all(self) -> Iterator[str]:
        digest, graphs = self._digest, self._digest.graphs()
        if len(graphs) > 1 and graphs.keys() & set(re.findall(r"[\w-]+", self._whole)):
            return  # All of one of them may be meant.
        for match in _NOTHING.finditer(self._text):
            word = match[1].casefold()
            nodes = {"blocked": digest.blocked, "running": digest.running, "failed": digest.failed}[word]
            if nodes and not _SOME_ONLY.match(self._text[match.end() :]):
                yield f"nothing is {word}, but {nodes[0].id} is {nodes[0].state}"
        for match in _ALL_WELL.finditer(self._text):
            word = match[1].casefold()
            if _SOME_ONLY.match(self._text[match.end() :]) or _NOT_ALL.search(self._text[: match.start()].rstrip()):
                continue
            if not digest.all_ended:
                yield f"all is {word}, but {digest.open_count} tasks have not ended"
            elif word in _WELL and (bad := [*digest.failed, *digest.cancelled]):
                yield f"all is {word}, but {bad[0].id} is {bad[0].state}"

    def _times(self) -> Iterator[str]:
        """When all will be done; far from the range that is given."""
        digest, eta = self._digest, self._digest.eta
        if not digest.open_count or digest.only_counted or "\1" in self._text or len(digest.graphs()) > 1:
            return
        for match in _IN_TIME.finditer(self._text):
            seconds = float(match[1]) * _UNITS[match[2][0].casefold()]
            if eta is None:
                yield f"all will be done in {match[1]} {match[2]}, but as things are it never will"
            elif seconds < 0.5 * eta.low_s - 1 or (seconds > 2 * eta.high_s + 1 and not eta.doubt):
                yield f"all will be done in {match[1]} {match[2]}, but that is not what is given"


_DOES = frozenset({"completed", "complete", "finished", "finish", "started"})
_A_PART = re.compile(r"\s+(?:its|the|an?|\d|steps?|parts?|half|first|second|one|two|three|some|most|about|with its|\x01)", re.I)
_OBJECT = re.compile(
    r"\s+(?!(?:successfully|in|at|with|without|after|and|or|so|but|now|already|early|ago|by|on|last|too|as|while|because|then|yet)\b)"
    r"[a-z]",
    re.I,
)
_OF_ANOTHER = re.compile(r"\b(?:of|by|on|with|to|in|behind|for|than|from)(?:\s+the)?(?:\s+tasks?)?$", re.I)
_BEGINS = re.compile(r"(?:[,;:(]|\b(?:and|but|while|because|since|as|so|that|both|tasks?|the|only|also|then))$", re.I)
_NOT_ALL = re.compile(
    r"\b(?:not|nearly|almost|first|last|other|these|those|next|remaining|another|least|most|about|than|more|of|attempts?)$",
    re.I,
)
_OF_SOME = re.compile(
    r"\s*(?:(?:un)?successfully|on|by|because|due|since|with|after|in|more|from|for|at|again|once|twice|or|of|and\s+(?:was\s+|were\s+)?cancel\w*)\b",
    re.I,
)
