from __future__ import annotations

import hashlib
from dataclasses import replace

import orjson
import pytest
from sqlalchemy import func, select

from schemas.errors import FencedOut
from schemas.event import Flag
from schemas.invocation import Planned
from schemas.topics import Place, Record
from store.admission import Admission
from store.bodies import unpacked
from store.engine import Call, Engine, OneStep
from store.prepared import Prepared
from store.shards import WORK
from store.tables import bodies, events, invocations, lanes, rejected, seen
from tests.store.plans import LOG, NOW, PLACE, a_plan, an_event, an_invocation


async def rows(engine: Engine, statement: object) -> list[tuple[object, ...]]:
    found = await engine.read(OneStep(Call(Prepared(statement))))
    return [tuple(row) for row in found]


async def test_a_batch_is_admitted_whole(engine: Engine) -> None:
    admission = Admission(engine)
    plans = [a_plan("a", key="k"), a_plan("b", key="k", uids=("sub-1", "sub-2")), a_plan("c", uids=())]

    admitted = await admission.admit(LOG, PLACE, first=0, after=3, plans=plans, now_ms=NOW)

    assert [(item.invocation.subscription_uid, item.event.id, item.ahead) for item in admitted] == [
        ("sub-1", plans[0].event.id, 0),
        ("sub-1", plans[1].event.id, 1),
        ("sub-2", plans[1].event.id, 0),
    ]
    assert admitted[0].data == {"n": 1}
    assert await admission.cursors(LOG, [PLACE]) == {PLACE: 3}
    assert await rows(engine, select(func.count()).select_from(events)) == [(3,)]
    assert sorted(await rows(engine, select(lanes.c.id, lanes.c.queued, lanes.c.due_ms))) == [
        ("sub-1/default/gh/k", 2, NOW),
        ("sub-2/default/gh/k", 1, NOW),
    ]


async def test_a_cursor_that_is_elsewhere_admits_nothing(engine: Engine) -> None:
    admission = Admission(engine)
    await admission.admit(LOG, PLACE, first=0, after=3, plans=[], now_ms=NOW)

    with pytest.raises(FencedOut):
        await admission.admit(LOG, PLACE, first=0, after=5, plans=[a_plan("a")], now_ms=NOW)

    assert await admission.cursors(LOG, [PLACE]) == {PLACE: 3}
    assert await rows(engine, select(seen.c.event_id)) == []


async def test_cursors_belong_to_their_log(engine: Engine) -> None:
    admission = Admission(engine)
    other = Place("nightbell.events.stripe", 2)
    await admission.admit(LOG, PLACE, first=7, after=9, plans=[], now_ms=NOW, begins=True)

    await admission.admit("log-2", PLACE, first=0, after=1, plans=[], now_ms=NOW)

    assert await admission.cursors(LOG, [PLACE, other]) == {PLACE: 9}
    assert await admission.cursors("log-2", [PLACE]) == {PLACE: 1}


async def test_an_event_seen_before_gives_no_invocation(engine: Engine) -> None:
    admission = Admission(engine)
    await admission.admit(LOG, PLACE, first=0, after=1, plans=[a_plan("a")], now_ms=NOW)

    again = await admission.admit(LOG, PLACE, first=1, after=4, plans=[a_plan("a"), a_plan("b"), a_plan("b")], now_ms=NOW)

    assert [item.event.id for item in again] == [an_event("b").id]
    assert await rows(engine, select(func.count()).select_from(invocations)) == [(2,)]


async def test_an_equal_body_after_its_window_is_news_with_an_id_of_its_own(engine: Engine) -> None:
    admission = Admission(engine)
    first = a_plan("a", key="k")
    again = replace(
        first, event=replace(first.event, identity_window_ms=600_000, received_ms=first.event.received_ms + 700_000)
    )
    await admission.admit(
        LOG, PLACE, first=0, after=1, plans=[replace(first, event=replace(first.event, identity_window_ms=600_000))], now_ms=NOW
    )

    within = await admission.admit(LOG, PLACE, first=1, after=2, plans=[again], now_ms=NOW + 599_000)
    after = await admission.admit(LOG, PLACE, first=2, after=3, plans=[again], now_ms=NOW + 700_000)
    repeated = await admission.admit(LOG, PLACE, first=3, after=4, plans=[again], now_ms=NOW + 701_000)

    assert within == []
    assert [item.event.id == first.event.id for item in after] == [False]
    assert after[0].invocation.event_id == after[0].event.id
    assert after[0].invocation.id != first.invocations[0].id
    assert repeated == []
    assert await rows(engine, select(func.count()).select_from(events)) == [(2,)]


async def test_new_rules_do_not_plan_a_seen_event_twice(engine: Engine) -> None:
    admission = Admission(engine)
    await admission.admit(LOG, PLACE, first=0, after=1, plans=[a_plan("a")], now_ms=NOW)

    again = await admission.admit(LOG, PLACE, first=1, after=2, plans=[a_plan("a", uids=("sub-1", "sub-9"))], now_ms=NOW)

    assert again == []


