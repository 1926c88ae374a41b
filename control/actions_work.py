"""Acts on work: invocations, redrives, replays."""

from __future__ import annotations

from typing import Any

from control.asked import CancelQuery, DryRunQuery, InvocationQuery, RedrivesBody, ReplaysBody, Resolution, ResolveBody
from control.auth import Caller
from control.bulk_begin import begun, progress_shown
from control.callbacks import own_invocation
from control.desk import Desk
from control.shown import attempt_json, fallback_json, invocation_json, listed, page_by_seq, run_json, sent_json
from schemas.errors import Conflict, Invalid, NotFound
from schemas.invocation import State, Wait
from store.asks import Word, ask_to_stop
from store.asks import resolve as resolved
from store.events import EventFilter, event_total
from store.fallbacks import fallbacks_of
from store.progress import REDRIVE, REPLAY
from store.redress import REDRIVABLE, is_blocking
from store.runs import runs_of
from store.sent import sent_of
from store.subscriptions import subscriptions_of
from store.work import InvocationFilter, attempts_of, invocation_page, invocation_total, state_counts

_CANCELED = "canceled by an operator"


async def list_invocations(desk: Desk, caller: Caller, *, query: InvocationQuery) -> dict[str, Any]:
    """Invocations, newest first."""
    now_ms = desk.now_ms()
    wanted = InvocationFilter(
        state=query.state.value if query.state else "",
        agent=query.agent or "",
        subscription=query.subscription or "",
        event=query.event or "",
        since_ms=query.since_ms(now_ms),
        until_ms=query.until_ms(now_ms),
    )
    before = query.before("invocations")
    rows = await invocation_page(desk.engine, caller.team, wanted, before=before, limit=query.limit + 1)
    shown, more = page_by_seq(rows, query, "invocations")
    return listed([invocation_json(row) for row in shown], more)


async def show_counts(desk: Desk, caller: Caller) -> dict[str, Any]:
    """How many kept events there are, and how many invocations in each state."""
    events = await event_total(desk.engine, caller.team, EventFilter())
    return {"events": events, "invocations": await state_counts(desk.engine, caller.team)}


async def show_invocation(desk: Desk, caller: Caller, *, invocation_id: str) -> dict[str, Any]:
    """An invocation with its attempts and what the agent answered."""
    row = await own_invocation(desk, caller, invocation_id)
    attempts = (await attempts_of(desk.engine, [row.seq])).get(row.seq, [])
    run = run_json((await runs_of(desk.engine, [row.seq])).get(row.seq))
    falls = (await fallbacks_of(desk.engine, [row.seq])).get(row.seq, [])
    return {
        **invocation_json(row),
        "attempts": [attempt_json(attempt) for attempt in attempts],
        "run": run,
        "fallbacks": [fallback_json(fall) for fall in falls],
    }


async def show_sent(desk: Desk, caller: Caller, *, invocation_id: str) -> dict[str, Any]:
    """What each attempt of an invocation sent, byte for byte but for its token, and what it got back (its first 4 KiB)."""
    row = await own_invocation(desk, caller, invocation_id)
    attempts = {attempt.number: attempt for attempt in (await attempts_of(desk.engine, [row.seq])).get(row.seq, [])}
    return listed([sent_json(attempts[each.number], each) for each in await sent_of(desk.engine, row.seq)])


async def redrive(desk: Desk, caller: Caller, *, invocation_id: str, query: DryRunQuery) -> dict[str, Any]:
    """Queue an ended invocation again: same id, its attempts continued, a new budget of retries."""
    row = await own_invocation(desk, caller, invocation_id)
    waits_for_us = is_blocking(row.state, row.reason) or (row.state, row.reason) == (State.WAITING, Wait.HUMAN)
    if row.state not in REDRIVABLE and not waits_for_us:
        raise Conflict(
            f"the invocation is {row.state}: what is buried, expired, canceled or superseded, or waits for a person, can be "
            "redriven"
        )
    if not query.dry_run:
        if not await desk.redress.redrive(caller.team, [invocation_id], now_ms=desk.now_ms()):
            raise Conflict("the invocation changed its state meanwhile: look again")
        await desk.noted(caller, "invocations.redrive", f"invocation/{invocation_id}", f"was {row.state}: {row.reason}")
    return {"id": invocation_id, "state": State.QUEUED.value, "dry_run": query.dry_run}


