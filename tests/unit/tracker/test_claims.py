"""Sentences as models write them: the true ones have to pass, and lies not."""

from __future__ import annotations

import pytest

from supervisord_agents.core.digest import Digest
from supervisord_agents.core.events import PauseRequested
from supervisord_agents.tracker import claims, rules
from supervisord_agents.tracker.story import still_true
from supervisord_agents.tracker.words import lies
from tests.support.scheduling import Driven, a_task, always
from tests.support.telling import digest_of


@pytest.fixture(scope="module")
def digest() -> Digest:
    """Two run, one of them for the second time; one is tried again, one failed and took another with it, two wait."""
    driven = Driven()
    driven.submit(
        a_task("fetch", estimate_s=5),
        a_task("build", "fetch", estimate_s=60, type="build"),
        a_task("docs", "fetch", estimate_s=20),
        a_task("unit-test", "build", estimate_s=30),
        a_task("publish", "unit-test", "docs", estimate_s=10),
        a_task("lint", estimate_s=2),
        a_task("flaky", estimate_s=3, backoff_s=100.0),
        a_task("bad", estimate_s=3),
        a_task("after_bad", "bad"),
        a_task("dropped"),
        a_task("again", backoff_s=1.0, estimate_s=3),
        graph="rel",
    )
    driven.run("rel.fetch")
    driven.start("rel.build")
    driven.run("rel.again", "WORKER_FAILED")
    driven.run("rel.flaky", "WORKER_FAILED")
    driven.fail("rel.bad")
    driven.cancel("rel.dropped")
    driven.wait(20)
    driven.start("rel.again")
    driven.now += 2
    return digest_of(driven, "rel", said={"rel.build": (0.25, "compiling")})


