"""Keeps the partitions by day of PostgreSQL's big tables: makes those to come, empties and drops those that are over.

    events:   …_earlier [-∞, d0) │ …_20261121 [d0, d1) │ … │ …_20261124 │ …_later [d4, ∞)

The ends are open, so that a clock that is wrong by years finds a place for its row all the same.  What lies in one of them, or
in a day that cannot go whole, goes row by row.  See ADR 8.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from itertools import pairwise

from sqlalchemy import text

from store.engine import Call, Engine, Script
from store.prepared import POSTGRES, Prepared

DAY_MS = 86_400_000
AHEAD = 3
COLUMNS = {"events": "admitted_ms", "bodies": "last_ms"}  # the tables that lie by day, and by which time of theirs
_WAIT = "500ms"  # whoever waits for a table's lock makes all behind him wait: better to try again with the next sweep
_NEVER_MS = 1 << 62
_LOCK = 0x6E62_6461_7973  # "nbdays": one process at a time makes them
_BOUND = re.compile(r"FROM \(([^)]*)\) TO \(([^)]*)\)")
_PARTS = """
SELECT c.relname::text, pg_get_expr(c.relpartbound, c.oid) FROM pg_inherits i
JOIN pg_class c ON c.oid = i.inhrelid WHERE i.inhparent = to_regclass('{table}') AND c.relpartbound IS NOT NULL
"""
_OPEN = """
SELECT 1 FROM invocations i JOIN "{part}" e ON e.id = i.event_id WHERE i.ended_ms = 0 LIMIT 1
"""
_OLD_BODIES = """
DELETE FROM "{part}" WHERE (digest, last_ms) IN
(SELECT digest, last_ms FROM "{part}" WHERE last_ms < {before} ORDER BY last_ms LIMIT {limit}) RETURNING 1
"""
_ENDED = """
SELECT e.id FROM "{part}" e WHERE e.admitted_ms < {before}
AND NOT EXISTS (SELECT 1 FROM invocations i WHERE i.event_id = e.id AND i.ended_ms = 0) ORDER BY e.admitted_ms LIMIT {limit}
"""
_IDS = """SELECT id, seq FROM "{part}" WHERE seq > {after} ORDER BY seq LIMIT {limit}"""
# A day of many millions is not counted before it goes: the planner's own figure will do.
_COUNT = """
SELECT CASE WHEN pg_relation_size('{part}') > 1 << 28 THEN (SELECT greatest(reltuples, 1)::bigint FROM pg_class WHERE oid =
'{part}'::regclass) ELSE (SELECT count(*) FROM "{part}") END
"""
# Its rows are looked through when its limit moves: while it holds much, the empty days in front stay.
_IS_LARGE = "SELECT 1 WHERE pg_relation_size('{part}') > 1 << 26"


@dataclass(frozen=True, slots=True)
class Part:
    """A partition, and the times that it takes: from `first_ms` until before `until_ms`."""

    name: str
    first_ms: int
    until_ms: int

    @property
    def is_day(self) -> bool:
        """Whether it is a day of its own, rather than one of the open ends or a span that was closed late."""
        return self.until_ms - self.first_ms == DAY_MS


def day_of(at_ms: int) -> int:
    """When the UTC day of an instant began."""
    return at_ms - at_ms % DAY_MS


def is_by_day(engine: Engine) -> bool:
    """Whether this database keeps its big tables by day; a file does not."""
    return engine.dialect == POSTGRES


async def make_ahead(engine: Engine, now_ms: int) -> int:
    """See that today and the `AHEAD` days behind it have their partitions; how many were made."""
    return sum([await engine.write(partial(_made, table, now_ms)) for table in COLUMNS])


async def days_before(engine: Engine, table: str, before_ms: int) -> list[str]:
    """The partitions of whole days that ended before, the oldest first."""
    parts = await engine.read(partial(parts_of, table))
    return [part.name for part in parts if part.is_day and part.until_ms <= before_ms]


async def wide_parts(engine: Engine, table: str) -> list[str]:
    """The partitions that are not of one day: what is old in them goes row by row."""
    return [part.name for part in await engine.read(partial(parts_of, table)) if not part.is_day]


async def has_open(engine: Engine, part: str) -> bool:
    """Whether an event of this partition has an unfinished invocation."""
    return bool(await engine.read(partial(_rows, _OPEN.format(part=part))))


async def drop_day(engine: Engine, table: str, part: str) -> int:
    """Empty a day at once, and let go of the partitions at the front that are empty; how many rows went."""
    return await engine.write(partial(_dropped, table, part))


def drop_rows(part: str, before_ms: int, limit: int) -> Script[int]:
    """Part of a script: delete the oldest bodies of a partition that is not of one day; how many."""
    return len((yield from _rows(_OLD_BODIES.format(part=part, before=before_ms, limit=limit))))


def ended_ids(part: str, before_ms: int, limit: int) -> Script[list[str]]:
    """Part of a script: the oldest events of a partition that have nothing unfinished."""
    return [row[0] for row in (yield from _rows(_ENDED.format(part=part, before=before_ms, limit=limit)))]


def next_ids(part: str, after: int, limit: int) -> Script[Sequence[tuple[str, int]]]:
    """Part of a script: the ids and numbers of a partition's next events behind `after`."""
    return [(row[0], int(row[1])) for row in (yield from _rows(_IDS.format(part=part, after=after, limit=limit)))]


