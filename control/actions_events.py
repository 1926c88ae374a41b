"""Acts on what came in: events, their traces, and why subscriptions did or did not match."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import orjson

from control.asked import CurateBody, EventQuery, ExplainQuery, MatchBody, Page
from control.asked_contexts import BodyQuery
from control.auth import Caller
from control.callbacks import own_invocation
from control.desk import Curation, Desk
from control.documents import read_rule
from control.later import later_of
from control.shown import (
    attempt_json,
    event_json,
    fallback_json,
    invocation_json,
    listed,
    page_by_seq,
    rejected_json,
    run_json,
)
from control.steps import steps_of
from schemas.config import DEFAULT_TEAM, SubscriptionSpec
from schemas.errors import Invalid, NotFound
from schemas.event import Event, from_envelope
from schemas.outcomes import outcome_event_id
from store.digests import notes_of
from store.events import EventFilter, EventRow, body_of, event_page, event_row, events_of, rejected_page, states_of
from store.fallbacks import fallbacks_of
from store.fetches import note_fetch
from store.folding import folds_of
from store.runs import notes_of as run_notes_of
from store.runs import runs_of
from store.subscriptions import SubscriptionRow, subscriptions_of
from store.work import InvocationRow, attempts_of, invocations_of

BODY_GONE = "body_gone"  # the flag of an event whose body's retention is over


@dataclass(frozen=True, slots=True)
class Raw:
    """An answer that is not JSON: bytes to be saved, never to be rendered."""

    content: bytes
    filename: str


async def list_events(desk: Desk, caller: Caller, *, query: EventQuery) -> dict[str, Any]:
    """Events, newest first, each with the states of its invocations."""
    now_ms = desk.now_ms()
    wanted = EventFilter(
        since_ms=query.since_ms(now_ms),
        until_ms=query.until_ms(now_ms),
        source=query.source or "",
        type=query.type or "",
        subject=query.subject or "",
        outcome=query.outcome or "",
    )
    rows = await event_page(desk.engine, caller.team, wanted, before=query.before("events"), limit=query.limit + 1)
    shown, more = page_by_seq(rows, query, "events")
    states = await states_of(desk.engine, [row.id for row in shown])
    return listed([event_json(row, states.get(row.id, {})) for row in shown], more)


async def show_event(desk: Desk, caller: Caller, *, event_id: str) -> dict[str, Any]:
    """The event's document: the envelope with `data` in it, as patterns and views see it."""
    row = await _seen_by(desk, caller, event_id)
    return await document_of(desk, row)


async def show_body(desk: Desk, caller: Caller, *, event_id: str, query: BodyQuery) -> Raw:
    """The vendor's bytes, untouched; or one part of the body as JSON."""
    row = await _seen_by(desk, caller, event_id)
    body = await body_of(desk.engine, row.body_digest)
    if body is None:
        raise NotFound("this event's body is no longer kept")
    if query.pointer is None:
        return Raw(body, f"{row.id}.body")
    data, _ = desk.tools.view(body, json.loads(row.envelope)["datacontenttype"], row.pointer)
    part = orjson.dumps(part_of(data, query.pointer))
    if caller.invocation_id:
        invocation = await own_invocation(desk, caller, caller.invocation_id)
        uid = invocation.subscription_uid
        await note_fetch(desk.engine, subscription_uid=uid, pointer=query.pointer, now_ms=desk.now_ms())
    return Raw(part, f"{row.id}.json")


def part_of(data: Any, pointer: str) -> Any:
    """What stands at a JSON pointer.  Raises `NotFound`."""
    for raw in pointer.split("/")[1:]:
        step = raw.replace("~1", "/").replace("~0", "~")
        if isinstance(data, dict) and step in data:
            data = data[step]
        elif isinstance(data, list) and step.isascii() and step.isdigit() and int(step[:9]) < len(data):
            data = data[int(step[:9])]
        else:
            raise NotFound(f"there is no {pointer} in it")
    return data


