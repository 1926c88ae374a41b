"""Reading on Kafka: which places this member owns, from where it reads each, and what is done when nothing comes."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

import structlog

from eventlog.config import LogConfig
from eventlog.embedded import Lease, lost
from eventlog.log import Batch, Bounds, Start
from eventlog.observer import Observer
from schemas.errors import CursorLost, DamagedRecord, LogUnavailable, NightbellError
from schemas.topics import Place, Record

Revoked = Callable[[], None]
Assigned = Callable[[list[Place]], None]
POLL_S = 0.25  # how long a fetch may wait before the assignment is looked at again; records wake it at once
MISSING_S = 2.0  # between two looks for topics that are not there yet
_LOG = structlog.get_logger("eventlog")


class Member(Protocol):
    """A member of a consumer group; see `kafka_group.GroupConsumer`."""

    async def start(self, topics: Sequence[str], revoked: Revoked, assigned: Assigned) -> None:
        """Join the group; both callbacks are called between fetches, `assigned` with its places held back."""
        ...

    def subscribe(self, topics: Sequence[str], revoked: Revoked, assigned: Assigned) -> None:
        """Read these topics from now on."""
        ...

    async def fetch(self, *, max_records: int, timeout_s: float) -> dict[Place, list[Record]]:
        """Records by place; empty when the time is over."""
        ...

    def go_on(self, place: Place, position: int) -> None:
        """Fetch `place` from `position` on."""
        ...

    def hold(self, place: Place) -> None:
        """Fetch `place` no more."""
        ...

    async def commit(self, cursors: Mapping[Place, int]) -> None:
        """Write cursors for displays."""
        ...

    async def stop(self) -> None:
        """Leave the group."""
        ...


class Home(Protocol):
    """What a reader needs of its log."""

    observer: Observer

    def group_consumer(self, group: str) -> Member:
        """A member of `group`, not yet started."""
        ...

    async def places(self, topic: str) -> list[Place]:
        """The partitions of a topic."""
        ...

    async def bounds_of(self, places: Sequence[Place]) -> dict[Place, Bounds]:
        """The bounds of several places."""
        ...

    def left(self, reader: KafkaReader) -> None:
        """A reader closed."""
        ...


class KafkaReader:
    """Opens its consumer with the first `next`, and anew after it failed or stalled.

    A place goes through: assigned (held back, in `_unplaced`) -> `start` asked -> sought and fetched (in `_positions`).  A
    revocation empties all of it at once and ends the lease that earlier batches carry.
    """

    def __init__(self, home: Home, *, group: str, topics: Sequence[str], start: Start, config: LogConfig) -> None:
        self._home = home
        self._group = group
        self._topics = dict.fromkeys(topics)
        self._subscribed: list[str] = []
        self._start = start
        self._config = config
        self._member: Member | None = None
        self._lease = Lease()
        self._unplaced: list[Place] = []
        self._positions: dict[Place, int] = {}
        self._resting: set[Place] = set()
        self._ready: deque[tuple[Place, list[Record]]] = deque()
        self._errors: deque[NightbellError] = deque()
        self._progress: dict[Place, int] = {}
        self._committing: asyncio.Task[None] | None = None
        self._opening: asyncio.Task[None] | None = None
        self._look_at = 0.0
        self._heard_at = time.monotonic()
        self._stuck: dict[Place, int] = {}
        self._is_closed = False

    async def next(self) -> Batch:
        """As the contract says."""
        while True:
            if self._is_closed:
                raise LogUnavailable("the reader is closed", reason="closed")
            member = await self._joined()
            if self._unplaced:
                await self._place(member)
            if self._errors:
                raise self._errors.popleft()
            if self._ready:
                place, records = self._ready.popleft()
                return self._batch(place, records)
            await self._fetch(member)

    def _batch(self, place: Place, records: list[Record]) -> Batch:
        first, after = self._positions[place], records[-1].position + 1
        self._positions[place] = after
        return Batch(place, tuple(records), first, after, self._lease.is_held)

    async def _fetch(self, member: Member) -> None:
        lease = self._lease
        try:
            got = await member.fetch(max_records=self._config.batch_records, timeout_s=POLL_S)
        except (CursorLost, DamagedRecord) as exc:
            self._rest(member, exc)
            raise
        except NightbellError:
            if not self._is_closed:
                await self._leave()
            raise
        if got:
            self._heard_at = time.monotonic()
            self._stuck.clear()
        elif time.monotonic() - self._heard_at > self._config.kafka.stall_timeout_s / 2:
            await self._watch_for_stalls()
        if lease.is_held():
            self._ready.extend((place, records) for place, records in got.items() if place in self._positions)

    def _rest(self, member: Member, error: NightbellError) -> None:
        topic, partition = error.fields.get("topic"), error.fields.get("partition")
        for place in [each for each in self._positions if each == (topic, partition)]:
            self._resting.add(Place(*place))
            member.hold(Place(*place))

    async def _watch_for_stalls(self) -> None:
        # aiokafka has been seen to stop fetching without a word.  A cursor that stays where it is, twice in a row and with
        # records behind it, is opened anew: that costs a rebalance, and a silent stall costs everything.
        self._heard_at = time.monotonic()
        mine = [place for place in self._positions if place not in self._resting]
        bounds = await self._home.bounds_of(mine) if mine else {}
        behind = {
            place: self._positions.get(place, 0) for place, found in bounds.items() if self._positions.get(place, 0) < found.end
        }
        stalled = [place for place, position in behind.items() if self._stuck.get(place) == position]
        self._stuck = behind
        if stalled:
            _LOG.error("reader_stalled", group=self._group, places=[f"{place.topic}/{place.partition}" for place in stalled])
            for place in stalled:
                self._home.observer.stalled(place)
            await self._leave()

    async def _joined(self) -> Member:
        now = time.monotonic()
        if self._member is None or (now >= self._look_at and len(self._subscribed) < len(self._topics)):
            self._look_at = now + MISSING_S
            there = [topic for topic in self._topics if await self._home.places(topic)]
            if self._member is None:
                await self._join(there)
            elif there != self._subscribed:
                self._subscribed = there
                self._member.subscribe(there, self._revoked, self._assigned)
        if self._member is None:
            await asyncio.sleep(POLL_S)
            return await self._joined()
        return self._member

    async def _join(self, there: list[str]) -> None:
        if not there or self._is_closed:
            if self._is_closed:
                raise LogUnavailable("the reader is closed", reason="closed")
            return
        member = self._home.group_consumer(self._group)
        self._subscribed = there
        self._heard_at = time.monotonic()
        self._opening = opening = asyncio.get_running_loop().create_task(member.start(there, self._revoked, self._assigned))
        try:
            await asyncio.wait([opening])
        finally:
            self._opening = None
            if not opening.done():  # whoever waits for `next` gave up
                opening.cancel()
                await asyncio.wait([opening])
            if self._is_closed or opening.cancelled() or opening.exception() is not None:
                self._revoked()
                await self._stop(member)
        if self._is_closed or opening.cancelled():
            raise LogUnavailable("the reader is closed", reason="closed")
        opening.result()
        self._member = member
        self._committing = asyncio.get_running_loop().create_task(self._commit_now_and_then(member))

    def _revoked(self) -> None:
        self._lease.revoke()
        self._lease = Lease()
        for kept in (self._unplaced, self._positions, self._resting, self._ready, self._progress, self._stuck):
            kept.clear()
        self._home.observer.rebalanced()

    def _assigned(self, places: list[Place]) -> None:
        self._unplaced[:] = places

    async def _place(self, member: Member) -> None:
        lease, places = self._lease, list(self._unplaced)
        cursors = await self._start(places)
        bounds = await self._home.bounds_of(places)
        if not lease.is_held():
            return
        self._unplaced.clear()
        for place in places:
            found = bounds[place]
            position = cursors.get(place, found.oldest)
            self._positions[place] = position
            if found.oldest <= position <= found.end:
                member.go_on(place, position)
            else:
                self._resting.add(place)
                self._errors.append(lost(place, position, found))

    def progressed(self, place: Place, after: int) -> None:
        """As the contract says."""
        if place in self._positions:
            self._progress[place] = after
            self._home.observer.progressed(self._group, place, after)

    def seek(self, place: Place, position: int) -> None:
        """As the contract says."""
        if self._member is None or place not in self._positions:
            return
        self._positions[place] = position
        self._resting.discard(place)
        self._ready = deque(each for each in self._ready if each[0] != place)
        self._member.go_on(place, position)

    def watch(self, topics: Sequence[str]) -> None:
        """As the contract says."""
        self._topics.update(dict.fromkeys(topics))
        self.refresh()

    def refresh(self) -> None:
        """Look for topics that were not there before."""
        self._look_at = 0.0

    async def _commit_now_and_then(self, member: Member) -> None:
        while True:
            await asyncio.sleep(self._config.kafka.commit_interval_s)
            await self._commit(member)

    async def _commit(self, member: Member) -> None:
        cursors, self._progress = self._progress, {}
        if not cursors:
            return
        try:
            await member.commit(cursors)
        except NightbellError as exc:
            # Nothing rests on these commits: the store has the cursors.
            self._home.observer.commit_failed(str(exc.fields.get("reason")))

    async def _leave(self) -> None:
        member, self._member = self._member, None
        committing, self._committing = self._committing, None
        if committing is not None:
            committing.cancel()
            await asyncio.wait([committing])
        self._revoked()
        if member is not None:
            await self._stop(member)

    async def _stop(self, member: Member) -> None:
        try:
            await member.stop()
        except NightbellError as exc:
            _LOG.warning("reader_stop_failed", group=self._group, reason=exc.fields.get("reason"))

    async def aclose(self) -> None:
        """As the contract says."""
        if self._is_closed:
            return
        self._is_closed = True
        if self._opening is not None:
            self._opening.cancel()
        if self._member is not None:
            await self._commit(self._member)
        await self._leave()
        self._home.left(self)
