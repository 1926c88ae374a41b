"""Who goes first at SQLite's one writer."""

from __future__ import annotations

import asyncio
from queue import Empty

import pytest
from sqlalchemy import func, select

from store.engine import AddNew, Engine, Script, fetch
from store.prepared import Bulk, Prepared
from store.sqlite_driver import MOST_ROWS
from store.sqlite_line import Ask, Line
from store.tables import seen


def ask(name: str, *, is_patient: bool = False) -> Ask:
    def script() -> Script[str]:
        yield from ()
        return name

    return Ask(script, asyncio.get_running_loop().create_future(), is_patient)


async def test_patient_ones_stand_behind_and_every_group_takes_one_along() -> None:
    line = Line()
    new, other_new = ask("new", is_patient=True), ask("other new", is_patient=True)
    ends, also_ends, late = ask("ends"), ask("also ends"), ask("late")
    for each in (new, other_new, ends, also_ends):
        line.put(each)
    assert line.first(None) is ends
    assert line.further(is_late=False, has_patient=False) is also_ends
    line.put(late)
    assert line.further(is_late=True, has_patient=False) is new
    assert line.further(is_late=True, has_patient=True) is None
    assert line.first(None) is late
    assert line.further(is_late=False, has_patient=False) is other_new
    assert line.is_empty


async def test_the_end_comes_behind_all_that_waits() -> None:
    line = Line()
    with pytest.raises(Empty):
        line.first(0.01)
    last = ask("last", is_patient=True)
    line.put(last)
    line.end()
    assert line.first(None) is last
    assert line.first(None) is None
    assert line.first(None) is None


@pytest.mark.parametrize("count", [0, 1, 2, 3, MOST_ROWS - 1, MOST_ROWS, MOST_ROWS + 1, 3 * MOST_ROWS + 7])
async def test_inserts_of_any_length_give_the_rows_that_are_new(engine: Engine, count: int) -> None:
    bulk = Bulk(seen, "event_id", "expires_ms", then="ON CONFLICT DO NOTHING RETURNING event_id")
    rows = [(f"evt_{count}_{number:04d}", number) for number in range(count)]

    def script() -> Script[list[str]]:
        return [row[0] for row in (yield AddNew(bulk, rows))]

    assert await engine.write(script) == [name for name, _ in rows]
    assert await engine.write(script, is_patient=True) == []

    counted = Prepared(select(func.count()).select_from(seen))
    assert [tuple(row) for row in await fetch(engine, counted)] == [(count,)]
