"""The router's figures (names of OPERATIONS: base units, labels from closed sets)."""

from __future__ import annotations

from prometheus_client import REGISTRY, CollectorRegistry, Counter, Gauge, Histogram

_SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1, 5)


class RouterMetrics:
    """One object a process; `registry` is another one only in tests."""

    def __init__(self, registry: CollectorRegistry = REGISTRY) -> None:
        events = Counter(
            "nightbell_route_events_total", "Events routed, by what became of them", ["outcome"], registry=registry
        )
        self.matched = events.labels("matched")
        self.unmatched = events.labels("unmatched")
        self.duplicate = events.labels("duplicate")
        self.dead = events.labels("dead")
        self.duration = Histogram(
            "nightbell_route_duration_seconds", "From a batch read to its admission", buckets=_SECONDS, registry=registry
        )
        self.invocations = Counter("nightbell_invocations_created_total", "Invocations queued", ["agent"], registry=registry)
        self.fenced = Counter(
            "nightbell_route_fenced_total", "Batches dropped: another router moved the cursor", registry=registry
        )
        self.lost = Gauge(
            "nightbell_route_cursors_lost", "Partitions that are not read: their cursor is outside the log", registry=registry
        )
        self.retries = Counter("nightbell_route_admit_retries_total", "Admissions tried again", registry=registry)
        self.rules = Gauge("nightbell_rules", "Subscriptions that plan", registry=registry)
        self.broken_rules = Gauge(
            "nightbell_rules_broken", "Subscriptions whose stored pattern does not compile", registry=registry
        )