async def test_bodies_are_kept_once_and_as_they_came(engine: Engine) -> None:
    big, small = b'{"text": "' + b"abc" * 3000 + b'"}', b"\x00\xff tiny"
    admission = Admission(engine)
    plans = [a_plan("a", body=big), a_plan("b", body=big), a_plan("c", body=small)]

    await admission.admit(LOG, PLACE, first=0, after=3, plans=plans, now_ms=NOW)

    kept = {
        bytes(row[0]): row for row in await rows(engine, select(bodies.c.digest, bodies.c.coding, bodies.c.size, bodies.c.body))
    }
    assert set(kept) == {hashlib.sha256(big).digest(), hashlib.sha256(small).digest()}
    _, coding, size, body = kept[hashlib.sha256(big).digest()]
    assert (coding, size) == ("zstd", len(big))
    assert len(body) < len(big) / 10
    assert unpacked(coding, body) == big
    assert kept[hashlib.sha256(small).digest()][1:] == ("", len(small), small)


async def test_what_one_database_refuses_is_kept_as_the_other_keeps_it(engine: Engine) -> None:
    event = an_event("a", key="k\0ey", subject="nul \0 and \ud800", summary="\ud800", flags=(Flag.AMBIGUOUS_JSON,))
    plan = Planned(event, 5, (an_invocation(event),))

    (admitted,) = await Admission(engine).admit(LOG, PLACE, first=0, after=1, plans=[plan], now_ms=NOW)

    [(subject, envelope, flags, position)] = await rows(
        engine, select(events.c.subject, events.c.envelope, events.c.flags, events.c.position)
    )
    assert subject == "nul \ufffd and ?"
    assert orjson.loads(envelope)["summary"] == "?"
    assert (flags, position) == ("ambiguous_json", 5)
    assert await rows(engine, select(lanes.c.id)) == [(admitted.invocation.lane,)]


async def test_admission_wakes_the_owners_of_the_shards(engine: Engine) -> None:
    heard: list[str] = []
    engine.listen(WORK, heard.append)
    plan = a_plan("a")

    await Admission(engine).admit(LOG, PLACE, first=0, after=1, plans=[plan], now_ms=NOW)

    assert [payload for payload in heard if payload] == [str(plan.invocations[0].shard)]


async def test_a_replay_is_queued_once(engine: Engine) -> None:
    admission = Admission(engine)
    first = a_plan("a", key="k")
    await admission.admit(LOG, PLACE, first=0, after=1, plans=[first], now_ms=NOW)
    again = Planned(first.event, 0, (an_invocation(first.event, replay="rpl_1"),))

    once, twice = await admission.admit_replay([again]), await admission.admit_replay([again])

    assert [(item.invocation.id, item.ahead) for item in once] == [(again.invocations[0].id, 1)]
    assert twice == []
    assert await rows(engine, select(lanes.c.queued)) == [(2,)]


async def test_deaths_are_counted_by_record(engine: Engine) -> None:
    admission = Admission(engine)

    counts = [await admission.deaths(LOG, PLACE, position, "boom \0") for position in (4, 4, 5)]

    assert counts == [1, 2, 1]


async def test_a_poison_record_is_set_aside_and_passed(engine: Engine) -> None:
    admission = Admission(engine)
    record = Record(PLACE.topic, PLACE.partition, 7, "k", b"\x00bad", {"a": "b\0"}, NOW - 5)
    await admission.admit(LOG, PLACE, first=0, after=7, plans=[], now_ms=NOW)
    await admission.deaths(LOG, PLACE, 7, "boom")

    await admission.set_aside(LOG, record, first=7, reason="boom", now_ms=NOW)

    assert await admission.cursors(LOG, [PLACE]) == {PLACE: 8}
    assert await rows(engine, select(rejected.c.position, rejected.c.value, rejected.c.reason)) == [(7, b"\x00bad", "boom")]
    assert await admission.deaths(LOG, PLACE, 7, "again") == 1
    with pytest.raises(FencedOut):
        await admission.set_aside(LOG, record, first=7, reason="boom", now_ms=NOW)


async def test_a_cursor_begins_where_nothing_was_before_and_nowhere_else(engine: Engine) -> None:
    admission = Admission(engine)
    other = PLACE._replace(partition=PLACE.partition + 1)
    record = Record(other.topic, other.partition, 9, "k", b"bad", {}, NOW)

    with pytest.raises(FencedOut):
        await admission.admit(LOG, PLACE, first=2, after=3, plans=[a_plan("late")], now_ms=NOW)
    with pytest.raises(FencedOut):
        await admission.set_aside(LOG, record, first=9, reason="boom", now_ms=NOW)
    assert await admission.cursors(LOG, [PLACE, other]) == {}

    await admission.admit(
        LOG, PLACE, first=5, after=6, plans=[], now_ms=NOW, begins=True
    )  # what was before is gone from the log
    await admission.set_aside(LOG, record, first=9, reason="boom", now_ms=NOW, begins=True)
    assert await admission.cursors(LOG, [PLACE, other]) == {PLACE: 6, other: 10}


async def test_a_record_is_set_aside_from_where_the_cursor_is(engine: Engine) -> None:
    admission = Admission(engine)
    record = Record(PLACE.topic, PLACE.partition, 7, "k", b"bad", {}, NOW)
    await admission.admit(LOG, PLACE, first=0, after=4, plans=[], now_ms=NOW)

    with pytest.raises(FencedOut):  # who says so has not admitted 4 to 6, nor has anybody else
        await admission.set_aside(LOG, record, first=7, reason="boom", now_ms=NOW)

    assert await admission.cursors(LOG, [PLACE]) == {PLACE: 4}