TRUE = """
rel.fetch has completed successfully. rel.build is currently running and is 25% done.
rel.fetch succeeded in 0.0 s. rel.build has been running for 22 s (25% complete).
rel.publish is blocked by rel.unit-test and rel.docs.
rel.publish will start once rel.unit-test is done.
rel.unit-test will start once rel.build is completed.
rel.unit-test can only begin after rel.build has finished.
rel.unit-test is waiting for rel.build to finish.
rel.publish is waiting on rel.unit-test and rel.docs before it can run.
Once rel.build is finished, rel.unit-test will be ready to run.
When rel.build has completed, rel.unit-test becomes ready.
rel.unit-test remains blocked until rel.build is done.
If rel.build is done in time, rel.unit-test can start.
Not all tasks are done yet: 5 are still open.
Not everything is finished.
It will take about 80 s until all tasks are done.
All tasks will be done in about 80 s.
All tasks are expected to be completed in about 70 s.
Nothing is blocked by rel.lint.
None of the running tasks has failed.
None of the blocked tasks can start until rel.build has finished.
rel.again failed on its first attempt and is now running again (attempt 2).
rel.again has failed once and is running its second attempt.
rel.flaky failed with WORKER_FAILED and will be retried.
rel.flaky is backing off after a failure.
rel.flaky has failed but will be tried again in about 80 s.
rel.bad failed with WORKER_FAILED, so rel.after_bad failed as well.
rel.bad has finished with an error: WORKER_FAILED.
rel.bad is done, but it failed.
rel.after_bad failed because its dependency rel.bad failed.
rel.after_bad could not run because rel.bad has failed.
rel.dropped was cancelled.
rel.lint and rel.docs are ready to start next.
Next up are rel.docs and rel.lint, which are both ready.
Two tasks are running: rel.build and rel.again.
2 tasks are currently running (rel.build, rel.again).
Running: rel.build (25% done), rel.again.
Failed: rel.bad (WORKER_FAILED) and rel.after_bad.
Succeeded: rel.fetch.
Completed tasks: rel.fetch. Failed tasks: rel.bad, rel.after_bad. Cancelled: rel.dropped.
4 of 11 tasks have ended: 1 succeeded, 2 failed, 1 cancelled.
Of 11 tasks, 1 has succeeded, 2 have failed and 1 was cancelled.
One task has succeeded, two have failed.
The task rel.fetch is done; rel.build is running; rel.unit-test and rel.publish are blocked.
The release is progressing: rel.fetch is complete, rel.build is 25% complete.
rel.build is not done yet.
rel.build has not finished.
rel.build hasn't failed.
rel.unit-test is not running because it waits for rel.build.
rel.unit-test has not started, as rel.build is still running.
rel.docs has not been started.
All dependencies of rel.docs have completed.
All tasks that rel.docs depends on are done.
Everything that rel.build needs is done.
rel.unit-test depends on rel.build, which is running.
rel.build (running), rel.again (running), rel.docs (ready), rel.unit-test (blocked).
rel.build started after rel.fetch was completed.
rel.docs is ready since rel.fetch has succeeded.
Work will be finished in about 1 minute, between 40 s and 2 min.
The graph rel has 11 tasks, of which 4 have ended. rel.build should be done in about 38 s.
There are two running tasks, one task backing off and two blocked tasks.
rel.publish is the last task; it needs rel.unit-test and rel.docs to be done first.
rel.publish needs rel.unit-test to be completed.
No tasks are paused.
rel.flaky is waiting to be retried after WORKER_FAILED.
The failure of rel.bad (WORKER_FAILED) caused rel.after_bad to fail; nothing else failed because of it.
rel.build is running, but rel.unit-test and rel.publish are blocked on it.
rel.docs and rel.lint are next. rel.unit-test, which depends on rel.build, is blocked.
Before rel.publish can run, rel.unit-test and rel.docs must be completed.
All failed tasks need attention: rel.bad.
All completed tasks succeeded without a retry.
So far only rel.fetch has completed; rel.bad and rel.after_bad failed.
rel.unit-test isn't ready because rel.build isn't done.
rel.publish will be ready when rel.unit-test and rel.docs are done.
After rel.build and rel.docs are done, rel.publish is close.
rel.docs and rel.lint have not started yet.
Neither rel.docs nor rel.lint is running.
rel.build completed 25% of its work.
rel.build: 25% done. rel.again: running.
rel.fetch is done, rel.build running, rel.docs ready.
rel.fetch finished first, then rel.build started.
The fetch phase is complete; rel.build is underway at 25%, with compiling in progress.
Currently, rel.build (running for 22 s, 25% done) and rel.again (attempt 2) are in progress.
rel.bad failed due to WORKER_FAILED, which caused rel.after_bad to fail.
Because rel.bad failed, rel.after_bad could not be completed.
As rel.build is still running, rel.unit-test and rel.publish remain blocked.
rel.unit-test and rel.publish are blocked, waiting for rel.build and rel.docs.
rel.unit-test is blocked by rel.build (running), and rel.publish is blocked by rel.unit-test and rel.docs.
The release is blocked on rel.build and rel.docs; rel.docs is ready to start.
Two tasks have failed (rel.bad, rel.after_bad), one was cancelled (rel.dropped), and one has succeeded (rel.fetch).
1 succeeded, 2 failed, 1 cancelled, 2 running, 2 ready, 2 blocked, 1 backing off.
There are 11 tasks: 1 succeeded, 2 running, 2 ready, 2 blocked, 1 backing off, 2 failed and 1 cancelled.
rel.flaky failed and is being retried in about 80 seconds.
rel.flaky will be retried after its failure with WORKER_FAILED.
rel.again failed once, and its second attempt is running.
rel.again's first attempt failed, but it is running again now.
The next tasks to start are rel.docs and rel.lint.
Next, rel.docs and rel.lint can be started.
rel.docs, rel.lint are next in line.
Once completed, rel.build unblocks rel.unit-test.
Everything should be done in about 80 s (between 44 s and 2.5 min).
All work is expected to end in 78 s.
The whole graph will be finished in roughly 1.3 minutes.
rel.publish, the final step, is blocked until rel.unit-test and rel.docs are completed.
rel.build needs to complete before rel.unit-test can begin.
rel.unit-test depends on the completion of rel.build.
rel.fetch is done. rel.build and rel.again are running. rel.docs and rel.lint are ready.
Done: rel.fetch. Running: rel.build, rel.again. Failed: rel.bad, rel.after_bad. Blocked: rel.unit-test, rel.publish.
Completed: 1 task (rel.fetch). In progress: 2 tasks (rel.build, rel.again).
Task rel.bad has failed with error WORKER_FAILED and was not retried.
rel.dropped has been cancelled and rel.bad has failed.
Of the ended tasks, rel.fetch succeeded, rel.bad and rel.after_bad failed, and rel.dropped was cancelled.
rel.lint has not started because no worker was free.
No task is paused and none is waiting for a person.
rel.build is one quarter done.
rel.build has completed a quarter of its work.
Of the 11 tasks, 4 have ended and 7 are still open.
7 tasks are not finished yet.
7 of 11 tasks are not done.
36% of the tasks are done.
The build is running well; nothing has blocked it.
Blocked tasks: rel.unit-test (waits for rel.build), rel.publish (waits for rel.unit-test and rel.docs).
`rel.build` is **running** and `rel.unit-test` is **blocked**.
Status: rel.fetch succeeded; rel.build running; rel.unit-test blocked.
rel.unit-test blocked on rel.build; rel.publish blocked on rel.unit-test and rel.docs.
What failed: rel.bad, because of WORKER_FAILED.
rel.after_bad was never started because rel.bad failed.
The failed task rel.bad made rel.after_bad fail.
A running rel.build holds up rel.unit-test.
rel.build has been running for 22 seconds and is 25% done.
rel.docs is ready and rel.publish, which needs it, is blocked.
rel.docs and rel.lint are ready, rel.unit-test is blocked, rel.build is running.
rel.publish is blocked, rel.docs ready.
rel.unit-test is waiting for rel.build, rel.docs and rel.lint are ready.
In total two tasks failed, one of them because of the other.
rel.bad has ended with a failure and is dead weight for rel.after_bad.
When rel.build, rel.docs and rel.unit-test are done, rel.publish can run.
rel.flaky is not done: it is tried again in about 80 s.
rel.flaky is neither done nor failed for good.
"""
LIES = """
rel.build is done.
rel.build has successfully completed.
rel.build was completed successfully.
rel.build and rel.docs are done.
rel.fetch, rel.build and rel.docs have completed.
Succeeded: rel.fetch, rel.build.
Completed tasks: rel.fetch, rel.docs.
Failed tasks: rel.build.
The failed tasks are rel.lint and rel.bad.
Running: rel.docs, rel.build.
The running tasks are rel.build and rel.lint.
Both rel.docs and rel.lint are running.
rel.fetch has not succeeded.
rel.fetch hasn't finished yet.
rel.bad did not fail.
rel.build is not running.
rel.unit-test is no longer blocked.
rel.publish is not blocked.
rel.bad has been fixed and has now succeeded.
rel.dropped is running.
All tasks have been completed successfully.
Everything is done.
All 11 tasks are done.
All eleven tasks have completed.
Nothing failed.
No task has failed.
No tasks are running.
Nothing is running at the moment.
5 tasks have failed.
Three tasks are running.
7 of 11 tasks have ended.
10 of 11 tasks are done.
No tasks are blocked.
There are 4 running tasks.
Everything will be finished in 5 s.
rel.build is 90% done.
rel.build is 75% complete.
rel.lint waits for rel.build.
rel.lint is blocked by rel.docs.
rel.docs is blocked.
rel.lint failed with an error.
rel.lint, which failed, is being retried.
rel.unit-test already ran and passed; rel.unit-test succeeded.
rel.flaky has successfully finished.
rel.bad, rel.after_bad and rel.docs failed.
rel.unit-test and rel.publish are ready to start.
rel.publish is ready.
rel.build finished without problems.
rel.build is stuck and has failed.
rel.publish (done), rel.unit-test (done).
rel.fetch is still running.
rel.lint was cancelled by a person.
All will be done in about 3 h.
"""


