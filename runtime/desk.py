"""The operators' desk: control's acts with every room's face handed in."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Collection, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from functools import partial
from typing import Any

import orjson

from control.actions_keys import made_key
from control.asked import KeyBody
from control.auth import TOKEN_PURPOSE, Caller, InvocationTokens, Role
from control.client import Query
from control.desk import Desk, Tools
from control.documents import Checks
from control.metrics import RunMetrics
from control.pulls import Held
from control.routes import ROUTES, Route, perform
from curator.contract import check_contract
from curator.curate import curate
from curator.service import Curation
from curator.view import check_view
from dispatcher.ping import ping
from dispatcher.protocols import PROTOCOLS
from dispatcher.protocols.base import Links
from egress.client import Client
from egress.guard import check_headers, check_url
from ingest.catalogue import check_source
from payload.read import view
from router.explain import explain
from router.lint import lint
from router.pattern import Pattern, compile_pattern
from router.plan import plan
from router.rule import compile_key, compile_rule
from router.ruleset import build_ruleset
from runtime.clock import now_ms
from runtime.curation import curation_of
from runtime.house import open_vault, user_agent
from runtime.settings import Settings, address_of
from schemas.config import DEFAULT_TEAM, AgentConfig, AgentSpec, SourceSpec, SubscriptionConfig, SubscriptionSpec
from schemas.context import Curated, Envelope
from schemas.errors import BadSetting, Invalid, NotFound, NotReady
from schemas.event import Event
from schemas.ids import invocation_id
from schemas.invocation import Admitted, Invocation
from schemas.ledger import Head
from store.admission import Admission
from store.apply import Applier
from store.connect import Store
from store.connect import connect as connect_store
from store.keys import Keys
from store.redress import Redress
from store.refusals import Refusals
from store.roster import Roster
from store.sources import Sources
from store.vault import Vault

HandOver = Callable[[Sequence[Admitted]], None]


ENVELOPE_TOKENS = 352  # of a webhook whose names are all short; the curator reckons with the real one


def config_checks() -> Checks:
    """What only the other rooms can judge of a configuration."""
    return Checks(
        source=_check_source,
        pattern=compile_pattern,
        view=check_view,
        url=_check_url,
        protocol=_check_protocol,
        rule=compile_rule,
        key=partial(compile_key, field="key"),
        headers=_check_headers,
        context=partial(check_contract, envelope_tokens=ENVELOPE_TOKENS),
    )


def _check_source(_name: str, spec: SourceSpec) -> None:
    try:
        check_source(spec)
    except NotFound as exc:  # no such provider: in a document it is a flaw at its place
        raise Invalid(exc.detail, place="/provider") from exc


def _check_url(url: str, *, allow_private: bool) -> None:
    check_url(url, allow_private=allow_private, allow_http=allow_private)


def _check_protocol(spec: AgentSpec) -> None:
    if spec.protocol not in PROTOCOLS:
        raise Invalid(f"there is no protocol {spec.protocol!r}; known are {', '.join(PROTOCOLS)}", place="/protocol")


def _check_headers(headers: Mapping[str, str]) -> None:
    try:
        check_headers(headers)
    except BadSetting as exc:
        raise Invalid(exc.detail) from exc


def local_url(bind: str) -> str:
    """How this machine reaches a listener that is bound so."""
    host, port = address_of(bind)
    reachable = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104 - what listens everywhere is reached here
    return f"http://[{reachable}]:{port}" if ":" in reachable else f"http://{reachable}:{port}"


def _explained(
    subscription: SubscriptionConfig, document: Mapping[str, Any], *, later: Sequence[tuple[str, str]] = ()
) -> Mapping[str, Any]:
    try:
        rule = compile_rule(subscription.spec)
    except Invalid as exc:
        return {"matched": False, "fields": [], "reason": f"its rule no longer compiles: {exc.detail}"}
    return explain(rule, document, now_ms=now_ms()).after(*later).as_json()


def _matched(rule: SubscriptionSpec, document: Mapping[str, Any]) -> Mapping[str, Any]:
    return explain(compile_rule(rule), document, now_ms=now_ms()).as_json()


def _linted(
    rules: Mapping[str, SubscriptionSpec],
    among: Mapping[str, SubscriptionSpec],
    types: Collection[str] | None,
    samples: Sequence[Mapping[str, Any]],
) -> list[dict[str, str]]:
    found = lint(list(_compiled(rules)), types=types, samples=samples, among=list(_compiled(among)))
    return [finding.as_json() for finding in found]


def _compiled(rules: Mapping[str, SubscriptionSpec]) -> Iterator[tuple[str, Pattern]]:
    for name, spec in rules.items():
        with suppress(Invalid):  # what no longer compiles is told as that elsewhere
            yield name, compile_rule(spec)


def _tools(client: Client | None, replayed: Replayed, curation: Curation, *, api_url: str) -> Tools:
    async def pinged(agent: AgentConfig) -> Mapping[str, Any]:
        if client is None:
            raise NotReady("pinging needs a running server")
        steps = await ping(agent, client, now_ms=now_ms(), api_url=api_url, user_agent=user_agent())
        told = [{"step": s.name, "ok": s.ok, "detail": s.detail, "elapsed_ms": s.elapsed_ms} for s in steps]
        return {"ok": all(step.ok for step in steps), "steps": told}

    async def made(subscription: SubscriptionConfig, event: Event, data: Any) -> Curated:
        envelope = _envelope(subscription, event, api_url=api_url)
        if subscription.spec.context.is_plain:
            return curation.plain(subscription, event, data, envelope=envelope)
        ident = invocation_id(event.id, subscription.uid)
        return await curation.full(subscription, event, data, invocation_id=ident, envelope=envelope)

    return Tools(
        view=view,
        explain=_explained,
        match=_matched,
        lint=_linted,
        curate=curate,
        ping=pinged,
        replay=replayed,
        contexts=made,
    )


def _envelope(subscription: SubscriptionConfig, event: Event, *, api_url: str) -> Envelope:
    """What the agent's protocol sends beside the context, as the dispatcher reckons it."""
    ident, spec = invocation_id(event.id, subscription.uid), subscription.spec
    names = (ident, event.team, event.id, subscription.uid, subscription.name, subscription.generation, spec.agent)
    work = Invocation(*names, 0, event.partitionkey, "", spec.order, 0, 0)
    # One like the real one, which opens nothing: no vault has this key.  Only its length counts.
    token = InvocationTokens((bytes(32),), now_ms=now_ms).mint(
        team=event.team, invocation_id=ident, event_id=event.id, expires_ms=event.received_ms, attempt=1
    )
    events, runs = f"{api_url}/v1/events/{event.id}", f"{api_url}/v1/invocations/{ident}/complete"
    return PROTOCOLS["webhook"].envelope(Head(work, event, 0, 0), Links(events, runs, "x" * len(token)))


