"""Acts on what is configured: apply, sources, agents, subscriptions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from control.advice import advice_on
from control.asked import ApplyQuery, DeleteQuery, Page, PutQuery
from control.auth import Caller
from control.desk import Desk
from control.documents import read_document, read_spec
from control.shown import agent_json, listed, moment, page_by_name, refusal_json, source_json, subscription_json
from control.tryout import demand_makeable
from schemas.config import AgentSpec, SourceSpec, SubscriptionSpec
from schemas.errors import NotFound
from schemas.times import iso
from store.acts import enable_subscription as enable_in_store
from store.acts import rotate_secret as rotate_in_store
from store.agents import agent_configs, agents_of, queue_of
from store.changes import Action, Plan
from store.decide import AGENT, SOURCE, SUBSCRIPTION, Wish
from store.events import last_received_ms
from store.subscriptions import queued_of, subscriptions_of
from store.tables import API, FILE

_DAY_MS = 86_400_000
_WRITTEN = frozenset({Action.CREATE, Action.UPDATE})


async def apply_document(desk: Desk, caller: Caller, *, query: ApplyQuery, body: Any) -> dict[str, Any]:
    """Make the store as the document says, or with `dry_run` give the plan.  Raises `Flawed` with all that is wrong in it."""
    document = read_document(body, checks=desk.checks)
    wish = Wish(
        team=caller.team,
        managed_by=FILE,
        sources=document.sources,
        agents=document.agents,
        subscriptions=document.subscriptions,
        quota=document.quota,
        prune=query.prune,
        cancel=query.cancel,
    )
    return await _advised(desk, caller, wish, act="apply", dry_run=query.dry_run)


async def list_sources(desk: Desk, caller: Caller, *, query: Page) -> dict[str, Any]:
    """A team's sources."""
    rows, more = page_by_name(await desk.sources.of_team(caller.team), query, "sources")
    since_ms = desk.now_ms() - _DAY_MS
    refused = await desk.refusals.counts(caller.team, since_ms=since_ms)
    return listed(
        [
            {**source_json(row, ingest_url=desk.ingest_url), "refusals_24h": refused.get(row.name, 0)}
            | {"last_event_at": moment(await last_received_ms(desk.engine, caller.team, row.name))}
            for row in rows
        ],
        more,
    )


async def show_source(desk: Desk, caller: Caller, *, name: str) -> dict[str, Any]:
    """A source with its URL, when its last event came, and its last refusals with the step that failed."""
    row = (await desk.sources.of_team(caller.team)).get(name)
    if row is None:
        raise NotFound(f"there is no source `{name}`")
    last_ms = await last_received_ms(desk.engine, caller.team, name)
    refusals = await desk.refusals.last(caller.team, name)
    return {
        **source_json(row, ingest_url=desk.ingest_url),
        "last_event_at": moment(last_ms),
        "refusals": [refusal_json(refusal) for refusal in refusals],
    }


async def put_source(desk: Desk, caller: Caller, *, name: str, query: PutQuery, body: Any) -> dict[str, Any]:
    """Write one source."""
    spec = read_spec("sources", name, body, checks=desk.checks)
    assert isinstance(spec, SourceSpec)
    wish = Wish(team=caller.team, managed_by=API, sources={name: spec}, force=query.force)
    return (await wished(desk, caller, wish, act="sources.put", dry_run=query.dry_run)).as_json()


async def delete_source(desk: Desk, caller: Caller, *, name: str, query: DeleteQuery) -> dict[str, Any]:
    """Delete one source; its kept events stay."""
    return await _deleted(desk, caller, SOURCE, name, query)


async def list_agents(desk: Desk, caller: Caller, *, query: Page) -> dict[str, Any]:
    """A team's agents."""
    rows, more = page_by_name(await agents_of(desk.engine, caller.team), query, "agents")
    return listed([agent_json(row) for row in rows], more)


async def show_agent(desk: Desk, caller: Caller, *, name: str) -> dict[str, Any]:
    """An agent, and how much waits for it."""
    row = (await agents_of(desk.engine, caller.team)).get(name)
    if row is None:
        raise NotFound(f"there is no agent `{name}`")
    lanes, queued = await queue_of(desk.engine, caller.team, name)
    return {**agent_json(row), "lanes": lanes, "queued": queued}


async def put_agent(desk: Desk, caller: Caller, *, name: str, query: PutQuery, body: Any) -> dict[str, Any]:
    """Write one agent; where it has no secret, one is made and shown here, once."""
    spec = read_spec("agents", name, body, checks=desk.checks)
    assert isinstance(spec, AgentSpec)
    wish = Wish(team=caller.team, managed_by=API, agents={name: spec}, force=query.force)
    return (await wished(desk, caller, wish, act="agents.put", dry_run=query.dry_run)).as_json()