async def cancel(desk: Desk, caller: Caller, *, invocation_id: str, query: CancelQuery) -> dict[str, Any]:
    """End an invocation that is queued or waits; ask one that runs to stop, by the answer to its next heartbeat."""
    row = await own_invocation(desk, caller, invocation_id)
    if row.state in {State.RUNNING, State.ACCEPTED}:
        state = row.state
        if not query.dry_run:
            actor, engine = caller.name, desk.engine
            state = await ask_to_stop(engine, row.team, row.id, actor=actor, force=query.force, now_ms=desk.now_ms())
            await desk.noted(
                caller, "invocations.cancel", f"invocation/{invocation_id}", "by force" if query.force else "asked"
            )
        return {"id": invocation_id, "state": state, "dry_run": query.dry_run}
    if row.state not in {State.QUEUED, State.WAITING}:
        raise Conflict(f"the invocation is {row.state}: what is queued, waits or runs can be canceled")
    if not query.dry_run:
        if not await desk.redress.cancel(caller.team, [invocation_id], reason=_CANCELED, now_ms=desk.now_ms()):
            raise Conflict("the invocation changed its state meanwhile: look again")
        await desk.noted(caller, "invocations.cancel", f"invocation/{invocation_id}")
    return {"id": invocation_id, "state": State.CANCELED.value, "dry_run": query.dry_run}


_RESOLVED = {
    Resolution.DONE: State.DONE,
    Resolution.DECLINED: State.DECLINED,
    Resolution.FAILED: State.BURIED,
    Resolution.AGAIN: State.QUEUED,
}


async def resolve(desk: Desk, caller: Caller, *, invocation_id: str, body: ResolveBody) -> dict[str, Any]:
    """Say what becomes of an invocation that waits for a person: how it ended, or that it is tried again."""
    row = await own_invocation(desk, caller, invocation_id)
    word = Word(_RESOLVED[body.outcome], body.outcome.value, body.note, caller.name)
    state = await resolved(desk.engine, row.team, row.id, word=word, now_ms=desk.now_ms())
    await desk.noted(caller, "invocations.resolve", f"invocation/{invocation_id}", f"{body.outcome.value}: {body.note}")
    return {"id": invocation_id, "state": state}


async def create_redrives(desk: Desk, caller: Caller, *, body: RedrivesBody) -> dict[str, Any]:
    """Redrive by query, in the background; the answer says how to follow it."""
    if body.state not in REDRIVABLE:
        raise Invalid(f"what is {body.state.value} cannot be redriven", place="/state")
    wanted = redrive_filter(body, now_ms=desk.now_ms())
    total = await invocation_total(desk.engine, caller.team, wanted)
    return await begun(desk, caller, REDRIVE, body, total=total)


async def create_replays(desk: Desk, caller: Caller, *, body: ReplaysBody) -> dict[str, Any]:
    """Plan kept events anew, with today's rules, in the background; the answer says how to follow it."""
    if body.subscription is not None and body.subscription not in await subscriptions_of(desk.engine, caller.team):
        raise NotFound(f"there is no subscription `{body.subscription}`")
    wanted = replay_filter(body, now_ms=desk.now_ms())
    total = await event_total(desk.engine, caller.team, wanted)
    if not total and body.event is not None:
        raise NotFound("there is no such event")
    return await begun(desk, caller, REPLAY, body, total=total)


async def show_redrives(desk: Desk, caller: Caller, *, progress_id: str) -> dict[str, Any]:
    """How far a redrive by query is."""
    return await progress_shown(desk, caller, REDRIVE, progress_id)


async def show_replays(desk: Desk, caller: Caller, *, progress_id: str) -> dict[str, Any]:
    """How far a replay is."""
    return await progress_shown(desk, caller, REPLAY, progress_id)


def redrive_filter(body: RedrivesBody, *, now_ms: int) -> InvocationFilter:
    """Which invocations a redrive by query means."""
    return InvocationFilter(
        state=body.state.value,
        agent=body.agent or "",
        subscription=body.subscription or "",
        event=body.event or "",
        kind=body.reason.value if body.reason else "",
        since_ms=body.since_ms(now_ms),
        until_ms=body.until_ms(now_ms),
    )


def replay_filter(body: ReplaysBody, *, now_ms: int) -> EventFilter:
    """Which events a replay means."""
    return EventFilter(
        since_ms=body.since_ms(now_ms),
        until_ms=body.until_ms(now_ms),
        source=body.source or "",
        type=body.type or "",
        subject=body.subject or "",
        outcome=body.outcome or "",
        event=body.event or "",
    )
