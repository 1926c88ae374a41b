"""Puts the rooms together into a process: which roles run, what they are handed, in which order they stop."""

from __future__ import annotations

import os
import secrets
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import structlog
from aiohttp import web
from prometheus_client import REGISTRY, generate_latest

from control.actions_keys import keep_first_key
from control.api import api_app, health_app
from control.auth import TOKEN_PURPOSE, Gate, InvocationTokens, KeyRing, new_key
from control.bulk import BulkRunner
from control.configfile import load_config
from control.desk import Desk
from control.metrics import RunMetrics
from dispatcher.lanes import Bounds
from dispatcher.metrics import DispatchMetrics
from dispatcher.service import Dispatcher, DispatcherConfig
from eventlog.metrics import observing
from ingest.catalogue import catalogue
from router.loops import LoopLimits
from router.metrics import RouterMetrics
from router.service import Nobody, Router
from runtime.clock import now_ms
from runtime.collecting import settle
from runtime.curation import curation_of
from runtime.desk import LOCAL_ADMIN, DeskApi, build_desk, config_checks, create_local_key, local_url, open_desk
from runtime.duty import on_duty
from runtime.health import Health, LoopLag, nightbell_version, publish_build_info
from runtime.house import House, Needs, opened, user_agent
from runtime.inspection import check, migrate
from runtime.keyfiles import address_path, admin_key_path, kept_secret, write_secret
from runtime.lag import LagMetrics, keep_looking
from runtime.listening import Listener, app_runner
from runtime.outcomes import Heralds, publish_outcomes
from runtime.receiving import Receiving
from runtime.settings import ROLES, Settings
from runtime.supervisor import Part, Patience, Supervisor
from runtime.topics import Topics, families_of
from runtime.upkeep import DeadGauges, blocked_gauge, conservation_gauge, keep_to_retention, tend_store
from schemas.config import DEFAULT_TEAM
from schemas.errors import BadSetting
from schemas.outcomes import OWN
from store.admission import Admission
from store.ledger import Ledger
from store.outbox import Outbox
from store.retention import Keep, Retention
from store.roster import Roster
from store.runs import RUNS
from store.shards import WORK
from store.sources import Sources
from store.tables import ROSTER, SOURCES
from store.takeover import take_over
from store.upkeep import prove_master_key
from store.versions import KEYS

__all__ = ["check", "config_checks", "create_local_key", "migrate", "open_desk", "serve"]

_say = structlog.get_logger()


@dataclass
class Plan:
    """The parts of a process, in the order in which they stop; what is ready to serve; what a commit wakes."""

    house: House
    health: Health
    api: Listener
    parts: list[Part] = field(default_factory=list)
    ingest_url: str = ""
    router: Router | None = None
    topics: Topics | None = None
    dispatcher: Dispatcher | None = None

    def on(self, channel: str, wake: Callable[[], None]) -> None:
        """Call `wake` after each commit that changes what `channel` stands for, in whatever process."""
        self.house.store.engine.listen(channel, lambda _: wake())


async def serve(settings: Settings, roles: frozenset[str], *, apply_files: list[Path]) -> int:
    """Run `roles` until stopped; the exit code.  Raises `BadSetting`, `LogUnavailable`, `StoreUnavailable`, `Invalid`."""
    if settings.is_embedded and roles != ROLES:
        raise BadSetting(
            "the embedded default is one process: run `nightbell serve all`, or set NIGHTBELL_LOG_URL and NIGHTBELL_STORE_URL "
            "to Kafka and PostgreSQL to run roles apart"
        )
    publish_build_info()
    async with AsyncExitStack() as stack:
        needs = needs_of(settings, roles)
        house = await stack.enter_async_context(opened(settings, observer=observing(), needs=needs))
        plan = Plan(house, Health(), Listener("api", settings.api_bind))
        if needs.store:
            await _first_things(house, apply_files)
        await _plan_roles(plan, roles)
        lag = LoopLag()
        plan.parts.append(Part("loop_lag", lag.run))
        patience = Patience(drain_timeout_s=settings.drain_timeout_s)
        supervisor = Supervisor(plan.parts, health=plan.health, patience=patience)
        settle()
        _say.info("serving", roles=sorted(roles), version=nightbell_version(), pid=os.getpid())
        return await supervisor.run()


def needs_of(settings: Settings, roles: frozenset[str]) -> Needs:
    """What these roles cannot start without: ingest has its book and its spool on disk, and else only the router has a log."""
    return Needs(
        store=roles != {"ingest"},
        log="router" in roles or ("ingest" in roles and not settings.has_spool),
        log_later="ingest" in roles and settings.has_spool,
    )


