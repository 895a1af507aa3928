"""What one task means for others: dependencies, other rounds, sagas; and how much of that one event does."""

from __future__ import annotations

from tests.policies.removal import removal

EDGES = "core/test_dependents.py::test_"
BACKLOG = "core/test_backlog.py::test_"
SAGA = "core/test_saga.py::test_"
LETTERS = "core/test_letters.py::test_"
ARCHIVE = "core/test_archive.py::test_"

REMOVALS = [
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
    removal(
        "a graph stays while something waits for it",
        "archive:may_go",
        " or not all(edge.after.ended for task in graph.tasks for edge in task.dependents)",
        "",
        ARCHIVE + "a_graph_stays_while_something_open_waits_for_it",
    ),
    removal(
        "only what is too much or too old is archived",
        "archive:candidates",
        "ended_at >= older_than and tasks >= over",
        "False",
        ARCHIVE + "the_first_ended_goes_first_and_so_many_stay",
    ),
    removal(
        "cycles are refused",
        "admission:checks_of_submitted",
        "if forward:",
        "if False:",
        "core/test_admission.py::test_a_cycle_is_refused_and_named",
    ),
    # Dead letters
    removal(
        "a dead letter is kept from the archive",
        "letters:held",
        "task.id in table.letters",
        "False",
        LETTERS + "the_archive_leaves_the_newest_letters_alone_until_they_are_decided_about",
    ),
    removal(
        "only so many dead letters are kept",
        "letters:unheld",
        "max(len(table.letters) - most, 0)",
        "0",
        LETTERS + "the_archive_leaves_the_newest_letters_alone_until_they_are_decided_about",
    ),
    removal(
        "a dropped letter is off the list",
        "letters:dropped",
        "del table.letters[name]",
        "pass",
        LETTERS + "a_dropped_one_stays_dead_and_its_history_says_who_and_why",
    ),
]
