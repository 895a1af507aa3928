"""Every policy of the core taken out, one at a time, each with the fast test that goes red without it."""

from __future__ import annotations

from typing import NamedTuple

from tests.support.mutation import Mutation


class Removal(NamedTuple):
    """What the code does without a policy, and what notices: a test below tests/unit."""

    mutation: Mutation
    test: str

    @property
    def name(self) -> str:
        return self.mutation.name


def removal(name: str, where: str, old: str, new: str, test: str) -> Removal:
    """`where` is within supervisord_agents.core."""
    return Removal(Mutation(name, f"supervisord_agents.core.{where}", old, new), f"tests/unit/{test}")


ORDER = "core/test_order.py::test_"
ATTEMPTS = "core/test_attempts.py::test_"
PAUSES = "core/test_pauses.py::test_"
EDGES = "core/test_dependents.py::test_"
BACKLOG = "core/test_backlog.py::test_"
SAGA = "core/test_saga.py::test_"
STEPS = "core/test_checkpoints.py::test_"

REMOVALS = [
    # Which is started next
    removal(
        "priority",
        "ready:ReadyQueue.rank",
        "task.urgency + age",
        "age",
        ORDER + "priority_comes_first_then_the_longest_remaining_path_then_submission",
    ),
    removal(
        "ageing",
        "ready:ReadyQueue.rank",
        "int(task.history[-1].at // self._ageing_s) if self._ageing_s else 0",
        "0",
        ORDER + "what_waits_long_enough_is_passed_by_nobody",
    ),
    removal(
        "longest path first",
        "ready:ReadyQueue.rank",
        "-task.rest_s",
        "0.0",
        ORDER + "priority_comes_first_then_the_longest_remaining_path_then_submission",
    ),
    removal(
        "a path is as long as what waits behind it",
        "submit:_inherit",
        "before.estimate_s + after.rest_s",
        "before.estimate_s",
        ORDER + "paths_are_right_in_any_order_within_a_graph",
    ),
    removal(
        "paths grow with later graphs",
        "submit:_measure",
        "if task.state is _READY:",
        "if False:",
        ORDER + "a_later_graph_lengthens_the_path_of_an_earlier_task",
    ),
    removal(
        "priority inheritance",
        "submit:_inherit",
        "min(after.urgency, before.urgency)",
        "before.urgency",
        ORDER + "what_an_urgent_task_waits_for_is_urgent_too",
    ),
    removal(
        "a bound on what one graph lengthens",
        "submit:_measure",
        "while grown and visits:",
        "while grown:",
        ORDER + "lengthening_earlier_paths_is_bounded",
    ),
    removal(
        "pools are bulkheads",
        "ready:ReadyQueue.first",
        "self._lanes.get(pool, {})",
        "{p: l for lanes in self._lanes.values() for p, l in lanes.items()}",
        ORDER + "pools_are_offered_by_their_own_number_of_slots",
    ),
    removal(
        "no more than there are slots",
        "ready:_Lane.best",
        "front[: max(count, 0)]",
        "front[:]",
        ORDER + "pools_are_offered_by_their_own_number_of_slots",
    ),
    # Pauses
    removal(
        "a pause of all or of a pool",
        "pauses:Pauses.whole",
        "Scope() in self or Scope(pool=pool) in self",
        "False",
        PAUSES + "what_is_paused_is_passed_over",
    ),
    removal(
        "a pause of an agent: lanes",
        "ready:ReadyQueue.first",
        " if agent not in without",
        "",
        PAUSES + "what_is_paused_is_passed_over",
    ),
    removal(
        "a pause may stop what runs",
        "attempts:paused",
        "if not event.stop:",
        "if True:",
        PAUSES + "what_is_stopped_is_ready_again_and_has_used_no_retry",
    ),
    # Dependencies
    removal(
        "a task waits for all it depends on",
        "dependents:_tell",
        "if not after.unmet:",
        "if after.state is _BLOCKED:",
        EDGES + "a_join_waits_for_all",
    ),
    removal(
        "edges have conditions",
        "dependents:blocks",
        "EDGE_RULES[edge.when][edge.before.state] is not None",
        "False",
        EDGES + "a_failure_satisfies_on_failure_and_always_and_fails_on_success",
    ),
    removal(
        "an end goes down the whole graph",
        "dependents:settle",
        "_tell(table, edges, now)",
        "pass",
        EDGES + "a_failure_goes_down_the_whole_graph",
    ),
    removal(
        "what has ended already counts",
        "submit:submitted",
        "obstacle(task) if task.unmet < len(task.dependencies) else None",
        "None",
        EDGES + "a_dependency_that_has_ended_already_is_applied_at_once",
    ),
    # Attempts
    removal(
        "attempt numbers are a fence: starts",
        "attempts:started",
        " or event.attempt != task.attempt + 1",
        "",
        ATTEMPTS + "a_start_that_is_not_of_the_next_attempt_is_ignored",
    ),
    removal(
        "attempt numbers are a fence: ends",
        "attempts:finished",
        " or event.attempt != task.attempt",
        "",
        ATTEMPTS + "the_end_of_an_attempt_that_is_over_is_ignored",
    ),
    removal(
        "retries",
        "policy:after_failure",
        "not failure.retriable or spec.max_retries == 0",
        "True",
        ATTEMPTS + "a_failure_is_retried_after_a_backoff_that_doubles",
    ),
    removal(
        "retries are numbered",
        "policy:after_failure",
        "task.retries >= spec.max_retries",
        "False",
        ATTEMPTS + "a_failure_is_retried_after_a_backoff_that_doubles",
    ),
    removal(
        "what no retry can mend is not retried",
        "policy:after_failure",
        "not failure.retriable or ",
        "",
        ATTEMPTS + "a_failure_that_no_retry_can_mend_ends_the_task_with_its_own_code",
    ),
    removal(
        "the backoff doubles",
        "policy:retry_delay_s",
        "2.0 ** (retry - 1)",
        "1.0",
        ATTEMPTS + "a_failure_is_retried_after_a_backoff_that_doubles",
    ),
    removal(
        "the backoff is capped",
        "policy:retry_delay_s",
        "BACKOFF_LIMIT_S",
        "1e9",
        ATTEMPTS + "the_delay_is_capped_spread_and_the_same_every_time",
    ),
    removal(
        "the backoff is spread by a jitter",
        "policy:retry_delay_s",
        "1.0 - JITTER + 2.0 * JITTER * part",
        "1.0",
        ATTEMPTS + "the_delay_is_capped_spread_and_the_same_every_time",
    ),
    removal(
        "timeouts",
        "timers:Timers.set_timeout",
        "if task.timeout_s:",
        "if False:",
        ATTEMPTS + "an_attempt_that_takes_too_long_is_stopped_and_retried",
    ),
    removal(
        "a timeout stops the worker",
        "attempts:stop",
        "if task.state is State.RUNNING:",
        "if False:",
        ATTEMPTS + "an_attempt_that_takes_too_long_is_stopped_and_retried",
    ),
    removal(
        "deadlines",
        "timers:Timers.set_deadline",
        "if task.deadline_at:",
        "if False:",
        ATTEMPTS + "a_deadline_ends_a_task_in_any_state",
    ),
    removal(
        "no retry past the deadline",
        "policy:after_failure",
        "task.deadline_at and retry_at >= task.deadline_at",
        "False",
        ATTEMPTS + "a_retry_that_would_start_after_the_deadline_is_not_waited_for",
    ),
    removal(
        "an attempt lost with the daemon costs no retry",
        "attempts:restarted",
        "policy.after_loss(task)",
        "policy.after_failure(task, policy.after_loss(task).failure, now)",
        ATTEMPTS + "a_restart_takes_running_attempts_back_without_using_a_retry",
    ),
    removal(
        "what ends daemons is put aside",
        "policy:after_loss",
        "task.lost >= LOST_LIMIT",
        "False",
        ATTEMPTS + "a_task_lost_ten_times_is_dead",
    ),
    removal(
        "an orderly stop is held against nobody",
        "attempts:restarted",
        "if not event.clean:",
        "if True:",
        ATTEMPTS + "an_attempt_ended_by_an_orderly_stop_is_not_held_against_the_task",
    ),
    # Another round
    removal(
        "another round has a fresh budget",
        "revive:Revival._revive",
        "task.retries = task.lost = 0",
        "pass",
        EDGES + "a_retry_gives_a_fresh_budget_and_a_new_attempt_number",
    ),
    removal(
        "another round brings back what ended because of it",
        "revive:Revival._visit",
        "if not self._obstacles[after.id]:",
        "if False:",
        EDGES + "a_retry_brings_back_what_ended_only_because_of_it",
    ),
    removal(
        "another round leaves what ended by itself",
        "revive:Revival._visit",
        " or not after.ended_by_dependency",
        "",
        EDGES + "a_retry_does_not_touch_what_failed_by_itself_or_was_cancelled_by_itself",
    ),
    removal(
        "a cancelled subtree is whole",
        "cancel:Wave._reach",
        "self._todo.append(after)",
        "pass",
        EDGES + "a_cancelled_subtree_ends_whatever_its_edges",
    ),
    # Large works, and what has ended
    removal(
        "one event looks at so many edges",
        "cancel:cancelled",
        "table.step or ALL",
        "ALL",
        BACKLOG + "a_cancellation_of_many_takes_several_steps_and_ends_all",
    ),
    removal(
        "an end is told in steps",
        "dependents:settle",
        "left = table.step or ALL",
        "left = ALL",
        BACKLOG + "a_failure_is_told_to_many_in_steps",
    ),
    removal(
        "deadlines fire in steps",
        "attempts:ticked",
        "table.step or None",
        "None",
        BACKLOG + "many_deadlines_at_once_fire_in_steps",
    ),
    # Sagas
    removal(
        "what succeeded of a failed graph is undone",
        "compensations:begin",
        "not saga.undone_by",
        "False",
        SAGA + "what_succeeded_is_undone_the_last_first_and_one_after_the_other",
    ),
    removal(
        "the last that ended is undone first",
        "compensations:_begin",
        "reversed(saga.done)",
        "saga.done",
        SAGA + "what_succeeded_is_undone_the_last_first_and_one_after_the_other",
    ),
    removal(
        "nothing is undone before all has ended",
        "saga:Sagas.moved",
        "saga.open -= 1",
        "saga.open = 0",
        SAGA + "nothing_is_undone_before_the_last_task_of_the_graph_has_ended",
    ),
    removal(
        "what is only cancelled is not undone",
        "compensations:begin",
        " and failed(table.graphs.tasks(graph))",
        "",
        SAGA + "what_succeeds_is_not_undone_and_what_is_only_cancelled_is_not_either",
    ),
    removal(
        "the others are undone though one could not be",
        "compensations:_begin",
        "Dependency(specs[-1].id, When.ALWAYS)",
        "Dependency(specs[-1].id)",
        SAGA + "each_is_undone_though_the_one_before_it_could_not_be",
    ),
    removal(
        "what cannot be undone is a dead letter",
        "saga:Sagas.lasting",
        "not undone or verdict.state not in _FAILED",
        "True",
        SAGA + "one_that_cannot_be_undone_is_dead_and_says_what_still_stands",
    ),
    # Steps
    removal(
        "finished steps are given to the next attempt",
        "checkpoints:Checkpoints.record",
        "if not self.news(event):",
        "if True:",
        STEPS + "a_step_is_given_to_the_next_attempt_if_and_only_if_it_was_recorded_as_done",
    ),
    removal(
        "a failure keeps the steps, a success does not",
        "checkpoints:Checkpoints.moved",
        "if after is State.SUCCEEDED:",
        "if False:",
        STEPS + "success_and_the_archive_end_them_and_a_failure_does_not",
    ),
    removal(
        "a task has so many steps",
        "checkpoints:Checkpoints.check",
        "event.step not in before.by_name and len(before.by_name) >= MAX_STEPS",
        "False",
        STEPS + "a_task_has_so_many_steps_and_no_more",
    ),
]
