"""The store's engine on SQLite: one writer thread with group commit, a few readers, one process.

    write(script) ─► queue ─► writer thread: BEGIN, every script that waits, COMMIT (fsync) ─► one call into the loop

The writer is the only connection that writes and the only one that checkpoints: SQLite before 3.51.3 can corrupt a WAL file
where two do.  A script that raises is undone alone: where it had changed rows, the group is rolled back and its scripts are run
again one by one, each with a commit of its own.
"""

from __future__ import annotations

import asyncio
import sqlite3
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from queue import Empty, SimpleQueue
from typing import IO, Any, NamedTuple, TypeVar

from schemas.errors import BadSetting, Saturated, StoreUnavailable
from store.engine import Notify, Script
from store.listeners import Listeners
from store.prepared import SQLITE
from store.sqlite_driver import is_fatal, open_sqlite, ours, roll_back, run, set_durable, take_lock, translated
from store.sqlite_line import Ask, Line

T = TypeVar("T")

MAX_WAITING = 4096  # scripts in the queue
MAX_GROUP = 256  # scripts in one commit
GROUP_S = 0.02  # a group takes no further script after this long
READERS = 3
MAX_READS = 1024
READ_S = 30.0  # a reading statement is interrupted after this long
CHECKPOINT_CHANGES = 500  # rows changed since the last checkpoint, when nobody waits: small ones are short
CHECKPOINT_LATEST_CHANGES = 8000
_REST_S = 1.0  # after this long without work, what was written is moved out of the WAL
RESTART_PAGES = 32_768  # a WAL of 128 MiB: wait for the readers, so that it begins anew


class _Answer(NamedTuple):
    future: asyncio.Future[Any]
    result: Any
    failure: Exception | None


