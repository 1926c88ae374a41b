"""What a process does beside its stages: applies retention, tends the store."""

from __future__ import annotations

import asyncio

import structlog
from prometheus_client import REGISTRY, CollectorRegistry, Gauge

from eventlog.log import EventLog
from runtime.clock import now_ms
from schemas.errors import NightbellError
from store.conservation import gaps
from store.deadletters import REASONS, all_dead_counts
from store.engine import Engine
from store.events import rejected_count
from store.lanes import blocked_lanes
from store.parts import gathered_strays
from store.retention import Retention
from store.upkeep import sweep
from store.vault import Vault

_DAY_MS = 86_400_000
_SWEEP_EVERY_S = 300.0
_TEND_EVERY_S = 60.0
_COUNTED_MS = 600_000  # what was admitted in the last ten minutes is counted after
_say = structlog.get_logger()


async def keep_to_retention(log: EventLog, retention: Retention, *, log_days: float) -> None:
    """Make room for the days to come and delete what is too old, every few minutes, until cancelled."""
    while True:
        try:
            if made := await retention.make_room(now_ms()):
                _say.info("days_made", partitions=made)
        except NightbellError as exc:
            _say.warning("retention_waits", code=exc.code, detail=exc.detail)
        await asyncio.sleep(_SWEEP_EVERY_S)
        try:
            removed = {
                "log": await log.trim(older_than_ms=now_ms() - int(log_days * _DAY_MS)),
                **await retention.sweep(now_ms()),
            }
            if any(removed.values()):
                _say.info("retention_swept", **removed)
        except NightbellError as exc:
            _say.warning("retention_waits", code=exc.code, detail=exc.detail)


def conservation_gauge(registry: CollectorRegistry = REGISTRY) -> Gauge:
    """The gauge that `tend_store` sets."""
    return Gauge("nightbell_conservation_gap", "Invocations that went missing at a stage", ["stage"], registry=registry)


def blocked_gauge(registry: CollectorRegistry = REGISTRY) -> Gauge:
    """The other gauge that `tend_store` sets."""
    return Gauge("nightbell_dispatch_blocked_keys", "Keys that wait for an operator after a burial.", registry=registry)


class DeadGauges:
    """How many dead letters there are, and how old: `route` could not be routed, `dispatch` was buried."""

    def __init__(self, registry: CollectorRegistry = REGISTRY) -> None:
        """Register both gauges."""
        self._events = Gauge("nightbell_dead_letter_events", "Dead letters kept", ["stage", "reason"], registry=registry)
        self._oldest = Gauge(
            "nightbell_dead_letter_oldest_age_seconds", "Age of the oldest dead letter", ["stage"], registry=registry
        )

    async def count(self, engine: Engine, *, now_ms: int) -> None:
        """Count them now."""
        buried = await all_dead_counts(engine)
        for reason in REASONS:
            self._events.labels("dispatch", reason).set(buried.get(reason, (0, 0))[0])
        set_aside, first_ms = await rejected_count(engine)
        self._events.labels("route", "unreadable").set(set_aside)
        oldest_ms = {"dispatch": min((at_ms for _, at_ms in buried.values()), default=0), "route": first_ms}
        for stage, at_ms in oldest_ms.items():
            self._oldest.labels(stage).set(max(0, now_ms - at_ms) / 1000 if at_ms else 0)


async def tend_store(engine: Engine, vault: Vault, gap: Gauge, blocked: Gauge, dead: DeadGauges) -> None:
    """Each minute, until cancelled: end rotated secrets, drop deleted subscriptions that are empty, count what must agree, and
    what was given up.
    """
    while True:
        try:
            swept = await sweep(engine, vault, now_ms=now_ms())
            if swept.ended_secrets or swept.drained_subscriptions:
                _say.info("store_swept", ended=swept.ended_secrets, drained=swept.drained_subscriptions)
            if strays := await gathered_strays(engine):
                _say.info("lanes_gathered", count=strays)
            found = await gaps(engine, since_ms=now_ms() - _COUNTED_MS, until_ms=now_ms())
            for stage, missing in found.items():
                gap.labels(stage).set(missing)
            blocked.set(await blocked_lanes(engine))
            if any(found.values()):
                _say.error("conservation_gap", **found)
            await dead.count(engine, now_ms=now_ms())
        except NightbellError as exc:
            _say.warning("tending_waits", code=exc.code, detail=exc.detail)
        await asyncio.sleep(_TEND_EVERY_S)
