"""Carrying a store into another: every table, every row, proven."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from sqlalchemy import Table

from schemas.errors import Conflict
from store import transfer
from store.connect import Store, connect
from store.engine import Put, Script, change
from store.prepared import Bulk, Prepared
from store.tables import bodies, cursors, events, invocations, metadata, sources
from store.transfer import CARRIED, LEFT_BEHIND, carry, summed, undrained


@pytest.fixture
async def origin(tmp_path: Path) -> AsyncIterator[Store]:
    found = connect(f"sqlite:///{tmp_path / 'origin.db'}")
    await found.start(may_migrate=True)
    yield found
    await found.aclose()


def row_of(table: Table, number: int) -> tuple[object, ...]:
    """A row whose every value is its own."""
    made: dict[type, object] = {int: number, float: number / 8, str: f"ä{number}\U0001f514\n", bytes: b"\x00\xff%d" % number}
    return tuple(made[column.type.python_type] for column in table.c)


async def fill(store: Store, table: Table, count: int) -> None:
    def script() -> Script[None]:
        yield Put(Bulk(table, *(column.name for column in table.c)), [row_of(table, n) for n in range(1, count + 1)])

    await store.engine.write(script)


async def test_every_table_arrives_whole_page_by_page(origin: Store, store: Store, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(transfer, "PAGE", 7)
    for table in CARRIED:
        await fill(origin, table, 23)
    told: list[tuple[str, int]] = []

    carried = await carry(origin.engine, store.engine, lambda name, count: told.append((name, count)))

    assert {each.table for each in carried} == {table.name for table in CARRIED}
    assert [each.table for each in carried if not each.is_whole or each.before.count < 23] == []
    assert ("events", 7) in told


async def test_numbers_go_on_behind_those_that_came(origin: Store, store: Store):
    await fill(origin, invocations, 40)
    await carry(origin.engine, store.engine, lambda *_: None)
    names = [column.name for column in invocations.c if column.name != "seq"]

    values = dict(zip((column.name for column in invocations.c), row_of(invocations, 99), strict=True))

    def one_more() -> Script[None]:
        yield Put(Bulk(invocations, *names), [tuple(values[name] for name in names)])

    await store.engine.write(one_more)

    assert (await summed(store.engine, invocations)).count == 41


async def test_a_store_that_is_not_empty_is_left_as_it_is(origin: Store, store: Store):
    await fill(origin, events, 3)
    await fill(store, sources, 1)

    with pytest.raises(Conflict, match="sources"):
        await carry(origin.engine, store.engine, lambda *_: None)

    assert (await summed(store.engine, events)).count == 0


async def test_a_row_that_is_missing_or_changed_is_seen(origin: Store, store: Store):
    await fill(origin, bodies, 5)
    await carry(origin.engine, store.engine, lambda *_: None)
    before = await summed(origin.engine, bodies)
    assert await summed(store.engine, bodies) == before

    statement = bodies.update().where(bodies.c.digest == row_of(bodies, 3)[0]).values(body=b"other")
    await change(store.engine, Prepared(statement))
    changed = await summed(store.engine, bodies)
    await change(store.engine, Prepared(bodies.delete().where(bodies.c.digest == row_of(bodies, 3)[0])))

    assert changed.count == before.count
    assert changed.digest != before.digest
    assert (await summed(store.engine, bodies)).count == 4


async def test_a_cursor_before_the_end_of_its_log_is_seen(origin: Store):
    def script() -> Script[None]:
        yield Put(
            Bulk(cursors, "log_id", "topic", "partition", "position"),
            [("log", "a", 0, 7), ("log", "a", 1, 9), ("old", "a", 0, 99)],
        )

    await origin.engine.write(script)

    assert await undrained(origin.engine, "log", {("a", 0): 10, ("a", 1): 9, ("b", 0): 4, ("c", 0): 0}) == {
        ("a", 0): 3,
        ("b", 0): 4,
    }


def test_each_table_is_carried_or_left_behind_on_purpose():
    assert {*CARRIED, *LEFT_BEHIND} == set(metadata.tables.values())
    assert {table.name for table in LEFT_BEHIND} == {"shards", "owners", "pollers", "cursors", "deaths", "meta"}
