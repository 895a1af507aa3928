"""Which ready task is started next, and what a person has paused."""

from __future__ import annotations

from tests.policies.removal import removal

ORDER = "core/test_order.py::test_"
PAUSES = "core/test_pauses.py::test_"

REMOVALS = [
    # Which is started next
    removal(
        "priority",
        "ready:rank",
        "urgency + age",
        "age",
        ORDER + "priority_comes_first_then_the_longest_remaining_path_then_submission",
    ),
    removal(
        "ageing",
        "ready:rank",
        "int(ready_at // ageing_s) if ageing_s else 0",
        "0",
        ORDER + "what_waits_long_enough_is_passed_by_nobody",
    ),
    removal(
        "longest path first",
        "ready:rank",
        "-rest_s",
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
        "ready:ReadyQueue.lanes",
        "self._lanes.get(pool, {})",
        "{p: l for lanes in self._lanes.values() for p, l in lanes.items()}",
        ORDER + "pools_are_offered_by_their_own_number_of_slots",
    ),
    removal(
        "no more than there are slots",
        "placement:_Answer.of",
        "if len(starts) == count:",
        "if False:",
        ORDER + "the_slots_of_a_pool_are_shared_by_all_agents",
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
        "placement:_Answer.of",
        "table.pauses.agents(pool) if table.pauses else _NOBODY",
        "_NOBODY",
        PAUSES + "what_is_paused_is_passed_over",
    ),
    removal(
        "a pause may stop what runs",
        "attempts:paused",
        "if not event.stop:",
        "if True:",
        PAUSES + "what_is_stopped_is_ready_again_and_has_used_no_retry",
    ),
]