class Replayed:
    """Plans kept events anew with today's rules, and admits them beside the log."""

    def __init__(self, roster: Roster, admission: Admission, hand_over: HandOver) -> None:
        self._roster, self._admission, self._hand_over = roster, admission, hand_over

    async def __call__(self, events: Sequence[tuple[Event, Any]], *, replay_id: str, subscription: str) -> int:
        """How many invocations were queued; `subscription` restricts the replay to one."""
        wanted = [s for s in await self._roster.subscriptions() if subscription in {"", s.name}]
        ruleset = build_ruleset(0, wanted)
        at = now_ms()
        plans = [
            plan(event, data, ruleset, position=0, now_ms=at, replay_id=replay_id) for event, data in events
        ]  # the event itself stays as it was kept
        admitted = await self._admission.admit_replay(plans)
        self._hand_over(admitted)
        return len(admitted)


def build_desk(
    settings: Settings,
    store: Store,
    vault: Vault,
    *,
    client: Client | None = None,
    hand_over: HandOver = lambda _: None,
    ingest_url: str = "",
    api_url: str = "",
    nudge: Callable[[], None] = lambda: None,
    runs: RunMetrics | None = None,
) -> Desk:
    """The desk over an open store."""
    engine = store.engine
    redress = Redress(engine)
    api_url = api_url or str(settings.api_url or local_url(settings.api_bind))
    replayed = Replayed(Roster(engine, vault, now_ms=now_ms), Admission(engine), hand_over)
    return Desk(
        engine=engine,
        vault=vault,
        applier=Applier(engine, vault, redress),
        sources=Sources(engine, vault),
        keys=Keys(engine),
        refusals=Refusals(engine),
        redress=redress,
        checks=config_checks(),
        tools=_tools(client, replayed, curation_of(engine, vault, client, counts=False), api_url=api_url),
        ingest_url=ingest_url or str(settings.ingest_url or local_url(settings.ingest_bind)),
        api_url=api_url,
        now_ms=now_ms,
        nudge=nudge,
        mint=InvocationTokens(vault.derived(TOKEN_PURPOSE), now_ms=now_ms).mint,
        runs=runs,
    )


