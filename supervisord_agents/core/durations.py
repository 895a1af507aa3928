"""How long tasks take, by kind (agent and type): learnt from every attempt that succeeds, asked at admission and for advice.

Three ways to predict stand beside each other, each with the error of what it predicted before it knew: the rule (what the
configuration says of the type), a moving average, and a regression on what is known of a task beforehand. The one that has been
least wrong is believed.

What is learnt is a function of the events alone; nothing that is asked changes it.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import msgspec

from supervisord_agents.core.model import TaskSpec
from supervisord_agents.core.regression import Regression
from supervisord_agents.core.task import Task

MOST_KINDS = 256
RECENT = 100
TYPE_CHARACTERS = 64
"""Of a type: those that begin alike are one kind."""
ENOUGH = 5
"""Observations before a kind's own figures are held against the rule."""
ENOUGH_FOR_REGRESSION = 10
ENOUGH_FOR_TIMEOUT = 20
TIMEOUT_QUANTILE = 0.95
TIMEOUT_FACTOR = 1.5
NEWEST = 0.2
"""Weight of the newest duration in the moving average."""
FEW = 5
"""Durations that count alike."""
NEWEST_ERROR = 0.1
WORST_ERROR = 10.0
SHORTEST_S = 0.001
LONGEST_S = 1e7
SHORT_S = 0.05
"""An error is a part of the duration, but of no less than this."""
REGRESSED_S = 0.25
"""Of shorter tasks nobody asks how long they take; they come by the thousand, and a regression costs ten times the rest."""
MOST_PENALTY = 10.0
RULE, AVERAGE, REGRESSION, GIVEN, UNKNOWN = "rule", "average", "regression", "given", "unknown"
Key = tuple[str, str]
_ONE_SIDE = 1.2816
"""Standard deviations above which a tenth of a normal distribution lies."""


class Features(NamedTuple):
    """What is known of a task before it runs."""

    input_bytes: int
    """In MessagePack."""
    prompt_characters: int
    dependencies: int


class Prediction(msgspec.Struct, frozen=True, gc=False):
    """`seconds` lie between `low_s` and `high_s` in about eight of ten cases."""

    seconds: float
    low_s: float
    high_s: float
    method: str
    error: float
    """Of the method so far: mean of the misses as parts of the durations; -1: not known."""
    count: int
    """Observations of the kind."""
    penalty: float = 1.0
    """By how much a cold start made it longer; in `seconds` already."""


NOTHING_KNOWN = Prediction(0.0, 0.0, 0.0, UNKNOWN, -1.0, 0)


class Kind(msgspec.Struct, array_like=True):
    """What is known of one agent's tasks of one type."""

    agent: str
    type: str
    count: int = 0
    recent: list[float] = []
    """The last durations, in seconds. One that was cut off by its timeout is in it with that."""
    average_s: float = 0.0
    average_error: float = -1.0
    cut: int = 0
    """Attempts cut off by their timeout."""
    warm: int = 0
    cold: int = 0
    cold_s: float = 0.0
    """Moving average of those that had to wait for a worker to come up, or were its first."""
    regression: Regression | None = None
    regression_error: float = -1.0

    @property
    def penalty(self) -> float:
        """How much longer a cold start takes: 1 where nothing else was seen."""
        if not self.warm or not self.cold:
            return 1.0
        return min(max(1.0, self.cold_s / max(self.average_s, SHORTEST_S)), MOST_PENALTY)

    def note(self, seconds: float) -> None:
        """Keep it among the recent ones."""
        self.recent.append(seconds)
        if len(self.recent) > RECENT:
            del self.recent[0]

    def observe(self, seconds: float, cold: bool) -> None:
        """Take up a duration, but for the regression."""
        self.note(seconds)
        count = self.count = self.count + 1
        average_s = self.average_s
        if count > 1:
            self.average_error = _newer_error(self.average_error, average_s * self.penalty if cold else average_s, seconds)
        if cold:
            self.cold += 1
            self.cold_s += max(NEWEST, 1 / self.cold) * (seconds - self.cold_s)
            if self.warm:
                return
        else:
            self.warm += 1
        self.average_s = average_s + (seconds - average_s) * (NEWEST if count > FEW else 1 / count)

    def regress(self, seconds: float, features: Features) -> None:
        """Take it up in the regression; before `observe`, whose average is one of its features."""
        if not self.count:
            return
        if self.regression is None:
            # The beginning: what the average says.
            self.regression = Regression([0.0, 1.0, 0.0, 0.0, 0.0])
        x = _vector(features, self.average_s)
        self.regression_error = _newer_error(self.regression_error, _seconds(self.regression.predict(x)), seconds)
        self.regression.learn(x, math.log(seconds))


