"""Acts on dead letters: look at them, count them, purge them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson

from control.asked import DeadQuery, DryRunQuery, PurgesBody
from control.auth import Caller
from control.bulk_begin import begun, progress_shown
from control.callbacks import own_invocation
from control.desk import Desk
from control.shown import fallback_json, listed, moment, page_by_seq
from schemas.errors import Conflict, NotFound
from schemas.invocation import State
from schemas.times import iso
from store.deadletters import DeadFilter, DeadLetter, dead_counts, dead_page, dead_total, exchanges_of, kind_of, purge
from store.fallbacks import fallbacks_of
from store.progress import PURGE
from store.sent import SentRow, sent_of
from store.work import AttemptRow, attempts_of


async def list_dead(desk: Desk, caller: Caller, *, query: DeadQuery) -> dict[str, Any]:
    """Dead letters, newest first."""
    before = query.before("dead")
    rows = await dead_page(desk.engine, caller.team, dead_filter(query, desk.now_ms()), before=before, limit=query.limit + 1)
    shown, more = page_by_seq(rows, query, "dead")
    return listed([_letter_json(row) for row in shown], more)


async def count_dead(desk: Desk, caller: Caller) -> dict[str, Any]:
    """How many dead letters there are, by reason and agent."""
    rows = sorted(await dead_counts(desk.engine, caller.team), key=lambda row: (-row[2], row[0], row[1]))
    items = [{"kind": kind, "agent": agent, "count": count, "oldest_at": moment(oldest)} for kind, agent, count, oldest in rows]
    return {**listed(items), "total": sum(row[2] for row in rows)}


async def show_dead(desk: Desk, caller: Caller, *, invocation_id: str) -> dict[str, Any]:
    """A dead letter: why, what was sent and received by each attempt, and which fallbacks it went through."""
    row = await own_invocation(desk, caller, invocation_id)
    if row.state != State.BURIED:
        raise NotFound(f"the invocation is {row.state}: it is no dead letter")
    (letter,) = await dead_page(desk.engine, caller.team, DeadFilter(event=row.event_id), before=row.seq + 1, limit=1)
    attempts = (await attempts_of(desk.engine, [row.seq])).get(row.seq, [])
    sent = {each.number: each for each in await sent_of(desk.engine, row.seq)}
    frames = await exchanges_of(desk.engine, row.seq)
    falls = (await fallbacks_of(desk.engine, [row.seq])).get(row.seq, [])
    return {
        **_letter_json(letter),
        "exchanges": [_exchange_json(found, sent.get(found.number), frames.get(found.number)) for found in attempts],
        "fallbacks": [fallback_json(fall) for fall in falls],
    }


async def purge_dead(desk: Desk, caller: Caller, *, invocation_id: str, query: DryRunQuery) -> dict[str, Any]:
    """Purge one dead letter: what was sent and received is forgotten, and it is one no more."""
    row = await own_invocation(desk, caller, invocation_id)
    if row.state != State.BURIED:
        raise Conflict(f"the invocation is {row.state}: it is no dead letter")
    if not query.dry_run:
        if not await purge(desk.engine, caller.team, [invocation_id]):
            raise Conflict("the invocation changed its state meanwhile: look again")
        await desk.noted(caller, "deadletters.purge", f"invocation/{invocation_id}", kind_of(row.reason))
    return {"id": invocation_id, "dry_run": query.dry_run}


async def create_purges(desk: Desk, caller: Caller, *, body: PurgesBody) -> dict[str, Any]:
    """Purge dead letters by query, in the background; the answer says how to follow it."""
    total = await dead_total(desk.engine, caller.team, dead_filter(body, desk.now_ms()))
    return await begun(desk, caller, PURGE, body, total=total)


async def show_purges(desk: Desk, caller: Caller, *, progress_id: str) -> dict[str, Any]:
    """How far a purge by query is."""
    return await progress_shown(desk, caller, PURGE, progress_id)


def dead_filter(asked: DeadQuery | PurgesBody, now_ms: int) -> DeadFilter:
    """Which dead letters are meant."""
    return DeadFilter(
        kind=asked.reason.value if asked.reason else "",
        agent=asked.agent or "",
        subscription=asked.subscription or "",
        event=asked.event or "",
        since_ms=asked.since_ms(now_ms),
        until_ms=asked.until_ms(now_ms),
    )


def _letter_json(row: DeadLetter) -> dict[str, Any]:
    return {
        "id": row.id,
        "event_id": row.event_id,
        "type": row.type or "",
        "subject": row.subject or "",
        "subscription": row.subscription,
        "agent": row.agent,
        "kind": row.kind,
        "reason": row.reason,
        "attempts": row.attempts,
        "status": row.status,
        "error": row.error,
        "ordering_key": row.ordering_key,
        "created_at": iso(row.created_ms),
        "buried_at": moment(row.ended_ms),
    }


def _exchange_json(row: AttemptRow, sent: SentRow | None, frame: bytes | None) -> dict[str, Any]:
    found: Mapping[str, Any] = orjson.loads(frame) if frame else {}
    body = sent.body.body if sent is not None and sent.body is not None else None
    return {
        "attempt": row.number,
        "started_at": iso(row.started_ms),
        "outcome": row.outcome,
        "error": row.error,
        "method": found.get("method", ""),
        "url": found.get("url", ""),
        "headers": _headers(found.get("headers")),
        "body": (body or b"").decode("utf-8", "replace"),
        "is_kept": body is not None,
        "bytes_sent": row.bytes_sent,
        "status": row.status,
        "answer_headers": _headers(found.get("answer_headers")),
        "answer": (row.answer or b"").decode("utf-8", "replace"),
    }


def _headers(pairs: Any) -> list[dict[str, str]]:
    return [{"name": name, "value": value} for name, value in pairs or ()]
