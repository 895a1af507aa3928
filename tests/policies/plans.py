"""What is told of graphs, of the work and of standstills, taken out."""

from __future__ import annotations

from tests.policies.removal import removal

PLANS = "core/test_critical_path.py::test_"
STUCK = "core/test_stuck.py::test_"
DIGEST = "core/test_digest.py::test_"

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
    removal(
        "what is late may be as late again",
        "eta:eta_of",
        "-node.start - node.estimate_s if node.running else 0.0",
        "0.0",
        DIGEST + "what_is_late_may_be_as_late_again",
    ),
    removal(
        "a budget ends what is left",
        "eta:bounded",
        "eta.high_s <= left_s",
        "True",
        DIGEST + "a_budget_ends_what_is_left_of_its_graph",
    ),
    # What is next
    removal(
        "what an open breaker keeps is not next",
        "digest:Digest._stays",
        "or (note.kept and not note.busy)",
        "",
        "core/test_next.py::test_what_an_open_breaker_keeps_is_not_next_and_the_words_say_so",
    ),
    removal(
        "what waits for a busy agent is not the first",
        "digest:Digest._is_late",
        "self.note(node).busy",
        "False",
        "core/test_next.py::test_what_waits_for_a_busy_agent_is_next_but_after_what_may_start_now",
    ),
    removal(
        "of several agents one that may is enough",
        "placement:_Answer.hindrance",
        "agent not in paused and gate.left",
        "False",
        "core/test_next.py::test_of_several_agents_one_that_may_is_enough",
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
    # The story of the work, and when it will be done
    removal(
        "what holds a task up is looked for to the end",
        "digest:Digest._before",
        "walk.append(before)",
        "pass",
        DIGEST + "what_runs_what_waits_and_what_is_next",
    ),
    removal(
        "what failed only because of another is told apart",
        "digest:note_of",
        "secondary=task.ended_by_dependency",
        "secondary=False",
        DIGEST + "what_failed_of_itself_comes_before_what_did_because_of_it",
    ),
    removal(
        "errors of estimates add up by their squares",
        "eta:eta_of",
        "above += max(node.estimate_s * (high - 1.0), late_s) ** 2",
        "above = (math.sqrt(above) + max(node.estimate_s * (high - 1.0), late_s)) ** 2",
        DIGEST + "the_range_is_narrower_than_all_errors_at_once",
    ),
    removal(
        "of few workers the end is less certain",
        "eta:eta_of",
        "math.sqrt(max(1.0, usual_s / plan.end))",
        "1.0",
        DIGEST + "of_few_workers_the_spread_grows_with_the_root_of_the_time",
    ),
    removal(
        "an outline has so many tokens",
        "outline:_cut",
        "lines[:kept]",
        "lines",
        DIGEST + "it_never_takes_more_tokens_than_it_may[300]",
    ),
    removal(
        "what ended long ago is summed up in whole blocks",
        "outline:_ended",
        "min(max(budget // 40, 1), ENDED_BLOCK)",
        "1",
        DIGEST + "what_ended_long_ago_is_summed_up_in_blocks",
    ),
    removal(
        "words of others are harmless",
        "outline:quoted",
        ".translate(_HARMLESS)",
        "",
        DIGEST + "words_of_a_worker_are_in_quotes_and_nowhere_else",
    ),
]
