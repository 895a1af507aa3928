"""What a graph may use."""

from __future__ import annotations

from tests.policies.removal import removal

BUDGETS = "core/test_budgets.py::test_"

REMOVALS = [
    removal(
        "nothing starts when the attempts are used up",
        "budgets:Budgets._look",
        "self.late.append(task)",
        "pass",
        BUDGETS + "a_retry_is_an_attempt",
    ),
    removal(
        "what is ready when the attempts are used up ends",
        "budgets:Budgets.moved",
        "self.used_up.append(self.holder(task.graph))",
        "pass",
        BUDGETS + "when_the_attempts_are_used_up_what_runs_goes_on_and_nothing_more_starts",
    ),
    removal(
        "an attempt that was lost is given back",
        "budgets:Budgets.moved",
        "account.attempts -= 1",
        "pass",
        BUDGETS + "what_was_lost_with_the_daemon_or_stopped_by_a_pause_is_given_back",
    ),
    removal(
        "used-up tokens and money end the graph",
        "budgets:Budgets.count",
        "account.spent(account.usage)",
        '""',
        BUDGETS + "when_it_is_used_up_what_runs_is_stopped_and_all_else_ends",
    ),
    removal(
        "all that is left of a closed graph ends",
        "closing:Closing.advance",
        "if not task.ended:",
        "if False:",
        BUDGETS + "when_it_is_used_up_what_runs_is_stopped_and_all_else_ends",
    ),
    removal(
        "used-up time ends the graph",
        "budgets:Budgets.due",
        "self.close(graph, self[graph].time)",
        "pass",
        BUDGETS + "the_time_counts_from_the_submission_and_ends_what_runs",
    ),
    removal(
        "what is over budget is not retried",
        "admission:check_retry",
        "account.over_at(now)",
        '""',
        BUDGETS + "what_is_over_budget_is_not_retried",
    ),
]
