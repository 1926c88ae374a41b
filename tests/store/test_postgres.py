from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator, Iterator
from itertools import count
from uuid import uuid4

import asyncpg
import pytest
from sqlalchemy import bindparam, insert, select, text, update

from schemas.errors import BadSetting, Conflict, DamagedRecord, FencedOut, NightbellError, Saturated, StoreUnavailable
from store import postgres_driver
from store.admission import Admission
from store.connect import Store, connect
from store.engine import AddNew, Call, Change, Notify, Put, Script, change, fetch
from store.ledger import Ledger
from store.postgres import PostgresEngine
from store.postgres_driver import translated
from store.prepared import Bulk, Prepared
from store.schema import migrate, newest, schema_version
from store.shards import WORK
from store.tables import meta, versions
from tests.servers.postgres import PostgresServer, fresh_database, running_postgres
from tests.store.plans import LOG, NOW, PLACE, a_plan, a_settlement, an_opening

pytestmark = pytest.mark.postgres

_GET = Prepared(select(meta.c.value).where(meta.c.key == bindparam("key_")), "key_")
_ADD = Prepared(insert(meta).values(key=bindparam("key_"), value=bindparam("value_")), "key_", "value_")
_PUT = Bulk(meta, "key", "value")
_NEW = Bulk(meta, "key", "value", then="ON CONFLICT DO NOTHING RETURNING key")
_COUNT = Prepared(update(meta).where(meta.c.key == bindparam("key_")).values(value=meta.c.value + "x"), "key_")


@pytest.fixture
async def url(postgres_server: PostgresServer) -> str:
    return await fresh_database(postgres_server, f"t{uuid4().hex}")


@pytest.fixture
async def pair(url: str) -> AsyncIterator[tuple[Store, Store]]:
    """Two processes' worth of stores on one database."""
    found = connect(url), connect(url)
    for each in found:
        await each.start(may_migrate=True)
    yield found
    for each in found:
        await each.aclose()


async def test_two_who_lock_crosswise_both_finish(pair: tuple[Store, Store]) -> None:
    engine = pair[0].engine
    for key in ("a", "b"):
        await change(engine, _ADD, key, "")

    def crosswise(first: str, second: str) -> Script[None]:
        yield Change(_COUNT, (first,))
        yield Call(Prepared(select(sleep)))
        yield Change(_COUNT, (second,))

    from sqlalchemy import func

    sleep = func.pg_sleep(0.3)

    await asyncio.gather(engine.write(lambda: crosswise("a", "b")), engine.write(lambda: crosswise("b", "a")))

    assert [(await fetch(engine, _GET, key))[0][0] for key in ("a", "b")] == ["xx", "xx"]


async def test_another_process_is_woken(pair: tuple[Store, Store]) -> None:
    woken: asyncio.Queue[str] = asyncio.Queue()
    mine: list[str] = []
    pair[1].engine.listen(WORK, woken.put_nowait)
    pair[0].engine.listen(WORK, mine.append)

    def script() -> Script[None]:
        yield Notify(WORK, "3,5")

    async with asyncio.timeout(10):
        while True:  # the listener's connection may still be on its way
            await pair[0].engine.write(script)
            try:
                async with asyncio.timeout(0.5):
                    while (heard := await woken.get()) == "":
                        pass
                    break
            except TimeoutError:
                continue

    assert heard == "3,5"
    assert set(mine) <= {"3,5", ""}


async def test_notices_of_several_channels_go_out_beside_what_is_put(pair: tuple[Store, Store]) -> None:
    """A part of a statement that only reads is not run where nothing asks for it: each notice must be asked for."""
    heard: dict[str, asyncio.Event] = {"one": asyncio.Event(), "two": asyncio.Event()}
    for channel, event in heard.items():
        pair[1].engine.listen(channel, lambda payload, event=event: event.set() if payload == "x" else None)
    numbers = count()

    def script() -> Script[None]:
        yield Put(_PUT, [(f"n{next(numbers)}", "")])
        yield Notify("one", "x")
        yield Notify("two", "x")

    async with asyncio.timeout(10):
        while not all(event.is_set() for event in heard.values()):  # the listener's connection may still be on its way
            await pair[0].engine.write(script)
            await asyncio.sleep(0.2)