@pytest.mark.parametrize("sentence", TRUE.strip().splitlines())
def test_what_is_true_passes(digest: Digest, sentence: str) -> None:
    assert list(lies(digest, sentence, "summary")) == []


@pytest.mark.parametrize("sentence", LIES.strip().splitlines())
def test_what_is_not_true_does_not(digest: Digest, sentence: str) -> None:
    assert list(lies(digest, sentence, "summary"))


@pytest.mark.parametrize(
    "sentence",
    ["rel.build completed linking and runs its tests.", "The \x017\x02 is done.", "rel.build has started compiling."],
)
def test_what_is_not_understood_passes(digest: Digest, sentence: str) -> None:
    assert list(lies(digest, sentence, "summary")) == []


def test_true_sentences_in_a_row_are_true(digest: Digest) -> None:
    assert list(claims.lies(digest, TRUE.replace("\n", " "))) == []


def test_of_a_graph_with_a_number_for_a_name_one_may_say_how_long_it_takes() -> None:
    driven = Driven()
    driven.submit(a_task("a", estimate_s=150.0), graph="2")
    driven.start("2.a")
    digest = digest_of(driven, "2")
    assert list(lies(digest, rules.story(digest).summary, "summary")) == []
    assert list(lies(digest, "2.a runs, for 2.5 min.", "summary")) == []
    assert list(lies(digest, "2.b runs.", "summary")) == ["the summary names tasks that do not exist: 2.b"]