async def _first_things(house: House, apply_files: Sequence[Path]) -> None:
    """The admin's key of an embedded installation, and the files of `--apply`."""
    settings = house.settings
    desk = build_desk(settings, house.store, house.vault)
    await prove_master_key(house.store.engine, house.vault)
    if house.store.is_embedded:
        await take_over(house.store.engine, now_ms=now_ms())
    if settings.is_embedded:
        key = kept_secret(admin_key_path(settings), new_key)
        await keep_first_key(desk.keys, key, team=DEFAULT_TEAM, name="first admin", now_ms=now_ms())
    if apply_files:
        config = load_config(apply_files, environment=os.environ, checks=config_checks())
        plan = await DeskApi(desk, LOCAL_ADMIN).call("POST", "/v1/apply", body=config.document)
        _say.info("applied", files=[str(path) for path in apply_files], counts=plan["counts"])
        for agent, secret in plan["secrets"].items():
            print(f"the signing secret of agent {agent}, shown this once: {secret}", flush=True)  # noqa: T201 - and logged nowhere


async def _plan_roles(plan: Plan, roles: frozenset[str]) -> None:
    """The parts, in the order in which they stop: what takes work in first, onlookers last."""
    house, health = plan.house, plan.health
    settings, log = house.settings, house.log
    if "router" in roles:
        health.watch("log", log.healthy)
    if "ingest" in roles:
        await _plan_ingest(plan)
    if "dispatcher" in roles:
        _plan_dispatcher(plan, api_url=str(settings.api_url or await plan.api.bind()))
    if "router" in roles:
        await _plan_router(plan)
    if "dispatcher" in roles:  # stops after the router, which hands over to it
        assert plan.dispatcher is not None
        plan.parts.append(_worker("dispatcher", plan.dispatcher))
        health.watch("dispatcher", _is_ready(plan.dispatcher))
    await _plan_listener(plan, roles)
    if roles != {"ingest"}:
        health.watch("store", house.store.engine.healthy)
    if "router" in roles:
        keep = Keep(
            events_days=settings.retention_events_days,
            bodies_days=settings.retention_bodies_days,
            dedups_days=settings.retention_log_days,
        )
        retention = Retention(house.store.engine, keep)
        outbox = Outbox(house.store.engine)
        chores: dict[str, Callable[[], Awaitable[None]]] = {
            "outcomes": partial(publish_outcomes, log, outbox, _heralds(plan, outbox), prefix=settings.topic_prefix),
            "retention": partial(keep_to_retention, log, retention, log_days=settings.retention_log_days),
            "tending": partial(
                tend_store, house.store.engine, house.vault, conservation_gauge(), blocked_gauge(), DeadGauges()
            ),
        }
        owner = owner_name(settings.instance_id)
        for name, chore in chores.items():
            # A file has one process; beside a database there may be several routers, and one of them is enough.
            alone = chore if house.store.is_embedded else partial(on_duty, house.store.engine, name, owner, chore)
            plan.parts.append(Part(name, alone))


def _heralds(plan: Plan, outbox: Outbox) -> Heralds:
    assert plan.router is not None
    assert plan.topics is not None
    settings = plan.house.settings
    limits = LoopLimits(settings.max_outcome_hops, settings.max_outcome_wakes_per_minute)
    ensure, rules = plan.topics.keep, plan.router.first_rules
    return Heralds(outbox, rules, ensure, limits=limits, prefix=settings.topic_prefix, now_ms=now_ms)


async def _plan_ingest(plan: Plan) -> None:
    receiving = Receiving(plan.house)
    await receiving.open()
    plan.on(SOURCES, receiving.notice)
    plan.ingest_url = receiving.url
    plan.parts += receiving.parts()
    plan.health.watch("sources", receiving.is_ready)
    plan.health.watch("intake", receiving.can_take)


def owner_name(instance_id: str) -> str:
    """Who owns shards: this life of this process alone, though a name be given twice or a process id come again."""
    return f"{instance_id}-{secrets.token_hex(4)}"


def _plan_dispatcher(plan: Plan, *, api_url: str) -> None:
    house, settings = plan.house, plan.house.settings
    plan.dispatcher = Dispatcher(
        Ledger(house.store.engine),
        Roster(house.store.engine, house.vault, now_ms=now_ms),
        house.client,
        curate=curation_of(house.store.engine, house.vault, house.client),
        tokens=InvocationTokens(house.vault.derived(TOKEN_PURPOSE), now_ms=now_ms),
        say=_say.info,
        metrics=DispatchMetrics(REGISTRY),
        config=DispatcherConfig(
            owner=owner_name(settings.instance_id),
            max_in_flight=settings.max_attempts_in_flight,
            api_url=api_url,
            user_agent=user_agent(),
            lease_ms=int(settings.shard_lease_s * 1000),
            grace_s=max(0.0, settings.drain_timeout_s - 5),
            bounds=Bounds(max_count=settings.dispatch_queue_count),
            keep_sent=settings.keep_sent,
        ),
    )
    plan.on(ROSTER, plan.dispatcher.notice)
    house.store.engine.listen(RUNS, plan.dispatcher.notice_runs)
    if not house.store.is_embedded:
        house.store.engine.listen(WORK, partial(_wake, plan.dispatcher))


