"""Proof that the simulation can fail: the code is broken on purpose, in one place at a time, and some seed must see it.

`python -m tests.simulation.mutations` runs all of them and prints the table of README.md; with names, only those.
"""

from __future__ import annotations

import argparse
import sys

from tests.simulation.run import Outcome, first_bad
from tests.support.mutation import Mutation, applied

SEEDS = range(2000)
"""Those of CI."""


J = "supervisord_agents.journal"
D = "supervisord_agents.daemon"
MUTATIONS = [
    Mutation(
        "acknowledged before the fdatasync",
        f"{J}.committer:Committer._flush_until_stopped",
        "durable = self._journal.flush()",
        "self._tell(self._flushed, self._journal.sequence, False); durable = self._journal.flush()",
    ),
    Mutation("no fdatasync", f"{J}.journal:Journal._write", "self._files.sync_data(self._descriptor)", "pass"),
    Mutation(
        "a failed fdatasync is tried again",
        f"{J}.journal:Journal._write",
        "self._files.sync_data(self._descriptor)",
        "tried = lambda: self._files.sync_data(self._descriptor)\n"
        "        try:\n            tried()\n        except OSError:\n            tried()",
    ),
    Mutation(
        "a failed fdatasync is taken for a good one",
        f"{J}.journal:Journal._write",
        "self._files.sync_data(self._descriptor)",
        "with contextlib.suppress(OSError): self._files.sync_data(self._descriptor)",
    ),
    Mutation(
        "the directory of a new segment is not synced",
        f"{J}.journal:Journal._begin_segment",
        "self._files.sync_directory(self._directory)",
        "pass",
    ),
    Mutation(
        "checksums of records are not looked at", f"{J}.segment:read_records", " or checksum(view[checked:end], start) != crc", ""
    ),
    Mutation("the torn tail is not cut", f"{J}.recovery:mend_tail", "files.truncate(descriptor, tail.end)", "pass"),
    Mutation("what a crash left in memory is not written again", f"{J}.recovery:mend_tail", "if not clean:", "if False:"),
    Mutation("a snapshot is not synced before it has its name", f"{J}.snapshot:write", "files.sync(descriptor)", "pass"),
    Mutation(
        "segments are removed before their snapshot is there",
        f"{J}.journal:Journal.write_snapshot",
        "snapshots.write(self._directory,",
        "self._remove_replaced(sequence); snapshots.write(self._directory,",
    ),
    Mutation(
        "replay leaves out the last record",
        f"{D}.recovery:_replay_records",
        "for sequence, payload in recovered.records:",
        "for sequence, payload in recovered.records[:-1]:",
    ),
    Mutation(
        "keys are not restored",
        "supervisord_agents.core.snapshot:_table",
        "{graph: key for key, graph in snapshot.keys.items()}",
        "{}",
    ),
    Mutation(
        "decisions are released before they are durable",
        f"{D}.engine:Engine._release_durable",
        "self._committer.durable",
        "self._appended",
    ),
    Mutation(
        "a submit is acknowledged at once",
        f"{D}.submissions:Submissions._take",
        "self._engine.answer(fed.sequence, reply)",
        "self._engine.answer(0, reply)",
    ),
    Mutation("a list tells what is not on disk", f"{D}.handlers:Handlers._list", "await self._engine.settled_for(", "list("),
    Mutation("a story tells what is not on disk", f"{D}.digests:Digests.of", "await self._engine.settled_for(", "list("),
    Mutation(
        "what finished unseen is not adopted, and runs again",
        f"{D}.app:_recover",
        'adopted = recovery.adopt_outboxes(engine.scheduler, state_dir / "workers", attempts.attempt_ended, kept)',
        "adopted = 0",
    ),
    Mutation(
        "tasks are started before recovery is over",
        f"{D}.attempts:Attempts.__init__",
        "self._starting = False",
        "self._starting = True",
    ),
    Mutation(
        "a large result is not on disk before its end is",
        "supervisord_agents.spool.results:ResultStore.stage",
        "sync=True",
        "sync=False",
    ),
    Mutation(
        "lost result files are not written again", f"{D}.ends:Ends.restore", "if task is None or not task.attempt:", "if True:"
    ),
    Mutation("a snapshot does not wait for the results", f"{D}.upkeep:Upkeep._write", "self._results.sync_all()", "pass"),
    Mutation(
        "the end of another attempt is taken for this one's",
        f"{D}.ends:Ends.ended",
        "running_attempt(frame.task, frame.attempt)",
        "table.running.get(frame.task)",
    ),
    Mutation(
        "a step is acknowledged at once",
        f"{D}.steps:Steps.take",
        "self._jobs.spawn(self._acknowledge(sequence, answer))",
        "self._answer(answer)",
    ),
    Mutation("space that is back is not noticed", f"{D}.upkeep:Upkeep._take_notes", "self._committer.reclaim()", "pass"),
    Mutation("a subscriber is told again what it knows", f"{D}.feed:Feed._missed", "if place > token", "if place >= token"),
]


def killed(mutation: Mutation, seeds: range = SEEDS) -> Outcome | None:
    """The first seed that sees it."""
    with applied(mutation):
        return first_bad(seeds)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("words", nargs="*", help="only mutations whose name has one of these")
    words = parser.parse_args().words
    survivors = 0
    print("| broken | seeds until red | what is said |\n|---|---|---|")
    for mutation in MUTATIONS:
        if words and not any(word in mutation.name for word in words):
            continue
        outcome = killed(mutation)
        survivors += outcome is None
        said = " ".join(outcome.violation.split())[:110] if outcome else "**nothing**"
        print(f"| {mutation.name} | {outcome.seed + 1 if outcome else '> 2000'} | {said} |", flush=True)
    return 1 if survivors else 0


if __name__ == "__main__":
    sys.exit(main())
