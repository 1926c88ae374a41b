from __future__ import annotations

import asyncio

import pytest
from sqlalchemy import bindparam, delete, insert, select, update

from schemas.errors import Conflict, StoreUnavailable
from store.connect import Store, connect
from store.engine import AddNew, Call, Change, Each, Engine, Notify, Put, Script, change, fetch
from store.prepared import Bulk, Prepared, among, database_ms
from store.tables import meta, sources

_GET = Prepared(select(meta.c.value).where(meta.c.key == bindparam("key_")), "key_")
_SET = Prepared(update(meta).where(meta.c.key == bindparam("key_")).values(value=bindparam("value_")), "value_", "key_")
_ADD = Prepared(insert(meta).values(key=bindparam("key_"), value=bindparam("value_")), "key_", "value_")
_DROP = Prepared(delete(meta).where(among(meta.c.key, "keys")), "keys")
_PUT = Bulk(meta, "key", "value")
_NEW = Bulk(meta, "key", "value", then="ON CONFLICT DO NOTHING RETURNING key")


async def test_a_script_is_done_whole_or_not_at_all(engine: Engine) -> None:
    def script() -> Script[None]:
        yield Call(_ADD, ("a", "1"))
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        await engine.write(script)

    assert await fetch(engine, _GET, "a") == []


async def test_each_kind_of_step_gives_what_it_says(engine: Engine) -> None:
    def script() -> Script[list[object]]:
        found: list[object] = [
            (yield Put(_PUT, [("a", "1"), ("b", "2")])),
            [tuple(row) for row in (yield AddNew(_NEW, [("b", "9"), ("c", "3"), ("d", "4")]))],
            (yield Change(_SET, ("5", "a"))),
            (yield Change(_SET, ("5", "zzz"))),
            (yield Each(_SET, [("6", "b"), ("7", "c")])),
            (yield Put(_PUT, [])),
            (yield AddNew(_NEW, [])),
            (yield Each(_SET, [])),
            (yield Change(_DROP, (["a", "d", "zzz"],))),
            (yield Change(_DROP, ([],))),
            (yield Notify("x")),
        ]
        return found

    found = await engine.write(script)

    assert found == [None, [("c",), ("d",)], 1, 0, None, None, [], None, 2, 0, None]
    assert [row[0] for row in await fetch(engine, _GET, "b")] == ["6"]


async def test_a_key_that_is_there_is_a_conflict(engine: Engine) -> None:
    await change(engine, _ADD, "a", "1")

    with pytest.raises(Conflict):
        await change(engine, _ADD, "a", "2")

    assert [row[0] for row in await fetch(engine, _GET, "a")] == ["1"]


async def test_a_mistake_in_a_statement_is_no_outage(engine: Engine) -> None:
    wrong = Prepared(insert(sources).values(uid=bindparam("uid_"), created_ms="not a number at all"), "uid_")

    def script() -> Script[None]:
        yield Call(wrong)  # without its parameter

    with pytest.raises(Exception) as caught:
        await engine.write(script)

    assert not isinstance(caught.value, StoreUnavailable)


async def test_one_bad_script_among_many_is_undone_alone(engine: Engine) -> None:
    def good(number: int) -> Script[int]:
        yield Call(_ADD, (f"k{number}", "1"))
        return number

    def bad() -> Script[int]:
        yield Call(_ADD, ("bad", "1"))
        raise RuntimeError("mine alone")

    calls = [engine.write(lambda number=number: good(number)) for number in range(20)]
    calls.insert(7, engine.write(bad))
    found = await asyncio.gather(*calls, return_exceptions=True)

    assert str(found.pop(7)) == "mine alone"
    assert found == list(range(20))
    keys = Prepared(select(meta.c.key).where(meta.c.key.like("k%")))
    assert len(await fetch(engine, keys)) == 20
    assert await fetch(engine, _GET, "bad") == []


async def test_a_reading_script_cannot_write(engine: Engine) -> None:
    def script() -> Script[None]:
        yield Call(_ADD, ("a", "1"))

    with pytest.raises(Exception, match=r"(?i)read-?only"):
        await engine.read(script)

    assert await fetch(engine, _GET, "a") == []


async def test_listeners_hear_what_is_committed_and_only_that(engine: Engine) -> None:
    heard: list[str] = []
    end = engine.listen("work", heard.append)

    def script(payload: str, *, fails: bool) -> Script[None]:
        yield Notify("work", payload)
        yield Notify("work", payload)
        yield Notify("other", payload)
        if fails:
            raise ValueError("no")

    await engine.write(lambda: script("1", fails=False))
    with pytest.raises(ValueError, match="no"):
        await engine.write(lambda: script("2", fails=True))
    end()
    await engine.write(lambda: script("3", fails=False))

    assert [payload for payload in heard if payload] == ["1"]  # an empty one says that a listener's connection is new


async def test_the_databases_clock_runs(engine: Engine) -> None:
    now = Prepared(select(database_ms()))

    first = (await fetch(engine, now))[0][0]
    second = (await fetch(engine, now))[0][0]

    assert 1_700_000_000_000 < first <= second < first + 60_000


async def test_a_closed_store_says_so(store: Store) -> None:
    await store.aclose()

    with pytest.raises(StoreUnavailable):
        await fetch(store.engine, _GET, "a")
    with pytest.raises(StoreUnavailable):
        await change(store.engine, _ADD, "a", "1")
    assert not await store.engine.healthy()


async def test_a_store_keeps_its_identity_and_its_rows(store_url: str) -> None:
    first = connect(store_url)
    await first.start(may_migrate=True)
    await change(first.engine, _ADD, "a", "1")
    assert await first.engine.healthy()
    await first.aclose()

    second = connect(store_url)
    await second.start()

    assert second.store_id == first.store_id != ""
    assert [row[0] for row in await fetch(second.engine, _GET, "a")] == ["1"]
    await second.aclose()
