"""Stories and answers without a model: right, if dull. Whatever a model tells is measured against these.

Nothing that a worker wrote is in them: codes of failures are, their messages are not.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence

from supervisord_agents.core.digest import Digest
from supervisord_agents.core.eta import seconds
from supervisord_agents.core.model import OPEN_STATES, State
from supervisord_agents.core.outline import end_text
from supervisord_agents.core.picture import Node
from supervisord_agents.tracker.questions import Question, Way
from supervisord_agents.tracker.story import Answer, Story, entries_of

NAME = "rules"
NAMED = 3
"""Tasks of a kind that a sentence names."""
ANSWERED = 10
"""Tasks of a kind that an answer names."""


def story(digest: Digest) -> Story:
    """The story of a digest."""
    return Story(
        summary=" ".join(_sentences(digest)),
        blocked_on=digest.blocked_on,
        next_actionable=digest.next_actionable,
        tasks=entries_of(digest),
    )


def _sentences(digest: Digest) -> Iterator[str]:
    total = len(digest.inside) + digest.only_counted
    if not total:
        yield "There are no open tasks."
        return
    yield _ended(digest, total)
    if digest.saga:
        yield f"{digest.saga}."
    yield from _open(digest)
    yield from _only_counted(digest)
    if digest.open_count:
        yield f"The end: {end_text(digest)}."


def _only_counted(digest: Digest) -> Iterator[str]:
    if counted := [f"{count:,} {state}" for state, count in digest.others.items() if count]:
        yield f"Others are only counted: {', '.join(counted)}."


def _ended(digest: Digest, total: int) -> str:
    states = (State.SUCCEEDED, State.FAILED, State.DEAD, State.CANCELLED)
    counts = {state: digest.counts.get(state, 0) + digest.others.get(state, 0) for state in states}
    ended = sum(counts.values())
    what = ", ".join(f"{count:,} {state}" for state, count in counts.items() if count)
    graphs = len(digest.graphs())
    tasks = _tasks(total) if digest.subject or graphs < 2 else f"{_tasks(total)} in {graphs:,} graphs"
    if not ended:
        return f"None of {tasks} has ended."
    return f"{ended:,} of {tasks} {'has' if ended == 1 else 'have'} ended: {what}."


def _open(digest: Digest) -> Iterator[str]:
    if digest.failed:
        yield _failed(digest)
    if digest.running:
        names = _some(digest.running, NAMED, lambda node: _running(digest, node))
        yield f"{_count(digest.running)} {_verb(digest.running, 'runs', 'run')}: {names}."
    if digest.retrying:
        names = _some(digest.retrying, NAMED, lambda node: f"{node.id} in {seconds(node.not_before)} after {_code(digest, node)}")
        yield f"{_count(digest.retrying)} {_verb(digest.retrying, 'is', 'are')} tried again: {names}."
    if digest.cycle:
        yield f"These wait for each other and can never run: {_some(digest.cycle, ANSWERED, _id)}."
    if digest.blocked:
        on = f" on {_some(digest.holders, NAMED, _with_state)}" if digest.holders else ""
        yield f"{_count(digest.blocked)} {_verb(digest.blocked, 'is', 'are')} blocked{on}."
    if digest.held:
        yield f"{_count(digest.held)} {_verb(digest.held, 'is', 'are')} held by a pause: {_some(digest.held, NAMED, _id)}."
    if digest.kept:
        yield _kept(digest, NAMED)
    if digest.next:
        yield f"Next: {_some(digest.next, NAMED, _id)}."


def _kept(digest: Digest, limit: int) -> str:
    return f"Ready, but kept from starting: {_some(digest.kept, limit, lambda node: f'{node.id} ({digest.note(node).kept})')}."


def _failed(digest: Digest) -> str:
    own = [node for node in digest.failed if not digest.note(node).secondary]
    because = len(digest.failed) - len(own)
    shown = own or digest.failed
    text = f"Failed: {_some(shown, NAMED, lambda node: f'{node.id} ({_code(digest, node)})')}"
    if own and because:
        text += f", and {because:,} more because of that"
    if any(node.state is State.DEAD for node in digest.failed):
        text += "; a person is to decide: agentctl dlq list"
    return text + "."


def _running(digest: Digest, node: Node) -> str:
    note = digest.note(node)
    text = f"{node.id} for {seconds(-node.start)}"
    text += f", attempt {note.attempt}" if note.attempt > 1 else ""
    return text + (f", {note.fraction:.0%} done" if note.fraction >= 0 else "")


# Questions


def answer(question: str, digest: Digest) -> Answer:
    """By the words of the question: what they ask, and which tasks they name. Of any other, how things are."""
    found = Question(question, digest)
    if found.strange and not found.names:
        if digest.only_counted:
            return Answer(answer=f"{_or(found.strange)} is not among the tasks that are looked at: agentctl show tells.")
        return Answer(answer=f"There is no task {_or(found.strange)}.")
    told, cited, understood = _answered(found, digest)
    if not found.names:
        told = " ".join([told, *(words for words in _only_counted(digest) if words not in told)])
    if found.more:
        told += f" Of {found.more:,} more tasks that are called so it is not told."
    understood &= not found.wants_words
    if understood and found.other and not found.names and not digest.only_counted:
        told = f"No task is called {_or(found.other)}. Of all: {told}"
    return Answer(answer=told, citations=_cited(found.names, cited), understood=understood)


def _answered(question: Question, digest: Digest) -> tuple[str, Sequence[Node], bool]:
    """In words, what that rests on beside what is named, and whether it is an answer."""
    if (way := question.way()) is not None:
        look, nodes = way
        return *(_what_blocks_these if look is Way.BEFORE else _what_depends)(digest, nodes), True
    for words, of_tasks, of_all in _KINDS:
        if words.search(question.asked):
            return *(of_tasks(digest, question.names) if question.names else of_all(digest)), True
    if question.names:
        return *_how(digest, question.names), True
    return *_standing(digest), not question.asked.strip()


def _or(names: Sequence[str]) -> str:
    return " or ".join(dict.fromkeys(name[:64] for name in names[:NAMED]))


def _cited(*lists: Sequence[Node]) -> list[str]:
    return list(dict.fromkeys(node.id for nodes in lists for node in nodes))


Told = tuple[str, Sequence[Node]]


def _what_blocks(digest: Digest) -> Told:
    if digest.cycle:
        return f"These wait for each other and can never run: {_some(digest.cycle, ANSWERED, _id)}.", digest.cycle
    if not (digest.blocked or digest.held or digest.kept):
        return "Nothing is blocked.", []
    return _joined(_what_is_blocked(digest), _what_is_held(digest))


def _what_is_blocked(digest: Digest) -> Told:
    if not digest.blocked:
        return "", []
    held = _some(digest.holders, ANSWERED, lambda node: _how_it_is(digest, node))
    return f"{_count(digest.blocked)} blocked{f', on {held}' if held else ''}.", digest.holders[:ANSWERED]


def _joined(*told: Told) -> Told:
    return " ".join(text for text, _ in told if text), [node for _, cited in told for node in cited]


def _what_blocks_these(digest: Digest, nodes: Sequence[Node]) -> Told:
    told = [_what_blocks_it(digest, node) for node in nodes]
    return " ".join(text for text, _ in told), [cited for _, some in told for cited in some]


def _what_blocks_it(digest: Digest, node: Node) -> Told:
    if node.state is not State.BLOCKED:
        return _what_keeps_it(digest, node)
    if node in digest.cycle:
        return f"{node.id} waits for itself: {_some(digest.cycle, ANSWERED, _id)} wait for each other.", digest.cycle
    behind, direct = digest.behind(node), digest.waits(node)
    if not behind:
        return f"{node.id} is blocked.", direct
    text = f"{node.id} is blocked on {_some(behind, ANSWERED, lambda other: _how_it_is(digest, other))}"
    between = [other for other in direct if other not in behind]
    text += f", by way of {_some(between, NAMED, _id)}" if between else ""
    return text + ".", [*behind[:ANSWERED], *between[:NAMED]]


def _what_keeps_it(digest: Digest, node: Node) -> Told:
    """One that waits for no other task."""
    note = digest.note(node)
    if node.ended and node.state is not State.SUCCEEDED:
        return _why_it_failed(digest, node), _causes(digest, node)
    if node.state is State.READY and (note.held or note.kept):
        return f"No other task blocks {_how_it_is(digest, node)}.", []
    waits = " It waits for a worker." if node.state is State.READY else ""
    return f"Nothing blocks {_how_it_is(digest, node)}.{waits}", []


def _why(digest: Digest) -> Told:
    """Whatever is asked the reason of."""
    told = [_what_failed(digest)] if digest.failed else []
    return _joined(*told, _what_blocks(digest), *([_what_runs(digest)] if digest.running else []))


def _what_failed(digest: Digest) -> Told:
    if not digest.failed:
        good = " for good" if digest.retrying else ""
        return _joined((f"Nothing has failed{good}.", []), _what_is_retried(digest))
    return _failed(digest), digest.failed[:ANSWERED]


def _why_failed(digest: Digest, nodes: Sequence[Node]) -> Told:
    cited = [other for node in nodes for other in _causes(digest, node)]
    return " ".join(_why_it_failed(digest, node) for node in nodes), cited


def _why_it_failed(digest: Digest, node: Node) -> str:
    if node.state not in (State.FAILED, State.DEAD, State.CANCELLED, State.BACKING_OFF):
        return f"{_how_it_is(digest, node)}; it has not failed."
    causes = _causes(digest, node)
    because = f", because of {_some(causes, NAMED, lambda other: _how_it_is(digest, other))}" if causes else ""
    return f"{_how_it_is(digest, node)}{because}. agentctl why {node.id} tells more."


def _causes(digest: Digest, node: Node) -> list[Node]:
    if not digest.note(node).secondary:
        return []
    befores = [digest.by_id[name] for name in digest.note(node).befores if name in digest.by_id]
    return [before for before in befores if before.ended and before.state is not State.SUCCEEDED]


def _what_cancelled(digest: Digest) -> Told:
    if not digest.cancelled:
        return "Nothing was cancelled.", []
    return f"Cancelled: {_some(digest.cancelled, ANSWERED, _id)}.", digest.cancelled[:ANSWERED]


def _what_is_held(digest: Digest) -> Told:
    held = f"Held by a pause: {_some(digest.held, ANSWERED, _id)}." if digest.held else ""
    kept = _kept(digest, ANSWERED) if digest.kept else ""
    return _joined((held, digest.held[:ANSWERED]), (kept, digest.kept[:ANSWERED]))


def _what_is_paused(digest: Digest) -> Told:
    return _what_is_held(digest) if digest.held or digest.kept else ("Nothing is held by a pause.", [])


def _what_is_retried(digest: Digest) -> Told:
    if not digest.retrying:
        return "", []
    some = _some(digest.retrying, ANSWERED, lambda node: _how_it_is(digest, node))
    return f"{_count(digest.retrying)} {_verb(digest.retrying, 'waits', 'wait')} for another attempt: {some}.", digest.retrying[
        :ANSWERED
    ]


def _what_is_tried_again(digest: Digest) -> Told:
    return _what_is_retried(digest) if digest.retrying else ("Nothing waits for another attempt.", [])


def _what_is_left(digest: Digest) -> Told:
    counts = [f"{digest.counts[state]:,} {state}" for state in OPEN_STATES if digest.counts.get(state)]
    if not counts:
        return "All have ended." if not digest.only_counted else "Of what is looked at all have ended.", []
    named = [node for node in digest.told if not node.ended][:ANSWERED]
    return f"{digest.open_count:,} not ended: {', '.join(counts)}.", named


def _what_is_next(digest: Digest) -> Told:
    if not digest.next:
        none = "Nothing can be started now.", list[Node]()
        return _joined(none, _what_is_held(digest), _what_is_blocked(digest), _what_is_retried(digest))
    return _joined((f"Next: {_some(digest.next, ANSWERED, _id)}.", digest.next[:ANSWERED]), _what_is_held(digest))


def _when(digest: Digest) -> Told:
    if digest.all_ended:
        return "All have ended.", []
    known = digest.eta is not None and not digest.only_counted
    return f"{'All will have ended' if known else 'The end:'} {end_text(digest)}.", digest.running[:NAMED]


def _when_these(digest: Digest, nodes: Sequence[Node]) -> Told:
    return " ".join(_when_it(digest, node) for node in nodes), []


def _when_it(digest: Digest, node: Node) -> str:
    how = _how_it_is(digest, node)
    if node.ended:
        return f"{how}, {seconds(-node.end)} ago."
    if digest.only_counted or node.id not in digest.slots:
        return f"{how}: when it ends is not known."
    slot = digest.slots[node.id]
    if slot is None:
        return f"{how}: never, as things are."
    eta = digest.eta
    if eta is not None and eta.says_nothing(slot.end):
        return f"{how}: when it ends is not known, for {eta.doubt}."
    later = eta.later if eta is not None else ""
    begins = "" if node.running else f"to begin in about {seconds(slot.start)} and "
    return f"{how} is expected {begins}to end in about {seconds(slot.end)}{later}."


def _what_runs(digest: Digest) -> Told:
    if not digest.running:
        return _joined(("Nothing runs.", []), *([_what_is_next(digest)] if digest.open_count else []))
    return f"Running: {_some(digest.running, ANSWERED, lambda node: _running(digest, node))}.", digest.running[:ANSWERED]


def _what_ended(digest: Digest) -> Told:
    total = len(digest.inside) + digest.only_counted
    if not total:
        return _standing(digest)
    last = digest.ended[::-1][:ANSWERED]
    lately = f" Last: {_some(last, NAMED, _with_state)}." if last else ""
    return _ended(digest, total) + lately, last[:NAMED]


def _what_depends(digest: Digest, nodes: Sequence[Node]) -> Told:
    parts: list[str] = []
    cited: list[Node] = []
    for node in nodes:
        after = digest.dependents(node)
        cited += after[:ANSWERED]
        waits = _verb(after, "waits", "wait")
        parts.append(
            f"{_some(after, ANSWERED, _with_state)} {waits} for {node.id}." if after else f"Nothing waits for {node.id}."
        )
    return " ".join(parts), cited


def _how(digest: Digest, nodes: Sequence[Node]) -> Told:
    return " ".join(f"{_how_it_is(digest, node)}." for node in nodes), nodes


def _standing(digest: Digest) -> Told:
    return " ".join(_sentences(digest)), digest.told[:ANSWERED]


def _how_it_is(digest: Digest, node: Node) -> str:
    if node.running:
        return f"{node.id} (running, {_running(digest, node).removeprefix(node.id + ' ')})"
    if node.state is State.BACKING_OFF:
        return f"{node.id} (tried again in {seconds(node.not_before)}, after {_code(digest, node)})"
    if digest.note(node).held and not node.ended:
        return f"{node.id} ({node.state}, held by a pause)"
    if digest.note(node).kept and not node.ended:
        return f"{node.id} ({node.state}, but {digest.note(node).kept})"
    if node.ended and node.state is not State.SUCCEEDED:
        return f"{node.id} ({node.state}: {_code(digest, node)})"
    return _with_state(node)


_Kind = tuple[re.Pattern[str], Callable[[Digest, Sequence[Node]], Told], Callable[[Digest], Told]]


def _kind(words: str, of_tasks: Callable[[Digest, Sequence[Node]], Told], of_all: Callable[[Digest], Told]) -> _Kind:
    return re.compile(rf"\b(?:{words})\b", re.I), of_tasks, of_all


_KINDS: tuple[_Kind, ...] = (
    _kind("wait(?:s|ing)? for (?:a |free )*(?:workers?|turn)", _how, _what_is_next),
    _kind(
        r"block(?:s|ed|ers?|ing)?|stuck|hold(?:s|ing)?|held|wait(?:s|ing)?|bottlenecks?|depend(?:s|ing)? on|delay\w*",
        _what_blocks_these,
        _what_blocks,
    ),
    _kind("fail(?:s|ed|ing|ures?)?|errors?|wrong|broken?|crash(?:ed)?|dead|problems?", _why_failed, _what_failed),
    _kind("why", _what_blocks_these, _why),
    _kind(r"cancel\w*", _why_failed, _what_cancelled),
    _kind("paused?|pauses", _how, _what_is_paused),
    _kind("retr(?:y|ies|ied|ying)|tried again|back(?:ing)?[ -]off", _how, _what_is_tried_again),
    _kind("when|eta|how long|how much longer|finish(?:es)?|deadline|time left|what time", _when_these, _when),
    _kind("next|ready|actionable|start(?:ed|s)?|should", _how, _what_is_next),
    _kind(r"(?:left|remain(?:s|ing)?|open|(?:not|n't)\b.*\b(?:done|ended|finished|completed?))", _how, _what_is_left),
    _kind("runs?|running|going on|doing|in progress|active|busy|now", _how, _what_runs),
    _kind("ended|finished|done|completed?|succe(?:ss|eds?|eded)|succeed(?:ed|s)?|how many|how far|progress", _how, _what_ended),
    _kind("status|state|stand|standing|summary|story|how is|how are|going", _how, _standing),
)


# Words


def _some(nodes: Sequence[Node], limit: int, words: Callable[[Node], str]) -> str:
    text = ", ".join(words(node) for node in nodes[:limit])
    return text + (f" and {len(nodes) - limit:,} more" if len(nodes) > limit else "")


def _id(node: Node) -> str:
    return node.id


def _with_state(node: Node) -> str:
    return f"{node.id} ({node.state})"


def _code(digest: Digest, node: Node) -> str:
    """Of its failure, without what its worker said of it."""
    code = digest.note(node).failure.partition(":")[0]
    return code if re.fullmatch(r"[A-Z_]{1,40}", code) else "no code"


def _count(nodes: Sequence[Node]) -> str:
    return f"{len(nodes):,}"


def _verb(nodes: Sequence[Node], one: str, many: str) -> str:
    return one if len(nodes) == 1 else many


def _tasks(count: int) -> str:
    return f"{count:,} task" if count == 1 else f"{count:,} tasks"
