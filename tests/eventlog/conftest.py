"""Benches for the contract of the event log, one per driver."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
from aiokafka import TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, RecordsToDelete

from eventlog.config import KafkaConfig, LogConfig
from eventlog.kafka import KafkaLog
from eventlog.log import EventLog
from eventlog.memory import MemoryLog
from eventlog.sql import SqlLog
from schemas.topics import Place
from tests.servers import kafka


class Clock:
    """A wall clock that moves when told to."""

    def __init__(self) -> None:
        self.at_ms = time.time_ns() // 1_000_000

    def __call__(self) -> int:
        return self.at_ms

    def advance(self, ms: int) -> None:
        self.at_ms += ms


class EmbeddedBench:
    """A log of one process, on a clock of ours."""

    prefix = "nightbell"

    def __init__(self, make: Callable[[LogConfig, Clock], EventLog]) -> None:
        self.clock = Clock()
        self._make = make
        self._opened: list[EventLog] = []

    async def open(self, config: LogConfig | None = None) -> EventLog:
        log = self._make(config or LogConfig(reserve_bytes=0), self.clock)
        self._opened.append(log)
        await log.start()
        return log

    def now_ms(self) -> int:
        return self.clock()

    async def tick(self) -> None:
        self.clock.advance(1000)

    async def forget(self, log: EventLog, place: Place, position: int) -> None:
        await log.trim(older_than_ms=self.clock() - 500)
        assert (await log.bounds(place)).oldest == position

    async def aclose(self) -> None:
        for log in self._opened:
            await log.aclose(grace_s=1)


@pytest.fixture
async def memory_bench() -> AsyncIterator[EmbeddedBench]:
    bench = EmbeddedBench(lambda config, clock: MemoryLog(config, clock=clock))
    yield bench
    await bench.aclose()


@pytest.fixture
async def sqlite_bench(tmp_path: Path) -> AsyncIterator[EmbeddedBench]:
    bench = EmbeddedBench(lambda config, clock: SqlLog(tmp_path / "log.db", config, clock=clock))
    yield bench
    await bench.aclose()


FAST = KafkaConfig(session_timeout_s=6, rebalance_timeout_s=6, commit_interval_s=0.1, stall_timeout_s=5)


class KafkaBench:
    """A log on the session's real broker, with topics of its own."""

    def __init__(self, cluster: kafka.Cluster) -> None:
        self.cluster = cluster
        self.prefix = f"test-{uuid.uuid4().hex[:12]}"
        self._opened: list[KafkaLog] = []

    async def open(self, config: LogConfig | None = None) -> EventLog:
        config = (config or LogConfig()).model_copy(update={"kafka": FAST})
        log = KafkaLog(self.cluster.bootstrap.split(","), config)
        self._opened.append(log)
        await log.start()
        return log

    def now_ms(self) -> int:
        return time.time_ns() // 1_000_000

    async def tick(self) -> None:
        await asyncio.sleep(0.03)

    async def forget(self, log: EventLog, place: Place, position: int) -> None:
        admin = AIOKafkaAdminClient(bootstrap_servers=self.cluster.bootstrap)
        await admin.start()
        try:
            await admin.delete_records({TopicPartition(*place): RecordsToDelete(before_offset=position)})
        finally:
            await admin.close()

    async def aclose(self) -> None:
        for log in self._opened:
            await log.aclose(grace_s=1)


@pytest.fixture(scope="session")
def kafka_cluster() -> kafka.Cluster:
    return kafka.shared()


@pytest.fixture
async def kafka_bench(kafka_cluster: kafka.Cluster) -> AsyncIterator[KafkaBench]:
    bench = KafkaBench(kafka_cluster)
    yield bench
    await bench.aclose()
