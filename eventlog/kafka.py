"""The event log on Apache Kafka.

Rules that aiokafka's defaults break, each of which lost or blocked records somewhere: acks from all replicas with an idempotent
producer; a deadline of our own around every wait, since retriable errors are retried for ever; a producer that failed to send
is replaced, since it has spent the sequence number of a batch that the broker never saw; large batches, since a full one wakes
every waiting sender; no automatic commits and no automatic reset: a cursor is sought, or it is lost and said to be.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any

import structlog
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition, errors
from aiokafka.admin import AIOKafkaAdminClient

from eventlog.config import LogConfig
from eventlog.embedded import lost
from eventlog.kafka_access import options
from eventlog.kafka_errors import bounded
from eventlog.kafka_group import GroupConsumer, record_of, within
from eventlog.kafka_reader import KafkaReader
from eventlog.kafka_topics import SLACK_BYTES, TopicShapes
from eventlog.keys import Parcel, parcel, partition_of
from eventlog.log import Bounds, Lag, Start
from eventlog.memory import now_ms
from eventlog.observer import SILENT, Observer
from schemas.errors import CursorLost, LogUnavailable, NightbellError, Saturated, TooLarge
from schemas.topics import Draft, Place, Record

BATCH_BYTES = 1 << 20
FETCH_BYTES = 4 << 20
RETRY_S = 0.5
SEQUENCE_RECORDS = 1 << 30  # of one producer: after 2**31 in a partition aiokafka's sequence goes where the broker's does not
_LOG = structlog.get_logger("eventlog")


class KafkaLog:
    """One producer at a time, one client for questions, one consumer for reads without a group, one per reader."""

    def __init__(
        self,
        servers: Sequence[str],
        config: LogConfig | None = None,
        *,
        observer: Observer = SILENT,
        clock: Callable[[], int] = now_ms,
    ) -> None:
        self._config = config or LogConfig()
        self._kafka = self._config.kafka
        self._servers = list(servers)
        self._options = options(servers, self._kafka)
        self._clock = clock
        self._cluster_id = ""
        self._admin: Any = None
        self._shapes: TopicShapes
        self._prober: Any = None
        self._producer: Any = None
        self._retry_at = 0.0
        self._topics: dict[str, int] = {}
        self._shaping = asyncio.Lock()
        self._probing = asyncio.Lock()
        self._producing = asyncio.Lock()
        self._readers: set[KafkaReader] = set()
        self._retiring: set[asyncio.Task[None]] = set()
        self._is_open = False
        self._sending: set[asyncio.Task[list[tuple[Place, int]]]] = set()
        self._sent_records = 0
        self.queued_records = 0
        self.queued_bytes = 0
        self.observer = observer

    @property
    def log_id(self) -> str:
        """The cluster's id."""
        return self._cluster_id

    @property
    def max_record_bytes(self) -> int:
        """As the contract says."""
        return self._config.max_record_bytes

    async def start(self) -> None:
        """As the contract says."""
        async with bounded(4 * self._kafka.request_timeout_s):
            self._admin = AIOKafkaAdminClient(**self._options)
            try:
                await self._admin.start()
                self._shapes = TopicShapes(self._admin, self._servers[0], self._config)
                self._cluster_id = f"kafka-{(await self._admin.describe_cluster())['cluster_id']}"
                self._prober = self.consumer(None)
                await self._prober.start()
            except BaseException:
                await self._close_clients()
                raise
        self._is_open = True
        try:
            await self._ready_producer()
        except BaseException:
            self._is_open = False
            await self._close_clients()
            raise
        _LOG.info("log_opened", servers=self._servers, log_id=self._cluster_id)

    def consumer(self, group: str | None) -> Any:
        """A consumer, not yet started, that never commits and never resets by itself."""
        session_ms = int(self._kafka.session_timeout_s * 1000)
        return AIOKafkaConsumer(
            **self._options,
            group_id=group,
            enable_auto_commit=False,
            auto_offset_reset="none",
            isolation_level="read_committed",
            session_timeout_ms=session_ms,
            heartbeat_interval_ms=min(3000, session_ms // 3),
            rebalance_timeout_ms=int(self._kafka.rebalance_timeout_s * 1000),
            max_poll_interval_ms=max(300_000, session_ms),
            max_partition_fetch_bytes=FETCH_BYTES,
            fetch_max_wait_ms=500,
        )

    async def ensure(self, topics: Mapping[str, int]) -> None:
        """As the contract says; also replication, retention and sizes.  A mismatch names the command that mends it."""
        unknown = {topic: count for topic, count in topics.items() if self._topics.get(topic) != count}
        if not unknown:
            return
        self._require_open()
        async with self._shaping, bounded(6 * self._kafka.request_timeout_s):
            await self._shapes.ensure(unknown)
        self._topics.update(unknown)
        for reader in self._readers:
            reader.refresh()

    async def append(self, drafts: Sequence[Draft]) -> list[tuple[Place, int]]:
        """As the contract says."""
        since = time.perf_counter()
        try:
            parcels = [parcel(draft, self._config.max_record_bytes) for draft in drafts]
            size = sum([item.size for item in parcels])
            self._admit(len(parcels), size)
            places = await self._underway(parcels, size)
        except NightbellError as exc:
            self.observer.refused(exc.code)
            raise
        self.observer.appended(time.perf_counter() - since)
        self.observer.queued(self.queued_records, self.queued_bytes)
        return places

    def _underway(self, parcels: list[Parcel], size: int) -> asyncio.Future[list[tuple[Place, int]]]:
        # In a task of its own: whoever gives up waiting must not leave records in the producer that nobody counts, nor a
        # failure that nobody sees.
        self.queued_records += len(parcels)
        self.queued_bytes += size
        task = asyncio.get_running_loop().create_task(self._produce(parcels))
        self._sending.add(task)

        def ended(task: asyncio.Task[list[tuple[Place, int]]]) -> None:
            self._sending.discard(task)
            self.queued_records -= len(parcels)
            self.queued_bytes -= size
            if not task.cancelled():
                task.exception()  # looked at, so that asyncio does not complain where nobody waits any more

        task.add_done_callback(ended)
        return asyncio.shield(task)

    def _admit(self, records: int, size: int) -> None:
        self._require_open()
        if self.queued_records and (
            self.queued_records + records > self._config.queue_records or self.queued_bytes + size > self._config.queue_bytes
        ):
            raise Saturated("too many records are on their way to Kafka", records=self.queued_records, bytes=self.queued_bytes)

    def _require_open(self) -> None:
        if not self._is_open:
            raise LogUnavailable("the event log is closed", reason="closed")

    async def _produce(self, parcels: list[Parcel]) -> list[tuple[Place, int]]:
        producer = None
        try:
            async with bounded(self._kafka.append_timeout_s):
                missing = {item.draft.topic for item in parcels if item.draft.topic not in self._topics}
                if missing:
                    await self._learn(missing)
                producer = self._producer or await self._ready_producer()
                places = await self._sent(producer, parcels)
        except TooLarge:
            raise
        except NightbellError as exc:
            if producer is not None:
                self._retire(producer, str(exc.fields.get("reason")))
            raise
        self._sent_records += len(places)
        if self._sent_records > SEQUENCE_RECORDS:
            self._retire(producer, "sequence")
        return places

    async def _sent(self, producer: Any, parcels: list[Parcel]) -> list[tuple[Place, int]]:
        futures = []
        for draft, key, _, _ in parcels:
            headers = [(name, value.encode()) for name, value in draft.headers.items()]
            partition = partition_of(key, self._topics[draft.topic])
            futures.append(await producer.send(draft.topic, draft.value, key, partition=partition, headers=headers))
        if len(futures) == 1:
            told = [await futures[0]]
        else:
            told = await asyncio.gather(*futures, return_exceptions=True)
            for each in told:
                if isinstance(each, BaseException):
                    raise each
        return [(Place(meta.topic, meta.partition), meta.offset) for meta in told]

    async def _learn(self, topics: set[str]) -> None:
        there = await self._shapes.described()
        for topic in sorted(topics):
            if topic in there:
                self._topics[topic] = len(there[topic])
            else:
                await self.ensure({topic: self._config.partitions})

    async def _ready_producer(self) -> Any:
        async with self._producing:
            if self._producer is not None:
                return self._producer
            if time.monotonic() < self._retry_at:
                raise LogUnavailable("Kafka failed a moment ago", reason="backoff")
            self._require_open()
            self._retry_at = time.monotonic() + RETRY_S
            producer = AIOKafkaProducer(
                **self._options,
                acks="all",
                enable_idempotence=True,
                linger_ms=int(self._kafka.linger_s * 1000),
                max_batch_size=BATCH_BYTES,
                max_request_size=self._config.max_record_bytes + SLACK_BYTES,
            )
            try:
                async with bounded(2 * self._kafka.request_timeout_s):
                    await producer.start()
            except BaseException:
                with suppress(Exception):  # it never worked; the first error is the one to tell
                    await producer.stop()
                raise
            self._producer = producer
            self._sent_records = 0
            return producer

    def _retire(self, producer: Any, reason: str) -> None:
        if producer is not self._producer:
            return
        self._producer = None
        self.observer.replaced(reason)
        _LOG.warning("producer_replaced", reason=reason)
        task = asyncio.get_running_loop().create_task(self._stop_producer(producer))
        self._retiring.add(task)  # held until it ends, and awaited by aclose
        task.add_done_callback(self._retiring.discard)

    async def _stop_producer(self, producer: Any) -> None:
        # What is on its way may still arrive; then whoever waits is told, so that `stop` cannot wait for ever.
        try:
            async with bounded(self._kafka.request_timeout_s):
                await producer.flush()
        except NightbellError as exc:
            producer._message_accumulator.fail_all(errors.KafkaTimeoutError(exc.detail))  # noqa: SLF001 - aiokafka has no public way to give up
        try:
            async with bounded(self._kafka.request_timeout_s):
                await producer.stop()
        except NightbellError as exc:
            _LOG.warning("producer_stop_failed", reason=exc.fields.get("reason"))

    async def places(self, topic: str) -> list[Place]:
        """As the contract says."""
        count = self._topics.get(topic)
        if count is None:
            self._require_open()
            async with bounded(2 * self._kafka.request_timeout_s):
                there = await self._shapes.described()
            count = len(there.get(topic, ()))
            if count:
                self._topics[topic] = count
        return [Place(topic, number) for number in range(count)]

    async def bounds(self, place: Place) -> Bounds:
        """As the contract says."""
        if place not in await self.places(place.topic):
            raise CursorLost(f"there is no {place.topic}/{place.partition}", topic=place.topic, partition=place.partition)
        return (await self.bounds_of([place]))[place]

    async def bounds_of(self, places: Sequence[Place]) -> dict[Place, Bounds]:
        """The bounds of several places at once."""
        self._require_open()
        partitions = [TopicPartition(*place) for place in places]
        async with bounded(2 * self._kafka.request_timeout_s):
            oldest = await self._prober.beginning_offsets(partitions)
            ends = await self._prober.end_offsets(partitions)
        for place, partition in zip(places, partitions, strict=True):
            self.observer.ended(place, ends[partition])
        return {Place(*partition): Bounds(oldest[partition], ends[partition]) for partition in partitions}

    async def read(self, place: Place, position: int, *, max_records: int = 500, max_bytes: int = 8 << 20) -> list[Record]:
        """As the contract says."""
        bounds = await self.bounds(place)
        if not bounds.oldest <= position <= bounds.end:
            raise lost(place, position, bounds)
        if position == bounds.end:
            return []
        partition = TopicPartition(*place)
        async with self._probing, bounded(4 * self._kafka.request_timeout_s):
            self._prober.assign([partition])
            self._prober.seek(partition, position)
            found: list[Any] = []
            while not found and await self._prober.position(partition) < bounds.end:
                got = await self._prober.getmany(partition, timeout_ms=500, max_records=max_records)
                found = got.get(partition, [])
            self._prober.unsubscribe()
        return within([record_of(raw) for raw in found], max_bytes)

    async def position_at(self, place: Place, at_ms: int) -> int:
        """As the contract says."""
        bounds = await self.bounds(place)
        partition = TopicPartition(*place)
        async with bounded(2 * self._kafka.request_timeout_s):
            found = await self._prober.offsets_for_times({partition: max(at_ms, 0)})
        return int(found[partition].offset) if found[partition] is not None else bounds.end

    async def lag(self, place: Place, position: int) -> Lag:
        """As the contract says."""
        waiting = await self.read(place, position, max_records=1)
        if not waiting:
            return Lag(0, 0.0)
        age_s = max(self._clock() - waiting[0].appended_ms, 0) / 1000
        return Lag((await self.bounds(place)).end - position, age_s)

    def reader(self, *, group: str, topics: Sequence[str], start: Start) -> KafkaReader:
        """As the contract says."""
        reader = KafkaReader(self, group=group, topics=topics, start=start, config=self._config)
        self._readers.add(reader)
        return reader

    def left(self, reader: KafkaReader) -> None:
        """For readers."""
        self._readers.discard(reader)

    def group_consumer(self, group: str) -> GroupConsumer:
        """For readers: a member of `group`, not yet started."""
        return GroupConsumer(self.consumer(group), self._kafka)

    async def trim(self, *, older_than_ms: int, max_bytes: int | None = None) -> int:  # noqa: ARG002 - the contract's; the broker does it
        """As the contract says: the topics' own retention does it."""
        return 0

    async def healthy(self) -> bool:
        """As the contract says."""
        try:
            async with bounded(self._kafka.request_timeout_s):
                await self._ready_producer()
                await self._admin.describe_cluster()
        except NightbellError:
            return False
        return True

    async def aclose(self, *, grace_s: float = 10.0) -> None:
        """As the contract says."""
        if not self._is_open:
            return
        self._is_open = False
        if self._sending:
            await asyncio.wait(self._sending, timeout=grace_s)
        await asyncio.gather(*[reader.aclose() for reader in list(self._readers)])
        producer, self._producer = self._producer, None
        if producer is not None:
            await self._stop_producer(producer)
        if self._retiring:
            await asyncio.wait(self._retiring, timeout=2 * self._kafka.request_timeout_s)
        await self._close_clients()
        _LOG.info("log_closed", log_id=self._cluster_id)

    async def _close_clients(self) -> None:
        for client in (self._prober, self._admin):
            if client is not None:
                with suppress(NightbellError):  # nothing more is asked of it
                    async with bounded(self._kafka.request_timeout_s):
                        await (client.stop() if client is self._prober else client.close())
