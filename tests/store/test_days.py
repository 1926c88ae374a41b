"""The tables that lie by day on PostgreSQL: days made ahead, days dropped, and nothing that lies across a border is lost."""

from __future__ import annotations

import asyncio
import io
from collections.abc import AsyncIterator
from uuid import uuid4

import asyncpg
import pytest
from alembic import command
from sqlalchemy import select, text

from schemas.invocation import State, Wait
from store import days
from store.admission import Admission
from store.connect import Store, connect
from store.days import AHEAD, DAY_MS, Part, are_whole, day_of, parts_of
from store.engine import Call, Engine, OneStep, change, fetch
from store.events import EventFilter, body_of, event_page, event_row
from store.history import Histories
from store.ledger import Ledger
from store.prepared import Prepared
from store.retention import Keep, Retention
from store.schema import alembic_config, newest
from store.tables import bodies, events, folds, invocations, seen
from tests.servers.postgres import PostgresServer, fresh_database
from tests.store.plans import LOG, NOW, PLACE, a_plan, a_settlement, an_opening

pytestmark = pytest.mark.postgres
KEEP = Keep(events_days=30, bodies_days=14)
FIRST = day_of(NOW)


@pytest.fixture
async def store(postgres_server: PostgresServer, postgres_template: str) -> AsyncIterator[Store]:
    found = connect(await fresh_database(postgres_server, f"t{uuid4().hex}", template=postgres_template))
    await found.start()
    await empty_days(found.engine, FIRST - DAY_MS)
    yield found
    await found.aclose()


async def empty_days(engine: Engine, first_ms: int) -> None:
    """Have each table's days begin at `first_ms`, as if the store had been made then."""
    for table in days.COLUMNS:
        for part in (await engine.read(lambda table=table: parts_of(table)))[1:]:
            await run(engine, f'DROP TABLE "{part.name}"')
        front = f'"{table}_earlier"'
        await run(engine, f'ALTER TABLE "{table}" DETACH PARTITION {front}')
        await run(engine, f'ALTER TABLE "{table}" ATTACH PARTITION {front} FOR VALUES FROM (MINVALUE) TO ({first_ms})')
        await run(engine, f'CREATE TABLE "{table}_later" PARTITION OF "{table}" FOR VALUES FROM ({first_ms}) TO (MAXVALUE)')


async def run(engine: Engine, statement: str) -> list[tuple[object, ...]]:
    return [tuple(row) for row in await engine.write(OneStep(Call(Prepared(text(statement)))))]


async def parts(engine: Engine, table: str) -> list[Part]:
    return await engine.read(lambda: parts_of(table))


async def count(engine: Engine, table: object) -> int:
    return len(await fetch(engine, Prepared(select(table))))


async def admit(admission: Admission, number: int, *identities: str, at_ms: int, **fields: object) -> list[object]:
    plans = [a_plan(identity, **fields) for identity in identities]
    return list(await admission.admit(LOG, PLACE, first=number, after=number + 1, plans=plans, now_ms=at_ms))


async def test_days_are_made_ahead_once_and_leave_no_gap(store: Store) -> None:
    made = [await Retention(store.engine, KEEP).make_room(NOW) for _ in range(2)]
    a_day_on = await Retention(store.engine, KEEP).make_room(NOW + DAY_MS)

    assert (made, a_day_on) == ([2 * (AHEAD + 2), 0], 2)
    for table in days.COLUMNS:
        found = await parts(store.engine, table)
        assert are_whole(found)
        assert [part.first_ms for part in found if part.is_day] == [FIRST + n * DAY_MS for n in range(-1, AHEAD + 2)]


async def test_many_processes_make_the_same_days_once(store: Store) -> None:
    both = [Retention(store.engine, KEEP) for _ in range(4)]

    found = await asyncio.gather(*(each.make_room(NOW) for each in both))

    assert sum(found) == 2 * (AHEAD + 2)
    assert are_whole(await parts(store.engine, "events"))


