"""Reading in a log of one process: places with their newest records in memory, and the reader over them."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterable, Sequence
from typing import Protocol

from eventlog.log import Batch, Bounds, Start
from eventlog.observer import Observer
from schemas.errors import CursorLost, DamagedRecord, LogUnavailable
from schemas.topics import Place, Record


def lost(place: Place, position: int, bounds: Bounds) -> CursorLost:
    """The error for a cursor outside its place."""
    return CursorLost(
        f"position {position} of {place.topic}/{place.partition} is outside the log, which has {bounds.oldest} to {bounds.end}",
        topic=place.topic,
        partition=place.partition,
        position=position,
        oldest=bounds.oldest,
        end=bounds.end,
    )


class Partition:
    """One place as the event loop knows it: its bounds, and a tail of its newest records for readers that keep up.

        oldest          kept_first          end
          |  on file only  |  kept (a list)  |

    Positions are dense, so the record at position p is `kept[p - kept_first]`.
    """

    __slots__ = ("end", "kept", "kept_bytes", "kept_first", "oldest", "place", "readers")

    def __init__(self, place: Place, oldest: int, end: int) -> None:
        self.place = place
        self.oldest = oldest
        self.end = end
        self.kept: list[Record] = []
        self.kept_first = end
        self.kept_bytes = 0
        self.readers: set[EmbeddedReader] = set()

    @property
    def bounds(self) -> Bounds:
        """What can be read now."""
        return Bounds(self.oldest, self.end)

    def require(self, position: int) -> None:
        """Raise `CursorLost` where `position` is outside."""
        if not self.oldest <= position <= self.end:
            raise lost(self.place, position, self.bounds)

    def publish(self, records: Sequence[Record], count: int, size: int) -> None:
        """Take over `count` committed records at the end; `records` is empty where nobody read when they were written."""
        self.end += count
        if len(records) == count and self.readers:
            self.kept.extend(records)
            self.kept_bytes += size
        else:
            self.kept = []
            self.kept_bytes = 0
            self.kept_first = self.end
        for reader in self.readers:
            reader.mark(self)

    def tail(self, position: int, max_records: int, max_bytes: int) -> list[Record] | None:
        """Records from `position` on, where they are in memory."""
        start = position - self.kept_first
        if start < 0 or not self.kept:
            return None
        found = self.kept[start : start + max_records]
        total = 0
        for n, record in enumerate(found):
            total += len(record.value)
            if total > max_bytes and n:
                return found[:n]
        return found or None

    def release(self, upto: int) -> None:
        """Let go of what is kept before `upto`."""
        count = min(max(upto - self.kept_first, 0), len(self.kept))
        if count:
            self.kept_bytes -= sum(map(footprint, self.kept[:count])) if count < len(self.kept) else self.kept_bytes
            del self.kept[:count]
            self.kept_first += count


def footprint(record: Record) -> int:
    """What a kept record counts for, about."""
    return len(record.value) + 600


class Lease:
    """The ownership that a batch was read under; once gone, it stays gone."""

    __slots__ = ("_is_held",)

    def __init__(self) -> None:
        self._is_held = True

    def is_held(self) -> bool:
        """Whether the reader still owns what it read."""
        return self._is_held

    def revoke(self) -> None:
        """End it."""
        self._is_held = False


class Shelf(Protocol):
    """What a reader needs of its log."""

    observer: Observer
    batch_records: int

    def partitions_of(self, topics: Iterable[str]) -> list[Partition]:
        """The partitions of those topics that are there."""
        ...

    async def read(self, place: Place, position: int, *, max_records: int = 500, max_bytes: int = 8 << 20) -> list[Record]:
        """As the contract says."""
        ...

    def left(self, group: str, reader: EmbeddedReader) -> None:
        """A reader closed."""
        ...


class EmbeddedReader:
    """Reads every partition of its topics; from memory while it keeps up, from the log behind it otherwise.

    `_ready` holds each place with something to read once, in turns.  A place in `_positions` is assigned; one that raised
    `CursorLost` or `DamagedRecord` is not in `_ready` until `seek` puts it back.
    """

    def __init__(self, shelf: Shelf, *, group: str, topics: Sequence[str], start: Start) -> None:
        self._shelf = shelf
        self._group = group
        self._topics = dict.fromkeys(topics)
        self._start = start
        self._lease = Lease()
        self._is_leader = True
        self._is_closed = False
        self._is_stale = True
        self._positions: dict[Place, int] = {}
        self._partitions: dict[Place, Partition] = {}
        self._ready: deque[Partition] = deque()
        self._marked: set[Place] = set()
        self._resting: set[Place] = set()
        self._waiter: asyncio.Future[None] | None = None

    async def next(self) -> Batch:
        """As the contract says."""
        while True:
            if self._is_closed:
                raise LogUnavailable("the reader is closed")
            if self._is_stale and self._is_leader:
                await self._assign()
            if not self._ready:
                await self._wait()
                continue
            partition = self._ready.popleft()
            self._marked.discard(partition.place)
            batch = await self._take(partition)
            if batch is not None:
                return batch

    def progressed(self, place: Place, after: int) -> None:
        """As the contract says; here for displays only."""
        self._shelf.observer.progressed(self._group, place, after)

    def seek(self, place: Place, position: int) -> None:
        """As the contract says."""
        partition = self._partitions.get(place)
        if partition is None:
            return
        self._positions[place] = position
        self._resting.discard(place)
        self.mark(partition)

    def watch(self, topics: Sequence[str]) -> None:
        """As the contract says."""
        self._topics.update(dict.fromkeys(topics))
        self.refresh()

    def refresh(self) -> None:
        """Look for topics and partitions that were not there before."""
        self._is_stale = True
        self._wake()

    def lead(self, *, is_leader: bool) -> None:
        """Be given everything, or lose it."""
        if is_leader == self._is_leader:
            return
        self._is_leader = is_leader
        self._let_go()
        self._is_stale = is_leader
        self._shelf.observer.rebalanced()
        self._wake()

    def mark(self, partition: Partition) -> None:
        """There may be something to read at `partition`."""
        place = partition.place
        if place in self._marked or place in self._resting:
            return
        self._marked.add(place)
        self._ready.append(partition)
        self._wake()

    async def aclose(self) -> None:
        """As the contract says."""
        if not self._is_closed:
            self.cut_off()
            self._shelf.left(self._group, self)

    def cut_off(self) -> None:
        """Close from the log's side."""
        self._is_closed = True
        self._let_go()
        self._wake()

    def _let_go(self) -> None:
        self._lease.revoke()
        self._lease = Lease()
        for partition in self._partitions.values():
            partition.readers.discard(self)
            if not partition.readers:
                partition.release(partition.end)
        for kept in (self._positions, self._partitions, self._ready, self._marked, self._resting):
            kept.clear()

    async def _assign(self) -> None:
        self._is_stale = False
        lease = self._lease
        new = [p for p in self._shelf.partitions_of(self._topics) if p.place not in self._positions]
        if not new:
            return
        try:
            cursors = await self._start([p.place for p in new])
        except BaseException:
            self._is_stale = True
            raise
        if not lease.is_held():
            return
        for partition in new:
            place = partition.place
            position = cursors.get(place, partition.oldest)
            self._positions[place] = position
            self._partitions[place] = partition
            partition.readers.add(self)
            self.mark(partition)

    async def _take(self, partition: Partition) -> Batch | None:
        place, lease = partition.place, self._lease
        position = self._positions[place]
        if position == partition.end:
            return None
        records = partition.tail(position, self._shelf.batch_records, 8 << 20)
        if records is None:
            try:
                records = await self._shelf.read(place, position, max_records=self._shelf.batch_records)
            except (CursorLost, DamagedRecord):
                self._resting.add(place)
                raise
            except BaseException:
                self.mark(partition)
                raise
            if not lease.is_held() or self._positions.get(place) != position:
                return None
        after = records[-1].position + 1 if records else partition.end
        self._positions[place] = after
        partition.release(min(reader.position_of(place, after) for reader in partition.readers))
        if after < partition.end:
            self.mark(partition)
        return Batch(place, tuple(records), position, after, lease.is_held)

    def position_of(self, place: Place, default: int) -> int:
        """Where this reader stands."""
        return self._positions.get(place, default)

    async def _wait(self) -> None:
        self._waiter = asyncio.get_running_loop().create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)


class Groups:
    """The readers of each group; the newest leads."""

    def __init__(self) -> None:
        self._members: dict[str, list[EmbeddedReader]] = {}

    def join(self, group: str, reader: EmbeddedReader) -> None:
        """Let `reader` lead its group."""
        members = self._members.setdefault(group, [])
        if members:
            members[-1].lead(is_leader=False)
        members.append(reader)

    def leave(self, group: str, reader: EmbeddedReader) -> None:
        """Take `reader` out; the one before it leads again."""
        members = self._members.get(group, [])
        if reader in members:
            members.remove(reader)
        if members:
            members[-1].lead(is_leader=True)
        else:
            self._members.pop(group, None)

    def refresh(self) -> None:
        """Tell all readers that a topic was created."""
        for members in self._members.values():
            for reader in members:
                reader.refresh()

    def cut_off(self) -> None:
        """Close all readers."""
        for members in self._members.values():
            for reader in members:
                reader.cut_off()
        self._members.clear()