def test_what_a_task_waited_for_in_another_graph_exists() -> None:
    driven = Driven()
    driven.submit(a_task("made"), graph="gabcdefg")
    driven.run("gabcdefg.made")
    driven.submit(a_task("a", "gabcdefg.made"))
    digest = digest_of(driven)
    assert list(lies(digest, "g.a is ready, for gabcdefg.made has succeeded; see graphics.py.", "summary")) == []
    assert list(lies(digest, "g.a waits for gabcdefg.other.", "summary"))


def test_of_a_pause_one_may_say_that_it_blocks() -> None:
    driven = Driven()
    driven.submit(a_task("a"), a_task("b", "a"))
    driven.feed(PauseRequested(pool="", agent="", client="0", reason=""))
    digest = digest_of(driven)
    for true in ("g.a is paused.", "g.a is blocked by a pause, and g.b waits for it.", "g.a is not ready to start."):
        assert list(lies(digest, true, "summary")) == []
    assert list(lies(digest, "g.b is paused.", "summary"))
    assert list(lies(digest, "All tasks will be done in 3 s.", "summary"))


def test_counts_may_be_of_one_graph_or_type() -> None:
    driven = Driven()
    for graph, count in (("one", 2), ("two", 3)):
        driven.submit(*(a_task(f"t{i}", type=f"kind{i}") for i in range(count)), graph=graph)
    digest = digest_of(driven, "")
    for count in (1, 2, 3, 5):
        assert list(lies(digest, f"In one of them, {count} tasks are ready.", "summary")) == []
    assert list(lies(digest, "4 tasks are ready.", "summary")) == [
        "the summary says that 4 tasks are ready, but that is not their number"
    ]


def test_when_all_is_done_all_may_be_said() -> None:
    driven = Driven()
    driven.submit(a_task("a"), a_task("b", "a"))
    driven.run("g.a")
    driven.run("g.b")
    digest = digest_of(driven)
    for true in (
        "All 2 tasks are done.",
        "Both g.a and g.b have succeeded.",
        "Everything has successfully completed.",
        "2 of 2 tasks are done.",
    ):
        assert list(lies(digest, true, "summary")) == []


def test_what_was_said_of_progress_stays_true_while_the_work_goes_on(digest: Digest) -> None:
    told = "rel.build is 10% done, rel.bad failed; all will be done in 20 min."
    assert list(lies(digest, told, "summary"))
    assert still_true(told, digest)
    assert not still_true("rel.build is done, rel.bad failed.", digest)


