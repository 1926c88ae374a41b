"""Folds what a subscription's `dedup` says is the same: within its window, an event of a known key wakes nobody again.

Time is the events' receipt, so that a log read late folds what it would have folded at once.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, TypeAlias

from sqlalchemy import bindparam, select

from schemas.invocation import Invocation, Planned
from store.engine import AddNew, Call, Engine, Put, Script, fetch
from store.prepared import Bulk, Prepared, among
from store.tables import dedups, folds, invocations

Wanted: TypeAlias = tuple[Planned, Invocation]

_HOLD = Bulk(
    dedups,
    *("key_digest", "subscription_uid", "expires_ms", "invocation_id"),
    then="ON CONFLICT DO NOTHING RETURNING key_digest",
)
_HELD = Prepared(
    select(dedups.c.key_digest, dedups.c.expires_ms, dedups.c.invocation_id)
    .where(among(dedups.c.key_digest, "digests"))
    .order_by(dedups.c.key_digest)
    .with_for_update(),
    "digests",
)
_HOLD_ON = Bulk(
    dedups,
    *("key_digest", "subscription_uid", "expires_ms", "invocation_id"),
    then="ON CONFLICT (key_digest) DO UPDATE SET expires_ms = excluded.expires_ms, invocation_id = excluded.invocation_id",
)
_FOLDED = Bulk(
    folds,
    *("id", "event_id", "subscription_uid", "invocation_id", "replay_id", "at_ms"),
    then="ON CONFLICT DO NOTHING",
)
_FOLDED_BEFORE = Prepared(select(folds.c.id).where(among(folds.c.id, "ids")), "ids")
_OF_EVENT = Prepared(
    select(
        folds.c.subscription_uid,
        folds.c.invocation_id,
        folds.c.replay_id,
        folds.c.at_ms,
        invocations.c.event_id,
        folds.c.stale,
    )
    .outerjoin(invocations, invocations.c.id == folds.c.invocation_id)
    .where(folds.c.event_id == bindparam("event_"))
    .order_by(folds.c.at_ms, folds.c.id),
    "event_",
)


class Held(NamedTuple):
    """What holds a key: until when, by the receipt of events, and the invocation that stands for it."""

    expires_ms: int
    invocation_id: str


@dataclass(frozen=True, slots=True)
class Fold:
    """An invocation that was not queued; `of_event` is the event of the one it is a duplicate of ("" where that is gone).

    `stale` says, as JSON, why it was late, where it was dropped for that.
    """

    subscription_uid: str
    invocation_id: str
    replay_id: str
    at_ms: int
    of_event: str
    stale: str = ""


def without_duplicates(wanted: Sequence[Wanted]) -> Script[Sequence[Wanted]]:
    """Part of a script: what is left of `wanted` to be queued; the rest is folded, and noted."""
    if not any(invocation.dedup_digest for _, invocation in wanted):
        return wanted
    firsts: dict[str, tuple[str, Held]] = {}
    for plan, invocation in wanted:
        if digest := invocation.dedup_digest:
            firsts.setdefault(digest, (invocation.subscription_uid, _hold(plan, invocation)))
    rows = [(digest, uid, hold.expires_ms, hold.invocation_id) for digest, (uid, hold) in sorted(firsts.items())]
    new = {row[0] for row in (yield AddNew(_HOLD, rows))}
    held: dict[str, Held] = {}
    if len(new) < len(rows):
        known = [row[0] for row in rows if row[0] not in new]
        held = {digest: Held(until, name) for digest, until, name in (yield Call(_HELD, (known,)))}
    written = held | {digest: firsts[digest][1] for digest in new}
    left, folded, after = decided(wanted, held)
    changed = [(digest, hold) for digest, hold in sorted(after.items()) if written.get(digest) != hold]
    yield Put(_HOLD_ON, [(digest, firsts[digest][0], *hold) for digest, hold in changed])
    yield Put(_FOLDED, folded)
    return left


def decided(
    wanted: Sequence[Wanted], held: Mapping[str, Held]
) -> tuple[list[Wanted], list[tuple[object, ...]], dict[str, Held]]:
    """Which of `wanted` stay, the rows of those that are folded, and what holds each key afterwards; pure."""
    holding = dict(held)
    left: list[Wanted] = []
    folded: list[tuple[object, ...]] = []
    for plan, invocation in wanted:
        digest = invocation.dedup_digest
        hold = holding.get(digest) if digest else None
        mine = _hold(plan, invocation)
        if hold is not None and abs(mine.expires_ms - hold.expires_ms) < invocation.dedup_window_ms:
            replay, uid = invocation.replay_id, invocation.subscription_uid
            folded.append((invocation.id, invocation.event_id, uid, hold.invocation_id, replay, invocation.created_ms))
            continue
        left.append((plan, invocation))
        if digest and (hold is None or mine.expires_ms > hold.expires_ms):  # one that came late does not shorten a window
            holding[digest] = mine
    return left, folded, holding


def _hold(plan: Planned, invocation: Invocation) -> Held:
    return Held(plan.event.received_ms + invocation.dedup_window_ms, invocation.id)


def folded_before(wanted: Sequence[Invocation]) -> Script[set[str]]:
    """Part of a script: which of these invocations were folded already."""
    ids = [invocation.id for invocation in wanted if invocation.dedup_digest]
    return {row[0] for row in (yield Call(_FOLDED_BEFORE, (ids,)))} if ids else set()


async def folds_of(engine: Engine, event_id: str) -> list[Fold]:
    """What was folded of an event, in the order in which it happened."""
    rows = await fetch(engine, _OF_EVENT, event_id)
    return [Fold(uid, name, replay, at, of_event or "", stale) for uid, name, replay, at, of_event, stale in rows]
