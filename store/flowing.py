"""What flow control keeps of invocations, and the windows in which they are gathered."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple, TypeAlias

from sqlalchemy import bindparam, func, or_, select, update

from schemas.invocation import Admitted, Invocation, Planned, State, Wait
from schemas.ledger import Window
from store.engine import Call, Each, Put, Script
from store.heads import ZERO
from store.moves import Move, moved
from store.prepared import Bulk, Prepared, among
from store.shards import epochs_of
from store.tables import bodies, events, flows, invocations, lanes

Wanted: TypeAlias = tuple[Planned, Invocation]

DIGEST = "digest"  # the reason of an invocation that hands over a closed window

_KEEP = Bulk(flows, "invocation_id", "limit_key", "stale", then="ON CONFLICT DO NOTHING")
_FULL = Prepared(
    update(lanes)
    .where(
        lanes.c.id == bindparam("id_"),
        lanes.c.due_ms > bindparam("now"),
        or_(lanes.c.hold == "", lanes.c.hold == Wait.DEBOUNCE.value),
    )
    .values(due_ms=bindparam("now")),
    *("now", "id_"),
)
_WINDOW = Prepared(
    select(
        invocations.c.id,
        invocations.c.attempts,
        invocations.c.created_ms,
        func.coalesce(bodies.c.size, 0),
        func.coalesce(flows.c.digest_id, ""),
    )
    .join(events, events.c.id == invocations.c.event_id)
    .outerjoin(bodies, bodies.c.digest == events.c.body_digest)
    .outerjoin(flows, flows.c.invocation_id == invocations.c.id)
    .where(invocations.c.lane == bindparam("lane_"), invocations.c.ended_ms == ZERO)
    .order_by(invocations.c.seq)
    .limit(bindparam("limit_"))
    .with_for_update(of=invocations),
    *("lane_", "limit_"),
)
_SHARDS = Prepared(select(lanes.c.id, lanes.c.shard).where(among(lanes.c.id, "ids")), "ids")
_GATHER = Bulk(
    flows,
    *("invocation_id", "digest_id"),
    then="ON CONFLICT (invocation_id) DO UPDATE SET digest_id = excluded.digest_id",
)


class Gathered(NamedTuple):
    """What became of a window: it is open until `due_ms`, or (0) closed, and so many `events` are in its digest."""

    due_ms: int
    events: int


def kept_flows(admitted: Sequence[Admitted]) -> Script[None]:
    """Part of a script: keep what flow control knows of what was just queued, and let lanes go that are full."""
    rows: list[tuple[object, ...]] = []
    full: dict[str, int] = {}
    for each in admitted:
        flow = each.invocation.flow
        if flow is None:
            continue
        if flow.limit_key or flow.stale:
            rows.append((each.invocation.id, flow.limit_key, flow.stale))
        if flow.full_at and each.ahead + 1 >= flow.full_at:
            full[each.invocation.lane] = each.invocation.created_ms
    yield Put(_KEEP, rows)
    yield Each(_FULL, [(now_ms, lane) for lane, now_ms in sorted(full.items())])


def on_their_shards(wanted: Sequence[Wanted], ahead: Mapping[str, int]) -> Script[Sequence[Wanted]]:
    """Part of a script: `wanted` with the shards that their lanes have: one that is there already keeps its own."""
    known = {
        invocation.lane for _, invocation in wanted if invocation.flow and invocation.flow.is_part and ahead[invocation.lane]
    }
    if not known:
        return wanted
    shards: dict[str, int] = {lane: shard for lane, shard in (yield Call(_SHARDS, (sorted(known),)))}  # noqa: C416 - rows are sequences, not pairs
    return [(plan, replace(found, shard=shards.get(found.lane, found.shard))) for plan, found in wanted]


def gathered(lane: str, shard: int, epoch: int, window: Window, now_ms: int) -> Script[Gathered | None]:
    """Close the lane's window where its time has come or it is full, else let its head wait; None where it is not ours.

    Of a closed window the newest invocation hands over all of its events; the others end, and name it.  A head that was
    attempted, or that stands for a window already, is left as it is.
    """
    epochs = yield from epochs_of({shard})
    rows = yield Call(_WINDOW, (lane, window.max_events))
    if epochs.get(shard) != epoch or not rows:
        return None
    taken = _taken(rows, window)
    if not taken:
        return Gathered(0, 1)
    is_full = len(taken) >= window.max_events or len(taken) < len(rows)
    due_ms = window.closes_ms(taken[0][2], taken[-1][2])
    if not is_full and now_ms < due_ms:
        head = Move(taken[0][0], State.WAITING, Wait.DEBOUNCE, 0, shard=shard, epoch=epoch, due_ms=due_ms)
        return Gathered(due_ms, len(taken)) if (yield from moved([head]))[0] else None
    return (yield from _closed([row[0] for row in taken], shard, epoch, now_ms))


def _taken(rows: Sequence[Any], window: Window) -> list[Any]:
    """The first of these that make one digest: untried, of no other digest, within its bytes (one is always taken)."""
    taken: list[Any] = []
    size = 0
    for row in rows:
        _, attempts, _, body_bytes, digest_id = row
        size += body_bytes
        if attempts or digest_id or (taken and size > window.max_bytes):
            break
        taken.append(row)
    return taken


def _closed(ids: Sequence[str], shard: int, epoch: int, now_ms: int) -> Script[Gathered | None]:
    newest = ids[-1]
    yield Put(_GATHER, [(ident, newest) for ident in sorted(ids)])
    moves = [
        Move(ident, State.DIGESTED, f"in the digest of {newest}", now_ms, shard=shard, epoch=epoch, outcome=State.DIGESTED)
        for ident in ids[:-1]
    ]
    moves.append(Move(newest, State.QUEUED, DIGEST, 0, shard=shard, epoch=epoch, due_ms=now_ms))
    yield from moved(moves)
    return Gathered(0, len(ids))
