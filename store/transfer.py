"""Carries everything of one store into another, and proves that it arrived: counts and digests, table by table."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from functools import partial

from sqlalchemy import BigInteger, Table, bindparam, func, literal_column, select, text, tuple_

from schemas.errors import Conflict
from store.engine import Call, Engine, Put, Row, Script, fetch
from store.prepared import POSTGRES, Bulk, Prepared
from store.tables import cursors, deaths, meta, metadata, owners, pollers, shards, teams, versions

PAGE = 500
_SEEDED = (teams, versions)  # a new store has rows of its own there
LEFT_BEHIND = frozenset({shards, owners, pollers, cursors, deaths, meta})
"""Who owns shards, who waits for work, where cursors stand (of a log that ends here), what killed routers, our own id."""
CARRIED: tuple[Table, ...] = tuple(table for table in metadata.sorted_tables if table not in LEFT_BEHIND)
_MODULUS = 1 << 256


@dataclass(frozen=True, slots=True)
class Sum:
    """What a table holds: how many rows, and a digest of all of them that does not depend on their order."""

    count: int
    digest: str


@dataclass(frozen=True, slots=True)
class Carried:
    """One table, before and after."""

    table: str
    before: Sum
    after: Sum

    @property
    def is_whole(self) -> bool:
        """Whether what arrived is what was there."""
        return self.before == self.after


async def carry(origin: Engine, target: Engine, told: Callable[[str, int], None]) -> list[Carried]:
    """Copy every table of `CARRIED` from `origin` into `target`; `told(table, rows)` hears of each page.

    Neither may be served meanwhile.  Raises `Conflict` where the target holds something already.
    """
    for table in CARRIED:
        if table not in _SEEDED and (await summed(target, table, limit=1)).count:
            raise Conflict(f"the new store has rows in {table.name} already: give an empty database, with its schema made")
    carried = []
    for table in CARRIED:
        before = _Sum()
        async for rows in pages(origin, table):
            before.add(rows)
            await target.write(partial(_copied, table, rows))
            told(table.name, len(rows))
        carried.append(Carried(table.name, before.told(), await summed(target, table)))
    await target.write(lambda: _go_on_counting(target.dialect))
    return carried


async def undrained(engine: Engine, log_id: str, ends: dict[tuple[str, int], int]) -> dict[tuple[str, int], int]:
    """How many records of each place were not admitted yet, by the cursors of that log; empty where all were."""
    rows = await fetch(engine, _CURSORS, log_id)
    found = {(topic, partition): position for topic, partition, position in rows}
    return {place: end - found.get(place, 0) for place, end in ends.items() if end > found.get(place, 0)}


_CURSORS = Prepared(
    select(cursors.c.topic, cursors.c.partition, cursors.c.position).where(cursors.c.log_id == bindparam("log")), "log"
)


class _Sum:
    def __init__(self) -> None:
        self._count = 0
        self._total = 0

    def add(self, rows: Sequence[Row]) -> None:
        for row in rows:
            self._count += 1
            self._total += int.from_bytes(hashlib.sha256(_line(row)).digest())

    def told(self) -> Sum:
        return Sum(self._count, f"{self._total % _MODULUS:064x}")


def _line(row: Row) -> bytes:
    """A row as bytes, the same from either driver."""
    return b"\x1f".join(repr(bytes(value) if isinstance(value, memoryview) else value).encode() for value in row)


async def summed(engine: Engine, table: Table, *, limit: int = 0) -> Sum:
    """What a table holds; with `limit`, no more than that many rows are looked at."""
    found, count = _Sum(), 0
    async for rows in pages(engine, table):
        found.add(rows)
        count += len(rows)
        if limit and count >= limit:
            break
    return found.told()


async def pages(engine: Engine, table: Table) -> AsyncIterator[list[Row]]:
    """The rows of a table, page by page along its key."""
    keys = list(table.primary_key.columns)
    names = [f"after_{column.name}" for column in keys]
    first = select(*table.c).order_by(*keys).limit(literal_column(str(PAGE), BigInteger))
    behind = [bindparam(name, type_=column.type) for name, column in zip(names, keys, strict=True)]
    following = Prepared(first.where(tuple_(*keys) > tuple_(*behind)), *names)
    rows = await fetch(engine, Prepared(first))
    places = [list(table.c).index(column) for column in keys]
    while rows:
        yield rows
        if len(rows) < PAGE:
            return
        rows = await fetch(engine, following, *(rows[-1][place] for place in places))


def _copied(table: Table, rows: Sequence[Row]) -> Script[None]:
    names = [column.name for column in table.c]
    then = ""
    if table in _SEEDED:
        keys = ", ".join(column.name for column in table.primary_key.columns)
        others = ", ".join(f"{name} = excluded.{name}" for name in names if name not in table.primary_key.columns)
        then = f"ON CONFLICT ({keys}) DO UPDATE SET {others}"
    yield Put(Bulk(table, *names, then=then), [tuple(row) for row in rows])


def _go_on_counting(dialect: str) -> Script[None]:
    """Numbers that the new store gives must lie behind those that came."""
    if dialect != POSTGRES:
        return
    for table in CARRIED:
        if "seq" in table.c:
            greatest = select(func.coalesce(func.max(table.c.seq), 0) + 1).scalar_subquery()
            sequence = func.pg_get_serial_sequence(text(f"'{table.name}'"), text("'seq'"))
            yield Call(Prepared(select(func.setval(sequence, greatest, text("false")))))