async def delete_agent(desk: Desk, caller: Caller, *, name: str, query: DeleteQuery) -> dict[str, Any]:
    """Delete one agent, which no subscription may name any more."""
    return await _deleted(desk, caller, AGENT, name, query)


async def ping_agent(desk: Desk, caller: Caller, *, name: str) -> Mapping[str, Any]:
    """Send the agent a signed synthetic event, past the queue, and tell of each step."""
    row = (await agents_of(desk.engine, caller.team)).get(name)
    if row is None:
        raise NotFound(f"there is no agent `{name}`")
    (config,) = agent_configs([row], desk.vault, now_ms=desk.now_ms())
    found = await desk.tools.ping(config)
    await desk.noted(caller, "agents.ping", f"agent/{name}", "answered" if found.get("ok") else "failed")
    return found


async def rotate_secret(desk: Desk, caller: Caller, *, name: str) -> dict[str, Any]:
    """Give the agent a new signing secret, shown here once; calls are signed with both for a day."""
    now_ms = desk.now_ms()
    rotated = await rotate_in_store(desk.engine, desk.vault, team=caller.team, agent=name, actor=caller.name, now_ms=now_ms)
    return {"agent": name, "secret": rotated.secret, "old_until": iso(rotated.old_until_ms)}


async def list_subscriptions(desk: Desk, caller: Caller, *, query: Page) -> dict[str, Any]:
    """A team's subscriptions."""
    rows, more = page_by_name(await subscriptions_of(desk.engine, caller.team), query, "subscriptions")
    return listed([subscription_json(row) for row in rows], more)


async def show_subscription(desk: Desk, caller: Caller, *, name: str) -> dict[str, Any]:
    """A subscription, and how much waits for it."""
    row = (await subscriptions_of(desk.engine, caller.team)).get(name)
    if row is None:
        raise NotFound(f"there is no subscription `{name}`")
    return {**subscription_json(row), "queued": await queued_of(desk.engine, row)}


async def put_subscription(desk: Desk, caller: Caller, *, name: str, query: PutQuery, body: Any) -> dict[str, Any]:
    """Write one subscription."""
    spec = read_spec("subscriptions", name, body, checks=desk.checks)
    assert isinstance(spec, SubscriptionSpec)
    wish = Wish(team=caller.team, managed_by=API, subscriptions={name: spec}, force=query.force)
    return await _advised(desk, caller, wish, act="subscriptions.put", dry_run=query.dry_run)


async def delete_subscription(desk: Desk, caller: Caller, *, name: str, query: DeleteQuery) -> dict[str, Any]:
    """Delete one subscription; what is queued for it is still delivered, unless `cancel`."""
    return await _deleted(desk, caller, SUBSCRIPTION, name, query)


async def enable_subscription(desk: Desk, caller: Caller, *, name: str) -> dict[str, Any]:
    """Undo what a 410 of the agent did: the subscription goes back to the state that was asked for."""
    state = await enable_in_store(desk.engine, team=caller.team, name=name, actor=caller.name, now_ms=desk.now_ms())
    return {"name": name, "state": state}


async def _deleted(desk: Desk, caller: Caller, kind: str, name: str, query: DeleteQuery) -> dict[str, Any]:
    wish = Wish(team=caller.team, managed_by=API, drop=frozenset({(kind, name)}), force=query.force, cancel=query.cancel)
    return (await wished(desk, caller, wish, act=f"{kind}s.delete", dry_run=query.dry_run)).as_json()


async def wished(desk: Desk, caller: Caller, wish: Wish, *, act: str, dry_run: bool) -> Plan:
    """Make the store as wished, in the caller's name."""
    await demand_makeable(desk, caller.team, wish.subscriptions, are_whole=act == "apply")
    return await desk.applier.apply(wish, actor=caller.name, act=act, now_ms=desk.now_ms(), dry_run=dry_run)


async def _advised(desk: Desk, caller: Caller, wish: Wish, *, act: str, dry_run: bool) -> dict[str, Any]:
    """The plan, with what is probably not meant in the subscriptions that it makes or changes."""
    plan = await wished(desk, caller, wish, act=act, dry_run=dry_run)
    changed = {change.name for change in plan.changes if change.action in _WRITTEN}
    rules = {name: spec for name, spec in wish.subscriptions.items() if name in changed}
    return {**plan.as_json(), "warnings": await advice_on(desk, caller.team, rules)}
