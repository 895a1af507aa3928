"""What running tasks submit, wait for, and take along."""

from __future__ import annotations

from tests.policies.removal import removal

CHILDREN = "core/test_children.py::test_"
GO_WITH = CHILDREN + "open_children_go_with_a_parent_that_ends_without_success"
GOES_ON = CHILDREN + "a_waiting_parent_holds_no_slot_and_goes_on_with_what_its_children_came_to"
LIMITS = CHILDREN + "generations_children_and_descendants_are_limited"

STEAL = "core/test_affinity.py::test_"

REMOVALS = [
    removal(
        "a worker takes the newest of its own",
        "affinity:Affinity.sent",
        "deque[-1]",
        "deque[0]",
        STEAL + "an_idle_worker_takes_the_newest_of_its_own",
    ),
    removal(
        "a child is kept for the worker that made it",
        "affinity:Affinity._stolen",
        "worker not in busy or until <= now",
        "True",
        STEAL + "a_child_is_kept_for_its_busy_worker_for_a_while_and_then_the_oldest_is_stolen",
    ),
    removal(
        "a thief takes the oldest",
        "affinity:Affinity._stolen",
        "deque[0], home(turn.table, deque[0])",
        "deque[-1], home(turn.table, deque[-1])",
        STEAL + "a_child_is_kept_for_its_busy_worker_for_a_while_and_then_the_oldest_is_stolen",
    ),
    removal(
        "victims are drawn",
        "affinity:Affinity._stolen",
        " % len(deques)",
        " % 1",
        STEAL + "the_victim_is_drawn_by_the_seed",
    ),
    removal(
        "nothing is taken twice",
        "affinity:_Turn.taken",
        "self._taken.add(task.id)",
        "pass",
        STEAL + "its_own_worker_and_a_thief_take_from_both_ends_and_nothing_twice",
    ),
    removal(
        "locality never comes before order",
        "affinity:_Turn.deque",
        "and table.ready.rank(task)[:2] == rank",
        "",
        STEAL + "what_is_more_urgent_or_has_a_longer_path_is_not_passed_over",
    ),
    removal("a parent waits for all its children", "children:_look", "if not family.open:", "if family.given:", GOES_ON),
    removal("a wait holds no slot", "children:yielded", "State.BLOCKED", "State.READY", GOES_ON),
    removal(
        "each wait takes a child",
        "children:yielded",
        "family is None or not family.fresh",
        "family is None",
        CHILDREN + "a_wait_for_nothing_is_the_end",
    ),
    removal(
        "the first failure ends the others, if asked",
        "children:_look",
        "if family.hasty and family.open:",
        "if False:",
        CHILDREN + "with_fail_fast_the_first_failure_ends_the_others",
    ),
    removal(
        "a child that was cancelled is no failure",
        "families:Families.moved",
        "family.fail_fast and (after is _FAILED or after is _DEAD)",
        "family.fail_fast and after is not State.SUCCEEDED",
        CHILDREN + "a_cancelled_child_ends_no_other",
    ),
    removal("children go with their parent", "children:_part", "is not State.SUCCEEDED", "is State.SUCCEEDED", GO_WITH),
    removal(
        "children go with an attempt",
        "children:settle",
        "elif task.state is not State.RUNNING and family.fresh:",
        "elif False:",
        CHILDREN + "an_attempt_without_a_wait_takes_its_children_along_and_the_next_begins_behind_the_last_wait",
    ),
    removal(
        "another round begins without children",
        "revive:Revival._revive",
        "table.families.again(task)",
        "pass",
        CHILDREN + "another_round_counts_its_own_children_only",
    ),
    removal(
        "a wait is not for dependencies",
        "dependents:_tell",
        " or (table.families.of and table.families.waits(after))",
        "",
        CHILDREN + "a_dependency_that_is_run_again_does_not_end_a_wait",
    ),
    removal(
        "only the running attempt submits",
        "descent:check_parent",
        "running_attempt(table, event.parent, event.attempt)",
        "table.tasks.get(event.parent)",
        CHILDREN + "only_the_running_attempt_may_submit",
    ),
    removal(
        "nothing waits for itself by way of children",
        "descent:_meets",
        "if task.order in line:",
        "if False:",
        CHILDREN + "what_would_wait_for_itself_is_refused_and_named",
    ),
    removal(
        "children are given nothing that their family was not",
        "descent:_check_reach",
        "if name not in given and",
        "if False and",
        CHILDREN + "a_child_depends_on_nothing_that_its_family_was_not_given",
    ),
    removal("generations are limited", "descent:check_limits", "if depth > limits.depth:", "if False:", LIMITS),
    removal("children are limited", "descent:check_limits", "if own + count > limits.children:", "if False:", LIMITS),
    removal("descendants are limited", "descent:check_limits", "if below + count > limits.descendants:", "if False:", LIMITS),
    removal(
        "children are as urgent as what waits for them",
        "submit:_measure",
        "if parent is not None:",
        "if False:",
        CHILDREN + "children_are_as_urgent_as_what_waits_for_them_and_end_with_its_deadline",
    ),
    removal(
        "children end with the deadline of their parent",
        "descent:until",
        "if not parent.deadline_at:",
        "if True:",
        CHILDREN + "children_are_as_urgent_as_what_waits_for_them_and_end_with_its_deadline",
    ),
    removal(
        "children stay while an ancestor is open",
        "archive:may_go",
        "all(task.ended for task in table.families.ancestors(graph.tasks[0], table.tasks))",
        "True",
        CHILDREN + "children_stay_in_memory_for_as_long_as_an_ancestor_is_open",
    ),
]
