from __future__ import annotations

from sqlalchemy import insert, select

from schemas.invocation import State, Wait
from store.admission import Admission
from store.engine import Call, Engine, OneStep
from store.ledger import Ledger
from store.prepared import Prepared
from store.retention import DAY_MS, Keep, Retention
from store.tables import attempts, bodies, events, invocations, refusals, seen
from tests.store.plans import LOG, NOW, PLACE, a_plan, a_settlement, an_opening

KEEP = Keep(events_days=30, bodies_days=14, refusals_days=14, rejected_days=30)


async def count(engine: Engine, table: object) -> int:
    return len(await engine.read(OneStep(Call(Prepared(select(table))))))


async def test_an_event_goes_with_its_ended_invocations_only(engine: Engine) -> None:
    admission, ledger = Admission(engine), Ledger(engine)
    await ledger.hold_shards("me", lease_ms=60_000)
    plans = [a_plan("done", uids=("s1", "s2"), body=b"1"), a_plan("open", body=b"2"), a_plan("unmatched", uids=(), body=b"3")]
    found = await admission.admit(LOG, PLACE, first=0, after=3, plans=plans, now_ms=NOW)
    for item, state in zip(found, (State.DONE, State.BURIED, State.WAITING), strict=True):
        await ledger.open(an_opening(item.invocation))
        await ledger.settle(a_settlement(item.invocation, state, reason=Wait.RETRY, due_ms=NOW + 90 * DAY_MS))
    retention = Retention(engine, KEEP, pause_s=0)

    early = await retention.sweep(NOW + 30 * DAY_MS)
    late = await retention.sweep(NOW + 36 * DAY_MS)

    assert early == dict.fromkeys(early, 0)
    assert (late["events"], late["seen"]) == (2, 2)
    assert [await count(engine, table) for table in (events, invocations, attempts, seen)] == [1, 1, 1, 1]


async def test_bodies_go_before_their_events_but_not_before_their_agents_read_them(engine: Engine) -> None:
    admission, ledger = Admission(engine), Ledger(engine)
    await ledger.hold_shards("me", lease_ms=60_000)
    (one,) = await admission.admit(LOG, PLACE, first=0, after=1, plans=[a_plan("a")], now_ms=NOW)
    retention = Retention(engine, KEEP, pause_s=0)

    while_open = await retention.sweep(NOW + 20 * DAY_MS)
    await ledger.open(an_opening(one.invocation))
    await ledger.settle(a_settlement(one.invocation))
    after = await retention.sweep(NOW + 20 * DAY_MS)

    assert (while_open["bodies"], after["bodies"], after["events"]) == (0, 1, 0)
    assert await count(engine, bodies) == 0


async def test_more_than_a_slice_goes_in_one_sweep(engine: Engine) -> None:
    admission = Admission(engine)
    plans = [a_plan(f"e{number}", uids=(), body=b"%d" % number) for number in range(450)]
    await admission.admit(LOG, PLACE, first=0, after=450, plans=plans, now_ms=NOW)
    rows = [{"source": "gh", "at_ms": NOW}] * 3
    for row in rows:
        await engine.write(OneStep(Call(Prepared(insert(refusals).values(**row)))))

    swept = await Retention(engine, KEEP, pause_s=0).sweep(NOW + 40 * DAY_MS)

    assert swept == dict.fromkeys(swept, 0) | {"events": 450, "bodies": 450, "seen": 450, "refusals": 3}
