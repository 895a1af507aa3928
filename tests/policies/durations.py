"""How long tasks take, and whether they are worth handing over."""

from __future__ import annotations

from tests.policies.removal import removal

DURATIONS = "core/test_durations.py::test_"
ADVICE = "core/test_advice.py::test_advice"

REMOVALS = [
    removal(
        "a rule until enough was seen",
        "durations:_digest_of",
        "kind.count >= ENOUGH or not ways",
        "True",
        DURATIONS + "the_rule_is_believed_until_there_is_something_better",
    ),
    removal(
        "the least wrong prediction is believed",
        "durations:_digest_of",
        "min(ways, key=lambda way: way[0])",
        "ways[0]",
        DURATIONS + "the_rule_is_believed_until_there_is_something_better",
    ),
    removal(
        "the average follows the newest",
        "durations:Kind.observe",
        "NEWEST if count > FEW else 1 / count",
        "1 / count",
        DURATIONS + "the_average_follows_a_drift",
    ),
    removal(
        "the regression knows the size of a task",
        "durations:_vector",
        "math.log(features.input_bytes + 1.0)",
        "0.0",
        DURATIONS + "the_regression_is_better_than_the_average_where_size_decides",
    ),
    removal(
        "the regression forgets",
        "regression:Regression.learn",
        "/ KEPT",
        "/ 1.0",
        DURATIONS + "the_regression_finds_a_line_and_follows_when_it_moves",
    ),
    removal(
        "cold starts are told from warm ones",
        "durations:Kind.observe",
        "if cold:",
        "if False:",
        DURATIONS + "a_cold_start_that_was_seen_is_counted",
    ),
    removal(
        "what was cut off by its timeout is remembered",
        "durations:Durations.cut_off",
        "kind.note(",
        "(",
        DURATIONS + "timeouts_grow_again_when_tasks_have_become_slower",
    ),
    removal(
        "a timeout waits until enough was seen",
        "durations:Durations.timeout_s",
        "len(kind.recent) < ENOUGH_FOR_TIMEOUT",
        "False",
        DURATIONS + "a_timeout_is_half_as_long_again_as_the_slowest_but_five_of_a_hundred",
    ),
    removal(
        "a timeout has a floor",
        "durations:Durations.timeout_s",
        "max(floor_s, usual_s * TIMEOUT_FACTOR)",
        "usual_s * TIMEOUT_FACTOR",
        DURATIONS + "a_timeout_is_half_as_long_again_as_the_slowest_but_five_of_a_hundred",
    ),
    removal(
        "a large task has a longer timeout",
        "durations:Durations.timeout_s",
        "max(usual_s, predicted.seconds)",
        "usual_s",
        DURATIONS + "a_task_larger_than_all_before_has_a_longer_timeout",
    ),
    removal(
        "a bound on the kinds that are known",
        "durations:Durations._heard",
        "len(kinds) >= MOST_KINDS",
        "False",
        DURATIONS + "of_too_many_kinds_the_one_not_heard_of_for_longest_goes",
    ),
    removal("short tasks are not handed over", "advice:advise", "own_s < bounds.min_s", "False", ADVICE),
    removal("handing over is to be worth its cost", "advice:advise", "own_s < WORTH * cost_s", "False", ADVICE),
    removal("long tasks are split", "advice:advise", "own_s > bounds.split_s and situation.split", "False", ADVICE),
    removal("nothing is handed to who may not begin it", "advice:advise", "if situation.held:", "if False:", ADVICE),
    removal("nobody waits longer than it takes", "advice:advise", "known and situation.wait_s > own_s", "False", ADVICE),
]
