"""The API over a real SQLite store, with small fakes in the place of the other rooms."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.parse import urlsplit

import orjson
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer

from control.actions_keys import made_key
from control.api import api_app
from control.asked import KeyBody
from control.auth import Gate, InvocationTokens, KeyRing, Role
from control.bulk import BulkRunner
from control.desk import Desk, Tools
from control.documents import Checks
from schemas.config import AgentConfig, AgentSpec, SourceSpec, SubscriptionConfig, SubscriptionSpec
from schemas.errors import AddressRefused, Invalid
from schemas.event import Event
from schemas.ids import invocation_id, shard_of
from schemas.invocation import Invocation, Order, Planned
from store.admission import Admission
from store.apply import Applier
from store.connect import Store
from store.keys import Keys
from store.redress import Redress
from store.refusals import Refusals
from store.sources import Sources
from store.subscriptions import subscriptions_of
from store.vault import Vault
from tests.store.plans import LOG, PLACE, an_event

START_MS = 1_800_000_000_000
SIGNING = "whsec_" + "Y2FuYXJ5LXNpZ25pbmctc2VjcmV0LTAwMDE="
DOCUMENT: dict[str, Any] = {
    "version": 1,
    "sources": {"gh": {"provider": "github", "secrets": ["canary-source-secret"]}},
    "agents": {"triage": {"url": "https://agents.example.com/wake", "secret": SIGNING}},
    "subscriptions": {"bugs": {"agent": "triage", "pattern": {"type": ["github.issues.opened"]}}},
}


class Now:
    """A clock that stands until it is moved."""

    def __init__(self) -> None:
        self.ms = START_MS

    def __call__(self) -> int:
        return self.ms

    def monotonic(self) -> float:
        return self.ms / 1000


def _check_source(name: str, spec: SourceSpec) -> None:
    if spec.provider != "github":
        raise Invalid(f"there is no provider `{spec.provider}`", place="/provider")
    if not spec.secrets:
        raise Invalid("github needs `secrets`", place="/secrets")


def _check_pattern(pattern: Mapping[str, Any]) -> None:
    if "bogus" in pattern:
        raise Invalid("there is no such operator: {'bogus': …}", place="/bogus")


def _check_view(view: str) -> None:
    if view.startswith("{") and not view.endswith("}"):
        raise Invalid(f"the view ends too early: {view}")


def _check_url(url: str, *, allow_private: bool) -> None:
    parts = urlsplit(url)
    if parts.scheme not in {"http", "https"} or parts.username:
        raise AddressRefused("only http and https, without a user")
    if parts.hostname in {"127.0.0.1", "localhost"} and not allow_private:
        raise AddressRefused("a loopback address: allow_private lifts this")


def _check_protocol(spec: AgentSpec) -> None:
    if spec.protocol not in {"webhook", "pull"}:
        raise Invalid(f"there is no protocol `{spec.protocol}`; there are webhook and pull")


def _explain(
    subscription: SubscriptionConfig, document: Mapping[str, Any], *, later: Sequence[tuple[str, str]] = ()
) -> dict[str, Any]:
    wanted = subscription.spec.pattern.get("type", [])
    matched = document["type"] in wanted
    told = {"later": [{"step": step, "reason": reason} for step, reason in later]} if later else {}
    return {"matched": matched, "reason": "" if matched else "type", "fields": [], **told}


def _match(rule: SubscriptionSpec, document: Mapping[str, Any]) -> dict[str, Any]:
    return {"matched": document.get("type") in rule.pattern.get("type", []), "fields": []}


def _lint(
    rules: Mapping[str, SubscriptionSpec],
    among: Mapping[str, SubscriptionSpec],
    types: Collection[str] | None,
    samples: Sequence[Mapping[str, Any]],
) -> list[dict[str, str]]:
    said = f"beside {len(among)}, {sorted(types or ())}, {len(samples)} events"
    return [{"rule": name, "code": "odd", "text": said} for name, spec in rules.items() if "odd" in spec.pattern]


def _curate(event: Event, data: Any, *, view: str | None, max_tokens: int | None) -> Any:
    context = orjson.dumps({"view": view, "data": data})
    return SimpleNamespace(context=context, tokens=7, raw_tokens=70, digest="d", left_out=("/x",))


def _view(body: bytes, content_type: str, pointer: str) -> tuple[Any, tuple[str, ...]]:
    return orjson.loads(body), ()


@dataclass
class World:
    """What a test of the API has in hand."""

    store: Store
    desk: Desk
    client: TestClient[web.Request, web.Application]
    now: Now
    tokens: InvocationTokens
    bulk: BulkRunner
    vault: Vault
    admission: Admission
    pinged: list[AgentConfig] = field(default_factory=list)
    keys: dict[str, str] = field(default_factory=dict)
    position: int = 0

    async def call(self, method: str, path: str, body: Any = None, *, who: str = "admin", **query: Any) -> tuple[int, Any]:
        headers = {"authorization": f"Bearer {self.keys.get(who, who)}"} if who else {}
        sent: dict[str, Any] = {} if body is None else {"json": body}
        async with self.client.request(method, path, headers=headers, params=query, **sent) as answer:
            raw = await answer.read()
            is_json = "json" in answer.content_type
            return answer.status, orjson.loads(raw) if is_json else raw

    async def applied(self, document: Mapping[str, Any] = DOCUMENT, **query: Any) -> Any:
        status, found = await self.call("POST", "/v1/apply", dict(document), **query)
        assert status == 200, found
        return found

    async def admit(self, identity: str, *, subscription: str | None = "bugs", **fields: object) -> Planned:
        """Admit an event, with an invocation for that subscription."""
        event = replace(an_event(identity), **fields)
        rows = await subscriptions_of(self.store.engine, "default")
        row = rows.get(subscription or "")
        invocations = (self.invocation(event, row.uid, row.name, row.agent),) if row else ()
        plan = Planned(event, self.position, invocations)
        self.position += 1
        await self.admission.admit(LOG, PLACE, first=self.position - 1, after=self.position, plans=[plan], now_ms=self.now.ms)
        return plan

    def invocation(self, event: Event, uid: str, name: str, agent: str, *, replay: str = "") -> Invocation:
        return Invocation(
            id=invocation_id(event.id, uid, replay),
            team="default",
            event_id=event.id,
            subscription_uid=uid,
            subscription=name,
            generation=1,
            agent=agent,
            shard=shard_of("default", agent),
            ordering_key=event.partitionkey,
            lane=f"{uid}/{event.partitionkey}",
            order=Order.STRICT,
            created_ms=self.now.ms,
            due_ms=self.now.ms,
            replay_id=replay,
        )

    async def key(self, role: Role, *, team: str = "default", agent: str | None = None, who: str = "") -> str:
        row, key = made_key(KeyBody(name=role.value, role=role, agent=agent), team=team, now_ms=self.now.ms)
        await self.desk.keys.add(row, actor="test")
        self.keys[who or role.value] = key
        self.now.ms += 1000  # the ring looks again
        return key

    def token(self, plan: Planned, *, who: str = "token", expires_ms: int | None = None, attempt: int = 1) -> str:
        invocation = plan.invocations[0]
        self.keys[who] = self.tokens.mint(
            team="default",
            invocation_id=invocation.id,
            event_id=plan.event.id,
            expires_ms=expires_ms or self.now.ms + 60_000,
            attempt=attempt,
        )
        return self.keys[who]


async def a_world(store: Store) -> World:
    """A world over an open store, with a key for each role and one of another team."""
    now, vault = Now(), Vault([bytes(range(32))])
    engine = store.engine
    keys, redress, admission = Keys(engine), Redress(engine), Admission(engine)
    pinged: list[AgentConfig] = []

    async def ping(agent: AgentConfig) -> Mapping[str, Any]:
        pinged.append(agent)
        return {"ok": True, "steps": [{"step": "send", "ok": True, "ms": 1.0, "detail": "200"}]}

    async def replay(events: Sequence[tuple[Event, Any]], *, replay_id: str, subscription: str) -> int:
        rows = await subscriptions_of(engine, "default")
        plans = [
            Planned(event, 0, tuple(
                world.invocation(event, row.uid, row.name, row.agent, replay=replay_id)
                for row in rows.values()
                if subscription in {"", row.name}
            ))
            for event, _ in events
        ]  # fmt: skip
        return len(await admission.admit_replay(plans))

    tools = Tools(view=_view, explain=_explain, match=_match, lint=_lint, curate=_curate, ping=ping, replay=replay)
    desk = Desk(
        engine=engine,
        vault=vault,
        applier=Applier(engine, vault, redress),
        sources=Sources(engine, vault),
        keys=keys,
        refusals=Refusals(engine),
        redress=redress,
        checks=Checks(_check_source, _check_pattern, _check_view, _check_url, _check_protocol),
        tools=tools,
        ingest_url="https://in.example.com",
        api_url="https://api.example.com",
        now_ms=now,
    )
    bulk = BulkRunner(desk)
    desk = replace(desk, nudge=bulk.nudge)
    tokens = InvocationTokens(vault.derived("invocation token"), now_ms=now)
    desk = replace(desk, mint=tokens.mint)
    gate = Gate(KeyRing(keys, now_ms=now, monotonic=now.monotonic), tokens)

    async def readiness() -> Mapping[str, Any]:
        return {"ready": True}

    app = api_app(
        desk,
        authenticate=gate.caller,
        version="0.0.0",
        metrics=lambda: b"nightbell_up 1\n",
        is_live=lambda: True,
        readiness=readiness,
    )
    client = TestClient(TestServer(app))
    await client.start_server()
    world = World(store, desk, client, now, tokens, bulk, vault, admission, pinged)
    for role in (Role.VIEWER, Role.OPERATOR, Role.ADMIN):
        await world.key(role)
    await world.key(Role.ADMIN, team="others", who="others")
    return world


async def migrated_template(folder: Path) -> Path:
    """A file with the newest schema, to be copied: migrating takes longer than a test may."""
    from store.schema import migrate

    path = folder / "template.db"
    await migrate(f"sqlite:///{path}")
    return path