async def _plan_router(plan: Plan) -> None:
    house, settings = plan.house, plan.house.settings
    dispatcher = plan.dispatcher
    engine = house.store.engine
    admission = Admission(engine, seen_days=settings.retention_seen_days, announces=not house.store.is_embedded)
    router = Router(
        house.log,
        Roster(engine, house.vault, now_ms=now_ms),
        admission,
        now_ms=now_ms,
        then=dispatcher or Nobody(),
        say=_say.info,
        metrics=RouterMetrics(),
    )
    plan.router = router
    sources = Sources(engine, house.vault)

    async def families() -> set[str]:
        # Our own events have a topic once somebody hears them.
        return families_of(catalogue(), await sources.sources()) | ({OWN} if router.rules.listeners else set())

    topics = Topics(
        house.log,
        families,
        prefix=settings.topic_prefix,
        partitions=settings.topic_partitions,
        watch=router.watch,
    )
    await topics.keep()
    plan.topics = topics
    plan.on(ROSTER, router.notice)
    plan.on(SOURCES, topics.notice)
    lag = partial(
        keep_looking,
        house.log,
        admission.cursors,
        router.topics,
        group=router.group,
        retention_s=settings.retention_log_days * 86_400,
        metrics=LagMetrics(),
        observer=house.observer,
    )
    plan.parts += [Part("lag", lag), Part("topics", topics.run), _worker("router", router)]
    plan.health.watch("router", _is_ready(router))


async def _plan_listener(plan: Plan, roles: frozenset[str]) -> None:
    """The API, or in other roles health and metrics alone."""
    house, settings, health = plan.house, plan.house.settings, plan.health

    async def readiness() -> Mapping[str, Any]:
        report = await health.ready()
        return {"ready": report.is_ok, **report.document()}

    faces: dict[str, Any] = {
        "metrics": lambda: generate_latest(REGISTRY),
        "is_live": lambda: health.live().is_ok,
        "readiness": readiness,
    }
    bulk: BulkRunner | None = None

    def runner(bound: str) -> web.BaseRunner:
        nonlocal bulk
        if "api" not in roles:
            return app_runner(health_app(**faces))
        desk = _running_desk(plan, bound, nudge=lambda: bulk.nudge() if bulk else None)
        bulk = BulkRunner(desk)
        ring = KeyRing(desk.keys, now_ms=now_ms)
        plan.on(KEYS, ring.notice)
        gate = Gate(ring, InvocationTokens(house.vault.derived(TOKEN_PURPOSE), now_ms=now_ms))
        return app_runner(api_app(desk, authenticate=gate.caller, version=nightbell_version(), **faces))

    url = await plan.api.open(runner)
    if "api" in roles:
        assert bulk is not None
        plan.parts.append(Part("bulk", bulk.run))
        if settings.is_embedded:
            write_secret(address_path(settings), url, replace=True)
    plan.parts.append(Part("api", None, plan.api.aclose))


def _running_desk(plan: Plan, bound: str, *, nudge: Callable[[], None]) -> Desk:
    house, settings = plan.house, plan.house.settings
    dispatcher = plan.dispatcher
    if dispatcher and house.store.is_embedded:
        # Acts on rows wake the owner; here it lives in the same process, and hears of nothing else by notification.
        plan.on(WORK, dispatcher.wake)
    return build_desk(
        settings,
        house.store,
        house.vault,
        client=house.client,
        hand_over=(dispatcher or Nobody()).offer,
        ingest_url=str(settings.ingest_url or plan.ingest_url or local_url(settings.ingest_bind)),
        api_url=str(settings.api_url or bound),
        nudge=nudge,
        runs=RunMetrics(REGISTRY),
    )


def _wake(dispatcher: Dispatcher, payload: str) -> None:
    """Work was queued: `payload` names its shards; with none, something may have been missed."""
    if payload:
        dispatcher.wake_shards(map(int, payload.split(",")))
    else:
        dispatcher.wake()


def _worker(name: str, worker: Router | Dispatcher) -> Part:
    """A part that ends by itself once it is told."""

    async def stop() -> None:
        worker.stop()

    return Part(name, worker.run, stop)


def _is_ready(worker: Router | Dispatcher) -> Callable[[], Any]:
    async def ready() -> bool:
        return worker.is_ready

    return ready
