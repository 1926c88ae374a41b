"""How far the router is behind the log: looked at slowly, for those who watch."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence

import structlog
from prometheus_client import REGISTRY, CollectorRegistry, Gauge

from eventlog.log import EventLog
from eventlog.observer import Observer
from schemas.errors import NightbellError
from schemas.topics import Place

_LOOK_EVERY_S = 15.0
_OF_PLACE = ("group", "topic", "partition")
_say = structlog.get_logger()

Cursors = Callable[[str, Sequence[Place]], Awaitable[Mapping[Place, int]]]


class LagMetrics:
    """Gauges of one process."""

    def __init__(self, registry: CollectorRegistry = REGISTRY) -> None:
        self._events = Gauge("nightbell_log_lag_events", "Records that a group has not read yet", _OF_PLACE, registry=registry)
        self._seconds = Gauge("nightbell_log_lag_seconds", "Age of the oldest of them", _OF_PLACE, registry=registry)
        self._used = Gauge(
            "nightbell_log_retention_used_ratio",
            "That age as a part of the retention: at 1 records are lost",
            _OF_PLACE,
            registry=registry,
        )

    def show(self, group: str, place: Place, *, records: int, age_s: float, retention_s: float) -> None:
        """Set the gauges of one place."""
        labels = (group, place.topic, str(place.partition))
        self._events.labels(*labels).set(records)
        self._seconds.labels(*labels).set(age_s)
        self._used.labels(*labels).set(age_s / retention_s)


async def look(
    log: EventLog,
    cursors: Cursors,
    topics: Sequence[str],
    *,
    group: str,
    retention_s: float,
    metrics: LagMetrics,
    observer: Observer,
) -> None:
    """Measure every place of `topics` once.  Raises what log and store raise."""
    places = [place for topic in topics for place in await log.places(topic)]
    kept = await cursors(log.log_id, places)
    for place in places:
        bounds = await log.bounds(place)
        at = max(kept.get(place, bounds.oldest), bounds.oldest)
        lag = await log.lag(place, at)
        observer.ended(place, bounds.end)
        observer.progressed(group, place, at)
        metrics.show(group, place, records=lag.records, age_s=lag.seconds, retention_s=retention_s)


async def keep_looking(
    log: EventLog,
    cursors: Cursors,
    topics: Callable[[], Sequence[str]],
    *,
    group: str,
    retention_s: float,
    metrics: LagMetrics,
    observer: Observer,
) -> None:
    """Measure now and then, until cancelled."""
    while True:
        try:
            await look(log, cursors, topics(), group=group, retention_s=retention_s, metrics=metrics, observer=observer)
        except NightbellError as exc:
            _say.warning("lag_unknown", code=exc.code, detail=exc.detail)
        await asyncio.sleep(_LOOK_EVERY_S)
