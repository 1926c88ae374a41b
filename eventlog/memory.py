"""The event log in memory, for tests: it keeps every promise but surviving the process."""

from __future__ import annotations

import time
from bisect import bisect_left
from collections.abc import Callable, Iterable, Mapping, Sequence
from secrets import token_hex

from eventlog.config import LogConfig
from eventlog.embedded import EmbeddedReader, Groups, Partition, footprint
from eventlog.keys import Parcel, parcel, partition_of
from eventlog.log import Bounds, Lag, Start
from eventlog.observer import SILENT, Observer
from schemas.errors import BadSetting, CursorLost, LogUnavailable, NightbellError, Saturated
from schemas.topics import Draft, Place, Record


def now_ms() -> int:
    """The wall clock."""
    return time.time_ns() // 1_000_000


class MemoryLog:
    """All records of a place are its partition's tail."""

    def __init__(
        self, config: LogConfig | None = None, *, observer: Observer = SILENT, clock: Callable[[], int] = now_ms
    ) -> None:
        self._config = config or LogConfig()
        self._clock = clock
        self._topics: dict[str, list[Partition]] = {}
        self._groups = Groups()
        self._log_id = f"memory-{token_hex(8)}"
        self._is_open = False
        self._bytes = 0
        self.observer = observer
        self.batch_records = self._config.batch_records

    @property
    def log_id(self) -> str:
        """As the contract says."""
        return self._log_id

    @property
    def max_record_bytes(self) -> int:
        """As the contract says."""
        return self._config.max_record_bytes

    async def start(self) -> None:
        """As the contract says."""
        self._is_open = True

    async def ensure(self, topics: Mapping[str, int]) -> None:
        """As the contract says."""
        for topic, count in topics.items():
            there = self._topics.get(topic)
            if there is not None and len(there) != count:
                raise BadSetting(f"topic {topic} has {len(there)} partitions, not {count}: the number is fixed at creation")
            if there is None:
                self._topics[topic] = [_Whole(Place(topic, number), 0, 0) for number in range(count)]
                self._groups.refresh()

    async def append(self, drafts: Sequence[Draft]) -> list[tuple[Place, int]]:
        """As the contract says."""
        try:
            parcels = [parcel(draft, self._config.max_record_bytes) for draft in drafts]
            await self._admit(parcels)
        except NightbellError as exc:
            self.observer.refused(exc.code)
            raise
        at = self._clock()
        places = [self._store(item, at) for item in parcels]
        self.observer.appended(0.0)
        self.observer.committed(len(places), 0.0)
        return places

    async def _admit(self, parcels: list[Parcel]) -> None:
        if not self._is_open:
            raise LogUnavailable("the log is closed")
        if self._bytes + sum(item.size for item in parcels) > self._config.memory_bytes:
            raise Saturated("the log in memory is full")
        missing = {item.draft.topic for item in parcels} - self._topics.keys()
        if missing:
            await self.ensure(dict.fromkeys(sorted(missing), self._config.partitions))

    def _store(self, item: Parcel, at: int) -> tuple[Place, int]:
        draft = item.draft
        partitions = self._topics[draft.topic]
        partition = partitions[partition_of(item.key, len(partitions))]
        if partition.kept:
            at = max(at, partition.kept[-1].appended_ms)
        place, position = partition.place, partition.end
        record = Record(place.topic, place.partition, position, draft.key, draft.value, draft.headers, at, draft.note)
        self._bytes += footprint(record)
        partition.publish((record,), 1, footprint(record))
        return place, position

    async def places(self, topic: str) -> list[Place]:
        """As the contract says."""
        return [partition.place for partition in self._topics.get(topic, ())]

    async def bounds(self, place: Place) -> Bounds:
        """As the contract says."""
        return self._partition(place).bounds

    async def read(self, place: Place, position: int, *, max_records: int = 500, max_bytes: int = 8 << 20) -> list[Record]:
        """As the contract says."""
        partition = self._partition(place)
        partition.require(position)
        return partition.tail(position, max_records, max_bytes) or []

    async def position_at(self, place: Place, at_ms: int) -> int:
        """As the contract says."""
        partition = self._partition(place)
        return partition.oldest + bisect_left(partition.kept, at_ms, key=lambda record: record.appended_ms)

    async def lag(self, place: Place, position: int) -> Lag:
        """As the contract says."""
        waiting = await self.read(place, position, max_records=1)
        age_s = max(self._clock() - waiting[0].appended_ms, 0) / 1000 if waiting else 0.0
        return Lag(self._partition(place).end - position, age_s)

    def reader(self, *, group: str, topics: Sequence[str], start: Start) -> EmbeddedReader:
        """As the contract says."""
        reader = EmbeddedReader(self, group=group, topics=topics, start=start)
        self._groups.join(group, reader)
        return reader

    async def trim(self, *, older_than_ms: int, max_bytes: int | None = None) -> int:
        """As the contract says."""
        removed = 0
        for partition in self._all():
            removed += self._cut(partition, await self.position_at(partition.place, older_than_ms))
        while max_bytes is not None and self._bytes > max_bytes:
            first = min((p for p in self._all() if p.kept), key=lambda p: p.kept[0].appended_ms)
            removed += self._cut(first, first.oldest + 1)
        return removed

    def _cut(self, partition: Partition, upto: int) -> int:
        count = upto - partition.oldest
        self._bytes -= sum(map(footprint, partition.kept[:count]))
        del partition.kept[:count]
        partition.oldest = partition.kept_first = upto
        return count

    async def healthy(self) -> bool:
        """As the contract says."""
        return self._is_open

    async def aclose(self, *, grace_s: float = 10.0) -> None:  # noqa: ARG002 - the contract's; nothing is ever under way here
        """As the contract says."""
        self._is_open = False
        self._groups.cut_off()

    def partitions_of(self, topics: Iterable[str]) -> list[Partition]:
        """For readers."""
        return [partition for topic in topics for partition in self._topics.get(topic, ())]

    def left(self, group: str, reader: EmbeddedReader) -> None:
        """For readers."""
        self._groups.leave(group, reader)

    def _all(self) -> list[Partition]:
        return self.partitions_of(self._topics)

    def _partition(self, place: Place) -> Partition:
        partitions = self._topics.get(place.topic, ())
        if place.partition >= len(partitions):
            raise CursorLost(f"there is no {place.topic}/{place.partition}", topic=place.topic, partition=place.partition)
        return partitions[place.partition]


class _Whole(Partition):
    """A partition whose tail is all there is: only retention shortens it."""

    __slots__ = ()

    def publish(self, records: Sequence[Record], count: int, size: int) -> None:
        """Keep everything, whether somebody reads or not."""
        self.end += count
        self.kept.extend(records)
        self.kept_bytes += size
        for reader in self.readers:
            reader.mark(self)

    def release(self, upto: int) -> None:
        """Keep everything."""
