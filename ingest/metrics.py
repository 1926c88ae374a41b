"""What the edge counts (names of the operators' handbook); labels come from closed sets and the book's names."""

from __future__ import annotations

from prometheus_client import REGISTRY, CollectorRegistry, Counter, Gauge, Histogram

from ingest.steps import Step, Unproven
from schemas import errors
from schemas.errors import NightbellError

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5)
_BYTES = (256, 1024, 4096, 16_384, 65_536, 262_144, 1_048_576, 4_194_304, 27_262_976)
_SKEW = (-300, -60, -10, -1, 0, 1, 5, 10, 30, 60, 120, 300, 600, 1800)
_MAX_SOURCES = 500
_STALE = {Step.TIMESTAMP_STALE, Step.TIMESTAMP_FUTURE, Step.TOKEN_EXPIRED}
OUTCOMES: dict[type[NightbellError], str] = {
    errors.MalformedRequest: "malformed",
    errors.BadSignature: "bad_signature",
    errors.NotFound: "unknown_source",
    errors.WrongMethod: "wrong_method",
    errors.TooSlow: "too_slow",
    errors.TooLarge: "too_large",
    errors.UnsupportedMedia: "unsupported_media",
    errors.Throttled: "throttled",
    errors.Saturated: "shed",
    errors.Busy: "unavailable",
    errors.Refused: "refused",
    NightbellError: "failed",
}


def outcome_of(error: NightbellError) -> str:
    """The label for what became of a request that was not taken."""
    if isinstance(error, Unproven) and error.step in _STALE:
        return "stale"
    return next(OUTCOMES[kind] for kind in type(error).__mro__ if kind in OUTCOMES)


class IngestMetrics:
    """One object a process; `registry` is another one only in tests."""

    def __init__(self, registry: CollectorRegistry = REGISTRY) -> None:
        """Register the instruments; a registry takes one set."""
        labels = ["provider", "source", "outcome"]
        self._requests = Counter(
            "nightbell_ingest_requests_total", "Requests, by what became of them", labels, registry=registry
        )
        self._events = Counter("nightbell_ingest_events_total", "Events appended", ["provider"], registry=registry)
        self.duration = Histogram(
            "nightbell_ingest_duration_seconds", "From the first byte to the answer", buckets=_SECONDS, registry=registry
        )
        self.body_bytes = Histogram(
            "nightbell_ingest_body_bytes", "Sizes of bodies that were taken", buckets=_BYTES, registry=registry
        )
        self.inflight = Gauge("nightbell_ingest_inflight", "Requests in flight", registry=registry)
        self.skew = Histogram(
            "nightbell_signature_skew_seconds", "Our clock less the signed time", buckets=_SKEW, registry=registry
        )
        self.sources = Gauge("nightbell_ingest_sources", "Sources in the book", registry=registry)
        self.refusals_dropped = Counter(
            "nightbell_ingest_refusals_dropped_total", "Refusals that were counted, and not kept", registry=registry
        )
        self._last = Gauge(
            "nightbell_source_last_event_timestamp_seconds",
            "When a source last brought an event",
            ["source"],
            registry=registry,
        )
        self._event_children: dict[str, Counter] = {}
        self._children: dict[tuple[str, str, str], Counter] = {}
        self._last_children: dict[str, Gauge] = {}

    def count(self, provider: str, source: str, outcome: str) -> None:
        """One more request with that end."""
        key = (provider, source, outcome)
        child = self._children.get(key)
        if child is None:
            child = self._children[key] = self._requests.labels(provider, self._bounded(source), outcome)
        child.inc()

    def appended(self, provider: str, count: int) -> None:
        """So many more events of that provider are in the log."""
        child = self._event_children.get(provider)
        if child is None:
            child = self._event_children[provider] = self._events.labels(provider)
        child.inc(count)

    def brought(self, source: str, now_ms: int) -> None:
        """The source brought an event."""
        child = self._last_children.get(source)
        if child is None:
            child = self._last_children[source] = self._last.labels(self._bounded(source))
        child.set(now_ms / 1000)

    def _bounded(self, source: str) -> str:
        names = {name for _, name, _ in self._children}
        return source if source in names or len(names) < _MAX_SOURCES else "other"


class SpoolMetrics:
    """What the spool tells: how much it holds, how old, how often it was needed."""

    def __init__(self, registry: CollectorRegistry = REGISTRY) -> None:
        """Register the instruments; a registry takes one set."""
        self.size = Gauge("nightbell_spool_bytes", "Bytes of events that wait in the spool", registry=registry)
        self.age = Gauge(
            "nightbell_spool_oldest_age_seconds", "How long the spool's oldest event has waited", registry=registry
        )
        self.spooled = Counter("nightbell_spool_events_total", "Events that went to the spool", registry=registry)
        self.drained = Counter(
            "nightbell_spool_drained_events_total", "Events that left the spool for the log", registry=registry
        )
        self.damaged = Counter(
            "nightbell_spool_damaged_records_total", "Records of the spool that could not be read", registry=registry
        )
        self.diverted = Counter(
            "nightbell_spool_diverted_appends_total", "Appends that the log did not take in time", ["reason"], registry=registry
        )
