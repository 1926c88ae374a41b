"""Dead letters: what is kept of them, how they are counted, and what a purge leaves."""

from __future__ import annotations

import orjson
import pytest
from sqlalchemy import select

from schemas.context import Sent
from schemas.invocation import State
from store.conservation import gaps
from store.deadletters import (
    OTHER,
    REASONS,
    DeadFilter,
    all_dead_counts,
    dead_after,
    dead_counts,
    dead_page,
    dead_total,
    exchanges_of,
    kind_of,
    purge,
)
from store.engine import Engine
from store.redress import Redress
from store.retention import Keep, Retention
from store.tables import attempts, exchanges, invocations
from tests.store.plans import NOW
from tests.store.test_ledger import Desk

FRAME = orjson.dumps({"method": "POST", "url": "https://agent.test/", "headers": [["a", "b"]], "answer_headers": [["c", "d"]]})
ALL = DeadFilter()


@pytest.fixture
async def desk(engine: Engine) -> Desk:
    found = Desk(engine)
    await found.ledger.hold_shards("me", lease_ms=60_000)
    return found


async def dead(desk: Desk, name: str, *, reason: str = "rejected: answered 422", at_ms: int = NOW + 50) -> str:
    (one,) = await desk.admit(name)
    await desk.run(
        one,
        State.BURIED,
        outcome="rejected",
        reason=reason,
        ended_ms=at_ms,
        status=422,
        error="answered 422",
        answer=b"no such customer",
        body=Sent(b'{"a":1}'),
        exchange=FRAME,
    )
    return one.id


@pytest.mark.parametrize(
    ("reason", "kind"),
    [
        ("rejected: answered 422", "rejected"),
        ("rejected: context: required and absent: facts.plan", "context"),
        ("max_attempts: answered 500", "max_attempts"),
        ("max_age: the agent was held", "max_age"),
        ("gone", "gone"),
        ("reported: could not", "reported"),
        ("something new", OTHER),
    ],
)
async def test_every_reason_has_its_class_here_and_in_the_database(desk: Desk, reason: str, kind: str) -> None:
    await dead(desk, "a", reason=reason)

    assert kind_of(reason) == kind
    assert kind in REASONS
    assert [(found[0], found[1], found[2]) for found in await dead_counts(desk.engine, "default")] == [(kind, "triage", 1)]
    assert await dead_total(desk.engine, "default", DeadFilter(kind=kind)) == 1
    assert await dead_total(desk.engine, "default", DeadFilter(kind="gone" if kind != "gone" else "max_age")) == 0


async def test_a_page_tells_of_the_event_and_the_last_answer(desk: Desk) -> None:
    first, second = await dead(desk, "a"), await dead(desk, "b")

    rows = await dead_page(desk.engine, "default", ALL, before=1 << 60, limit=10)

    assert [row.id for row in rows] == [second, first]
    assert (rows[0].status, rows[0].error, rows[0].type, rows[0].kind) == (
        422,
        "answered 422",
        "github.issues.opened",
        "rejected",
    )
    assert await dead_page(desk.engine, "other", ALL, before=1 << 60, limit=10) == []


async def test_they_are_found_by_when_they_were_buried(desk: Desk) -> None:
    old = await dead(desk, "a", at_ms=NOW + 100)
    new = await dead(desk, "b", at_ms=NOW + 90_000)

    assert [
        ident for _, ident in await dead_after(desk.engine, "default", DeadFilter(until_ms=NOW + 1000), after=-1, limit=9)
    ] == [old]
    assert [
        ident for _, ident in await dead_after(desk.engine, "default", DeadFilter(since_ms=NOW + 1000), after=-1, limit=9)
    ] == [new]
    assert await all_dead_counts(desk.engine) == {"rejected": (2, NOW + 100)}


async def test_what_was_on_the_wire_is_kept_of_a_failed_call_alone(desk: Desk) -> None:
    await dead(desk, "a")
    (good,) = await desk.admit("b")
    await desk.run(good)
    seqs = dict(await desk.rows(select(invocations.c.id, invocations.c.seq)))

    assert len(await desk.rows(select(exchanges.c.number))) == 1
    assert await exchanges_of(desk.engine, int(str(seqs[good.id]))) == {}


async def test_a_purge_forgets_the_bytes_and_keeps_that_they_were(desk: Desk) -> None:
    kept, gone = await dead(desk, "a"), await dead(desk, "b")

    assert await purge(desk.engine, "other", [gone]) == []
    assert await purge(desk.engine, "default", [gone, "inv_none"]) == [gone]
    assert await purge(desk.engine, "default", [gone]) == []

    found = await desk.rows(select(invocations.c.id, invocations.c.state, invocations.c.reason))
    rows = {row[0]: row[1:] for row in found}
    assert rows[gone] == (State.CANCELED, "purged: rejected: answered 422")
    assert rows[kept][0] == State.BURIED
    held = await desk.rows(
        select(attempts.c.answer, attempts.c.sent_body, attempts.c.error).order_by(attempts.c.invocation_seq)
    )
    assert held[0][0] == b"no such customer"
    assert held[1] == (None, None, "")
    assert len(await desk.rows(select(exchanges.c.number))) == 1
    assert await dead_total(desk.engine, "default", ALL) == 1
    assert set((await gaps(desk.engine, since_ms=NOW - 1, until_ms=NOW + 1)).values()) == {0}
    assert await Redress(desk.engine).redrive("default", [gone], now_ms=NOW) == [], "there is nothing left to send again"


async def test_what_was_on_the_wire_goes_with_its_event(desk: Desk) -> None:
    await dead(desk, "a")

    await Retention(desk.engine, Keep(events_days=1), pause_s=0).sweep(NOW + 10 * 86_400_000)

    assert await desk.rows(select(exchanges.c.number)) == []
