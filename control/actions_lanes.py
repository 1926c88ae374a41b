"""Acts on lanes: what waits behind what, and letting blocked keys go on."""

from __future__ import annotations

from typing import Any

from control.asked import DryRunQuery, read_cursor, write_cursor
from control.asked_lanes import LaneQuery, UnblockBody, Unblocked
from control.auth import Caller
from control.callbacks import own_invocation
from control.desk import Desk
from control.shown import listed, moment
from schemas.errors import Conflict
from schemas.invocation import State, Wait
from schemas.times import iso
from store.lanes import LaneRow, lane_page
from store.redress import is_blocking

SKIPPED = "skipped by an operator"
_PAGE = 200


async def list_lanes(desk: Desk, caller: Caller, *, query: LaneQuery) -> dict[str, Any]:
    """Lanes that have unfinished invocations, by name, each with its head."""
    rows = await lane_page(
        desk.engine,
        caller.team,
        agent=query.agent or "",
        subscription=query.subscription or "",
        hold=Wait.BLOCKED if query.blocked else "",
        after=read_cursor("lanes", query.cursor) if query.cursor else "",
        limit=query.limit + 1,
    )
    shown = rows[: query.limit]
    cursor = write_cursor("lanes", shown[-1].id) if len(rows) > query.limit else None
    return listed([lane_json(row) for row in shown], cursor)


async def skip(desk: Desk, caller: Caller, *, invocation_id: str, query: DryRunQuery) -> dict[str, Any]:
    """Bury an invocation that blocks its key, so that the key goes on behind it."""
    row = await own_invocation(desk, caller, invocation_id)
    if not is_blocking(row.state, row.reason):
        raise Conflict(f"the invocation is {row.state}, and blocks nothing")
    if not query.dry_run:
        if not await desk.redress.skip(caller.team, [invocation_id], reason=SKIPPED, now_ms=desk.now_ms()):
            raise Conflict("the invocation changed its state meanwhile: look again")
        await desk.noted(caller, "invocations.skip", f"invocation/{invocation_id}", f"its key was {row.ordering_key}")
    return {"id": invocation_id, "state": State.BURIED.value, "dry_run": query.dry_run}


async def unblock(desk: Desk, caller: Caller, *, body: UnblockBody) -> dict[str, Any]:
    """Let blocked keys go on: each head is tried again, or skipped.  How many there were."""
    count, after = 0, ""
    while True:
        rows = await lane_page(
            desk.engine,
            caller.team,
            agent=body.agent or "",
            subscription=body.subscription or "",
            hold=Wait.BLOCKED,
            after=after,
            limit=_PAGE,
        )
        heads = [row.head for row in rows if body.key in {None, row.ordering_key}]
        count += len(heads) if body.dry_run else await _freed(desk, caller, heads, body.how)
        if len(rows) < _PAGE:
            break
        after = rows[-1].id
    if count and not body.dry_run:
        detail = body.model_dump_json(exclude_none=True, exclude={"dry_run"})
        await desk.noted(caller, "lanes.unblock", f"{count} lanes", detail)
    return {"count": count, "how": body.how.value, "dry_run": body.dry_run}


async def _freed(desk: Desk, caller: Caller, heads: list[str], how: Unblocked) -> int:
    if not heads:
        return 0
    if how is Unblocked.SKIP:
        return len(await desk.redress.skip(caller.team, heads, reason=SKIPPED, now_ms=desk.now_ms()))
    return len(await desk.redress.redrive(caller.team, heads, now_ms=desk.now_ms()))


def lane_json(row: LaneRow) -> dict[str, Any]:
    """A lane."""
    return {
        "lane": row.id,
        "subscription": row.subscription,
        "agent": row.agent,
        "ordering_key": row.ordering_key,
        "queued": row.queued,
        "blocked": row.hold == Wait.BLOCKED,
        "waits_for": row.hold,
        "due_at": moment(row.due_ms) if row.due_ms < 1 << 60 else None,
        "shard": row.shard,
        "head": row.head,
        "head_state": row.state,
        "head_attempts": row.attempts,
        "since": iso(row.created_ms),
    }
