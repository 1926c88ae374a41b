"""The embedded log's one writer: a thread that commits all that is queued at once, then tells the event loop once."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from queue import Empty, SimpleQueue
from threading import Thread
from typing import Any
from zlib import crc32

from eventlog import sql_file
from eventlog.embedded import Partition, footprint
from eventlog.keys import Parcel
from eventlog.sql_file import Held, Row
from schemas.errors import LogUnavailable, NightbellError
from schemas.topics import Place, Record

MAX_BATCH_BYTES = 8 << 20
CHECKPOINT_PAGES = 250  # about 1 MB, when nobody waits: small ones are short, and whoever comes meanwhile waits for one
CHECKPOINT_LATEST_PAGES = 8000


@dataclass(slots=True)
class Append:
    """Parcels of one call, and the future that learns where they lie."""

    parcels: list[Parcel]
    future: asyncio.Future[list[tuple[Place, int]]]
    size: int
    since: float
    result: list[tuple[Place, int]] = field(default_factory=list)


@dataclass(slots=True)
class Act:
    """Something else to do in a transaction of its own: a topic, a slice of retention."""

    run: Callable[[sqlite3.Connection], Any]
    future: asyncio.Future[Any]


class Line:
    """A place as the writer knows it: the next position, and what the commit under way puts there."""

    __slots__ = ("base", "last_ms", "next", "partition", "place", "records", "saved", "size")

    def __init__(self, held: Held, partition: Partition) -> None:
        self.base = held.base
        self.place = held.place
        self.next = self.saved = held.end
        self.last_ms = held.last_ms
        self.partition = partition
        self.records: list[Record] = []
        self.size = 0


@dataclass(slots=True)
class Published:
    """What one commit made readable: by place, how many records, those kept for readers, and their size."""

    appends: list[Append]
    lines: list[tuple[Partition, list[Record], int, int]]
    records: int
    elapsed_s: float


class Writer:
    """Owns the writing connection.  `on_commit`, `on_failure` and `on_act` are called on the loop's thread."""

    def __init__(
        self,
        connection: sqlite3.Connection,
        anchor: sqlite3.Connection,
        path: Path,
        *,
        loop: asyncio.AbstractEventLoop,
        reserve_bytes: int,
        clock: Callable[[], int],
        on_commit: Callable[[Published], None],
        on_failure: Callable[[list[Append], NightbellError], None],
    ) -> None:
        self._connection = connection
        self._anchor = anchor
        self._path = path
        self._loop = loop
        self._reserve_bytes = reserve_bytes
        self._clock = clock
        self._on_commit = on_commit
        self._on_failure = on_failure
        self._queue: SimpleQueue[Append | Act | None] = SimpleQueue()
        self._wal_pages = 0
        self._room_until = 0.0
        self._room_error: NightbellError | None = None
        self.lines: dict[str, list[Line]] = {}
        self.death: NightbellError | None = None
        self._thread = Thread(target=self._run, name="nightbell-log-writer", daemon=True)

    @property
    def has_room(self) -> bool:
        """Whether the disk had room when last looked at."""
        return self._room_error is None

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def submit(self, item: Append | Act) -> None:
        """Queue; from the loop's thread."""
        self._queue.put(item)

    def stop(self) -> None:
        """Ask for the end, behind all that is queued."""
        self._queue.put(None)

    def join(self, timeout_s: float) -> bool:
        """Wait for the end; whether it came."""
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def _run(self) -> None:
        is_running = True
        while is_running:
            batch, acts, is_running = self._drain()
            if batch:
                self._commit(batch)
            for act in acts:
                self._perform(act)
            if self.death is None:
                self._checkpoint(is_idle=self._queue.empty())
        self._close()

    def _drain(self) -> tuple[list[Append], list[Act], bool]:
        batch: list[Append] = []
        acts: list[Act] = []
        size = 0
        item = self._queue.get()
        try:
            while item is not None:
                if isinstance(item, Append):
                    batch.append(item)
                    size += item.size
                else:
                    acts.append(item)
                if size >= MAX_BATCH_BYTES:
                    break
                item = self._queue.get_nowait()
        except Empty:
            pass
        return batch, acts, item is not None

    def _commit(self, batch: list[Append]) -> None:
        error = self.death or self._lack_of_room()
        if error is None:
            touched: dict[Line, None] = {}
            try:
                rows = self._rows(batch, touched)
                prepared = time.perf_counter()
                self._connection.execute("BEGIN IMMEDIATE")
                sql_file.add(self._connection, rows)
                self._connection.execute("COMMIT")
            except Exception as exc:  # noqa: BLE001 - whatever it was, those who wait must hear of it
                error = self._failed(exc)
                for line in touched:
                    line.next = line.saved
            else:
                self._publish(batch, touched, len(rows), time.perf_counter() - prepared)
            for line in touched:
                line.saved = line.next
                line.records = []
                line.size = 0
        if error is not None:
            self._tell(self._on_failure, batch, error)

    def _rows(self, batch: list[Append], touched: dict[Line, None]) -> list[Row]:
        rows = []
        now = self._clock()
        for append in batch:
            for draft, key, headers, _ in append.parcels:
                lines = self.lines[draft.topic]
                line = lines[crc32(key) % len(lines)]
                at = now
                if at > line.last_ms:
                    line.last_ms = at
                else:
                    at = line.last_ms
                position = line.next
                line.next = position + 1
                place = line.place
                value = draft.value
                rows.append((line.base + position, at, crc32(value, crc32(headers, crc32(key))), key, headers, value))
                append.result.append((place, position))
                touched[line] = None
                if line.partition.readers:
                    record = Record(place[0], place[1], position, draft.key, value, draft.headers, at, draft.note)
                    line.records.append(record)
                    line.size += footprint(record)
        return rows

    def _publish(self, batch: list[Append], touched: dict[Line, None], records: int, elapsed_s: float) -> None:
        lines = [(line.partition, line.records, line.next - line.saved, line.size) for line in touched]
        self._wal_pages += sum(append.size for append in batch) // sql_file.PAGE_BYTES + 2 * records
        self._tell(self._on_commit, Published(batch, lines, records, elapsed_s))

    def _failed(self, exc: Exception) -> NightbellError:
        error = sql_file.translated(exc) if isinstance(exc, sqlite3.Error) else None
        if error is None:
            error = LogUnavailable(f"the event log's writer failed: {type(exc).__name__}", reason="bug", is_fatal=True)
            error.__cause__ = exc
        try:
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")
        except sqlite3.Error as again:
            error = sql_file.translated(again)
            error.fields["is_fatal"] = True
        if error.fields.get("is_fatal"):
            # After a failed write or sync nobody knows what the disk has: a later sync may succeed without having written what
            # the failed one dropped.  So this process writes no more; a new one reads what is really there.
            self.death = error
        return error

    def _lack_of_room(self) -> NightbellError | None:
        now = time.monotonic()
        if now >= self._room_until:
            self._room_until = now + 1.0
            free = os.statvfs(self._path.parent)
            room = free.f_bavail * free.f_frsize
            if room < self._reserve_bytes:
                room += sql_file.used_bytes(self._connection)[1]
            self._room_error = None
            if room < self._reserve_bytes:
                self._room_error = LogUnavailable(
                    "too little free space on the event log's disk", reason="reserve", is_fatal=False
                )
        return self._room_error

    def _perform(self, act: Act) -> None:
        if self.death is not None:
            self._tell(_fail, act.future, self.death)
            return
        try:
            self._connection.execute("BEGIN IMMEDIATE")
            result = act.run(self._connection)
            self._connection.execute("COMMIT")
        except Exception as exc:  # noqa: BLE001 - whatever it was, the one who waits must hear of it
            self._tell(_fail, act.future, self._failed(exc))
        else:
            self._wal_pages += 200
            self._tell(_resolve, act.future, result)

    def _checkpoint(self, *, is_idle: bool) -> None:
        if self._wal_pages < (CHECKPOINT_PAGES if is_idle else CHECKPOINT_LATEST_PAGES):
            return
        try:
            self._connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()
            self._wal_pages = 0
        except sqlite3.Error as exc:
            self._failed(exc)
            self._wal_pages = 0

    def _close(self) -> None:
        # The last connection to close checkpoints.  After a failed sync that must not happen, and a reader cannot do it: so the
        # anchor, which only reads, outlives a dead writer, and goes first otherwise.
        order = (self._connection, self._anchor) if self.death else (self._anchor, self._connection)
        for connection in order:
            try:
                connection.close()
            except sqlite3.Error as exc:
                self.death = self.death or sql_file.translated(exc)

    def _tell(self, told: Callable[..., None], *args: object) -> None:
        try:
            self._loop.call_soon_threadsafe(told, *args)
        except RuntimeError:
            # The loop is closed: nobody waits any more.
            return


def _resolve(future: asyncio.Future[Any], result: object) -> None:
    if not future.done():
        future.set_result(result)


def _fail(future: asyncio.Future[Any], error: NightbellError) -> None:
    if not future.done():
        future.set_exception(type(error)(error.detail, **error.fields))  # one for each who waits: tracebacks grow on raising