@pytest.fixture(scope="module")
def three_graphs() -> Digest:
    """One goes on, one waits for it and is paused, one has ended badly."""
    driven = Driven()
    driven.submit(
        a_task("extract", estimate_s=30), a_task("transform", "extract", estimate_s=60), a_task("load", "transform"), graph="etl"
    )
    driven.submit(a_task("review", agent="gemini"), a_task("merge", "review", "etl.load"), graph="pr-42")
    driven.submit(a_task("x", max_retries=0), a_task("y", "x"), a_task("cleanup", always("x")), graph="old")
    driven.run("old.x", "WORKER_FAILED")
    driven.run("old.cleanup")
    driven.run("etl.extract")
    driven.start("etl.transform")
    driven.feed(PauseRequested(pool="", agent="gemini", client="0", reason="quota"))
    driven.now += 45
    return digest_of(driven, "", said={"etl.transform": (0.6, "60 of 100 files")})


TRUE_OF_THREE = """
old.x failed with WORKER_FAILED and needs a person's decision; old.y failed because of it.
old.cleanup succeeded after old.x failed.
etl.transform is running (60% done) and etl.load waits for it.
pr-42.review is paused, so pr-42.merge cannot start.
pr-42.review is ready but held by a pause on the agent gemini.
pr-42.merge is blocked on pr-42.review and etl.load.
pr-42.merge is blocked by pr-42.review, which is paused, and by etl.load, which is blocked on etl.transform.
In graph etl, 1 of 3 tasks has completed, one is running and one is blocked.
In the old graph everything has ended: 2 failed, 1 succeeded.
Graph old is finished: old.cleanup succeeded, old.x and old.y failed.
4 of 8 tasks have ended: 2 succeeded, 2 failed.
Nothing can be started at the moment, since pr-42.review is held.
All tasks of graph old have ended.
All tasks in old are done, though two failed.
etl.extract took 0.0 s and has succeeded; etl.transform has been running for 45 s.
etl.load will be ready once etl.transform is done, and pr-42.merge after that.
No task is ready to start.
As things are, the work will never be finished because of the pause.
Three graphs are open; etl is progressing, pr-42 is paused and old has failed.
etl.transform has processed 60% of the files.
The ETL pipeline is 60% through etl.transform; etl.load is next once it has finished.
2 tasks are blocked: etl.load and pr-42.merge.
One task is held by a pause: pr-42.review.
1 task is paused.
The only running task is etl.transform.
The blocked tasks are etl.load and pr-42.merge.
Failed: old.x (WORKER_FAILED), old.y (dependency failed).
old.x has not been retried.
old.y never started.
old.y did not run because old.x failed.
etl.transform has not failed.
So far, two tasks have succeeded (old.cleanup, etl.extract), and two have failed (old.x, old.y).
Everything except etl and pr-42 has ended.
Nothing has been cancelled.
Work on pr-42 is stuck: pr-42.review is paused and pr-42.merge is blocked.
etl.transform (running, 60%), etl.load (blocked), pr-42.review (ready, held by a pause).
etl.extract and old.cleanup succeeded, etl.transform is running, and old.x and old.y failed.
Since etl.extract is done, etl.transform could start and is now running.
Two tasks ended successfully.
Two failed tasks need attention: old.x and old.y.
There is 1 running task.
There are two failed tasks and two blocked tasks.
Task etl.transform started 45 s ago.
The task etl.load has not started yet.
etl.transform: running for 45 s, 60% done, "60 of 100 files".
"""
LIES_OF_THREE = """
All three graphs have been completed.
etl.load and pr-42.review are running.
pr-42.merge is blocked by old.x.
4 tasks are running.
old.x succeeded, old.y failed.
etl.transform has not started, and etl.transform is not running.
pr-42.review is not paused: pr-42.review is running.
Nothing has failed.
etl.load is paused.
etl.transform is 6% done.
"""


@pytest.mark.parametrize("sentence", TRUE_OF_THREE.strip().splitlines())
def test_what_is_true_of_three_graphs_passes(three_graphs: Digest, sentence: str) -> None:
    assert list(lies(three_graphs, sentence, "summary")) == []


@pytest.mark.parametrize("sentence", LIES_OF_THREE.strip().splitlines())
def test_what_is_not_true_of_them_does_not(three_graphs: Digest, sentence: str) -> None:
    assert list(lies(three_graphs, sentence, "summary"))