async def test_the_migration_makes_the_days_of_today(postgres_server: PostgresServer, postgres_template: str) -> None:
    fresh = connect(await fresh_database(postgres_server, f"t{uuid4().hex}", template=postgres_template))
    await fresh.start()
    [(now_ms,)] = await run(fresh.engine, "SELECT (extract(epoch FROM clock_timestamp()) * 1000)::bigint")

    found = await parts(fresh.engine, "events")

    await fresh.aclose()
    assert are_whole(found)
    assert day_of(int(str(now_ms))) in {part.first_ms for part in found if part.is_day}


async def test_a_store_that_had_rows_before_keeps_them_in_front(postgres_server: PostgresServer) -> None:
    url = await fresh_database(postgres_server, f"t{uuid4().hex}")
    connection = await asyncpg.connect(url)
    await connection.execute(statements("base", "0005"))
    await connection.execute(
        "INSERT INTO events (id, team, admitted_ms, body_digest) VALUES ('evt_1', 'default', $1, 'd')", NOW
    )
    await connection.execute("INSERT INTO bodies (digest, size, last_ms, body) VALUES ('d', 1, $1, 'x')", NOW)
    store = connect(url)

    await store.start(may_migrate=True)
    await admit(Admission(store.engine), 0, "new", at_ms=NOW + 3 * DAY_MS)
    row = await event_row(store.engine, "default", "evt_1")
    seqs = [each[0] for each in await run(store.engine, "SELECT seq FROM events ORDER BY admitted_ms")]
    found = await parts(store.engine, "events")
    await store.aclose()
    await connection.execute(statements(newest(), "0005"))
    left = await connection.fetch(
        "SELECT relname, relkind FROM pg_class WHERE relname ~ '^(events|bodies)' AND relkind IN ('r', 'p')"
    )
    again = await connection.fetchval("INSERT INTO events (id) VALUES ('evt_2') RETURNING seq")
    await connection.close()

    assert row is not None
    assert lies_in_front(found, NOW)
    assert seqs == [1, 2]
    assert sorted((each[0], bytes(each[1])) for each in left) == [("bodies", b"r"), ("events", b"r")]
    assert again == 3


def lies_in_front(found: list[Part], at_ms: int) -> bool:
    """Whether that time lies in the open front."""
    return are_whole(found) and found[0].first_ms <= at_ms < found[0].until_ms


def statements(before: str, after: str) -> str:
    """The revisions between as SQL text."""
    out = io.StringIO()
    turn = command.upgrade if before == "base" else command.downgrade
    turn(alembic_config(output=out), f"{before}:{after}", sql=True)
    return out.getvalue()


async def test_an_old_day_goes_whole_with_its_work_and_the_days_after_it_stay(store: Store) -> None:
    engine = store.engine
    admission, ledger, retention = Admission(engine), Ledger(engine), Retention(engine, KEEP, pause_s=0)
    await ledger.hold_shards("me", lease_ms=60_000)
    await retention.make_room(NOW)
    for day in range(3):
        for item in await admit(admission, day, f"a{day}", f"b{day}", at_ms=NOW + day * DAY_MS, body=b"%d" % day):
            await ledger.open(an_opening(item.invocation))
            await ledger.settle(a_settlement(item.invocation))

    swept = await retention.sweep(FIRST + 32 * DAY_MS)  # the second day ends just now

    assert (swept["events"], swept["bodies"]) == (4, 3)
    assert [await count(engine, table) for table in (events, invocations)] == [2, 2]
    found = await parts(engine, "events")
    assert are_whole(found)
    assert are_whole(await parts(engine, "bodies"))
    assert next(part.first_ms for part in found if part.is_day) == FIRST + 2 * DAY_MS


async def test_a_day_with_something_unfinished_keeps_just_that(store: Store) -> None:
    engine = store.engine
    admission, ledger, retention = Admission(engine), Ledger(engine), Retention(engine, KEEP, pause_s=0)
    await ledger.hold_shards("me", lease_ms=60_000)
    await retention.make_room(NOW)
    one, other = await admit(admission, 0, "done", "open", at_ms=NOW)
    await ledger.open(an_opening(one.invocation))
    await ledger.settle(a_settlement(one.invocation))
    for day in (1, 2):
        await admit(admission, day, f"unmatched{day}", at_ms=NOW + day * DAY_MS, uids=())

    swept = await retention.sweep(NOW + 40 * DAY_MS)
    head = await ledger.next_in_lane(other.invocation.lane)
    left = [part.first_ms for part in await parts(engine, "events") if part.is_day]
    await ledger.open(an_opening(other.invocation))
    await ledger.settle(a_settlement(other.invocation))
    after = await retention.sweep(NOW + 40 * DAY_MS)

    assert (swept["events"], after["events"]) == (3, 1)
    assert head is not None
    assert head.event.body == other.event.body
    assert left[0] == FIRST
    assert are_whole(await parts(engine, "events"))
    assert [part for part in await parts(engine, "events") if part.is_day] == []  # of those that were made


