"""What the daemon makes of durations at admission."""

from __future__ import annotations

from supervisord_agents.config import Tasks
from supervisord_agents.core.durations import Durations
from supervisord_agents.core.model import TaskSpec
from supervisord_agents.core.task import new_task
from supervisord_agents.daemon.forecast import Forecast


def seen(*types: str) -> Durations:
    """Twenty tasks of 40 s of each type."""
    durations = Durations()
    for label in types * 20:
        durations.succeeded(new_task("g", TaskSpec(id="a", type=label), 0, 0.0, ""), 40.0)
    return durations


def test_a_timeout_goes_by_the_kind_only_if_asked_to_and_only_for_tasks_with_a_type() -> None:
    durations = seen("build", "")
    adaptive = Forecast(Tasks(adaptive_timeouts=True), durations)
    assert adaptive.timeout_s(TaskSpec(type="build")) == 60.0
    assert adaptive.timeout_s(TaskSpec()) == 600.0
    assert Forecast(Tasks(), durations).timeout_s(TaskSpec(type="build")) == 600.0


def test_a_timeout_is_never_above_the_configured_one_nor_below_the_floor() -> None:
    durations = seen("build")
    build = TaskSpec(type="build")
    assert Forecast(Tasks(adaptive_timeouts=True, timeouts_s={"build": 50.0}), durations).timeout_s(build) == 50.0
    assert Forecast(Tasks(adaptive_timeouts=True, timeout_floor_s=90.0), durations).timeout_s(build) == 90.0


def test_an_estimate_is_filled_in_where_none_is_given() -> None:
    forecast = Forecast(Tasks(), seen("build"))
    assert forecast.estimate_s(TaskSpec(type="build")) == 40.0
    assert forecast.estimate_s(TaskSpec(type="build", estimate_s=3.0)) == 3.0
    assert forecast.estimate_s(TaskSpec(type="code_review")) == 60.0
    assert forecast.estimate_s(TaskSpec(type="unheard of")) == 0.0
