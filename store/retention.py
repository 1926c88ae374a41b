"""Deletes what is older than its days: whole days where tables lie by day, else slices that nobody waits long for."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from sqlalchemy import ColumnElement, Table, bindparam, delete, exists, func, select, tuple_

from schemas.errors import StoreUnavailable
from store.days import (
    DAY_MS,
    days_before,
    drop_day,
    drop_rows,
    ended_ids,
    has_open,
    is_by_day,
    make_ahead,
    next_ids,
    wide_parts,
)
from store.engine import Call, Change, Engine, Script, fetch
from store.heads import ZERO
from store.prepared import Prepared, among
from store.tables import (
    attempts,
    bodies,
    dedups,
    events,
    exchanges,
    facts,
    fallbacks,
    flows,
    folds,
    invocations,
    marks,
    refusals,
    rejected,
    run_notes,
    runs,
    seen,
)

SLICE = 200
_WALK = 2000
_PAUSE_S = 0.005


@dataclass(frozen=True, slots=True)
class Keep:
    """For how long things are kept.  An event goes only when all its invocations have ended, and they go with it."""

    events_days: float = 30
    bodies_days: float = 14
    refusals_days: float = 14
    rejected_days: float = 30
    marks_days: float = 35  # what a key has seen, where late events are looked for
    dedups_days: float = 7  # beyond their windows: as long as the log may hold an event that was received within them


_is_open = exists().where(invocations.c.event_id == events.c.id, invocations.c.ended_ms == ZERO).correlate(events)
_OLD_EVENTS = Prepared(
    select(events.c.id)
    .where(events.c.admitted_ms < bindparam("before"), ~_is_open)
    .order_by(events.c.admitted_ms)
    .limit(bindparam("limit_")),
    *("before", "limit_"),
)
_OF_EVENTS = select(invocations.c.seq).where(among(invocations.c.event_id, "ids"))
_DROP_ATTEMPTS = Prepared(delete(attempts).where(attempts.c.invocation_seq.in_(_OF_EVENTS)), "ids")
_DROP_RUNS = Prepared(delete(runs).where(runs.c.invocation_seq.in_(_OF_EVENTS)), "ids")
_DROP_NOTES = Prepared(delete(run_notes).where(run_notes.c.invocation_seq.in_(_OF_EVENTS)), "ids")
_DROP_FALLBACKS = Prepared(delete(fallbacks).where(fallbacks.c.invocation_seq.in_(_OF_EVENTS)), "ids")
_DROP_EXCHANGES = Prepared(delete(exchanges).where(exchanges.c.invocation_seq.in_(_OF_EVENTS)), "ids")
_DROP_INVOCATIONS = Prepared(delete(invocations).where(among(invocations.c.event_id, "ids")), "ids")
_DROP_FLOWS = Prepared(
    delete(flows).where(flows.c.invocation_id.in_(select(invocations.c.id).where(among(invocations.c.event_id, "ids")))), "ids"
)
_DROP_FOLDS = Prepared(delete(folds).where(among(folds.c.event_id, "ids")), "ids")
_DROP_EVENTS = Prepared(delete(events).where(among(events.c.id, "ids")), "ids")
_OLDEST_OPEN = Prepared(select(func.min(invocations.c.created_ms)).where(invocations.c.ended_ms == ZERO))
# The whole of `seen` is walked in the order of its keys: an index on the expiry would cost every event.
_SEEN_FROM = Prepared(
    select(seen.c.event_id, seen.c.expires_ms)
    .where(seen.c.event_id > bindparam("after"))
    .order_by(seen.c.event_id)
    .limit(bindparam("limit_")),
    *("after", "limit_"),
)
# An identity outlives its event: while the event is here, its second coming must be known.
_FORGET = Prepared(
    delete(seen).where(among(seen.c.event_id, "ids"), ~exists().where(events.c.id == seen.c.event_id).correlate(seen)), "ids"
)


def _older(table: Table, key: ColumnElement[Any], at_ms: ColumnElement[Any], order: ColumnElement[Any]) -> Prepared:
    """Deletes the first rows, by `order`, whose time is before a limit."""
    first = select(key).where(at_ms < bindparam("before")).order_by(order).limit(bindparam("limit_"))
    return Prepared(delete(table).where(key.in_(first)), "before", "limit_")


_DROP_BODIES = _older(bodies, bodies.c.digest, bodies.c.last_ms, bodies.c.last_ms)
_DROP_REFUSALS = _older(refusals, refusals.c.seq, refusals.c.at_ms, refusals.c.seq)
_DROP_REJECTED = _older(rejected, rejected.c.seq, rejected.c.at_ms, rejected.c.seq)
_DROP_MARKS = _older(marks, marks.c.key_digest, marks.c.at_ms, marks.c.at_ms)
_DROP_DEDUPS = _older(dedups, dedups.c.key_digest, dedups.c.expires_ms, dedups.c.expires_ms)

# Only a version that has an end goes by its age; one without stays until newer ones push it out.
_FIRST_FACTS = (
    select(facts.c.team, facts.c.thing, facts.c.name, facts.c.version)
    .where(facts.c.expires_ms > ZERO, facts.c.expires_ms <= bindparam("before"))
    .order_by(facts.c.expires_ms)
    .limit(bindparam("limit_"))
)
_DROP_FACTS = Prepared(
    delete(facts).where(tuple_(facts.c.team, facts.c.thing, facts.c.name, facts.c.version).in_(_FIRST_FACTS)),
    *("before", "limit_"),
)


class Retention:
    """Sweeps the store.  What is open is never touched; the audit is kept for ever."""

    def __init__(self, engine: Engine, keep: Keep, *, pause_s: float = _PAUSE_S) -> None:
        self._engine = engine
        self._keep = keep
        self._pause_s = pause_s

    async def make_room(self, now_ms: int) -> int:
        """Make the partitions of the days to come, where tables lie by day; how many were made."""
        return await make_ahead(self._engine, now_ms) if is_by_day(self._engine) else 0

    async def sweep(self, now_ms: int) -> dict[str, int]:
        """Delete everything that is too old now; how many of each went."""
        return {
            "events": await self._events(_before(now_ms, self._keep.events_days)),
            "bodies": await self._bodies(_before(now_ms, self._keep.bodies_days)),
            "seen": await self._seen(now_ms),
            "dedups": await self._sliced(lambda: _count(_DROP_DEDUPS, _before(now_ms, self._keep.dedups_days))),
            "marks": await self._sliced(lambda: _count(_DROP_MARKS, _before(now_ms, self._keep.marks_days))),
            "refusals": await self._sliced(lambda: _count(_DROP_REFUSALS, _before(now_ms, self._keep.refusals_days))),
            "facts": await self._sliced(lambda: _count(_DROP_FACTS, now_ms)),
            "rejected": await self._sliced(lambda: _count(_DROP_REJECTED, _before(now_ms, self._keep.rejected_days))),
        }

    async def _bodies(self, before_ms: int) -> int:
        # What an unfinished invocation has to show its agent stays, however long it has waited.
        oldest = (await fetch(self._engine, _OLDEST_OPEN))[0][0]
        until_ms = before_ms if oldest is None else min(before_ms, oldest)
        if not is_by_day(self._engine):
            return await self._sliced(lambda: _count(_DROP_BODIES, until_ms))
        total = 0
        for part in await days_before(self._engine, "bodies", until_ms):
            total += await self._dropped("bodies", part)
        for part in await wide_parts(self._engine, "bodies"):
            total += await self._sliced(partial(drop_rows, part, until_ms, SLICE))
        return total

    async def _events(self, before_ms: int) -> int:
        if not is_by_day(self._engine):
            return await self._sliced(lambda: _events(before_ms))
        total, row_by_row = 0, await wide_parts(self._engine, "events")
        for part in await days_before(self._engine, "events", before_ms):
            if await has_open(self._engine, part):
                row_by_row.append(part)
            else:
                await self._forget_work(part)
                total += await self._dropped("events", part)
        for part in row_by_row:
            total += await self._sliced(partial(_events_of, part, before_ms))
        return total

    async def _dropped(self, table: str, part: str) -> int:
        try:
            return await drop_day(self._engine, table, part)
        except StoreUnavailable:  # someone reads it for long: with the next sweep, then
            return 0

    async def _forget_work(self, part: str) -> None:
        """Delete what the ledger holds of a partition's events, which all have ended."""
        after = 0
        while rows := await self._engine.read(partial(next_ids, part, after, SLICE)):
            ids, after = [row[0] for row in rows], rows[-1][1]
            await self._engine.write(partial(_without_work, ids), is_patient=True)
            await asyncio.sleep(self._pause_s)

    async def _seen(self, now_ms: int) -> int:
        total, after = 0, ""
        while rows := await fetch(self._engine, _SEEN_FROM, after, _WALK):
            late = [event_id for event_id, expires_ms in rows if expires_ms <= now_ms]
            for first in range(0, len(late), SLICE):
                total += await self._engine.write(_forgetting(late[first : first + SLICE]), is_patient=True)
                await asyncio.sleep(self._pause_s)
            after = rows[-1][0]
        return total

    async def _sliced(self, script: Callable[[], Script[int]]) -> int:
        total = 0
        while count := await self._engine.write(script, is_patient=True):
            total += count
            if count < SLICE:
                break
            await asyncio.sleep(self._pause_s)
        return total