async def test_the_same_event_on_both_sides_of_midnight_is_one_event(store: Store) -> None:
    engine, admission = store.engine, Admission(store.engine)
    await Retention(engine, KEEP).make_room(NOW)
    midnight = FIRST + DAY_MS

    before = await admit(admission, 0, "a", at_ms=midnight - 1)
    after = await admit(admission, 1, "a", at_ms=midnight)
    weeks_after = await admit(admission, 2, "a", at_ms=midnight + 34 * DAY_MS)

    assert (len(before), after, weeks_after) == (1, [], [])
    assert [await count(engine, table) for table in (events, invocations, seen)] == [1, 1, 1]


async def test_two_who_admit_the_same_event_at_midnight_admit_it_once(store: Store) -> None:
    admissions = [Admission(store.engine) for _ in range(2)]
    await Retention(store.engine, KEEP).make_room(NOW)
    midnight = FIRST + DAY_MS
    names = [f"e{n}" for n in range(20)]

    found = await asyncio.gather(
        *(
            each.admit(
                LOG,
                PLACE._replace(partition=n),
                first=0,
                after=1,
                plans=[a_plan(name) for name in names],
                now_ms=midnight - 1 + n,
            )
            for n, each in enumerate(admissions)
        )
    )

    assert sum(map(len, found)) == len(names)
    assert await count(store.engine, events) == len(names)


async def test_an_equal_body_after_its_window_is_news_once_for_two_who_see_it(store: Store) -> None:
    """Both find the identity expired; the lock on it lets one of them say so."""
    admissions = [Admission(store.engine) for _ in range(2)]
    await Retention(store.engine, KEEP).make_room(NOW)
    await admit(admissions[0], 0, "a", at_ms=NOW)
    await change(store.engine, Prepared(seen.update().values(expires_ms=NOW + 1000)))
    late = NOW + DAY_MS

    found = await asyncio.gather(
        *(
            each.admit(LOG, PLACE._replace(partition=n + 1), first=0, after=1, plans=[a_plan("a", key=str(n))], now_ms=late)
            for n, each in enumerate(admissions)
        )
    )

    assert sorted(map(len, found)) == [0, 1]
    assert await count(store.engine, events) == 2


async def test_a_body_that_comes_every_day_is_kept_by_day_and_found_by_each(store: Store) -> None:
    engine, admission, ledger = store.engine, Admission(store.engine), Ledger(store.engine)
    retention = Retention(engine, KEEP, pause_s=0)
    await retention.make_room(NOW)
    items = [(await admit(admission, day, f"a{day}", at_ms=NOW + day * DAY_MS, body=b"same"))[0] for day in range(3)]
    await change(engine, Prepared(invocations.update().values(created_ms=NOW + 60 * DAY_MS)))  # nothing open holds bodies back

    swept = await retention.sweep(FIRST + 15 * DAY_MS)  # the first day's are over
    heads = [await ledger.next_in_lane(item.invocation.lane) for item in items]

    assert swept["bodies"] == 1
    assert await count(engine, bodies) == 2
    assert [head.event.body for head in heads] == [b"same"] * 3
    assert await body_of(engine, items[0].event and (await first_digest(engine))) == b"same"


async def first_digest(engine: Engine) -> bytes:
    return bytes((await fetch(engine, Prepared(select(bodies.c.digest).limit(1))))[0][0])


