"""Looks an installation over, and says what to mend; brings its schema up."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import AsyncIterator, Iterator, Mapping
from pathlib import Path
from typing import Any

from control.advice import advice_on
from control.desk import Desk
from egress.guard import check_url
from eventlog.connect import connect as connect_log
from ingest.catalogue import check_source
from ingest.spool import spooled
from router.rule import compile_rule
from runtime.clock import now_ms
from runtime.desk import build_desk
from runtime.house import log_config, make_data_dir, open_vault
from runtime.receiving import SPOOL_FILE
from runtime.settings import Settings
from schemas.config import SubscriptionSpec, SubscriptionState
from schemas.errors import AddressRefused, Invalid, NightbellError, NotFound
from store.connect import Store
from store.connect import connect as connect_store
from store.roster import Roster
from store.schema import migrate as migrate_store
from store.sources import Sources
from store.vault import Vault

Finding = Mapping[str, Any]

_HARMLESS = frozenset({"subsumed", "redundant-alternative", "not-indexed", "unknown-type"})
_ADVICE = {
    "contradiction": "mend the pattern and apply",
    "duplicate": "one of the two is enough, where both wake the same agent",
    "unknown-type": "right where the vendor has not sent it yet; nightbell events list shows what came",
    "anything-but-array": "see docs/patterns.md on arrays",
    "type-mismatch": "write the value as the event has it",
}


async def migrate(settings: Settings) -> Mapping[str, Any]:
    """Bring the store's schema up; the revision it has then.  Raises `BadSetting`, `StoreUnavailable`."""
    make_data_dir(settings)
    return {"revision": await migrate_store(settings.store_url)}


async def check(settings: Settings) -> list[Finding]:
    """What is wrong or odd, worst first; empty where all is well."""
    found = [each async for each in _findings(settings)]
    return sorted(found, key=lambda each: ("error", "warning", "info").index(each["level"]))


def _finding(level: str, subject: str, message: str, advice: str = "") -> Finding:
    return {"level": level, "subject": subject, "message": message, "advice": advice}


async def _findings(settings: Settings) -> AsyncIterator[Finding]:
    yield _finding("info", "sqlite", f"version {sqlite3.sqlite_version}")
    if settings.ingest_url is None:
        yield _finding(
            "info", "NIGHTBELL_INGEST_URL", "not set", "set it to how vendors reach the ingest listener: some sign the URL"
        )
    try:
        vault = open_vault(settings, make=False)
    except NightbellError as exc:
        yield _finding("error", "master key", exc.detail, "run nightbell serve once, or set NIGHTBELL_MASTER_KEY")
        return
    async for each in _log_findings(settings):
        yield each
    for each in _spool_findings(settings):
        yield each
    store = connect_store(settings.store_url, read_only=True, pool_size=1)
    try:
        await store.start()
    except NightbellError as exc:
        yield _finding("error", "store", exc.detail, "nightbell migrate brings the schema up")
        return
    try:
        async for each in _store_findings(store, vault):
            yield each
        async for each in _advice(build_desk(settings, store, vault)):
            yield each
    finally:
        await store.aclose()


async def _log_findings(settings: Settings) -> AsyncIterator[Finding]:
    if settings.is_embedded:
        return  # a running server holds the file; its own readiness tells of it
    log = connect_log(settings.log_url, config=log_config(settings))
    try:
        await log.start()
        await log.aclose()
    except NightbellError as exc:
        yield _finding("error", "log", exc.detail, "is the broker running, and NIGHTBELL_LOG_URL right?")


def _spool_findings(settings: Settings) -> Iterator[Finding]:
    """Of this machine's spool: where it lies, and whether something waits in it."""
    if not settings.has_spool:
        return
    folder = settings.spool_dir
    there = next(path for path in (folder, *folder.parents) if path.exists())
    if not os.access(there, os.W_OK):
        yield _finding("error", "spool", f"{there} cannot be written", "NIGHTBELL_SPOOL_DIR: a folder that ingest may write")
    if kind_of_mount(there, _mounts()) in {"tmpfs", "ramfs"}:
        yield _finding("error", "spool", f"{there} is in memory", "NIGHTBELL_SPOOL_DIR: a folder that outlives the machine")
    try:
        waiting = spooled(folder / SPOOL_FILE)
    except NightbellError as exc:
        yield _finding("error", "spool", exc.detail, "restore the file, or recover it with sqlite3's .recover")
        return
    if waiting.records:
        yield _finding(
            "warning", "spool", f"{waiting.records} events wait, the oldest for {(now_ms() - waiting.oldest_ms) // 1000} s",
            "they leave when the log is back and an ingest process runs on this folder",
        )  # fmt: skip


def _mounts() -> str:
    path = Path("/proc/self/mounts")
    return path.read_text() if path.exists() else ""


def kind_of_mount(path: Path, mounts: str) -> str:
    """The kind of file system that `path` lies on, by the text of `/proc/mounts`; empty where that does not say."""
    longest, kind = -1, ""
    for line in mounts.splitlines():
        _, point, found, *_ = line.split(" ")
        if path.absolute().is_relative_to(point) and len(point) >= longest:
            longest, kind = len(point), found
    return kind


async def _advice(desk: Desk) -> AsyncIterator[Finding]:
    """What is probably not meant in subscriptions, team by team."""
    teams: dict[str, dict[str, SubscriptionSpec]] = {}
    for subscription in await Roster(desk.engine, desk.vault, now_ms=now_ms).subscriptions():
        if not subscription.draining:
            teams.setdefault(subscription.team, {})[subscription.name] = subscription.spec
    for team, rules in teams.items():
        for advice in await advice_on(desk, team, rules):
            level = "info" if advice["code"] in _HARMLESS else "warning"
            yield _finding(level, f"subscription {advice['subscription']}", advice["text"], _ADVICE.get(advice["code"], ""))


async def _store_findings(store: Store, vault: Vault) -> AsyncIterator[Finding]:
    try:
        sources = await Sources(store.engine, vault).sources()
        roster = Roster(store.engine, vault, now_ms=now_ms)
        agents, subscriptions = await roster.agents(), await roster.subscriptions()
    except NightbellError as exc:
        yield _finding("error", "configuration", exc.detail)
        return
    for source in sources:
        try:
            check_source(source.spec)
        except (Invalid, NotFound) as exc:
            yield _finding("error", f"source {source.name}", exc.detail, "mend it in nightbell.yaml and apply")
    for agent in (found for found in agents if not found.spec.is_pull):
        try:
            check_url(agent.spec.url, allow_private=agent.spec.allow_private, allow_http=agent.spec.allow_private)
        except AddressRefused as exc:
            yield _finding(
                "error", f"agent {agent.name}", exc.detail, "allow_private: true allows an address of your own network"
            )
    for subscription in subscriptions:
        name = f"subscription {subscription.name}"
        try:
            compile_rule(subscription.spec)
        except Invalid as exc:
            yield _finding("error", name, exc.detail, "mend the pattern and apply")
        if subscription.spec.state is SubscriptionState.DISABLED:
            yield _finding("warning", name, "disabled: its agent answered 410", "nightbell subscriptions enable NAME")
    if not subscriptions:
        yield _finding(
            "warning", "subscriptions", "there are none: no event wakes an agent", "nightbell apply -f nightbell.yaml"
        )
