"""The journal: append-only records of opaque bytes, durable when `flush` returns. docs/journal.md tells the whole."""

from __future__ import annotations

import contextlib
import os
import random
from collections.abc import Iterable
from pathlib import Path

from supervisord_agents.errors import DiskFull, InvalidInput, JournalError
from supervisord_agents.journal import recovery
from supervisord_agents.journal import snapshot as snapshots
from supervisord_agents.journal.files import NO_SPACE, REAL_FILES, Files, Usage, make_directory
from supervisord_agents.journal.lock import Lock
from supervisord_agents.journal.recovery import Contents, Recovered, SegmentFile
from supervisord_agents.journal.segment import (
    HEADER,
    RECORD_OVERHEAD,
    REPAIR_NAME,
    Header,
    Kind,
    encode_header,
    encode_record,
    segment_name,
)
from supervisord_agents.journal.space import Space
from supervisord_agents.journal.threads import REAL_THREADS, Threads

TEMPORARY_NAMES = (snapshots.TEMPORARY_NAME, REPAIR_NAME)
"""What a crash may leave half written; their content is of no use."""
SYSTEM_RANDOM = random.SystemRandom()


class Journal:
    """The one writer of a directory.

    `append` belongs to one thread, `flush` to one thread (the committer's), `write_snapshot` to any. A write or a sync that fails
    breaks the journal for good: what was acknowledged is on disk, what was not is unknown, and only a fresh start can tell.
    """

    def __init__(
        self,
        directory: Path,
        lock: Lock,
        contents: Contents,
        space: Space,
        max_record_bytes: int,
        files: Files,
        threads: Threads,
        dice: random.Random,
    ) -> None:
        self._directory = directory
        self._lock = lock
        self._space = space
        self._files = files
        self._max_record_bytes = max_record_bytes
        self._epoch = ((contents.epoch >> 32) + 1) << 32 | dice.getrandbits(32)
        self._closed_segments = contents.segments
        self._snapshot_bytes = contents.snapshot_bytes
        self._sequence = self._durable = contents.recovered.sequence
        self._pending: list[bytes] = []
        self._broken: JournalError | None = None
        self._closed = False
        self._append_lock = threads.lock()
        self._write_lock = threads.lock()
        self._snapshot_lock = threads.lock()
        self._begin_segment(0, starting=True)
        space.reclaim()

    @classmethod
    def open(
        cls,
        directory: Path,
        *,
        segment_bytes: int,
        reserve_bytes: int,
        max_record_bytes: int,
        files: Files = REAL_FILES,
        threads: Threads = REAL_THREADS,
        dice: random.Random = SYSTEM_RANDOM,
    ) -> tuple[Journal, Recovered]:
        """Take the directory, made if absent, and read what it holds. Sizes are in bytes.

        Raises JournalLocked if another process has it, JournalCorrupt for damage that is no torn tail, DiskFull if there is no
        room to begin, JournalError for any other failure of the file system.
        """
        try:
            make_directory(directory, 0o700, files)
            lock = files.lock(directory)
            try:
                contents = recovery.read(directory, files=files)
                if contents.tail:
                    recovery.mend_tail(directory, contents.tail, clean=contents.recovered.clean, files=files)
                for name in TEMPORARY_NAMES:
                    files.remove(directory / name)
                space = Space(directory, segment_bytes, reserve_bytes, files)
                space.drop_spare()
                journal = cls(directory, lock, contents, space, max_record_bytes, files, threads, dice)
            except BaseException:
                lock.release()
                raise
        except OSError as error:
            raise _not_opened(directory, error) from error
        return journal, contents.recovered

    @property
    def sequence(self) -> int:
        """Of the last record appended."""
        return self._sequence

    @property
    def durable(self) -> int:
        """Of the last record on disk."""
        return self._durable

    @property
    def accepting(self) -> bool:
        """False while the disk is full: only urgent records are taken."""
        return self._space.accepting and self._broken is None

    @property
    def snapshot_bytes(self) -> int:
        """Of the newest snapshot; 0 without one."""
        return self._snapshot_bytes

    @property
    def size_bytes(self) -> int:
        """Of the snapshot and all records kept, without preallocated room."""
        return self._snapshot_bytes + sum(segment.size for segment in self._closed_segments) + self._offset

    def disk_usage(self) -> Usage:
        """Of the file system that the journal lies on. Raises OSError."""
        return self._files.usage(self._directory)

    def append(self, payload: bytes, *, urgent: bool = True) -> int:
        """Take a record into the next batch; gives its sequence. It is durable when `durable` has reached that.

        Raises InvalidInput for a record that is too large, DiskFull for one that is not urgent while space is short, JournalError
        when the journal is broken or closed. In each case nothing was taken.
        """
        if len(payload) > self._max_record_bytes:
            raise InvalidInput(
                f"a record of {len(payload)} bytes is larger than the journal takes ({self._max_record_bytes}).",
                kept="Nothing was changed.",
                hint="Pass large data by file and name the file instead.",
            )
        with self._append_lock:
            self._check_usable()
            if not urgent and not self._space.accepting:
                raise _disk_full(self._directory, self._space.why)
            self._pending.append(payload)
            self._sequence += 1
            return self._sequence

    def flush(self) -> int:
        """Write and sync all that was appended, as one batch; gives the sequence of the last durable record.

        Raises JournalError if that failed, now or before.
        """
        with self._write_lock:
            self._check_usable()
            with self._append_lock:
                batch, self._pending = self._pending, []
            if batch:
                self._write(batch, Kind.PAYLOAD)
            return self._durable

    def prepare(self) -> None:
        """Allocate the next segment ahead of time, best when nobody waits. Raises JournalError."""
        with self._write_lock:
            self._check_usable()
            self._space.prepare()

    def try_reclaim(self) -> None:
        """Accept all records again if the disk has room for the reserve and the next segment. Raises JournalError."""
        with self._write_lock:
            self._check_usable()
            self._space.reclaim()

    def write_snapshot(self, payload: bytes | Iterable[bytes], sequence: int) -> None:
        """Make the state after record `sequence` durable, then remove what it replaces: older snapshots, segments wholly covered.

        The payload may come in pieces. Raises DiskFull or JournalError if it cannot be written, or what the pieces raise; the
        journal goes on as it was.
        """
        with self._snapshot_lock:
            if self._closed:
                raise JournalError("the journal is closed.", field=str(self._directory))
            if sequence > self._durable:
                raise JournalError(f"record {sequence} is not durable yet: a snapshot must not run ahead of the records.")
            try:
                pieces = (payload,) if isinstance(payload, bytes) else payload
                self._snapshot_bytes = snapshots.write(self._directory, sequence, pieces, self._files)
                self._remove_replaced(sequence)
            except OSError as error:
                raise _no_snapshot(self._directory, error) from error

    def close(self, clean: bool = True) -> None:
        """End the journal and give up the directory. With `clean`, flush and mark an orderly end first.

        Raises JournalError if that fails, and closes all the same. Harmless when closed already.
        """
        # A snapshot still being written must not outlive the lock of the directory.
        with self._snapshot_lock:
            if self._closed:
                return
            try:
                if clean and self._broken is None:
                    self.flush()
                    self._end_in_order()
            finally:
                self._closed = True
                self._files.close(self._descriptor)
                self._lock.release()

    def _end_in_order(self) -> None:
        with self._write_lock:
            self._sequence += 1
            self._write([b""], Kind.CLEAN_END)
            self._give_back(self._descriptor, self._offset)
            self._space.drop_spare()

    def _write(self, batch: list[bytes], kind: Kind) -> None:
        """One write and one sync, whatever the number of records."""
        size = sum(map(len, batch)) + RECORD_OVERHEAD * len(batch)
        try:
            if self._offset + size > self._size:
                self._rotate(size)
            first, checksum = self._durable + 1, self._header_checksum
            records = [encode_record(first + index, payload, checksum, kind, index) for index, payload in enumerate(batch)]
            self._write_out(b"".join(records))
            self._files.sync_data(self._descriptor)
        except OSError as error:
            raise self._break(error) from error
        except BaseException as error:
            self._break(error)
            raise
        self._offset += size
        self._durable += len(batch)

    def _write_out(self, data: bytes) -> None:
        try:
            self._files.write(self._descriptor, data, self._offset)
        except OSError as error:
            # Preallocated room can still run out where files are copied on write. Only the write is made again, never a sync.
            if error.errno not in NO_SPACE or not self._space.release_reserve(error):
                raise
            self._files.write(self._descriptor, data, self._offset)

    def _rotate(self, size: int) -> None:
        descriptor, path, offset = self._descriptor, self._path, self._offset
        closed = SegmentFile(self._first_sequence, path, offset)
        self._begin_segment(size)
        # One that holds nothing has been replaced, for the new one begins with the same record and so has the same name.
        if path != self._path:
            self._closed_segments = [*self._closed_segments, closed]
            self._give_back(descriptor, offset)
        self._files.close(descriptor)

    def _give_back(self, descriptor: int, end: int) -> None:
        """Room that no record will use; keeping it would do no harm."""
        with contextlib.suppress(OSError):
            self._files.truncate(descriptor, end)

    def _begin_segment(self, size: int, *, starting: bool = False) -> None:
        """A new segment with room for `size` bytes of records. It has its name only when its header is durable."""
        room = self._space.take(HEADER.size + size, starting=starting)
        header = Header(self._epoch, self._durable + 1)
        path = self._directory / segment_name(header)
        try:
            self._files.write(room.descriptor, encode_header(header), 0)
            self._files.sync_data(room.descriptor)
            self._files.rename(room.path, path)
            self._files.sync_directory(self._directory)
        except OSError:
            self._files.close(room.descriptor)
            raise
        self._descriptor, self._path, self._size = room.descriptor, path, room.size
        self._first_sequence, self._header_checksum = header.first_sequence, header.checksum
        self._offset = HEADER.size

    def _remove_replaced(self, sequence: int) -> None:
        current = snapshots.snapshot_name(sequence)
        for path in snapshots.snapshots(self._directory, self._files):
            if path.name < current:
                self._files.remove(path)
        for segment in self._covered(sequence):
            self._files.remove(segment.path)
            with self._write_lock:
                self._closed_segments = self._closed_segments[1:]

    def _covered(self, sequence: int) -> list[SegmentFile]:
        """The segments whose records all come before `sequence` or are it, oldest first."""
        with self._write_lock:
            closed = self._closed_segments
            nexts = [*(segment.first_sequence for segment in closed), self._first_sequence][1:]
            return [segment for segment, first in zip(closed, nexts, strict=True) if first <= sequence + 1]

    def _check_usable(self) -> None:
        if self._broken is not None:
            raise again(self._broken)
        if self._closed:
            raise JournalError("the journal is closed.", field=str(self._directory))

    def _break(self, error: BaseException) -> JournalError:
        why = os.strerror(error.errno) if isinstance(error, OSError) and error.errno else repr(error)
        self._broken = JournalError(
            f"the journal cannot be written: {why}.",
            field=str(self._directory),
            kept="Nothing that was acknowledged is lost.",
            hint="Mend the disk, then start the daemon again: it recovers from what is there.",
        )
        return self._broken


def again(error: JournalError) -> JournalError:
    """The same error for another caller: one exception must not be raised in two places."""
    return JournalError(error.message, field=error.field, kept=error.kept, hint=error.hint)


def _not_opened(directory: Path, error: OSError) -> JournalError:
    kind = DiskFull if error.errno in NO_SPACE else JournalError
    return kind(
        f"the journal cannot be opened: {error}.",
        field=str(directory),
        kept="What it holds is kept.",
        hint="Free some space, then start again." if kind is DiskFull else "Mend that, then start again.",
    )


def _disk_full(directory: Path, why: str) -> DiskFull:
    return DiskFull(
        f"no room for the journal to grow ({why}): no new work is taken.",
        field=str(directory),
        kept="Work accepted before goes on and can record its end.",
        hint="Free some space; new work is taken again within seconds.",
    )


def _no_snapshot(directory: Path, error: OSError) -> JournalError:
    kind = DiskFull if error.errno in NO_SPACE else JournalError
    return kind(
        f"a snapshot could not be written: {error}.",
        field=str(directory),
        kept="The journal goes on without it, and nothing is lost: the next start replays more.",
    )
