"""What becomes of an attempt: fences, retries, timeouts, deadlines, losses, steps."""

from __future__ import annotations

from tests.policies.removal import removal

ATTEMPTS = "core/test_attempts.py::test_"
STEPS = "core/test_checkpoints.py::test_"
STALLS = "core/test_stalls.py::test_"

REMOVALS = [
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
        "attempts:running_attempt",
        " or attempt != task.attempt",
        "",
        ATTEMPTS + "the_end_of_an_attempt_that_is_over_is_ignored",
    ),
    removal(
        "retries",
        "policy:after_failure",
        "not failure.retriable or failure.category in _FINAL or spec.max_retries == 0",
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
        "1.0 - JITTER + 2.0 * JITTER * _part(task_id, attempt)",
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
    removal(
        "sleep of the machine does not count towards timeouts",
        "attempts:slept",
        "min(event.seconds, now - task.started_at)",
        "0.0",
        ATTEMPTS + "time_that_the_machine_slept_does_not_count_towards_the_timeout_of_what_ran_then",
    ),
    # Progress
    removal(
        "what makes no progress is stalled",
        "stalls:Stalls.stalled",
        "now - watched.moved_at > watched.limit_s",
        "False",
        STALLS + "an_attempt_is_stalled_when_it_has_not_moved_for_longer_than_its_limit",
    ),
    removal(
        "progress counts",
        "stalls:Stalls.moved",
        "watched.moved_at = now",
        "pass",
        STALLS + "an_attempt_is_stalled_when_it_has_not_moved_for_longer_than_its_limit",
    ),
    removal(
        "types have limits of their own",
        "stalls:Stalls.begun",
        "self._limits_s.get(type, self._limit_s)",
        "self._limit_s",
        STALLS + "limits_go_by_type_and_0_is_never",
    ),
    removal(
        "time in which nobody was heard does not count",
        "stalls:Stalls.unheard",
        "watched.moved_at += seconds",
        "pass",
        STALLS + "time_in_which_nobody_was_heard_does_not_count",
    ),
]