async def test_puts_go_along_with_what_comes_next(pair: tuple[Store, Store], monkeypatch: pytest.MonkeyPatch) -> None:
    texts: list[str] = []
    join = postgres_driver._STEPS[postgres_driver._Joined]

    async def counted(connection, step):
        texts.append(step.text)
        return await join(connection, step)

    monkeypatch.setitem(postgres_driver._STEPS, postgres_driver._Joined, counted)
    other = Bulk(versions, "name", "number")

    def script() -> Script[list[object]]:
        yield Put(_PUT, [("a", "1")])
        yield Put(other, [("r", 1)])
        yield Put(_PUT, [("b", "2")])  # the same table again: a statement may not touch it twice
        new = yield AddNew(_NEW, [("a", "9"), ("c", "3")])
        yield Put(_PUT, [("d", "4")])
        seen = yield Call(_GET, ("d",))
        yield Put(_PUT, [("e", "5")])
        return [[row[0] for row in new], [row[0] for row in seen]]

    found = await pair[0].engine.write(script)

    assert found == [["c"], ["4"]]
    assert [text.count("INSERT INTO") for text in texts] == [2, 1, 1, 1, 1]
    assert [(await fetch(pair[0].engine, _GET, key))[0][0] for key in "abcde"] == ["1", "2", "3", "4", "5"]


async def test_of_two_routers_one_admits(pair: tuple[Store, Store]) -> None:
    both = [Admission(each.engine) for each in pair]
    await both[0].admit(LOG, PLACE, first=0, after=1, plans=[], now_ms=NOW)
    plans = [a_plan(f"e{number}") for number in range(20)]

    found = await asyncio.gather(
        *(each.admit(LOG, PLACE, first=1, after=21, plans=plans, now_ms=NOW) for each in both), return_exceptions=True
    )

    assert sorted(type(each).__name__ for each in found) == ["FencedOut", "list"]
    assert any(isinstance(each, FencedOut) for each in found)


async def test_lanes_keep_count_while_two_admit_and_one_settles(pair: tuple[Store, Store]) -> None:
    admissions = [Admission(each.engine) for each in pair]
    ledger = Ledger(pair[0].engine)
    await ledger.hold_shards("me", lease_ms=60_000)
    done: list[str] = []

    async def admit(number: int) -> None:
        place = PLACE._replace(partition=number)
        for position in range(25):
            plan = a_plan(f"{number}-{position}", key="hot")
            await admissions[number].admit(LOG, place, first=position, after=position + 1, plans=[plan], now_ms=NOW)

    async def settle() -> None:
        lane = a_plan("x", key="hot").invocations[0].lane
        while len(done) < 50:
            head = await ledger.next_in_lane(lane)
            if head is None:
                await asyncio.sleep(0.001)
                continue
            assert await ledger.open(an_opening(head.invocation))
            assert await ledger.settle(a_settlement(head.invocation))
            done.append(head.invocation.id)

    await asyncio.gather(admit(0), admit(1), settle())

    assert len(set(done)) == 50
    assert await ledger.next_in_lane(a_plan("x", key="hot").invocations[0].lane) is None


async def test_migrations_of_many_processes_at_once_are_done_once(postgres_server: PostgresServer) -> None:
    url = await fresh_database(postgres_server, f"t{uuid4().hex}")

    found = await asyncio.gather(*(migrate(url) for _ in range(4)))

    assert set(found) == {newest()}
    assert await schema_version(url) == newest()


async def test_a_database_that_is_not_there_is_named_as_a_setting(postgres_server: PostgresServer) -> None:
    with pytest.raises(BadSetting):
        await PostgresEngine(postgres_server.dsn("nowhere")).start()


async def test_an_address_that_nobody_serves_is_unavailable() -> None:
    with pytest.raises(StoreUnavailable):
        await PostgresEngine("postgresql://postgres@127.0.0.1:1/x").start()


