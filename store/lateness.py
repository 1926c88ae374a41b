"""Marks what comes late: older, by its vendor's version or time, than what its key has shown to the subscription before.

What a key has seen is a row, moved in the transaction that admits; so it holds over restarts, and over routers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple, TypeAlias

import orjson
from sqlalchemy import select

from schemas.invocation import Flow, Invocation, Planned
from schemas.ranks import Rank, older_by
from schemas.times import iso
from store.engine import AddNew, Call, Put, Script
from store.prepared import Bulk, Prepared, among
from store.tables import folds, marks
from store.texts import kept

Wanted: TypeAlias = tuple[Planned, Invocation]

_COLUMNS = ("key_digest", "version", "time_ms", "event_id", "at_ms")
_MARK = Bulk(marks, *_COLUMNS, then="ON CONFLICT DO NOTHING RETURNING key_digest")
_SEEN = Prepared(
    select(marks.c.key_digest, marks.c.version, marks.c.time_ms, marks.c.event_id)
    .where(among(marks.c.key_digest, "digests"))
    .order_by(marks.c.key_digest)
    .with_for_update(),
    "digests",
)
_MARK_AGAIN = Bulk(
    marks,
    *_COLUMNS,
    then="ON CONFLICT (key_digest) DO UPDATE SET version = excluded.version, time_ms = excluded.time_ms, "
    "event_id = excluded.event_id, at_ms = excluded.at_ms",
)
_DROPPED = Bulk(
    folds,
    *("id", "event_id", "subscription_uid", "invocation_id", "replay_id", "at_ms", "stale"),
    then="ON CONFLICT DO NOTHING",
)


class Seen(NamedTuple):
    """The newest that a key has shown."""

    rank: Rank
    event_id: str


def without_late(wanted: Sequence[Wanted]) -> Script[Sequence[Wanted]]:
    """Part of a script: `wanted` with the late ones marked, and without those that are dropped for it, which are noted."""
    firsts: dict[str, Wanted] = {}
    for each in wanted:
        if (flow := each[1].flow) is not None and flow.seen_key:
            firsts.setdefault(flow.seen_key, each)
    if not firsts:
        return wanted
    rows = [_row(key, _seen(*each), each[1].created_ms) for key, each in sorted(firsts.items())]
    new = {row[0] for row in (yield AddNew(_MARK, rows))}
    known = [row[0] for row in rows if row[0] not in new]
    seen = {}
    if known:
        seen = {key: Seen(Rank(*rank), event) for key, *rank, event in (yield Call(_SEEN, (known,)))}
    written = seen | {key: _seen(*firsts[key]) for key in new}
    left, dropped, after = judged(wanted, seen)
    changed = [(key, mark) for key, mark in sorted(after.items()) if written.get(key) != mark]
    yield Put(_MARK_AGAIN, [_row(key, mark, firsts[key][1].created_ms) for key, mark in changed])
    yield Put(_DROPPED, dropped)
    return left


def judged(
    wanted: Sequence[Wanted], seen: Mapping[str, Seen]
) -> tuple[list[Wanted], list[tuple[object, ...]], dict[str, Seen]]:
    """Which of `wanted` stay, late ones marked, the rows of those that are dropped, and what each key has seen then; pure."""
    newest = dict(seen)
    left: list[Wanted] = []
    dropped: list[tuple[object, ...]] = []
    for plan, invocation in wanted:
        flow = invocation.flow
        if flow is None or not flow.seen_key:
            left.append((plan, invocation))
            continue
        mine, before = _seen(plan, invocation), newest.get(flow.seen_key)
        by = "" if before is None else older_by(mine.rank, before.rank)
        if not by:
            newest[flow.seen_key] = mine
            left.append((plan, invocation))
            continue
        assert before is not None
        why = _why(by, mine.rank, before)
        if flow.drops:
            dropped.append(
                (invocation.id, invocation.event_id, invocation.subscription_uid, "", "", invocation.created_ms, why)
            )
        else:
            left.append((plan, replace(invocation, flow=replace(flow, stale=why))))
    return left, dropped, newest


def _seen(plan: Planned, invocation: Invocation) -> Seen:
    flow = invocation.flow or Flow()
    return Seen(Rank(kept(flow.version), flow.time_ms), plan.event.id)


def _row(key: str, seen: Seen, at_ms: int) -> tuple[object, ...]:
    return (key, *seen.rank, seen.event_id, at_ms)


def _why(by: str, mine: Rank, seen: Seen) -> str:
    this, than = (mine.version, seen.rank.version) if by == "version" else (iso(mine.time_ms), iso(seen.rank.time_ms))
    return orjson.dumps({"by": by, "this": this, "seen": than, "event": seen.event_id}).decode()
