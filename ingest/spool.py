"""Before the log: a local queue on disk for when the log is down, or slower than the sender waits.

    empty ──an append failed, or took too long──▶ holding ──everything drained──▶ empty

While it holds anything, everything that may be spooled goes to its tail, so that nothing overtakes what waits.  It is drained
in order: of one key, the next record is sent only when the one before is durable in the log.  A crash while draining sends
some again; their ids are the same, and whoever reads the log folds them into the first.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple, Protocol

import structlog

from eventlog.log import EventLog
from eventlog.sql_file import waiting_at
from ingest.book import Book
from ingest.metrics import SpoolMetrics
from ingest.ports import Log
from schemas.errors import Busy, DamagedRecord, LogUnavailable, Misconfigured, NightbellError, Refused, Saturated
from schemas.event import Flag
from schemas.topics import Draft, Place, Record

PLACE = Place("spool", 0)
UNSENDABLE = "unsendable"  # of the spool's own file: what the log refused for good, kept for people
_TOPIC = "nbspool-topic"
_FLAGS = "ce_nbflags"
_WINDOW_RECORDS = 256
_WINDOW_BYTES = 8 << 20
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.1, 2.0
_HOUR_MS = 3_600_000


Policy = Callable[[Draft], bool]
"""Whether an event may wait in the spool; where not, its sender is told to come again instead."""


def policy_of(book: Book) -> Policy:
    """By the source: as it says; else it waits, unless its vendor is known to send again by itself."""

    def may_wait(draft: Draft) -> bool:
        try:
            source = book.source(draft.headers["ce_team"], draft.headers["ce_source"])
        except NightbellError:  # gone from the book since the request was checked
            return True
        asked = source.spec.on_log_down
        return asked == "spool" if asked else source.provider.file.retries.automatic is not True

    return may_wait


class Queue(EventLog, Protocol):
    """The local log, from which what was drained is removed."""

    async def discard(self, place: Place, upto: int) -> int:
        """Remove a place's records before `upto`."""
        ...


@dataclass(frozen=True, slots=True)
class SpoolBounds:
    """How long the log may take before the spool takes over, and how much the spool may hold."""

    budget_s: float = 2.0
    max_bytes: int = 4 << 30
    max_age_h: float = 24.0