async def trace_event(desk: Desk, caller: Caller, *, event_id: str) -> dict[str, Any]:
    """Every step of an event with its time, its invocations with their attempts, and what did not match."""
    row = await _of_team(desk, caller, event_id)
    invocations = await invocations_of(desk.engine, caller.team, event_id)
    seqs = [invocation.seq for invocation in invocations]
    attempts, runs, notes = (
        await attempts_of(desk.engine, seqs),
        await runs_of(desk.engine, seqs),
        await run_notes_of(desk.engine, seqs),
    )
    falls = await fallbacks_of(desk.engine, seqs)
    shown = [
        {
            **invocation_json(found),
            "attempts": [attempt_json(attempt) for attempt in attempts.get(found.seq, [])],
            "run": run_json(runs.get(found.seq)),
            "fallbacks": [fallback_json(fall) for fall in falls.get(found.seq, [])],
        }
        for found in invocations
    ]
    return {
        "event": {**json.loads(row.envelope), "admitted_at": event_json(row, {})["admitted_at"]},
        "steps": steps_of(
            row,
            invocations,
            attempts,
            folds=await folds_of(desk.engine, event_id),
            told=await _told(desk, caller, invocations),
            runs=notes,
            flow=await notes_of(desk.engine, [found.id for found in invocations]),
            falls=falls,
        ),
        "invocations": shown,
        "misses": await _misses(desk, row, invocations),
    }


async def _told(desk: Desk, caller: Caller, invocations: Sequence[InvocationRow]) -> list[EventRow]:
    """The events that outcomes of these invocations became: their ids follow from what became of each."""
    ids = {
        outcome_event_id(caller.team, found.id, word, found.attempts)
        for found in invocations
        for word in {found.state, found.outcome} - {""}
    }
    return await events_of(desk.engine, caller.team, sorted(ids)) if ids else []


async def explain_event(desk: Desk, caller: Caller, *, event_id: str, query: ExplainQuery) -> dict[str, Any]:
    """Why each subscription, or the one asked for, does or does not match the event today."""
    row = await _of_team(desk, caller, event_id)
    subscriptions = await subscriptions_of(desk.engine, caller.team)
    if query.subscription is not None and query.subscription not in subscriptions:
        raise NotFound(f"there is no subscription `{query.subscription}`")
    wanted = [found for name, found in subscriptions.items() if query.subscription in {None, name}]
    told = await _explanations(desk, row, wanted, await invocations_of(desk.engine, caller.team, event_id))
    return listed(sorted(told, key=_by_nearness))


async def try_match(desk: Desk, caller: Caller, *, body: MatchBody) -> dict[str, Any]:
    """Whether a rule matches a kept event, or a document, and if not, which field does not."""
    rule = await _rule_to_try(desk, caller, body)
    document = body.event
    if isinstance(document, str):
        document = await document_of(desk, await _of_team(desk, caller, document))
    return dict(desk.tools.match(rule, document))


async def try_curate(desk: Desk, caller: Caller, *, body: CurateBody) -> dict[str, Any]:
    """The context that an agent would get of a kept event, its tokens, and what was left out."""
    if body.subscription is not None and body.view is not None:
        raise Invalid("give a subscription or a view, not both", place="/view")
    row = await _of_team(desk, caller, body.event)
    event, data = await event_and_data(desk, row)
    if body.subscription is not None:
        return await _as_subscribed(desk, caller, event, data, body)
    found = desk.tools.curate(event, data, view=body.view, max_tokens=body.max_tokens)
    return _context_json(found)


def _context_json(found: Curation) -> dict[str, Any]:
    return {
        "context": orjson.loads(found.context),
        "tokens": found.tokens,
        "raw_tokens": found.raw_tokens,
        "digest": found.digest,
        "left_out": list(found.left_out),
    }


async def list_rejected(desk: Desk, caller: Caller, *, query: Page) -> dict[str, Any]:
    """Records of the log that could not be routed and were set aside; they belong to no team, so the default one sees them."""
    if caller.team != DEFAULT_TEAM:
        return listed([])
    rows = await rejected_page(desk.engine, before=query.before("rejected"), limit=query.limit + 1)
    shown, more = page_by_seq(rows, query, "rejected")
    return listed([rejected_json(row) for row in shown], more)


async def document_of(desk: Desk, row: EventRow) -> dict[str, Any]:
    """A kept event's document; `data` is null and the flag `body_gone` is set once its body is no longer kept."""
    envelope: dict[str, Any] = json.loads(row.envelope)
    body = await body_of(desk.engine, row.body_digest)
    if body is None:
        return {**envelope, "flags": [*envelope.get("flags", []), BODY_GONE], "data": None}
    data, _ = desk.tools.view(body, envelope["datacontenttype"], row.pointer)
    return {**envelope, "data": data}