async def test_too_many_at_once_are_refused(url: str) -> None:
    await migrate(url)
    engine = PostgresEngine(url, pool_size=2, max_waiting=20)
    await engine.start()

    found = await asyncio.gather(*(change(engine, _ADD, f"k{number}", "") for number in range(30)), return_exceptions=True)

    assert found.count(1) == 20
    assert all(isinstance(each, Saturated) for each in found if each != 1)
    await engine.aclose()


@pytest.fixture(scope="module")
def own_server() -> Iterator[PostgresServer]:
    """A server of this module's own, to be killed."""
    with running_postgres() as server:
        yield server


@pytest.mark.parametrize("how", [signal.SIGQUIT, signal.SIGINT])
async def test_a_database_that_dies_and_comes_back_is_found_again(own_server: PostgresServer, how: signal.Signals) -> None:
    url = await fresh_database(own_server, f"t{uuid4().hex}")
    store = connect(url)
    await store.start(may_migrate=True)
    await change(store.engine, _ADD, "before", "1")

    await asyncio.to_thread(own_server.stop, how)
    with pytest.raises(StoreUnavailable):
        await change(store.engine, _ADD, "during", "1")
    red = await store.engine.healthy()
    await asyncio.to_thread(own_server.start)
    await change(store.engine, _ADD, "after", "1")

    assert not red
    assert await store.engine.healthy()
    assert [len(await fetch(store.engine, _GET, key)) for key in ("before", "during", "after")] == [1, 0, 1]
    await store.aclose()


async def test_connections_that_the_server_ends_are_replaced_unseen(pair: tuple[Store, Store], url: str) -> None:
    engine = pair[0].engine
    await asyncio.gather(*(fetch(engine, _GET, "a") for _ in range(10)))
    other = await asyncpg.connect(url)

    await other.execute(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid() AND datname = current_database()"
    )
    found = await asyncio.gather(*(change(engine, _ADD, f"k{number}", "") for number in range(20)))

    assert found == [1] * 20
    await other.close()


def _classes(root: type[BaseException]) -> set[type[BaseException]]:
    return {root}.union(*(_classes(child) for child in root.__subclasses__()))


def test_every_exception_of_the_driver_is_mapped() -> None:
    kinds = _classes(asyncpg.PostgresError) | _classes(asyncpg.InterfaceError)
    named = {"UniqueViolationError": Conflict, "DataCorruptedError": DamagedRecord, "InvalidPasswordError": BadSetting}
    named |= {
        "AdminShutdownError": StoreUnavailable,
        "TooManyConnectionsError": StoreUnavailable,
        "DiskFullError": StoreUnavailable,
    }
    named |= {"ConnectionDoesNotExistError": StoreUnavailable, "LockNotAvailableError": StoreUnavailable}
    named |= {"DeadlockDetectedError": StoreUnavailable, "ReadOnlySQLTransactionError": StoreUnavailable}
    named |= {"UndefinedTableError": asyncpg.UndefinedTableError}

    found = {kind.__name__: translated(kind("x")) for kind in kinds}

    assert len(kinds) > 200
    assert {name: type(found[name]) for name in named if not isinstance(found[name], named[name])} == {}
    assert all(isinstance(each, NightbellError | asyncpg.PostgresError | ValueError) for each in found.values())


async def test_a_lone_read_opens_no_transaction_and_reads_along_indexes(pair: tuple[Store, Store]) -> None:
    engine = pair[0].engine
    settings = "current_setting('transaction_isolation'), current_setting('enable_seqscan')"

    rows = await fetch(engine, Prepared(text(f"SELECT {settings}")))

    def script() -> Script[str]:
        yield Call(Prepared(text("SELECT 1")))
        return str((yield Call(Prepared(text("SELECT current_setting('transaction_isolation')"))))[0][0])

    assert [tuple(row) for row in rows] == [("read committed", "off")]
    assert await engine.read(script) == "repeatable read"
