from __future__ import annotations

import pytest
from prometheus_client import CollectorRegistry

from eventlog.config import LogConfig
from eventlog.memory import MemoryLog
from eventlog.metrics import observing
from schemas.errors import TooLarge
from schemas.topics import Draft, Place


async def test_appends_refusals_and_progress_are_counted() -> None:
    registry = CollectorRegistry()
    log = MemoryLog(LogConfig(max_record_bytes=1024), observer=observing(registry))
    await log.start()

    async def start(_: object) -> dict[Place, int]:
        return {}

    await log.append([Draft("t", "k", b"v", {}), Draft("t", "k", b"v", {})])
    with pytest.raises(TooLarge):
        await log.append([Draft("t", "k", b"v" * 2000, {})])
    reader = log.reader(group="router", topics=["t"], start=start)
    batch = await reader.next()
    reader.progressed(batch.place, batch.after)

    partition = str(batch.place.partition)
    assert registry.get_sample_value("nightbell_log_append_duration_seconds_count") == 1
    assert registry.get_sample_value("nightbell_log_batch_events_sum") == 2
    assert registry.get_sample_value("nightbell_log_append_errors_total", {"reason": "too_large"}) == 1
    labels = {"group": "router", "topic": "t", "partition": partition}
    assert registry.get_sample_value("nightbell_log_committed_offset", labels) == 2


def test_every_hook_has_a_metric() -> None:
    registry = CollectorRegistry()
    observer = observing(registry)

    observer.queued(3, 4000)
    observer.replaced("KafkaTimeoutError")
    observer.rebalanced()
    observer.commit_failed("timeout")
    observer.stalled(Place("t", 0))
    observer.ended(Place("t", 0), 9)

    assert registry.get_sample_value("nightbell_log_queue_events") == 3
    assert registry.get_sample_value("nightbell_log_queue_bytes") == 4000
    assert registry.get_sample_value("nightbell_log_producer_recreated_total", {"reason": "KafkaTimeoutError"}) == 1
    assert registry.get_sample_value("nightbell_log_rebalances_total") == 1
    assert registry.get_sample_value("nightbell_log_commit_failures_total", {"reason": "timeout"}) == 1
    assert registry.get_sample_value("nightbell_log_reader_stalls_total", {"topic": "t"}) == 1
    assert registry.get_sample_value("nightbell_log_end_offset", {"topic": "t", "partition": "0"}) == 9