async def test_a_replay_of_an_old_event_finds_it_and_its_body(store: Store) -> None:
    engine, admission, ledger = store.engine, Admission(store.engine), Ledger(store.engine)
    await Retention(engine, KEEP).make_room(NOW)
    await admit(admission, 0, "a", at_ms=NOW, body=b"old")
    plan = a_plan("a", uids=("sub-9",), body=b"old")
    await admission.admit_replay([plan])
    await change(
        engine,
        Prepared(invocations.update().where(invocations.c.subscription_uid == "sub-9").values(created_ms=NOW + 9 * DAY_MS)),
    )

    head = await ledger.next_in_lane(plan.invocations[0].lane)

    assert head is not None
    assert head.event.body == b"old"


async def test_lists_and_histories_reach_over_days(store: Store) -> None:
    engine, admission = store.engine, Admission(store.engine)
    await Retention(engine, KEEP).make_room(NOW)
    for day in range(4):
        await admit(admission, day, f"a{day}", at_ms=NOW + day * DAY_MS, key="thing")

    page = await event_page(engine, "default", EventFilter(), before=1 << 60, limit=3)
    past = await Histories(engine).last(team="default", thing="default/gh/thing", before_ms=NOW, after_ms=0, limit=10)

    assert [row.admitted_ms for row in page] == [NOW + day * DAY_MS for day in (3, 2, 1)]
    assert len(past) == 4
    assert await event_row(engine, "default", page[0].id) == page[0]


async def test_when_nobody_made_days_for_weeks_nothing_is_lost_and_it_goes_on(store: Store) -> None:
    engine, admission, retention = store.engine, Admission(store.engine), Retention(store.engine, KEEP, pause_s=0)
    await retention.make_room(NOW)
    await admit(admission, 0, "a", "b", at_ms=NOW + 20 * DAY_MS, uids=())

    made = await retention.make_room(NOW + 20 * DAY_MS)
    found = await parts(engine, "events")
    swept = await retention.sweep(NOW + 52 * DAY_MS)

    assert made > 0
    assert are_whole(found)
    assert found[-1].first_ms == FIRST + (20 + AHEAD + 1) * DAY_MS
    assert swept["events"] == 2
    assert await count(engine, events) == 0


async def test_a_clock_that_is_years_wrong_finds_a_place_for_its_row(store: Store) -> None:
    engine, admission = store.engine, Admission(store.engine)
    await Retention(engine, KEEP).make_room(NOW)

    for number, years in enumerate((-20, 20)):
        await admit(admission, number, f"a{years}", at_ms=NOW + years * 365 * DAY_MS)
    await Retention(engine, KEEP).make_room(NOW + DAY_MS)

    assert await count(engine, events) == 2
    assert are_whole(await parts(engine, "events"))


async def test_a_day_whose_table_is_being_read_waits_for_the_next_sweep(store: Store) -> None:
    admission, retention = Admission(store.engine), Retention(store.engine, KEEP, pause_s=0)
    await retention.make_room(NOW)
    await admit(admission, 0, "a", at_ms=NOW, uids=())
    reader = await asyncpg.connect(store.url)
    await reader.execute("BEGIN; SELECT count(*) FROM events")

    while_read = await retention.sweep(NOW + 40 * DAY_MS)
    await reader.close()
    after = await retention.sweep(NOW + 40 * DAY_MS)

    assert (while_read["events"], after["events"]) == (0, 1)


async def test_an_open_event_is_not_forgotten_while_its_day_is_here(store: Store) -> None:
    engine, admission, ledger = store.engine, Admission(store.engine), Ledger(store.engine)
    retention = Retention(engine, KEEP, pause_s=0)
    await ledger.hold_shards("me", lease_ms=60_000)
    await retention.make_room(NOW)
    (item,) = await admit(admission, 0, "a", at_ms=NOW)
    await ledger.open(an_opening(item.invocation))
    await ledger.settle(a_settlement(item.invocation, State.WAITING, reason=Wait.RETRY, due_ms=NOW + 90 * DAY_MS))

    swept = await retention.sweep(NOW + 40 * DAY_MS)

    assert (swept["events"], swept["seen"], swept["bodies"]) == (0, 0, 0)
    assert await count(engine, folds) == 0
    assert [await count(engine, table) for table in (events, invocations, seen, bodies)] == [1, 1, 1, 1]