def _before(now_ms: int, days: float) -> int:
    return now_ms - int(days * DAY_MS)


def _events(before_ms: int) -> Script[int]:
    ids = [row[0] for row in (yield Call(_OLD_EVENTS, (before_ms, SLICE)))]
    if ids:
        yield from _without_work(ids)
        yield Call(_DROP_EVENTS, (ids,))
    return len(ids)


def _events_of(part: str, before_ms: int) -> Script[int]:
    ids = yield from ended_ids(part, before_ms, SLICE)
    if ids:
        yield from _without_work(ids)
        yield Call(_DROP_EVENTS, (ids,))
    return len(ids)


def _without_work(ids: list[str]) -> Script[None]:
    for statement in (
        *(
            _DROP_ATTEMPTS,
            _DROP_NOTES,
            _DROP_RUNS,
            _DROP_EXCHANGES,
            _DROP_FALLBACKS,
            _DROP_FLOWS,
            _DROP_INVOCATIONS,
            _DROP_FOLDS,
        ),
    ):
        yield Call(statement, (ids,))


def _count(statement: Prepared, before_ms: int) -> Script[int]:
    count: int = yield Change(statement, (before_ms, SLICE))
    return count


def _forgetting(ids: list[str]) -> Callable[[], Script[int]]:
    def script() -> Script[int]:
        count: int = yield Change(_FORGET, (ids,))
        return count

    return script