class SqliteEngine:
    """An `Engine` over one file.  `connect` is the seam through which tests break the disk."""

    def __init__(
        self,
        path: str,
        *,
        read_only: bool = False,
        max_waiting: int = MAX_WAITING,
        connect: Callable[[str], sqlite3.Connection] = open_sqlite,
    ) -> None:
        self._path = path
        self._read_only = read_only
        self._max_waiting = max_waiting
        self._connect = connect
        self._line = Line()
        self._waiting = 0
        self._reading = 0
        self._writer: threading.Thread | None = None
        self._readers: ThreadPoolExecutor | None = None
        self._idle: SimpleQueue[_Reader] = SimpleQueue()
        self._failure: Exception | None = None
        self._lock: IO[bytes] | None = None
        self._listeners = Listeners()

    @property
    def dialect(self) -> str:
        """`sqlite`."""
        return SQLITE

    @property
    def waiting(self) -> int:
        """How many scripts wait for the writer or are being written."""
        return self._waiting

    async def start(self) -> None:
        """Open the file: the writer checks that commits are durable.  Raises `BadSetting`, `StoreUnavailable`."""
        self._loop = asyncio.get_running_loop()
        self._readers = ThreadPoolExecutor(READERS, "store-reader")
        try:
            await self._open()
        except BaseException:
            await self.aclose()
            raise

    async def _open(self) -> None:
        if not self._read_only:
            self._lock = take_lock(self._path)
            connection = await self._loop.run_in_executor(self._readers, self._open_writer)
            self._writer = threading.Thread(target=self._write_loop, args=(connection,), name="store-writer", daemon=True)
            self._writer.start()
        for _ in range(READERS):
            self._idle.put(await self._loop.run_in_executor(self._readers, self._open_reader))

    async def write(self, script: Callable[[], Script[T]], *, is_patient: bool = False) -> T:
        """Run a script in the next group, a patient one behind those that wait; durable when this returns."""
        if self._failure is not None:
            raise StoreUnavailable(f"the store's file failed and the process must be restarted: {self._failure}")
        if self._writer is None:
            raise StoreUnavailable("the store is closed, or open for reading only")
        if self._waiting >= self._max_waiting:
            raise Saturated("too many writes wait for the store")
        future: asyncio.Future[T] = self._loop.create_future()
        self._waiting += 1
        self._line.put(Ask(script, future, is_patient))
        return await future

    async def read(self, script: Callable[[], Script[T]], *, needs_snapshot: bool = True) -> T:
        """Run a script on one snapshot, in a reader's thread."""
        del needs_snapshot  # it is one in any case
        if self._readers is None:
            raise StoreUnavailable("the store is closed")
        if self._reading >= MAX_READS:
            raise Saturated("too many reads wait for the store")
        self._reading += 1
        try:
            return await self._loop.run_in_executor(self._readers, self._read, script)
        finally:
            self._reading -= 1

    def listen(self, channel: str, wake: Callable[[str], None]) -> Callable[[], None]:
        """Call `wake` in the loop after each commit that notifies `channel`."""
        return self._listeners.add(channel, wake)

    async def healthy(self) -> bool:
        """Whether the writer lives and its queue is not full."""
        writer = self._writer
        return self._failure is None and writer is not None and writer.is_alive() and self._waiting < self._max_waiting

    async def aclose(self) -> None:
        """Finish what is queued, checkpoint, close."""
        writer, self._writer = self._writer, None
        readers, self._readers = self._readers, None
        if readers is not None:
            await asyncio.to_thread(readers.shutdown)
            with suppress(Empty):
                while True:
                    self._idle.get_nowait().close()
        if writer is not None:  # last, so that its closing takes the WAL file away
            self._line.end()
            await asyncio.to_thread(writer.join)
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    # --- readers' threads ---

    def _open_reader(self) -> _Reader:
        try:
            connection = self._connect(f"file:{self._path}?mode=ro")
            connection.execute("PRAGMA query_only=1")
            connection.execute("PRAGMA cache_size=-16384")
        except sqlite3.Error as exc:
            raise translated(exc) from exc
        return _Reader(connection)

    def _read(self, script: Callable[[], Script[T]]) -> T:
        reader = self._idle.get()  # never waits: there are as many readers as threads
        try:
            return reader.run(script)
        finally:
            self._idle.put(reader)

    # --- the writer's thread ---

    def _open_writer(self) -> sqlite3.Connection:
        try:
            connection = self._connect(f"file:{self._path}?mode=rwc")
        except sqlite3.Error as exc:
            raise translated(exc) from exc
        try:
            set_durable(connection)
        except sqlite3.Error as exc:
            connection.close()
            raise translated(exc) from exc
        except BadSetting:
            connection.close()
            raise
        return connection

    def _write_loop(self, connection: sqlite3.Connection) -> None:
        changes = connection.total_changes
        while True:
            try:
                ask = self._line.first(_REST_S if connection.total_changes > changes else None)
            except Empty:
                changes = self._checkpoint(connection)
                continue
            if ask is None:
                break
            self._serve(connection, ask)
            if connection.total_changes - changes > (CHECKPOINT_CHANGES if self._line.is_empty else CHECKPOINT_LATEST_CHANGES):
                changes = self._checkpoint(connection)
        self._checkpoint(connection)
        with suppress(sqlite3.Error):
            connection.close()

    def _serve(self, connection: sqlite3.Connection, first: Ask) -> None:
        answers: list[_Answer] = []
        notes: list[Notify] = []
        group = [first]
        if self._failure is not None:
            self._loop.call_soon_threadsafe(self._deliver, [_Answer(first.future, None, self._failure)], notes)
            return
        try:
            self._write_group(connection, group, answers, notes)
        except Exception as exc:  # noqa: BLE001 - whatever ends the group is told to each of its callers
            self._note_fatal(exc)
            answers[len(answers) :] = [_Answer(ask.future, None, ours(exc)) for ask in group[len(answers) :]]
        self._loop.call_soon_threadsafe(self._deliver, answers, notes)

    def _write_group(
        self, connection: sqlite3.Connection, group: list[Ask], answers: list[_Answer], notes: list[Notify]
    ) -> None:
        """Run `group`, which grows by what waits, in one transaction; `answers` and `notes` are filled once it is committed."""
        ends = time.monotonic() + GROUP_S
        results: list[_Answer] = []
        heard: list[Notify] = []
        has_patient = False
        connection.execute("BEGIN IMMEDIATE")
        try:
            for ask in group:
                before = connection.total_changes
                said: list[Notify] = []
                try:
                    results.append(_Answer(ask.future, run(connection, ask.script, said), None))
                    heard += said
                except Exception as exc:
                    if not connection.in_transaction or connection.total_changes != before:
                        raise
                    results.append(_Answer(ask.future, None, ours(exc)))  # it changed nothing: the group goes on
                has_patient = has_patient or ask.is_patient
                is_late = len(group) >= MAX_GROUP or time.monotonic() >= ends
                if further := self._line.further(is_late=is_late, has_patient=has_patient):
                    group.append(further)
        except Exception as exc:
            roll_back(connection)
            if is_fatal(exc):
                raise
            self._write_singly(connection, group, answers, notes)
            return
        try:
            connection.execute("COMMIT")
        except sqlite3.Error:
            roll_back(connection)
            raise
        answers += results
        notes += heard

    def _write_singly(
        self, connection: sqlite3.Connection, group: Sequence[Ask], answers: list[_Answer], notes: list[Notify]
    ) -> None:
        for ask in group:
            heard: list[Notify] = []
            try:
                connection.execute("BEGIN IMMEDIATE")
                result = run(connection, ask.script, heard)
                connection.execute("COMMIT")
            except Exception as exc:
                roll_back(connection)
                if is_fatal(exc):
                    raise
                answers.append(_Answer(ask.future, None, ours(exc)))
            else:
                answers.append(_Answer(ask.future, result, None))
                notes += heard

    def _checkpoint(self, connection: sqlite3.Connection) -> int:
        """Move what is committed from the WAL into the file; the number of changes up to here."""
        if self._failure is None:
            try:
                _, pages, _ = connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
                if pages > RESTART_PAGES:
                    connection.execute("PRAGMA wal_checkpoint(RESTART)").fetchone()
            except sqlite3.Error as exc:
                self._note_fatal(exc)  # a full disk or a busy reader: the WAL keeps it, and the next checkpoint tries again
        return connection.total_changes

    def _note_fatal(self, exc: Exception) -> None:
        if self._failure is None and is_fatal(exc):
            self._failure = ours(exc)

    # --- the loop ---

    def _deliver(self, answers: list[_Answer], notes: list[Notify]) -> None:
        self._waiting -= len(answers)
        for future, result, failure in answers:
            if future.done():
                continue  # its caller was cancelled
            if failure is None:
                future.set_result(result)
            else:
                future.set_exception(failure)
        for channel, payload in dict.fromkeys(notes):
            self._listeners.wake(channel, payload)


class _Reader:
    """One read-only connection, and how long its present script may take."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self._ends = 0.0
        connection.set_progress_handler(self._is_late, 10_000)

    def run(self, script: Callable[[], Script[T]]) -> T:
        self._ends = time.monotonic() + READ_S
        connection = self._connection
        try:
            connection.execute("BEGIN")
            return run(connection, script, [])
        except sqlite3.Error as exc:
            raise translated(exc) from exc
        finally:
            roll_back(connection)

    def close(self) -> None:
        self._connection.close()

    def _is_late(self) -> int:
        return int(time.monotonic() > self._ends)
