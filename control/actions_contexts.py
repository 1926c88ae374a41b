"""Acts on what contexts draw on: facts about things, secrets of lookups, and what contexts came to."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import chain, repeat
from typing import Any

import orjson

from control.actions_events import Raw, event_and_data, part_of
from control.asked import moment_ms
from control.asked_contexts import BodyQuery, ContextStatsQuery, FactBody, FactQuery, SecretBody
from control.auth import Caller, Role
from control.callbacks import own_invocation
from control.desk import Desk
from control.shown import listed, moment
from curator.contract import uncut
from curator.suggest import suggested
from curator.tokens import default_factor
from schemas.config import is_name
from schemas.errors import Invalid, NotFound
from schemas.times import iso
from store.calibrations import calibrations_of
from store.credentials import Credentials
from store.events import event_row
from store.facts import FactRow, Facts, NewFact
from store.fetches import ContextSums, context_sums, fetched
from store.subscriptions import SubscriptionRow, subscriptions_of

MAX_VALUE_BYTES = 8192
WEEK_MS = 7 * 86_400_000


async def list_facts(desk: Desk, caller: Caller, *, query: FactQuery) -> dict[str, Any]:
    """The facts about a thing as they stand; with a name, that fact's versions: was it done, when, and in which run."""
    thing, _ = await _thing(desk, caller, query.thing, query.invocation)
    shelf = Facts(desk.engine)
    if query.name is not None:
        rows = await shelf.versions(team=caller.team, thing=thing, name=query.name)
    else:
        rows = await shelf.about(team=caller.team, thing=thing, at_ms=desk.now_ms())
    return listed([_fact_json(thing, row) for row in rows])


async def put_fact(desk: Desk, caller: Caller, *, body: FactBody) -> dict[str, Any]:
    """Write a fact down about a thing; later contexts of that thing may tell it."""
    thing, invocation_id = await _thing(desk, caller, body.thing, body.invocation)
    if body.pinned and caller.role is Role.AGENT:
        raise Invalid("a pinned fact takes room from every context: only operators pin", place="/pinned")
    _demand_small(body.value)
    now_ms = desk.now_ms()
    fact = NewFact(
        team=caller.team,
        thing=thing,
        name=body.name,
        value=body.value,
        by=caller.agent or caller.name,
        invocation_id=invocation_id,
        expires_ms=0 if body.expires_in is None else now_ms + round(body.expires_in * 1000),
        pinned=body.pinned,
        after=body.after,
    )
    return _fact_json(thing, await Facts(desk.engine).put(fact, now_ms=now_ms))


def _demand_small(value: Any) -> None:
    try:
        size = len(orjson.dumps(value))
    except TypeError as exc:
        raise Invalid("the value is no JSON that can be kept", place="/value") from exc
    if size > MAX_VALUE_BYTES:
        raise Invalid(f"the value has {size} bytes of JSON; a fact has at most {MAX_VALUE_BYTES}", place="/value")


async def _thing(desk: Desk, caller: Caller, thing: str | None, invocation: str | None) -> tuple[str, str]:
    """The thing that is meant, and the run that means it.  An agent means the thing of a run of its own, and no other."""
    invocation = caller.invocation_id or invocation or ""
    if not invocation:
        if caller.role is Role.AGENT:
            raise Invalid("say in which invocation: an agent knows things by what woke it", place="/invocation")
        if thing is None:
            raise Invalid("say which thing: its ordering key, or an invocation", place="/thing")
        return thing, ""
    row = await own_invocation(desk, caller, invocation)
    event = await event_row(desk.engine, caller.team, row.event_id)
    if event is None:
        raise NotFound("there is no such event")
    if thing not in {None, event.partitionkey}:
        raise Invalid("the invocation is about another thing", place="/thing")
    return event.partitionkey, invocation


def _fact_json(thing: str, row: FactRow) -> dict[str, Any]:
    return {
        "thing": thing,
        "name": row.name,
        "version": row.version,
        "value": row.value,
        "by": row.by,
        "invocation": row.invocation_id,
        "at": iso(row.at_ms),
        "expires_at": moment(row.expires_ms),
        "pinned": row.pinned,
    }


