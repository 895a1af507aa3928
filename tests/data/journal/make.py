"""Makes a journal with the code of a commit: `python tests/data/journal/make.py COMMIT`, from the root of the repository.

It is kept in tests/data/journal/COMMIT, without the preallocated files, and holds the events below: a snapshot of the first
eight, the others as records, and the mark of an orderly end. tests/integration/journal/test_formats.py reads it.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).parent


def main() -> int:
    commit = sys.argv[1]
    target = HERE / commit
    shutil.rmtree(target, ignore_errors=True)
    with tempfile.TemporaryDirectory() as name:
        source = Path(name)
        archive = subprocess.run(["git", "archive", commit, "supervisord_agents"], stdout=subprocess.PIPE, check=True).stdout
        subprocess.run(["tar", "-x", "-C", name], input=archive, check=True)
        command = [sys.executable, __file__, "--write", str(source / "journal")]
        subprocess.run(command, env={**os.environ, "PYTHONPATH": name, "PYTHONSAFEPATH": "1"}, check=True)
        target.mkdir()
        for path in sorted((source / "journal").iterdir()):
            if path.suffix in (".wal", ".snap"):
                shutil.copy(path, target)
    return 0


def write(directory: Path) -> None:
    """With whatever version of the code can be imported."""
    from supervisord_agents.core.events import CancelRequested, Finished, Restarted, Started, Submitted, Ticked, encode_event
    from supervisord_agents.core.graph import normalise
    from supervisord_agents.core.model import Dependency, Failure, TaskSpec, Usage, When
    from supervisord_agents.core.scheduler import Scheduler
    from supervisord_agents.journal.journal import Journal

    failure = Failure(code="WORKER_FAILED", message="no luck")
    first = [
        TaskSpec(id="a", pool="p", input={"argv": ["true"]}, max_retries=1, backoff_s=2.0, timeout_s=30.0),
        TaskSpec(id="b", pool="p", dependencies=("a",), priority=2),
        TaskSpec(id="c", pool="p", dependencies=(Dependency(task="a", when=When.ON_FAILURE),)),
    ]
    second = [TaskSpec(id="d", pool="q", dependencies=("first.b",), deadline_s=500.0), TaskSpec(id="e", pool="q")]
    events = [
        (100.0, Submitted(graph="first", specs=normalise(first), key="the key", client="1000")),
        (101.0, Started(task="first.a", attempt=1, worker="w-1")),
        (102.0, Finished(task="first.a", attempt=1, failure=failure, usage=Usage(10, 5, 0.5))),
        (105.0, Ticked()),
        (106.0, Started(task="first.a", attempt=2, worker="w-2")),
        (107.0, Finished(task="first.a", attempt=2, output={"answer": 42}, usage=Usage(20, 10, 1.0))),
        (108.0, Submitted(graph="second", specs=normalise(second), client="1001")),
        (109.0, Started(task="first.b", attempt=1, worker="w-3")),
        (110.0, Restarted()),
        (111.0, Started(task="first.b", attempt=2, worker="w-4")),
        (112.0, Finished(task="first.b", attempt=2, output="done", output_file=False)),
        (113.0, CancelRequested(task="second.e", reason="enough")),
    ]
    scheduler = Scheduler()
    journal, _ = Journal.open(directory, segment_bytes=4096, reserve_bytes=4096, max_record_bytes=65536)
    for number, (at, event) in enumerate(events, start=1):
        journal.append(encode_event(event, at))
        journal.flush()
        scheduler.handle(event, at)
        if number == 8:
            journal.write_snapshot(scheduler.snapshot(), number)
    journal.close()


if __name__ == "__main__":
    if sys.argv[1] == "--write":
        write(Path(sys.argv[2]))
    else:
        sys.exit(main())
