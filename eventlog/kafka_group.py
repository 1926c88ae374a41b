"""A member of a Kafka consumer group, in our words: places, records and our errors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

from aiokafka import TopicPartition, errors
from aiokafka.abc import ConsumerRebalanceListener

from eventlog.config import KafkaConfig
from eventlog.kafka_errors import bounded, translated
from eventlog.kafka_reader import Assigned, Revoked
from schemas.errors import CursorLost
from schemas.topics import Place, Record


class GroupConsumer:
    """One membership; it is joined by `start`."""

    def __init__(self, consumer: Any, config: KafkaConfig) -> None:
        self._consumer = consumer
        self._config = config

    async def start(self, topics: Sequence[str], revoked: Revoked, assigned: Assigned) -> None:
        """Join.  Both callbacks are called between fetches; `assigned` finds its places held back until `go_on`."""
        self.subscribe(topics, revoked, assigned)
        async with bounded(self._config.rebalance_timeout_s + self._config.session_timeout_s):
            await self._consumer.start()

    def subscribe(self, topics: Sequence[str], revoked: Revoked, assigned: Assigned) -> None:
        """Read these topics from now on."""
        self._consumer.subscribe(topics=list(topics), listener=_Listener(self._consumer, revoked, assigned))

    async def fetch(self, *, max_records: int, timeout_s: float) -> dict[Place, list[Record]]:
        """Records by place; empty when the time is over."""
        try:
            got = await self._consumer.getmany(timeout_ms=int(timeout_s * 1000), max_records=max_records)
        except errors.OffsetOutOfRangeError as exc:
            (partition, position), *_ = exc.args[0].items()
            raise CursorLost(
                f"position {position} of {partition.topic}/{partition.partition} is outside the log",
                topic=partition.topic,
                partition=partition.partition,
                position=position,
            ) from exc
        except (errors.KafkaError, OSError) as exc:
            raise translated(exc) from exc
        return {Place(*partition): [record_of(raw) for raw in records] for partition, records in got.items()}

    def go_on(self, place: Place, position: int) -> None:
        """Fetch `place` from `position` on, where it is still assigned."""
        partition = TopicPartition(*place)
        with suppress(errors.IllegalStateError):  # revoked meanwhile: whoever owns it now does it
            self._consumer.seek(partition, position)
            self._consumer.resume(partition)

    def hold(self, place: Place) -> None:
        """Fetch `place` no more."""
        with suppress(errors.IllegalStateError):  # revoked meanwhile
            self._consumer.pause(TopicPartition(*place))

    async def commit(self, cursors: Mapping[Place, int]) -> None:
        """Write cursors for displays.  Raises `FencedOut` after a rebalance, which is nothing unusual."""
        async with bounded(2 * self._config.request_timeout_s):
            await self._consumer.commit({TopicPartition(*place): after for place, after in cursors.items()})

    async def stop(self) -> None:
        """Leave the group."""
        async with bounded(2 * self._config.request_timeout_s):
            await self._consumer.stop()


class _Listener(ConsumerRebalanceListener):  # type: ignore[misc]  # aiokafka ships no types
    def __init__(self, consumer: Any, revoked: Revoked, assigned: Assigned) -> None:
        self._consumer = consumer
        self._revoked = revoked
        self._assigned = assigned

    def on_partitions_revoked(self, revoked: Any) -> None:  # noqa: ARG002 - the protocol is eager: everything is revoked
        self._revoked()

    def on_partitions_assigned(self, assigned: Any) -> None:
        # Without a position aiokafka would take the group's committed one, which is for displays only.
        for partition in assigned:
            self._consumer.pause(partition)
            self._consumer.seek(partition, 0)
        self._assigned([Place(*partition) for partition in sorted(assigned)])


def record_of(raw: Any) -> Record:
    """A fetched record in our shape; a foreign producer's record without a key has the empty one."""
    key = raw.key.decode("utf-8", "replace") if raw.key is not None else ""
    headers = {name: value.decode("utf-8", "replace") for name, value in raw.headers}
    return Record(raw.topic, raw.partition, raw.offset, key, raw.value or b"", headers, raw.timestamp)


def within(records: list[Record], max_bytes: int) -> list[Record]:
    """As many of the first records as `max_bytes` hold, at least one."""
    total = 0
    for n, record in enumerate(records):
        total += len(record.value)
        if total > max_bytes and n:
            return records[:n]
    return records
