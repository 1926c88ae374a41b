"""The embedded event log: one SQLite file, written by one thread, read from memory by those who keep up."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import structlog

from eventlog import sql_file
from eventlog.config import LogConfig
from eventlog.embedded import EmbeddedReader, Groups, Partition
from eventlog.keys import Parcel, parcel
from eventlog.log import Bounds, Lag, Start
from eventlog.memory import now_ms
from eventlog.observer import SILENT, Observer
from eventlog.sql_file import Held, Opener
from eventlog.sql_writer import Act, Append, Line, Published, Writer
from schemas.errors import BadSetting, CursorLost, LogUnavailable, NightbellError, Saturated
from schemas.topics import Draft, Place, Record

T = TypeVar("T")
SLICE_RECORDS = 100  # removed in one transaction, so that appends wait for milliseconds only
READERS = 2
_LOG = structlog.get_logger("eventlog")


class SqlLog:
    """`append` hands its records to the writer and sleeps; one callback per commit wakes everyone whose records it carried.

    Everything but `_open` and the reading functions runs on the event loop's thread; see `sql_writer` for the other one.
    `open_connection` makes the writer's connection: the seam for tests that want it to fail.
    """

    def __init__(
        self,
        path: Path | str,
        config: LogConfig | None = None,
        *,
        observer: Observer = SILENT,
        clock: Callable[[], int] = now_ms,
        open_connection: Opener = sql_file.open_connection,
    ) -> None:
        self._path = Path(path).absolute()
        self._config = config or LogConfig()
        self._clock = clock
        self._open_connection = open_connection
        self._log_id = ""
        self._lock_descriptor = -1
        self._partitions: dict[str, list[Partition]] = {}
        self._held: dict[Place, Held] = {}
        self._groups = Groups()
        self._writer: Writer | None = None
        self._idle_connections: deque[sqlite3.Connection] = deque()
        self._threads = ThreadPoolExecutor(READERS, thread_name_prefix="nightbell-log-reader")
        self._shaping = asyncio.Lock()
        self._is_closing = False
        self._drained: asyncio.Future[None] | None = None
        self.queued_records = 0
        self.queued_bytes = 0
        self.observer = observer
        self.batch_records = self._config.batch_records

    @property
    def log_id(self) -> str:
        """As the contract says."""
        return self._log_id

    @property
    def topics(self) -> list[str]:
        """The topics that are there."""
        return sorted(self._partitions)

    @property
    def max_record_bytes(self) -> int:
        """As the contract says."""
        return self._config.max_record_bytes

    async def start(self) -> None:
        """As the contract says."""
        connection, held = await asyncio.to_thread(self._open)
        self._idle_connections.extend(sql_file.open_for_reading(self._path) for _ in range(READERS))
        anchor = sql_file.open_for_reading(self._path)
        anchor.execute(
            "SELECT count(*) FROM place"
        ).fetchone()  # joins the WAL, so that the anchor counts as a connection to it
        self._writer = Writer(
            connection,
            anchor,
            self._path,
            loop=asyncio.get_running_loop(),
            reserve_bytes=self._config.reserve_bytes,
            clock=self._clock,
            on_commit=self._on_commit,
            on_failure=self._on_failure,
        )
        self._adopt(held)
        self._writer.start()
        _LOG.info("log_opened", path=str(self._path), log_id=self._log_id, sqlite_version=sqlite3.sqlite_version)

    def _open(self) -> tuple[sqlite3.Connection, list[Held]]:
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            mounts = Path("/proc/self/mounts")
            sql_file.refuse_remote(self._path.parent.resolve(), mounts.read_text() if mounts.exists() else "")
            self._lock_descriptor = sql_file.lock_file(self._path)
        except OSError as exc:
            raise BadSetting(f"the event log {self._path} cannot be opened: {exc.strerror}") from exc
        connection = None
        try:
            connection = self._open_connection(str(self._path))
            self._log_id = sql_file.prepare(connection, self._path, check_bytes=self._config.check_bytes)
            return connection, sql_file.held_places(connection)
        except BaseException as exc:
            if connection is not None:
                connection.close()
            self._unlock()
            if isinstance(exc, sqlite3.Error):
                raise sql_file.translated(exc) from exc
            raise

    def _adopt(self, held: Iterable[Held]) -> None:
        lines: dict[str, list[Line]] = {}
        for each in held:
            partition = Partition(each.place, each.oldest, each.end)
            self._held[each.place] = each
            self._partitions.setdefault(each.place.topic, []).append(partition)
            lines.setdefault(each.place.topic, []).append(Line(each, partition))
        self._writing().lines.update(lines)

    async def ensure(self, topics: Mapping[str, int]) -> None:
        """As the contract says."""
        async with self._shaping:
            for topic, count in topics.items():
                there = self._partitions.get(topic)
                if there is not None and len(there) != count:
                    raise BadSetting(f"topic {topic} has {len(there)} partitions, not {count}: the number is fixed at creation")
                if there is None:
                    self._adopt(await self._act(partial(sql_file.add_topic, topic=topic, count=count)))
                    self._groups.refresh()

    async def append(self, drafts: Sequence[Draft]) -> list[tuple[Place, int]]:
        """As the contract says."""
        limit = self._config.max_record_bytes
        try:
            parcels = [parcel(draft, limit) for draft in drafts]
            size = sum([item.size for item in parcels])
            writer = self._admitting(len(parcels), size)
            for item in parcels:
                if item.draft.topic not in self._partitions:
                    await self._create({each.draft.topic for each in parcels})
                    break
            return await self._submit(writer, parcels, size)
        except NightbellError as exc:
            self.observer.refused(exc.code)
            raise

    def _submit(self, writer: Writer, parcels: list[Parcel], size: int) -> asyncio.Future[list[tuple[Place, int]]]:
        future: asyncio.Future[list[tuple[Place, int]]] = asyncio.get_running_loop().create_future()
        if not parcels:
            future.set_result([])
            return future
        self.queued_records += len(parcels)
        self.queued_bytes += size
        writer.submit(Append(parcels, future, size, time.perf_counter()))
        return future

    def _admitting(self, records: int, size: int) -> Writer:
        writer = self._writing()
        if self.queued_records and (
            self.queued_records + records > self._config.queue_records or self.queued_bytes + size > self._config.queue_bytes
        ):
            raise Saturated("the event log's queue is full", records=self.queued_records, bytes=self.queued_bytes)
        return writer

    async def _create(self, topics: set[str]) -> None:
        missing = sorted(topics - self._partitions.keys())
        await self.ensure(dict.fromkeys(missing, self._config.partitions))

    def _writing(self) -> Writer:
        if self._writer is None or self._is_closing:
            raise LogUnavailable("the event log is closed", reason="closed")
        if self._writer.death is not None:
            raise LogUnavailable("the event log failed and takes nothing until a restart", reason="dead")
        return self._writer

    async def _act(self, run: Callable[[sqlite3.Connection], T]) -> T:
        future: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self._writing().submit(Act(run, future))
        return await future

    def _on_commit(self, published: Published) -> None:
        for partition, records, count, size in published.lines:
            partition.publish(records, count, size)
            if partition.kept_bytes > 1 << 20:
                self._shorten_tails()
        now = time.perf_counter()
        appended = self.observer.appended
        for append in published.appends:
            self._settle(append)
            if not append.future.done():
                append.future.set_result(append.result)
            appended(now - append.since)
        self.observer.committed(published.records, published.elapsed_s)
        self.observer.queued(self.queued_records, self.queued_bytes)
        self._note_drained()

    def _on_failure(self, appends: list[Append], error: NightbellError) -> None:
        _LOG.error(
            "log_append_failed", reason=error.fields.get("reason"), appends=len(appends), is_fatal=error.fields.get("is_fatal")
        )
        for append in appends:
            self._settle(append)
            if not append.future.done():
                append.future.set_exception(type(error)(error.detail, **error.fields))
        self._note_drained()

    def _settle(self, append: Append) -> None:
        self.queued_records -= len(append.parcels)
        self.queued_bytes -= append.size

    def _note_drained(self) -> None:
        if self._drained is not None and not self.queued_records and not self._drained.done():
            self._drained.set_result(None)

    def _shorten_tails(self) -> None:
        everyone = self.partitions_of(self._partitions)
        kept = sum(partition.kept_bytes for partition in everyone)
        while kept > self._config.tail_bytes:
            longest = max(everyone, key=lambda partition: partition.kept_bytes)
            before = longest.kept_bytes
            longest.release(longest.kept_first + len(longest.kept) // 2 + 1)
            kept -= before - longest.kept_bytes

    async def places(self, topic: str) -> list[Place]:
        """As the contract says."""
        return [partition.place for partition in self._partitions.get(topic, ())]

    async def bounds(self, place: Place) -> Bounds:
        """As the contract says."""
        return self._partition(place).bounds

    async def read(self, place: Place, position: int, *, max_records: int = 500, max_bytes: int = 8 << 20) -> list[Record]:
        """As the contract says."""
        partition = self._partition(place)
        partition.require(position)
        end = partition.end
        kept = partition.tail(position, max_records, max_bytes)
        if kept is not None or position == end:
            return kept or []
        found: list[Record] | NightbellError
        try:
            found = await self._look(
                sql_file.records_from, self._held[place], position, end, max_records=max_records, max_bytes=max_bytes
            )
        except NightbellError as exc:
            found = exc
        # Retention raises `oldest` before it removes anything: a read that overlapped it finds out here, and never skips.
        partition.require(position)
        if isinstance(found, NightbellError):
            raise found
        return found

    async def position_at(self, place: Place, at_ms: int) -> int:
        """As the contract says."""
        partition = self._partition(place)
        return await self._look(sql_file.position_at, self._held[place], partition.oldest, partition.end, at_ms)

    async def lag(self, place: Place, position: int) -> Lag:
        """As the contract says."""
        partition = self._partition(place)
        partition.require(position)
        if position == partition.end:
            return Lag(0, 0.0)
        at_ms = await self._look(sql_file.appended_at, self._held[place], position)
        return Lag(partition.end - position, 0.0 if at_ms is None else max(self._clock() - at_ms, 0) / 1000)

    async def _look(self, seek: Callable[..., T], *args: object, **bounds: int) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._threads, partial(self._looked, seek, *args, **bounds))

    def _looked(self, seek: Callable[..., T], *args: object, **bounds: int) -> T:
        try:
            connection = self._idle_connections.popleft()
        except IndexError:
            raise LogUnavailable("the event log is closed", reason="closed") from None
        try:
            return seek(connection, *args, **bounds)
        except sqlite3.Error as exc:
            raise sql_file.translated(exc) from exc
        finally:
            self._idle_connections.append(connection)

    def reader(self, *, group: str, topics: Sequence[str], start: Start) -> EmbeddedReader:
        """As the contract says."""
        reader = EmbeddedReader(self, group=group, topics=topics, start=start)
        self._groups.join(group, reader)
        return reader

    async def trim(self, *, older_than_ms: int, max_bytes: int | None = None) -> int:
        """As the contract says."""
        removed = 0
        for partition in self.partitions_of(list(self._partitions)):
            cut = await self.position_at(partition.place, older_than_ms)
            while partition.oldest < cut:
                removed += await self._cut(partition, min(cut, partition.oldest + SLICE_RECORDS))
        while max_bytes is not None and (await self._look(sql_file.used_bytes))[0] > max_bytes:
            longest_kept = await self._oldest_place()
            if longest_kept is None:
                break
            removed += await self._cut(longest_kept, min(longest_kept.end, longest_kept.oldest + SLICE_RECORDS))
        return removed

    async def discard(self, place: Place, upto: int) -> int:
        """Remove a place's records before `upto`, whatever their age: for a queue whose one reader is done with them."""
        partition = self._partition(place)
        partition.require(upto)
        removed = 0
        while partition.oldest < upto:
            removed += await self._cut(partition, min(upto, partition.oldest + SLICE_RECORDS))
        return removed

    async def _oldest_place(self) -> Partition | None:
        filled = [partition for partition in self.partitions_of(self._partitions) if partition.oldest < partition.end]
        instants = [await self._look(sql_file.appended_at, self._held[p.place], p.oldest) for p in filled]
        return min(zip(instants, range(len(filled)), filled, strict=True), default=(0, 0, None), key=lambda found: found[:2])[2]

    async def _cut(self, partition: Partition, upto: int) -> int:
        oldest = partition.oldest
        partition.oldest = upto
        partition.release(upto)
        try:
            return await self._act(partial(sql_file.remove, held=self._held[partition.place], oldest=oldest, upto=upto))
        except NightbellError:
            partition.oldest = oldest
            raise

    async def healthy(self) -> bool:
        """As the contract says."""
        try:
            async with asyncio.timeout(1.0):
                return await self._act(_has_answered) and self._writing().has_room
        except (NightbellError, TimeoutError):
            return False

    async def aclose(self, *, grace_s: float = 10.0) -> None:
        """As the contract says."""
        self._is_closing = True
        self._groups.cut_off()
        writer, self._writer = self._writer, None
        if writer is None:
            return
        if self.queued_records:
            self._drained = asyncio.get_running_loop().create_future()
            await asyncio.wait([self._drained], timeout=grace_s)
        is_ended = await asyncio.to_thread(self._close_all, writer, max(grace_s, 1.0))
        if is_ended:
            self._unlock()
        _LOG.info("log_closed", path=str(self._path), is_clean=is_ended)

    def _close_all(self, writer: Writer, grace_s: float) -> bool:
        self._threads.shutdown(wait=True)
        while self._idle_connections:
            self._idle_connections.popleft().close()
        writer.stop()  # the last to close: it alone may checkpoint
        return writer.join(grace_s)

    def _unlock(self) -> None:
        if self._lock_descriptor >= 0:
            os.close(self._lock_descriptor)
            self._lock_descriptor = -1

    def partitions_of(self, topics: Iterable[str]) -> list[Partition]:
        """For readers."""
        return [partition for topic in topics for partition in self._partitions.get(topic, ())]

    def left(self, group: str, reader: EmbeddedReader) -> None:
        """For readers."""
        self._groups.leave(group, reader)

    def _partition(self, place: Place) -> Partition:
        partitions = self._partitions.get(place.topic, ())
        if place.partition >= len(partitions):
            raise CursorLost(f"there is no {place.topic}/{place.partition}", topic=place.topic, partition=place.partition)
        return partitions[place.partition]


def _has_answered(_connection: Any) -> bool:
    return True