class DeskApi:
    """The desk as commands see it: the routes' table without HTTP between."""

    def __init__(self, desk: Desk, caller: Caller) -> None:
        self._desk, self._caller = desk, caller

    async def call(self, method: str, path: str, *, query: Query | None = None, body: Any = None) -> Any:
        """The answer as JSON would give it back.  Raises the error tree's classes."""
        route, found = _route_of(method, path)
        asked = {name: _written(value) for name, value in (query or {}).items() if value is not None}
        answer = await perform(route, self._desk, self._caller, path=found, query=asked, body=body)
        if isinstance(answer, Held):
            answer = await answer.answer(lambda: True)
        return orjson.loads(orjson.dumps(answer))


def _written(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _route_of(method: str, path: str) -> tuple[Route, dict[str, str]]:
    parts = path.strip("/").split("/")
    for route in ROUTES:
        pattern = route.path.strip("/").split("/")
        if route.method == method and len(pattern) == len(parts):
            pairs = list(zip(pattern, parts, strict=True))
            if all(want == got or want.startswith("{") for want, got in pairs):
                return route, {want[1:-1]: got for want, got in pairs if want.startswith("{")}
    raise NotFound(f"there is no {method} {path}")


LOCAL_ADMIN = Caller(team=DEFAULT_TEAM, name="local", role=Role.ADMIN)


@asynccontextmanager
async def open_desk(settings: Settings, *, read_only: bool) -> AsyncIterator[DeskApi]:
    """The desk over the store itself, for when no server runs.  Raises `BadSetting`, `StoreUnavailable`."""
    vault = open_vault(settings, make=False)
    store = connect_store(settings.store_url, read_only=read_only, pool_size=2)
    await store.start()
    try:
        yield DeskApi(build_desk(settings, store, vault), LOCAL_ADMIN)  # who may read these files is their admin
    finally:
        await store.aclose()


async def create_local_key(
    settings: Settings, *, name: str, role: str, agent: str | None, expires_at: str | None
) -> Mapping[str, Any]:
    """Make an API key in the store itself; its document, with the key, this once."""
    body = KeyBody.model_validate({"name": name, "role": role, "agent": agent, "expires_at": expires_at})
    vault = open_vault(settings, make=False)
    store = connect_store(settings.store_url, pool_size=2)
    await store.start()
    try:
        row, key = made_key(body, team=DEFAULT_TEAM, now_ms=now_ms())
        await build_desk(settings, store, vault).keys.add(row, actor=LOCAL_ADMIN.name)
    finally:
        await store.aclose()
    return {"id": row.id, "name": row.name, "role": row.role, "agent": row.agent or None, "key": key}