def parts_of(table: str) -> Script[list[Part]]:
    """Part of a script: a table's partitions, by time."""
    found = []
    for name, bound in (yield from _rows(_PARTS.format(table=table))):
        match = _BOUND.search(bound or "")
        if match is None:  # it went while we looked
            continue
        found.append(Part(name, _limit(match[1], -_NEVER_MS), _limit(match[2], _NEVER_MS)))
    return sorted(found, key=lambda part: part.first_ms)


def _limit(written: str, otherwise: int) -> int:
    return otherwise if written.endswith("VALUE") else int(written.strip("'"))


def _rows(statement: str) -> Script[Sequence[tuple[str, ...]]]:
    rows: Sequence[tuple[str, ...]] = yield Call(Prepared(text(statement)))
    return rows


def _made(table: str, now_ms: int) -> Script[int]:
    until_ms = day_of(now_ms) + (AHEAD + 1) * DAY_MS
    parts = yield from parts_of(table)
    if parts and parts[-1].first_ms >= until_ms:
        return 0
    yield from _rows(f"SELECT pg_advisory_xact_lock({_LOCK})")
    last = (yield from parts_of(table))[-1]  # another process may have been here while we waited
    if last.first_ms >= until_ms:
        return 0
    yield from _alone_with(table)
    first_ms = yield from _closed(table, last)
    until_ms = max(until_ms, first_ms)
    for start_ms in range(first_ms, until_ms, DAY_MS):
        yield from _new_part(table, f"{table}_{_date(start_ms)}", start_ms, start_ms + DAY_MS)
    yield from _new_part(table, last.name, until_ms, None)
    return (until_ms - first_ms) // DAY_MS


def _closed(table: str, last: Part) -> Script[int]:
    """Part of a script: take the open end away; where the days to come begin.

    Rows in it (nobody made days ahead for too long, or a clock was wrong) stay where they are: it becomes a span of its own.
    """
    newest = (yield from _rows(f'SELECT max({COLUMNS[table]}) FROM "{last.name}"'))[0][0]  # noqa: S608 - names of our own
    if newest is None:
        yield from _rows(f'DROP TABLE "{last.name}"')
        return last.first_ms
    until_ms = day_of(int(newest)) + DAY_MS
    name = f"{table}_{_date(last.first_ms)}_{_date(until_ms)}"
    yield from _rows(f'ALTER TABLE "{table}" DETACH PARTITION "{last.name}"')
    yield from _rows(f'ALTER TABLE "{last.name}" RENAME TO "{name}"')
    yield from _rows(f'ALTER TABLE "{table}" ATTACH PARTITION "{name}" {_span(last.first_ms, until_ms)}')
    return until_ms


def _dropped(table: str, part: str) -> Script[int]:
    yield from _rows(f"SET LOCAL lock_timeout = '{_WAIT}'")
    count = int((yield from _rows(_COUNT.format(part=part)))[0][0])
    if count:
        yield from _rows(f'TRUNCATE TABLE "{part}"')
    parts = yield from parts_of(table)
    # Only from the front, so that no gap is left: the open end in front takes over the days that are gone.
    gone: list[Part] = []
    for day in parts[1:]:
        if not day.is_day or (yield from _rows(f'SELECT 1 FROM "{day.name}" LIMIT 1')):  # noqa: S608 - as above
            break
        if day.first_ms > _first(parts, part):
            break
        gone.append(day)
    if gone and not (yield from _rows(_IS_LARGE.format(part=parts[0].name))):
        yield from _alone_with(table)
        yield from _moved_front(table, parts[0], gone)
    return count


def _first(parts: Sequence[Part], name: str) -> int:
    return next(part.first_ms for part in parts if part.name == name)


def _moved_front(table: str, front: Part, gone: Sequence[Part]) -> Script[None]:
    yield from _rows(f'ALTER TABLE "{table}" DETACH PARTITION "{front.name}"')
    for day in gone:
        yield from _rows(f'DROP TABLE "{day.name}"')
    span = _span(None, gone[-1].until_ms)
    yield from _rows(f'ALTER TABLE "{table}" ATTACH PARTITION "{front.name}" {span}')


def _alone_with(table: str) -> Script[None]:
    """Part of a script: nobody reads or writes the table until the end; not to be had soon, it is given up."""
    yield from _rows(f"SET LOCAL lock_timeout = '{_WAIT}'")
    yield from _rows(f'LOCK TABLE "{table}" IN ACCESS EXCLUSIVE MODE')


def _new_part(table: str, name: str, first_ms: int, until_ms: int | None) -> Script[None]:
    yield from _rows(f'CREATE TABLE "{name}" PARTITION OF "{table}" {_span(first_ms, until_ms)}')


def _span(first_ms: int | None, until_ms: int | None) -> str:
    first = "MINVALUE" if first_ms is None else first_ms
    return f"FOR VALUES FROM ({first}) TO ({'MAXVALUE' if until_ms is None else until_ms})"


def _date(at_ms: int) -> str:
    return datetime.fromtimestamp(at_ms / 1000, UTC).strftime("%Y%m%d")


def are_whole(parts: Sequence[Part]) -> bool:
    """Whether every time has its place: no gap between the partitions, and both ends open."""
    joined = all(one.until_ms == other.first_ms for one, other in pairwise(parts))
    return joined and parts[0].first_ms == -_NEVER_MS and parts[-1].until_ms == _NEVER_MS
