"""Operators' queries, on each engine."""

from __future__ import annotations

import pytest

from ingest.ports import Refusal
from schemas.invocation import State
from schemas.runs import Said
from store.admission import Admission
from store.engine import Engine
from store.events import EventFilter, body_of, event_page, event_row, event_total, events_after, last_received_ms, states_of
from store.keys import KeyRow, Keys
from store.ledger import Ledger
from store.refusals import KEPT_PER_SOURCE, Refusals
from store.reports import ACCEPTED, Decided, Ending, Report, report
from store.work import InvocationFilter, attempts_of, invocation_page, invocation_total, invocations_after, state_counts
from tests.store.plans import LOG, NOW, PLACE, a_plan, a_settlement, an_opening

HIGHEST = 1 << 62


async def admitted(engine: Engine) -> list[str]:
    """Three events: a delivered one, a queued one, an unmatched one; their ids."""
    plans = [
        a_plan("a", position=0, subject="acme/shop/issues/1"),
        a_plan("b", position=1, subject="acme/shop/issues/2"),
        a_plan("c", position=2, uids=(), subject="Acme_shop"),
    ]
    await Admission(engine).admit(LOG, PLACE, first=0, after=3, plans=plans, now_ms=NOW)
    ledger = Ledger(engine)
    invocation = plans[0].invocations[0]
    leases = {lease.shard: lease.epoch for lease in await ledger.hold_shards("me", lease_ms=60_000)}
    await ledger.open(an_opening(invocation, epoch=leases[invocation.shard]))
    await ledger.settle(a_settlement(invocation, epoch=leases[invocation.shard], reason=ACCEPTED, outcome="accepted"))
    return [plan.event.id for plan in plans]


@pytest.mark.parametrize(
    ("wanted", "found"),
    [
        (EventFilter(), "cba"),
        (EventFilter(source="gh", type="github.issues.opened", subject="acme/shop/issues/1"), "a"),
        (EventFilter(subject="acme*"), "ba"),
        (EventFilter(subject="acme_*"), ""),
        (EventFilter(subject="*"), "cba"),
        (EventFilter(type="github.*", outcome="done"), "a"),
        (EventFilter(outcome="accepted"), "a"),
        (EventFilter(outcome="queued"), "b"),
        (EventFilter(outcome="open"), "b"),
        (EventFilter(outcome="unmatched"), "c"),
        (EventFilter(since_ms=NOW), ""),
        (EventFilter(since_ms=NOW - 500, until_ms=NOW), "cba"),
        (EventFilter(admitted_until_ms=NOW - 1), ""),
    ],
)
async def test_events_are_found_by_every_filter(engine: Engine, wanted: EventFilter, found: str) -> None:
    names = dict(zip(await admitted(engine), "abc", strict=True))

    rows = await event_page(engine, "default", wanted, before=HIGHEST, limit=10)
    forward = await events_after(engine, "default", wanted, after=0, limit=10)

    assert "".join(names[row.id] for row in rows) == found
    assert [row.seq for row in forward] == sorted(row.seq for row in rows)
    assert await event_total(engine, "default", wanted) == len(found)
    assert await event_page(engine, "others", wanted, before=HIGHEST, limit=10) == []


async def test_one_event_comes_with_its_states_and_its_body(engine: Engine) -> None:
    first, second, _ = await admitted(engine)

    row = await event_row(engine, "default", first)

    assert row is not None
    assert await body_of(engine, row.body_digest) == b'{"n": 1}'
    assert await body_of(engine, b"none") is None
    assert await states_of(engine, [first, second]) == {first: {"done": 1}, second: {"queued": 1}}
    assert await event_row(engine, "others", first) is None
    assert await last_received_ms(engine, "default", "gh") == NOW - 500


@pytest.mark.parametrize(
    ("wanted", "count"),
    [
        (InvocationFilter(), 2),
        (InvocationFilter(state="done"), 1),
        (InvocationFilter(agent="triage", subscription="sub-1", since_ms=NOW, until_ms=NOW + 1), 2),
        (InvocationFilter(agent="nobody"), 0),
        (InvocationFilter(event="none"), 0),
    ],
)
async def test_invocations_are_found_by_every_filter(engine: Engine, wanted: InvocationFilter, count: int) -> None:
    await admitted(engine)

    rows = await invocation_page(engine, "default", wanted, before=HIGHEST, limit=10)

    assert len(rows) == await invocation_total(engine, "default", wanted) == count
    assert [row.seq for row in rows] == sorted((row.seq for row in rows), reverse=True)
    assert len(await invocations_after(engine, "default", wanted, after=0, limit=10)) == count


async def test_attempts_belong_to_their_invocations(engine: Engine) -> None:
    await admitted(engine)
    rows = await invocation_page(engine, "default", InvocationFilter(), before=HIGHEST, limit=10)

    found = await attempts_of(engine, [row.seq for row in rows])

    assert {row.state: len(found.get(row.seq, [])) for row in rows} == {"done": 1, "queued": 0}
    assert await state_counts(engine, "default") == {"done": 1, "queued": 1}


async def test_a_report_is_recorded_once(engine: Engine) -> None:
    await admitted(engine)
    (row,) = await invocation_page(engine, "default", InvocationFilter(state="done"), before=HIGHEST, limit=10)
    ending = Ending("declined", "not mine\0", {"result": 1}, lambda *_: Decided(State.DECLINED, "reported: not mine\0"))
    told = Report("default", row.id, Said.COMPLETE, 1, ending=ending)

    first, _ = await report(engine, told, now_ms=NOW)
    second, _ = await report(engine, told, now_ms=NOW)

    assert first == second
    assert (first.state, first.outcome, first.reason) == ("declined", "declined", "reported: not mine\ufffd")


def a_refusal(number: int, *, at_ms: int, source: str = "gh") -> Refusal:
    return Refusal("default", source, at_ms, "refused", "signature", f"n{number}", "POST", {"h": "v" * 5000})


async def test_refusals_are_capped_in_number_and_in_rate(engine: Engine) -> None:
    shelf = Refusals(engine)
    for minute in range(4):
        await shelf.keep([a_refusal(minute * 100 + n, at_ms=NOW + minute * 60_000) for n in range(100)])
    await shelf.keep([a_refusal(1, at_ms=NOW, source="other")])

    kept = await shelf.last("default", "gh", limit=1000)

    assert len(kept) == KEPT_PER_SOURCE
    assert kept[0].reason == "n359"
    assert len(kept[0].headers) < 600
    assert await shelf.counts("default", since_ms=NOW + 180_000) == {"gh": 60}


async def test_keys_are_kept_by_their_hash_and_revoked_by_id_or_name(engine: Engine) -> None:
    keys = Keys(engine)
    row = KeyRow("key_1", "default", "ci", "viewer", b"\1" * 32, "nbk_abcdefgh", "", NOW, 0, 0, 0)
    await keys.add(row, actor="test")
    before = await keys.version()

    live = await keys.live()
    await keys.revoke("default", "ci", actor="test", now_ms=NOW + 1)

    assert live == [row]
    assert await keys.live() == []
    assert await keys.version() == before + 1
    assert [found.revoked_ms for found in await keys.of_team("default")] == [NOW + 1]
