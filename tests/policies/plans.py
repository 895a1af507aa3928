"""What is told of graphs and of standstills, taken out."""

from __future__ import annotations

from tests.policies.removal import removal

PLANS = "core/test_critical_path.py::test_"
STUCK = "core/test_stuck.py::test_"

REMOVALS = [
    # Plans of graphs
    removal(
        "the latest start is that which delays nothing",
        "critical_path:CriticalPath._backward",
        "min(latest[before], times.lst)",
        "latest[before]",
        PLANS + "the_example_of_the_research",
    ),
    removal(
        "what runs counts with what is left of it",
        "critical_path:CriticalPath._forward",
        "max(0.0, node.start + node.estimate_s)",
        "node.estimate_s",
        PLANS + "what_runs_counts_with_what_is_left_and_what_has_ended_with_its_real_times",
    ),
    removal(
        "what runs only after a failure is not expected",
        "critical_path:CriticalPath._forward",
        "is not None]",
        "is not None and False]",
        PLANS + "what_runs_only_after_a_failure_is_not_expected",
    ),
    removal(
        "other graphs delay one that waits for them",
        "picture:Picture._place",
        "return self._add(before)",
        "return -1",
        PLANS + "what_a_graph_waits_for_elsewhere_delays_it",
    ),
    removal(
        "a forecast has so many workers",
        "forecast:Forecast._start",
        " and self._free[pool] > 0",
        "",
        PLANS + "one_worker_does_the_longest_path_first",
    ),
    removal(
        "a forecast counts with others",
        "picture:Picture.take_rivals",
        "if task.order not in self._places",
        "if False",
        PLANS + "others_take_workers_and_come_first_if_they_are_more_urgent",
    ),
    removal(
        "a forecast knows of pauses",
        "forecast:Forecast._becomes_ready",
        "self._pauses.holding_all(node.pool, node.agents) is None",
        "True",
        PLANS + "what_is_paused_never_starts",
    ),
    # Standstills
    removal(
        "a ready task that nobody starts is noticed",
        "stuck:ready_holds",
        "room.get(pool, 0) > 0 and",
        "False and",
        STUCK + "what_holds_ready_tasks",
    ),
    removal(
        "a task that waits for nothing is noticed",
        "stuck:blocked_holds",
        "if link is None and walk",
        "if False and walk",
        STUCK + "a_task_that_waits_for_nothing",
    ),
    removal(
        "a cycle of waits is named",
        "stuck:blocked_holds",
        "link in walk",
        "False",
        STUCK + "a_cycle_is_named_from_wherever_one_walks",
    ),
]