async def list_secrets(desk: Desk, caller: Caller) -> dict[str, Any]:
    """The names of a team's secrets; their values are never shown."""
    rows = await Credentials(desk.engine, desk.vault).names(caller.team)
    return listed([{"name": row.name, "updated_at": iso(row.updated_ms)} for row in rows])


async def put_secret(desk: Desk, caller: Caller, *, name: str, body: SecretBody) -> dict[str, Any]:
    """Keep a secret for the headers of lookups, where `${secret.NAME}` stands for it."""
    if not is_name(name):
        raise Invalid(f"`{name}` is no name")
    now_ms = desk.now_ms()
    secrets = Credentials(desk.engine, desk.vault)
    await secrets.put(team=caller.team, name=name, value=body.value.get_secret_value(), actor=caller.name, now_ms=now_ms)
    return {"name": name, "updated_at": iso(now_ms)}


async def delete_secret(desk: Desk, caller: Caller, *, name: str) -> dict[str, Any]:
    """Forget a secret; lookups that name it are missing from then on."""
    await Credentials(desk.engine, desk.vault).drop(team=caller.team, name=name, actor=caller.name, now_ms=desk.now_ms())
    return {"name": name}


async def show_context_stats(desk: Desk, caller: Caller, *, query: ContextStatsQuery) -> dict[str, Any]:
    """What each subscription's contexts spared and lacked, over a week where nothing else is asked."""
    now_ms = desk.now_ms()
    since_ms = now_ms - WEEK_MS if query.since is None else moment_ms(query.since, now_ms=now_ms)
    subscriptions = await subscriptions_of(desk.engine, caller.team)
    sums = await context_sums(desk.engine, caller.team, since_ms=since_ms)
    return listed([await _sums_json(desk, each, subscriptions, since_ms) for each in sums])


async def show_context(desk: Desk, caller: Caller, *, invocation_id: str, query: BodyQuery) -> Raw:
    """An invocation's context before anything was cut, or one part of it: what the manifest's pointers name."""
    row = await own_invocation(desk, caller, invocation_id)
    event = await event_row(desk.engine, caller.team, row.event_id)
    subscription = (await subscriptions_of(desk.engine, caller.team)).get(row.subscription)
    if event is None or subscription is None or subscription.uid != row.subscription_uid:
        raise NotFound("what its context is made of is no longer kept")
    whole = uncut(*await event_and_data(desk, event), subscription.config.spec.context)
    return Raw(orjson.dumps(whole if query.pointer is None else part_of(whole, query.pointer)), f"{invocation_id}.json")


async def list_calibrations(desk: Desk, caller: Caller) -> dict[str, Any]:
    """What agents' reports taught about how many tokens each model family makes of a text."""
    return listed(
        [
            {
                "family": row.family,
                "factor": row.factor_permille / 1000 if row.factor_permille else default_factor(row.family),
                "is_learnt": bool(row.factor_permille),
                "version": row.version,
                "samples": row.samples,
                "updated_at": iso(row.updated_ms),
            }
            for row in await calibrations_of(desk.engine, caller.team)
        ]
    )


async def _sums_json(
    desk: Desk, sums: ContextSums, subscriptions: Mapping[str, SubscriptionRow], since_ms: int
) -> dict[str, Any]:
    row = subscriptions.get(sums.subscription)
    wanted = await fetched(desk.engine, row.uid, since_ms=since_ms) if row else {}
    view = row.config.spec.context.view if row else None
    each = chain.from_iterable(repeat(pointer, count) for pointer, count in wanted.items())
    return {
        "subscription": sums.subscription,
        "contexts": sums.contexts,
        "raw_tokens": sums.raw_tokens,
        "tokens": sums.tokens,
        "saved_tokens": max(0, sums.raw_tokens - sums.tokens),
        "missing": sums.missing,
        "cut": sums.cut,
        "fetched": wanted,
        "suggested_view": suggested(view, each, contexts=sums.contexts) if view and wanted else None,
    }
