"""What a process does beside its stages: publishes outcomes, applies retention."""

from __future__ import annotations

import asyncio

import structlog

from eventlog.log import EventLog
from runtime.clock import now_ms
from schemas.errors import NightbellError
from schemas.topics import Draft, outcomes_topic
from store.outbox import Outbox
from store.retention import Retention

_DAY_MS = 86_400_000
_SWEEP_EVERY_S = 300.0
_LOOK_EVERY_S = 5.0
_PAUSE_S = 1.0
_PAGE = 500


async def publish_outcomes(log: EventLog, outbox: Outbox, *, prefix: str) -> None:
    """Append what was settled to the outcomes topic, until cancelled; a crash in between repeats, and never loses.

    Woken by each settlement, with a slow look behind it.
    """
    wake = asyncio.Event()
    topic = outcomes_topic(prefix)
    stop_listening = outbox.listen(lambda _: wake.set())
    try:
        while True:
            wake.clear()
            try:
                while outcomes := await outbox.pending(limit=_PAGE):
                    drafts = [Draft(topic, each.key, each.body, {"content-type": "application/json"}) for each in outcomes]
                    await log.append(drafts)
                    await outbox.drop([each.seq for each in outcomes])
            except NightbellError as exc:
                structlog.get_logger().warning("outcomes_wait", code=exc.code, detail=exc.detail)
                await asyncio.sleep(_PAUSE_S)
            try:
                async with asyncio.timeout(_LOOK_EVERY_S):
                    await wake.wait()
                await asyncio.sleep(_GATHER_S)
            except TimeoutError:
                continue
    finally:
        stop_listening()


_GATHER_S = 0.05  # outcomes are for onlookers: many in one append cost the hot path less than each at once


async def keep_to_retention(log: EventLog, retention: Retention, *, log_days: float) -> None:
    """Delete what is too old, every few minutes, until cancelled."""
    while True:
        await asyncio.sleep(_SWEEP_EVERY_S)
        try:
            removed = {
                "log": await log.trim(older_than_ms=now_ms() - int(log_days * _DAY_MS)),
                **await retention.sweep(now_ms()),
            }
            if any(removed.values()):
                structlog.get_logger().info("retention_swept", **removed)
        except NightbellError as exc:
            structlog.get_logger().warning("retention_waits", code=exc.code, detail=exc.detail)
