"""Where and by whom a task is run: sizes of pools, borrowing, limits of agents, breakers, categories."""

from __future__ import annotations

from tests.policies.removal import removal

PLACEMENT = "core/test_placement.py::test_"

REMOVALS = [
    removal(
        "a hybrid pool grows when many wait",
        "scaling:Size.due",
        "self._crowded_since + self._rule.scale_up_s",
        "inf",
        PLACEMENT + "a_hybrid_pool_grows_by_one_when_more_than_five_wait_for_ten_seconds",
    ),
    removal(
        "a hybrid pool grows when few wait for long",
        "scaling:Size.due",
        "self._waiting_since + self._rule.scale_up_wait_s",
        "inf",
        PLACEMENT + "a_hybrid_pool_grows_for_few_that_wait_for_long",
    ),
    removal(
        "a hybrid pool shrinks when idle",
        "scaling:Size.advance",
        "self.workers -= 1",
        "pass",
        PLACEMENT + "a_hybrid_pool_shrinks_by_one_when_not_all_had_work_for_a_minute",
    ),
    removal(
        "a pool runs no more than its size",
        "placement:Placement.room",
        "if pool in self._sizes:",
        "if False:",
        PLACEMENT + "a_hybrid_pool_grows_by_one_when_more_than_five_wait_for_ten_seconds",
    ),
    removal(
        "borrowing",
        "placement:_Answer.borrowed",
        "if rule is None or room[pool] or not rule.borrows_from:",
        "if True:",
        PLACEMENT + "a_pool_whose_workers_are_busy_borrows_from_one_for_which_nothing_waits",
    ),
    removal(
        "a lender with work lends nothing",
        "placement:Placement.lends",
        "table.ready.waiting(pool) > _of_pool(table, pool, starts)",
        "False",
        PLACEMENT + "nothing_is_lent_either_while_it_waits_for_its_agent_only",
    ),
    removal(
        "a lender keeps a worker",
        "placement:Placement.lends",
        "size.workers - 1 - lent",
        "size.workers - lent",
        PLACEMENT + "a_pool_whose_workers_are_busy_borrows_from_one_for_which_nothing_waits",
    ),
    removal(
        "licences: an agent runs so many at once",
        "placement:_Answer._made",
        "if rule.max_running:",
        "if False:",
        PLACEMENT + "an_agent_runs_no_more_at_once_than_its_licence_allows",
    ),
    removal(
        "an agent starts so many a minute",
        "placement:_Answer._made",
        "left = min(left, self._left(placement.rate_of_agent(agent)))",
        "pass",
        PLACEMENT + "an_agent_starts_no_more_often_than_its_rate",
    ),
    removal(
        "a start uses up a rate",
        "rates:Rate.take",
        "self._due = max(self._due, now) + self._every_s",
        "pass",
        PLACEMENT + "an_agent_starts_no_more_often_than_its_rate",
    ),
    removal(
        "a herd is smoothed",
        "placement:_Answer.rated",
        "self._left(self._placement.rate_of_pool(pool))",
        "MANY",
        PLACEMENT + "a_pool_smooths_a_herd",
    ),
    removal(
        "breakers open",
        "breakers:state",
        "health is None or not rule.failures or health.failures < rule.failures",
        "True",
        PLACEMENT + "an_agent_that_fails_again_and_again_is_left_alone_and_then_tried_by_one",
    ),
    removal(
        "an open breaker lets a probe through",
        "breakers:state",
        "now < tried_at(rule, health)",
        "True",
        PLACEMENT + "an_agent_that_fails_again_and_again_is_left_alone_and_then_tried_by_one",
    ),
    removal(
        "only failures of the agent open its breaker",
        "breakers:observe",
        "category_of(failure) in COUNTED",
        "True",
        PLACEMENT + "failures_of_the_task_itself_open_no_breaker",
    ),
    removal(
        "a timeout counts against the agent",
        "attempts:ticked",
        "breakers.observe(table.health, task.agent, failure, now)",
        "pass",
        PLACEMENT + "a_timeout_counts_against_the_agent",
    ),
    removal(
        "fallback agents",
        "placement:_Answer._choose",
        "task.choices or (task.agent,)",
        "(task.agent,)",
        PLACEMENT + "a_task_with_a_choice_goes_to_the_next_agent_while_the_first_is_left_alone",
    ),
    removal(
        "what is only busy is waited for",
        "placement:_Answer._choose",
        "break  # It is busy, and what is busy is waited for.",
        "continue",
        PLACEMENT + "an_agent_that_is_only_busy_is_waited_for",
    ),
    removal(
        "a provider that fails is left alone",
        "placement:Placement.answered",
        "failed(self.providers, provider, failure, now)",
        "pass",
        PLACEMENT + "no_agent_of_a_provider_that_fails_is_started",
    ),
    removal(
        "a provider is left alone for as long as it asks",
        "placement:Placement.answered",
        "if retry_after_s > 0:",
        "if False:",
        PLACEMENT + "a_provider_is_left_alone_for_as_long_as_it_asks",
    ),
    removal(
        "Retry-After",
        "policy:after_failure",
        "if asked_s > delay_s:",
        "if False:",
        PLACEMENT + "a_retry_is_not_sooner_than_a_provider_has_asked_for",
    ),
]
