"""What is expected of a task by its kind: how long it takes, and how long it may take."""

from __future__ import annotations

from supervisord_agents.config import Tasks
from supervisord_agents.core.durations import Durations, Prediction
from supervisord_agents.core.model import TaskSpec


class Forecast:
    """From what the configuration says, and from what has been seen."""

    def __init__(self, config: Tasks, durations: Durations) -> None:
        self._config = config
        self._durations = durations

    def prediction(self, spec: TaskSpec, *, cold: bool = False) -> Prediction:
        """How long an attempt takes; an estimate that the task brings along is believed."""
        return self._durations.predict(spec, self._rule_s(spec), cold=cold)

    def estimate_s(self, spec: TaskSpec) -> float:
        """The same in seconds, to the millisecond; 0: not known."""
        return spec.estimate_s or round(self.prediction(spec).seconds, 3)

    def timeout_s(self, spec: TaskSpec) -> float:
        """How long an attempt may take that does not say so itself.

        Tasks without a type may be of any kind: what others took says nothing of them.
        """
        config = self._config
        most_s = config.timeouts_s.get(spec.type) or config.timeout_s
        if not (config.adaptive_timeouts and spec.type):
            return most_s
        return round(self._durations.timeout_s(spec, self._rule_s(spec), most_s, config.timeout_floor_s), 1)

    def _rule_s(self, spec: TaskSpec) -> float:
        return self._config.estimates_s.get(spec.type, 0.0)