async def event_and_data(desk: Desk, row: EventRow) -> tuple[Event, Any]:
    """A kept event with its body, and its JSON view.  Raises `NotFound` once its body is no longer kept."""
    body = await body_of(desk.engine, row.body_digest)
    if body is None:
        raise NotFound(f"the body of {row.id} is no longer kept")
    event = from_envelope(json.loads(row.envelope), body, family=row.family, pointer=row.pointer)
    data, _ = desk.tools.view(body, event.datacontenttype, event.pointer)
    return event, data


async def _of_team(desk: Desk, caller: Caller, event_id: str) -> EventRow:
    row = await event_row(desk.engine, caller.team, event_id)
    if row is None:
        raise NotFound("there is no such event")
    return row


async def _seen_by(desk: Desk, caller: Caller, event_id: str) -> EventRow:
    """The event, where this caller may see it: a token opens its own, an agent's key those that woke it."""
    if caller.is_token and caller.event_id != event_id:
        raise NotFound("there is no such event")
    row = await _of_team(desk, caller, event_id)
    if caller.agent and not caller.is_token:
        woken = await invocations_of(desk.engine, caller.team, event_id)
        if all(invocation.agent != caller.agent for invocation in woken):
            raise NotFound("there is no such event")
    return row


async def _misses(desk: Desk, row: EventRow, invocations: Sequence[InvocationRow]) -> list[dict[str, Any]]:
    """Of the subscriptions that the event gave no invocation, what kept it: nearest misses first."""
    planned = {found.subscription_uid for found in invocations}
    others = [found for found in (await subscriptions_of(desk.engine, row.team)).values() if found.uid not in planned]
    return sorted(await _explanations(desk, row, others, invocations), key=_by_nearness)


async def _explanations(
    desk: Desk, row: EventRow, subscriptions: Sequence[SubscriptionRow], invocations: Sequence[InvocationRow]
) -> list[dict[str, Any]]:
    document = await document_of(desk, row)
    folds = await folds_of(desk.engine, row.id)
    return [
        {
            "subscription": found.name,
            **desk.tools.explain(found.config, document, later=later_of(row, found, invocations, folds)),
        }
        for found in subscriptions
    ]


def _by_nearness(verdict: Mapping[str, Any]) -> tuple[bool, float, str]:
    """What matched first, then the misses, nearest first."""
    return not verdict["matched"], -float(verdict.get("nearness", 0)), verdict["subscription"]


async def _rule_to_try(desk: Desk, caller: Caller, body: MatchBody) -> SubscriptionSpec:
    written = body.model_dump(exclude={"event", "subscription"}, exclude_none=True)
    if body.subscription is None:
        return read_rule(written)
    if written:
        raise Invalid("give a subscription's name or a rule, not both", place="/subscription")
    kept = (await subscriptions_of(desk.engine, caller.team)).get(body.subscription)
    if kept is None:
        raise NotFound(f"there is no subscription `{body.subscription}`")
    return kept.config.spec


async def _as_subscribed(desk: Desk, caller: Caller, event: Event, data: Any, body: CurateBody) -> dict[str, Any]:
    """The context as the subscription makes it today, beside what its agent was sent last."""
    assert body.subscription is not None
    row = (await subscriptions_of(desk.engine, caller.team)).get(body.subscription)
    if row is None:
        raise NotFound(f"there is no subscription `{body.subscription}`")
    config = row.config
    if body.max_tokens is not None:
        context = config.spec.context.model_copy(update={"max_tokens": body.max_tokens})
        config = replace(config, spec=config.spec.model_copy(update={"context": context}))
    if desk.tools.contexts is None:
        context = config.spec.context
        return _context_json(desk.tools.curate(event, data, view=context.view, max_tokens=context.max_tokens))
    found = await desk.tools.contexts(config, event, data)
    return {
        **_context_json(found),
        "beside": {name: orjson.loads(text) for name, text in found.siblings},
        "missing": list(found.missing),
        "verdict": found.verdict,
        "reason": found.reason,
        "sent": await _sent(desk, caller, event.id, row.uid),
    }


async def _sent(desk: Desk, caller: Caller, event_id: str, uid: str) -> list[dict[str, Any]]:
    """The digests of the contexts that a subscription's agent was sent of this event."""
    work = [found for found in await invocations_of(desk.engine, caller.team, event_id) if found.subscription_uid == uid]
    attempts = await attempts_of(desk.engine, [found.seq for found in work])
    return [
        {"invocation": found.id, "attempt": attempt.number, "digest": attempt.context_digest, "tokens": attempt.tokens}
        for found in work
        for attempt in attempts.get(found.seq, [])
        if attempt.sent
    ]