class _Digest(NamedTuple):
    """Of a kind when it had `heard` of so many ends."""

    heard: int
    rule_s: float
    method: str
    error: float
    tenth_s: float
    ninetieth_s: float
    timeout_quantile_s: float


class _Outline(msgspec.Struct):
    """What a packed specification says of its kind."""

    type: str = ""
    input: msgspec.Raw = msgspec.Raw(b"\x80")


class _Prompt(msgspec.Struct):
    prompt: object = ""


_outline_decoder = msgspec.msgpack.Decoder(_Outline)
_prompt_decoder = msgspec.msgpack.Decoder(_Prompt)
_encoder = msgspec.msgpack.Encoder()


class Durations:
    """All kinds, the one that was heard of last at the end; of too many the first goes."""

    def __init__(self) -> None:
        self.kinds: dict[Key, Kind] = {}
        self.cold: set[str] = set()
        """Running tasks whose worker had to come up first, or does its first task."""
        self._digests: dict[Key, _Digest] = {}

    def succeeded(self, task: Task, now: float) -> None:
        """The running attempt has done its work."""
        seconds = min(max(now - task.started_at, SHORTEST_S), LONGEST_S)
        outline = _outline_decoder.decode(task.packed)
        kind = self._heard(task.agent, outline.type)
        cold = task.id in self.cold
        if (seconds >= REGRESSED_S or kind.average_s >= REGRESSED_S) and not (cold and kind.warm):
            kind.regress(seconds, _features_of(outline.input, len(task.dependencies)))
        kind.observe(seconds, cold)

    def cut_off(self, task: Task) -> None:
        """The running attempt took longer than it may: without this, timeouts made of durations could only shrink."""
        kind = self._heard(task.agent, _outline_decoder.decode(task.packed).type)
        kind.cut += 1
        kind.note(min(max(task.timeout_s, SHORTEST_S), LONGEST_S))

    def predict(self, spec: TaskSpec, rule_s: float, *, cold: bool = False) -> Prediction:
        """How long an attempt takes, by the task's own estimate if it has one.

        `rule_s` is what the configuration says of its type, 0 for nothing; `cold`: its worker has to come up first.
        """
        key = (spec.agent, spec.type[:TYPE_CHARACTERS])
        kind = self.kinds.get(key)
        if spec.estimate_s:
            return Prediction(spec.estimate_s, spec.estimate_s, spec.estimate_s, GIVEN, -1.0, kind.count if kind else 0)
        if kind is None or not kind.count:
            return NOTHING_KNOWN if not rule_s else Prediction(rule_s, rule_s / 2, rule_s * 2, RULE, -1.0, 0)
        digest = self._digest(key, kind, rule_s)
        penalty = kind.penalty if cold else 1.0
        if digest.method == REGRESSION and kind.regression is not None:
            seconds = _seconds(kind.regression.predict(_vector(features_of(spec), kind.average_s)))
            spread = math.exp(_ONE_SIDE * math.sqrt(kind.regression.variance))
            low_s, high_s = seconds / spread, seconds * spread
        elif digest.method == AVERAGE:
            seconds, low_s, high_s = kind.average_s, digest.tenth_s, digest.ninetieth_s
        else:
            seconds, low_s, high_s = rule_s, digest.tenth_s, digest.ninetieth_s
        low_s, seconds, high_s = min(low_s, seconds), seconds * penalty, max(high_s, seconds) * penalty
        return Prediction(seconds, low_s, high_s, digest.method, digest.error, kind.count, penalty)

    def timeout_s(self, spec: TaskSpec, rule_s: float, most_s: float, floor_s: float) -> float:
        """How long an attempt may take, going by its kind: half as long again as the 95th percentile of the recent ones.

        `rule_s` as in `predict`; `most_s` unless enough is known; never more than that, nor less than `floor_s` if that is less.
        """
        key = (spec.agent, spec.type[:TYPE_CHARACTERS])
        kind = self.kinds.get(key)
        if kind is None or len(kind.recent) < ENOUGH_FOR_TIMEOUT:
            return most_s
        usual_s = self._digest(key, kind, rule_s).timeout_quantile_s
        predicted = self.predict(spec, rule_s)
        if predicted.method == REGRESSION:  # a task that is larger than all before it
            usual_s = max(usual_s, predicted.seconds)
        return min(most_s, max(floor_s, usual_s * TIMEOUT_FACTOR))

    def restore(self, kinds: list[Kind], cold: list[str]) -> None:
        """All that a snapshot keeps."""
        self.kinds = {(kind.agent, kind.type): kind for kind in kinds}
        self.cold = set(cold)

    def _heard(self, agent: str, label: str) -> Kind:
        key = (agent, label[:TYPE_CHARACTERS])
        kinds = self.kinds
        kind = kinds.pop(key, None)
        if kind is None:
            if len(kinds) >= MOST_KINDS:
                oldest = next(iter(kinds))
                del kinds[oldest]
                self._digests.pop(oldest, None)
            kind = Kind(*key)
        kinds[key] = kind
        return kind

    def _digest(self, key: Key, kind: Kind, rule_s: float) -> _Digest:
        """Made anew when a sixteenth more is known."""
        digest = self._digests.get(key)
        heard = kind.count + kind.cut
        if digest is None or digest.rule_s != rule_s or not 0 <= heard - digest.heard <= min(heard, RECENT) // 16:
            self._digests[key] = digest = _digest_of(kind, heard, rule_s)
        return digest