class Spool:
    """Implements `ingest.ports.Log` over the log and a local one, in `held`, that this process has to itself."""

    def __init__(
        self,
        log: Log,
        held: Queue,
        *,
        policy: Policy,
        bounds: SpoolBounds,
        now_ms: Callable[[], int],
        metrics: SpoolMetrics,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        """`held` is not yet started."""
        self._log, self._held, self._policy, self._bounds = log, held, policy, bounds
        self._now_ms, self._metrics, self._sleep = now_ms, metrics, sleep
        self._position = self._end = 0
        self._entering = 0  # appends to `held` under way
        self._bytes = 0
        self._oldest_ms = 0
        self._wake = asyncio.Event()
        metrics.size.set_function(lambda: self._bytes)
        metrics.age.set_function(lambda: self.age_s)

    async def open(self) -> None:
        """Open the file, and find what a process before this one left in it.  Raises `BadSetting`, `LogUnavailable`."""
        await self._held.start()
        await self._held.ensure({PLACE.topic: 1, UNSENDABLE: 1})
        bounds = await self._held.bounds(PLACE)
        self._position, self._end = bounds.oldest, bounds.end
        if self.is_holding:
            await self._weigh()
            structlog.get_logger().warning("spool_found", records=self._end - self._position, size_bytes=self._bytes)
            self._wake.set()

    async def _weigh(self) -> None:
        """Estimate what is there from its first records: gigabytes must not hold up the start."""
        try:
            records = await self._held.read(PLACE, self._position, max_records=_WINDOW_RECORDS)
        except DamagedRecord:
            return  # the drain steps over it
        self._oldest_ms = records[0].appended_ms
        self._bytes = sum(_size(record) for record in records) * (self._end - self._position) // len(records)

    @property
    def is_holding(self) -> bool:
        """Whether anything waits: then what comes goes to the tail."""
        return self._position < self._end or self._entering > 0

    @property
    def age_s(self) -> float:
        """How long the oldest event has waited."""
        return max(0, self._now_ms() - self._oldest_ms) / 1000 if self.is_holding and self._oldest_ms else 0.0

    @property
    def has_room(self) -> bool:
        """Whether one more event would be taken in."""
        return self._bytes < self._bounds.max_bytes and self.age_s * 1000 < self._bounds.max_age_h * _HOUR_MS

    async def append(self, drafts: Sequence[Draft]) -> list[tuple[Place, int]]:
        """Return when all are durable, in the log or here.  Raises `LogUnavailable` where neither takes them."""
        if not self.is_holding or not self._policy(drafts[0]):
            try:
                async with asyncio.timeout(self._bounds.budget_s):
                    return await self._log.append(drafts)
            except (Busy, Misconfigured, TimeoutError) as exc:
                # Misconfigured too: what the brokers refuse us is for our operator to mend, not for the sender.
                self._metrics.diverted.labels(exc.code if isinstance(exc, NightbellError) else "timeout").inc()
                if not self._policy(drafts[0]):
                    raise LogUnavailable("the event log is out of reach, and this source's sender comes again") from exc
        return await self._spooled(drafts)

    async def _spooled(self, drafts: Sequence[Draft]) -> list[tuple[Place, int]]:
        if not self.has_room:
            raise Saturated("the event log is out of reach, and the spool is full or too old")
        if not self.is_holding:
            structlog.get_logger().warning("spool_begins")
            self._oldest_ms = self._now_ms()
        self._entering += 1
        try:
            places = await self._held.append([_as_held(draft) for draft in drafts])
            self._end = max(self._end, places[-1][1] + 1)
            self._bytes += sum(_weight(draft) for draft in drafts)
        finally:
            self._entering -= 1
        self._metrics.spooled.inc(len(drafts))
        self._wake.set()
        return places

    async def run(self) -> None:
        """Drain whenever there is something, until cancelled."""
        pause_s = _FIRST_PAUSE_S
        while True:
            await self._wake.wait()
            self._wake.clear()
            while self._position < self._end:
                try:
                    await self._drain_window()
                    pause_s = _FIRST_PAUSE_S
                except (Busy, Misconfigured) as exc:
                    structlog.get_logger().debug("spool_waits", code=exc.code, pause_s=pause_s)
                    await self._sleep(pause_s)
                    pause_s = min(pause_s * 2, _LONGEST_PAUSE_S)

    async def _drain_window(self) -> None:
        try:
            records = await self._held.read(PLACE, self._position, max_records=_WINDOW_RECORDS, max_bytes=_WINDOW_BYTES)
        except DamagedRecord as exc:
            self._metrics.damaged.inc()
            structlog.get_logger().error("spool_record_damaged", position=exc.fields["position"], detail=exc.detail)
            self._position = int(exc.fields["position"] or 0) + 1
            return
        self._oldest_ms = records[0].appended_ms
        for wave in waves(records):
            await self._send(wave)
        self._metrics.drained.inc(len(records))
        self._position = records[-1].position + 1
        self._bytes = max(0, self._bytes - sum(_size(record) for record in records))
        if self._position >= self._end:
            self._bytes = 0
            structlog.get_logger().info("spool_drained")
        await self._held.discard(PLACE, self._position)

    async def _send(self, wave: list[Record]) -> None:
        try:
            async with asyncio.timeout(4 * self._bounds.budget_s):
                await self._log.append([_as_sent(record) for record in wave])
        except TimeoutError as exc:
            raise LogUnavailable("the event log does not answer in time") from exc
        except Refused as exc:
            if len(wave) > 1:
                for record in wave:
                    await self._send([record])
                return
            structlog.get_logger().error("spool_record_refused", code=exc.code, detail=exc.detail, position=wave[0].position)
            kept = wave[0]
            await self._held.append([Draft(UNSENDABLE, kept.key, kept.value, {**kept.headers, "reason": exc.code})])

    async def aclose(self) -> None:
        """Close the file; what it holds stays for the next process."""
        await self._held.aclose()


class Waiting(NamedTuple):
    """What lies in a spool's file."""

    records: int
    oldest_ms: int


def spooled(path: Path) -> Waiting:
    """What lies in the spool at `path`, whether a process has it open or not."""
    return Waiting(*waiting_at(path, PLACE)) if path.exists() else Waiting(0, 0)


def waves(records: Sequence[Record]) -> list[list[Record]]:
    """The records in groups that may be on their way at once: no key twice in one, each key's in order over them."""
    found: list[list[Record]] = []
    counts: dict[tuple[str, str], int] = {}
    for record in records:
        lane = (record.headers[_TOPIC], record.key)
        number = counts.get(lane, 0)
        counts[lane] = number + 1
        if number == len(found):
            found.append([])
        found[number].append(record)
    return found


def _as_held(draft: Draft) -> Draft:
    headers = {**draft.headers, _TOPIC: draft.topic}
    flags = headers.get(_FLAGS)
    headers[_FLAGS] = f"{flags},{Flag.SPOOLED}" if flags else Flag.SPOOLED.value
    return replace(draft, topic=PLACE.topic, headers=headers, note=None)


def _as_sent(record: Record) -> Draft:
    headers = dict(record.headers)
    return Draft(headers.pop(_TOPIC), record.key, record.value, headers)


def _weight(draft: Draft) -> int:
    return len(draft.value) + len(draft.key)


def _size(record: Record) -> int:
    return len(record.value) + len(record.key)
