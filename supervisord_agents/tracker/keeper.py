"""Keeps stories up to date: many changes, one inference; never more than one at a time, never more than one behind.

What is told of the graph is always of now, by rules. A model only puts it into words, after the fact: whoever asks is given its
words if they are new enough, and waits for them no longer than it wants to.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, TypeVar

import msgspec
import structlog

from supervisord_agents.core.digest import Digest
from supervisord_agents.core.model import Usage
from supervisord_agents.core.outline import outline, quoted
from supervisord_agents.errors import SupervisorError
from supervisord_agents.tracker import rules
from supervisord_agents.tracker.backend import Backend, Limits, Prompt, Told
from supervisord_agents.tracker.questions import Question
from supervisord_agents.tracker.story import (
    SYSTEM,
    WANTED,
    Answer,
    Story,
    StoryRefused,
    answer_schema,
    checked,
    checked_answer,
    schema_of,
    still_true,
)

ALL = ""
"""The subject of the story of all that is open; any other is a graph."""
QUESTION_CHARACTERS = 500
QUESTIONS = 4
"""That wait for a model at a time; the rules answer more."""
SUBJECTS = 32
"""Graphs whose words are kept; of more, those that were asked for longest ago go."""
FEW_NODES = 200
"""Words about more tasks are made, and checked, in a thread."""
MAX_REST_S = 60.0
"""Between two tellings of models that do not answer, or not with the truth."""
OVERHEAD_TOKENS = 64
"""Of a chat template, at the most."""
log = structlog.get_logger()
T = TypeVar("T")


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """As configured: config.Tracker."""

    prompt_tokens: int = 4096
    answer_tokens: int = 512
    deadline_s: float = 30.0
    every_s: float = 1.0
    stale_s: float = 10.0
    eager: bool = False


USUAL = Settings()


class Words(msgspec.Struct, frozen=True, kw_only=True):
    """What a model told of a subject."""

    summary: str
    by: str
    at: float
    """Of the digest, in seconds since the epoch."""
    change: int
    """How many changes of the subject that digest knew."""
    final: bool
    """All had ended: no time makes them old."""


class Telling(msgspec.Struct, frozen=True, kw_only=True):
    """A story as it is given."""

    digest: Digest
    story: Story
    by: str
    at: float
    """When its summary was true, in seconds since the epoch."""
    behind: int = 0
    """Changes since."""


class Tally(msgspec.Struct, kw_only=True):
    """Since the start."""

    told: int = 0
    refused: int = 0
    """Answers of models that were not true, or not of the form."""
    failed: int = 0
    """Times that no model answered."""
    late: int = 0
    """Stories that were too old to be shown when they were there."""
    usage: Usage = Usage()


class _Subject(msgspec.Struct, kw_only=True):
    changes: int = 0
    wanted_at: float = float("-inf")
    waiting: int = 0
    """Who waits for words of it."""
    words: Words | None = None
    tried: int = -1
    """The changes that the last try knew."""


class Keeper:
    """`gather` makes the digest of a subject; `now` is the supervisor's clock. All methods belong to the loop's thread."""

    def __init__(
        self,
        gather: Callable[[str], Awaitable[Digest]],
        now: Callable[[], float],
        backend: Backend | None = None,
        settings: Settings = USUAL,
    ) -> None:
        self.tally = Tally()
        self._gather = gather
        self._now = now
        self._backend = backend
        self._settings = settings
        self._subjects: dict[str, _Subject] = {ALL: _Subject()}
        self._work = asyncio.Event()
        self._told = asyncio.Event()
        self._in_vain = 0
        """Tellings in a row that came to nothing."""
        self._questions = 0
        self._one = asyncio.Lock()
        self._thread = asyncio.Lock()
        self._made_now: dict[str, asyncio.Task[Digest]] = {}
        """Digests that are being made, by subject."""
        self._next: dict[str, asyncio.Task[Digest]] = {}
        """Those that nobody has begun to make."""

    def changed(self, graph: str) -> None:
        """A task of the graph has changed its state."""
        self._subjects[ALL].changes += 1
        subject = self._subjects.get(graph)
        if subject is not None:
            subject.changes += 1
        if self._backend is not None:
            self._work.set()

    # For those who ask

    async def story(self, name: str = ALL, wait_s: float = 0.0) -> Telling:
        """The story of a subject: in a model's words if there are such in time, else in those of the rules."""
        subject = self._wanted(name)
        if self._backend is not None:
            if not self._fresh(subject):
                subject.tried = min(subject.tried, subject.changes - 1)  # for the times that it tells
            self._work.set()
            await self._words_of(subject, wait_s if self._backend.standing().askable else 0.0)
        digest = await self._digest(name)
        told = await self._aside(rules.story, digest)
        words = await self._words(subject, digest)
        if words is None:
            return Telling(digest=digest, story=told, by=rules.NAME, at=digest.now)
        told = msgspec.structs.replace(told, summary=words.summary)
        return Telling(digest=digest, story=told, by=words.by, at=words.at, behind=subject.changes - words.change)

    async def _words(self, subject: _Subject, digest: Digest) -> Words | None:
        """A model's, if they are new enough, and true of the tasks as they are now."""
        words = subject.words
        if words is None or not self._fresh(subject):
            return None
        if await self._aside(partial(still_true, words.summary), digest):
            return words
        if subject.words is words:
            subject.words = None
        return None

    async def ask(self, question: str, name: str = ALL) -> tuple[Answer, str]:
        """An answer, and by whom. The rules answer what they understand; a model is asked the rest."""
        digest = await self._digest(name)
        answer = await self._aside(partial(rules.answer, question), digest)
        backend = self._backend
        if answer.understood or not digest.nodes or backend is None or not self._may_be_asked(backend):
            return answer, rules.NAME
        self._questions += 1
        try:
            async with asyncio.timeout(self._settings.deadline_s):
                await self._one.acquire()
            try:
                digest = await self._digest(name)  # of now, for others may have been answered before
                found = await self._answered(backend, digest, question)
            finally:
                self._one.release()
        except TimeoutError:
            found = None  # Others, or a back end that does not let go, took all the time.
        finally:
            self._questions -= 1
        return found if found is not None else (answer, rules.NAME)

    def _may_be_asked(self, backend: Backend) -> bool:
        """One more question."""
        return self._questions < QUESTIONS and backend.standing().askable

    async def _answered(self, backend: Backend, digest: Digest, question: str) -> tuple[Answer, str] | None:
        named = [node.id for node in (await self._aside(partial(Question, question), digest)).names]
        wanted = (
            f"Answer this question of a person from the tasks above, and cite the tasks: {quoted(question, QUESTION_CHARACTERS)}"
        )
        return await self._asked(backend, digest, wanted, answer_schema(digest, named), checked_answer)

    def _fresh(self, subject: _Subject) -> bool:
        words = subject.words
        if words is None:
            return False
        return (words.final and words.change == subject.changes) or self._now() - words.at <= self._settings.stale_s

    def _wanted(self, name: str) -> _Subject:
        """Its story is asked for."""
        subject = self._subjects.pop(name, None) or _Subject()
        self._subjects[name] = subject  # the last that was asked for is at the end
        subject.wanted_at = self._now()
        while len(self._subjects) > SUBJECTS + 1:
            oldest = self._subjects.pop(next(other for other in self._subjects if other != ALL))
            oldest.tried = oldest.changes  # Nobody tells of it any more.
            self._wake()
        return subject

    async def _digest(self, name: str) -> Digest:
        """Of now or later. While one is made, all who ask are given the next."""
        making = self._next.get(name)
        if making is None:
            making = self._next[name] = asyncio.ensure_future(self._made(name, self._made_now.get(name)))
            making.add_done_callback(_heard)
        return await asyncio.shield(making)

    async def _made(self, name: str, before: asyncio.Task[Digest] | None) -> Digest:
        if before is not None:
            await asyncio.wait([before])
        this = self._made_now[name] = self._next.pop(name)
        try:
            return await self._gather(name)
        finally:
            if self._made_now.get(name) is this:
                del self._made_now[name]

    async def _aside(self, work: Callable[[Digest], T], digest: Digest) -> T:
        """In a thread, if it is about many tasks; in one at a time, for the loop has to have its turn."""
        if len(digest.nodes) <= FEW_NODES:
            return work(digest)
        async with self._thread:
            return await asyncio.to_thread(work, digest)

    async def _words_of(self, subject: _Subject, wait_s: float) -> None:
        """Return when there are words that know as much as was known now, or after that time."""
        known = subject.changes
        subject.waiting += 1
        try:
            async with asyncio.timeout(wait_s):
                while subject.tried < known:
                    await self._told.wait()
        except TimeoutError:
            pass
        finally:
            subject.waiting -= 1

    # In the background

    async def run(self) -> None:
        """Have a model tell what is wanted, until cancelled; returns at once without one."""
        backend = self._backend
        if backend is None:
            return
        while True:
            await self._work.wait()
            self._work.clear()
            for name, subject in list(self._subjects.items()):
                if subject.tried < subject.changes and self._is_wanted(name, subject):
                    await self._tell(backend, name, subject)
            # All that changes meanwhile is one change.
            await asyncio.sleep(self._rest_s())

    def _rest_s(self) -> float:
        """Twice as long for each telling in a row that came to nothing."""
        every_s = self._settings.every_s
        return max(every_s, min(every_s * 2.0 ** min(self._in_vain, 32), MAX_REST_S))

    def _is_wanted(self, name: str, subject: _Subject) -> bool:
        """It was asked for of late, or is told whether or not somebody asks."""
        lately = self._now() - subject.wanted_at <= max(self._settings.stale_s, self._settings.deadline_s)
        return lately or subject.waiting > 0 or (name == ALL and self._settings.eager)

    async def _tell(self, backend: Backend, name: str, subject: _Subject) -> None:
        change = subject.changes
        try:
            async with self._one:
                # Questions may have been answered before.
                if not (backend.standing().askable and self._is_wanted(name, subject)):
                    return
                change = subject.changes
                digest = await self._digest(name)
                if not digest.nodes:
                    return  # No model says that better.
                found = await self._asked(backend, digest, WANTED, schema_of(digest), checked)
            if found is not None:
                story, by = found
                subject.words = Words(summary=story.summary, by=by, at=digest.now, change=change, final=digest.all_ended)
            self._in_vain = 0 if found is not None and self._in_time(subject) else self._in_vain + 1
        except SupervisorError as error:
            log.warning("no_story", subject=name, error=str(error))
        except Exception as error:
            # Words are not worth the daemon, which stops when a job of it fails.
            log.error("no_story", subject=name, error=repr(error), exc_info=error)
        finally:
            subject.tried = max(subject.tried, change)
            self._wake()

    def _wake(self) -> None:
        """All who wait for words look again."""
        told, self._told = self._told, asyncio.Event()
        told.set()

    def _in_time(self, subject: _Subject) -> bool:
        """Whether what was just told will be shown."""
        words = subject.words
        if words is None or self._fresh(subject):
            return True
        self.tally.late += 1
        log.info("tracker_too_late", backend=words.by, seconds=round(self._now() - words.at, 1), stale_s=self._settings.stale_s)
        return False

    async def _asked(
        self,
        backend: Backend,
        digest: Digest,
        wanted: str,
        schema: dict[str, Any],
        check: Callable[[str, Digest], T],
    ) -> tuple[T, str] | None:
        """What it answered, if that is true; it is told once what was wrong. None: it did not, and the rules are to answer."""
        question, wrong = wanted, ""
        for _ in range(2):
            if not backend.standing().askable:
                break
            try:
                told = await self._inference(backend, digest, question, schema)
            except Exception as error:
                expected = isinstance(error, SupervisorError | TimeoutError)
                self.tally.failed += 1
                why = str(error) if expected else repr(error)
                log.warning("tracker_failed", backend=backend.name, error=why or "it took too long", exc_info=not expected)
                return None
            self.tally.told += 1
            self.tally.usage += told.usage
            try:
                found = await self._aside(partial(check, told.text), digest)
                backend.judged("")
                return found, told.by or backend.name
            except StoryRefused as error:
                self.tally.refused += 1
                wrong = error.message
                log.info("tracker_refused", backend=told.by or backend.name, why=error.message)
                question = f"{wanted}\nYour last answer was refused: {quoted(error.message, 400)}. Answer again, in JSON only.\n"
            except Exception as error:
                log.error("tracker_check_failed", error=repr(error), exc_info=error)
                return None
        if wrong:
            backend.judged(wrong)
        return None

    async def _inference(self, backend: Backend, digest: Digest, question: str, schema: dict[str, Any]) -> Told:
        settings = self._settings
        answer_tokens = min(settings.answer_tokens, backend.context_tokens // 2)
        most = min(settings.prompt_tokens, backend.context_tokens - answer_tokens)
        # The same for every question that is not long: what is told of the tasks then begins the same.
        budget = most - backend.count(SYSTEM) - max(backend.count(question), most // 8) - OVERHEAD_TOKENS
        if budget <= 0:
            raise SupervisorError(f"the context of {backend.name} is too small: {backend.context_tokens} tokens.")
        data = await self._aside(partial(outline, budget=budget, count=backend.count), digest)
        prompt = Prompt(system=SYSTEM, data=data, question=question)
        async with asyncio.timeout(settings.deadline_s):
            return await backend.tell(prompt, schema, Limits(tokens=answer_tokens, seconds=settings.deadline_s))

    async def aclose(self) -> None:
        """Give the back end back."""
        if self._backend is not None:
            await self._backend.aclose()


def _heard(task: asyncio.Task[Digest]) -> None:
    """Whoever waits for it is told of its error; nobody else has to be."""
    if not task.cancelled():
        task.exception()