def features_of(spec: TaskSpec) -> Features:
    """Of a task that is not there yet."""
    return _features_of(_encoder.encode(spec.input), len(spec.dependencies))


def quantile(ascending: list[float], part: float) -> float:
    """Of values in order, linear between two of them (type 7 of R. J. Hyndman and Y. Fan, 1996)."""
    place = part * (len(ascending) - 1)
    below = int(place)
    above = min(below + 1, len(ascending) - 1)
    return ascending[below] + (ascending[above] - ascending[below]) * (place - below)


def _digest_of(kind: Kind, heard: int, rule_s: float) -> _Digest:
    ascending = sorted(kind.recent)
    error = -1.0
    for seconds in kind.recent if rule_s else ():
        error = _newer_error(error, rule_s, seconds)
    ways = [(error, RULE)] if rule_s else []
    if kind.count >= ENOUGH or not ways:
        ways.append((kind.average_error, AVERAGE))
    if kind.count >= ENOUGH and kind.regression is not None and kind.regression.count >= ENOUGH_FOR_REGRESSION:
        ways.append((kind.regression_error, REGRESSION))
    least, method = min(ways, key=lambda way: way[0])
    quantiles = (quantile(ascending, part) for part in (0.1, 0.9, TIMEOUT_QUANTILE))
    return _Digest(heard, rule_s, method, least, *quantiles)


def _features_of(packed_input: bytes | msgspec.Raw, dependencies: int) -> Features:
    prompt = _prompt_decoder.decode(packed_input).prompt
    return Features(len(memoryview(packed_input)), len(prompt) if isinstance(prompt, str) else 0, dependencies)


def _vector(features: Features, average_s: float) -> tuple[float, ...]:
    return (
        1.0,
        math.log(max(average_s, SHORTEST_S)),
        math.log(features.input_bytes + 1.0),
        math.log(features.prompt_characters + 1.0),
        math.log(features.dependencies + 1.0),
    )


def _seconds(log_s: float) -> float:
    return math.exp(min(max(log_s, math.log(SHORTEST_S)), math.log(LONGEST_S)))


def _newer_error(error: float, expected_s: float, seconds: float) -> float:
    miss = abs(expected_s - seconds) / (seconds if seconds > SHORT_S else SHORT_S)
    if miss > WORST_ERROR:
        miss = WORST_ERROR
    return miss if error < 0 else error + NEWEST_ERROR * (miss - error)
