"""Moves an embedded installation to Kafka and PostgreSQL: drains its log, carries its store over, and proves it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import structlog
from prometheus_client import CollectorRegistry

from eventlog.sql import SqlLog
from router.metrics import RouterMetrics
from router.service import Nobody, Router
from runtime.clock import now_ms
from runtime.house import open_vault
from runtime.settings import Settings
from schemas.errors import BadSetting
from store.admission import Admission
from store.connect import Store
from store.connect import connect as connect_store
from store.roster import Roster
from store.takeover import take_over
from store.transfer import Carried, carry, undrained
from store.upkeep import prove_master_key
from store.vault import Vault

_LOOK_S = 0.1
Told = Callable[[str, int], None]


@dataclass(frozen=True, slots=True)
class Origin:
    """The embedded installation, opened by us alone."""

    log: SqlLog
    store: Store


async def move(settings: Settings, folder: Path, *, told: Told) -> list[Carried]:
    """Carry the embedded installation in `folder` to what `settings` name; what each table held before and after.

    `told(what, count)` hears how far it is.  Raises `BadSetting` where a server still runs on the folder, where `settings` are
    themselves embedded, or where the master keys differ; `Conflict` where the new store is not empty.
    """
    if settings.is_embedded:
        raise BadSetting("set NIGHTBELL_LOG_URL and NIGHTBELL_STORE_URL to the new installation's Kafka and PostgreSQL first")
    if not (folder / "store.db").exists():
        raise BadSetting(f"{folder} is no data folder of an embedded installation: it has no store.db")
    vault = open_vault(settings, make=False)
    async with AsyncExitStack() as stack:
        origin = await stack.enter_async_context(_opened(folder))
        await prove_master_key(origin.store.engine, vault)
        target = connect_store(settings.store_url, pool_size=2)
        await target.start()
        stack.push_async_callback(target.aclose)
        await prove_master_key(target.engine, vault)
        await take_over(origin.store.engine, now_ms=now_ms())
        await drain(origin, vault, seen_days=settings.retention_seen_days, told=told)
        return await carry(origin.store.engine, target.engine, told)


@asynccontextmanager
async def _opened(folder: Path) -> AsyncIterator[Origin]:
    log = SqlLog(folder / "log.db")
    store = connect_store(f"sqlite:///{(folder / 'store.db').absolute()}")
    await log.start()
    try:
        await store.start(may_migrate=True)
        try:
            yield Origin(log, store)
        finally:
            await store.aclose()
    finally:
        await log.aclose()


async def drain(origin: Origin, vault: Vault, *, seen_days: float, told: Told) -> None:
    """Route what the log still holds, so that every event is in the store; nothing is delivered meanwhile."""
    topics = [topic for topic in origin.log.topics if ".events." in topic]
    ends = {}
    for topic in topics:
        for place in await origin.log.places(topic):
            ends[place.topic, place.partition] = (await origin.log.bounds(place)).end
    left = await undrained(origin.store.engine, origin.log.log_id, ends)
    if not left:
        return
    router = Router(
        origin.log,
        Roster(origin.store.engine, vault, now_ms=now_ms),
        Admission(origin.store.engine, seen_days=seen_days, announces=False),
        now_ms=now_ms,
        then=Nobody(),  # the new installation delivers
        say=structlog.get_logger().info,
        metrics=RouterMetrics(CollectorRegistry()),
    )
    router.watch(topics)
    async with asyncio.TaskGroup() as group:
        routing = group.create_task(router.run())
        while left and not routing.done():
            told("records of the log", sum(left.values()))
            await asyncio.sleep(_LOOK_S)
            left = await undrained(origin.store.engine, origin.log.log_id, ends)
        router.stop()
