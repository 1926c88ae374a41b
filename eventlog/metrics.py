"""An event log's numbers in Prometheus: names of the operators' guide, prefix `nightbell_log_`."""

from __future__ import annotations

from prometheus_client import REGISTRY, CollectorRegistry, Counter, Gauge, Histogram

from eventlog.observer import Observer
from schemas.topics import Place

_SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)
_RECORDS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)


def observing(registry: CollectorRegistry = REGISTRY) -> Observer:
    """An observer that keeps its log's numbers in `registry`, which takes one such observer."""
    duration = Histogram(
        "nightbell_log_append_duration_seconds", "From the call to durable.", buckets=_SECONDS, registry=registry
    )
    refused = Counter(
        "nightbell_log_append_errors", "Appends that were not taken, by the error's code.", ["reason"], registry=registry
    )
    batch = Histogram("nightbell_log_batch_events", "Records in one group commit.", buckets=_RECORDS, registry=registry)
    sync = Histogram("nightbell_log_fsync_duration_seconds", "One group commit.", buckets=_SECONDS, registry=registry)
    queued = Gauge("nightbell_log_queue_events", "Records that wait to become durable.", registry=registry)
    queued_bytes = Gauge("nightbell_log_queue_bytes", "Bytes that wait to become durable.", registry=registry)
    replaced = Counter("nightbell_log_producer_recreated", "Producers replaced after a failure.", ["reason"], registry=registry)
    rebalanced = Counter("nightbell_log_rebalances", "Changes of a reader's assignment.", registry=registry)
    commits = Counter("nightbell_log_commit_failures", "Background commits that failed.", ["reason"], registry=registry)
    stalled = Counter("nightbell_log_reader_stalls", "Readers opened anew because nothing came.", ["topic"], registry=registry)
    committed = Gauge(
        "nightbell_log_committed_offset", "Where a group stands.", ["group", "topic", "partition"], registry=registry
    )
    end = Gauge("nightbell_log_end_offset", "The end of a partition.", ["topic", "partition"], registry=registry)

    def on_committed(records: int, elapsed_s: float) -> None:
        batch.observe(records)
        sync.observe(elapsed_s)

    def on_queued(records: int, size_bytes: int) -> None:
        queued.set(records)
        queued_bytes.set(size_bytes)

    def on_progressed(group: str, place: Place, after: int) -> None:
        committed.labels(group, place.topic, str(place.partition)).set(after)

    return Observer(
        appended=duration.observe,
        refused=lambda reason: refused.labels(reason).inc(),
        committed=on_committed,
        queued=on_queued,
        replaced=lambda reason: replaced.labels(reason).inc(),
        rebalanced=rebalanced.inc,
        commit_failed=lambda reason: commits.labels(reason).inc(),
        stalled=lambda place: stalled.labels(place.topic).inc(),
        progressed=on_progressed,
        ended=lambda place, position: end.labels(place.topic, str(place.partition)).set(position),
    )
