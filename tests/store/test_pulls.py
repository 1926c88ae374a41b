"""Work that agents fetch, on each database: many who ask at once, in one process or in several."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest
from sqlalchemy import select

from schemas.ids import shard_of
from schemas.invocation import State
from schemas.ledger import OpenRuns, RunTerms
from store.connect import Store, connect
from store.ledger import Ledger
from store.pulls import Poller, leave, take, wait_for_work
from store.run_rows import OFFERS, begun
from store.runs import RUNS
from store.tables import runs
from tests.store.plans import NOW, a_settlement, an_opening
from tests.store.test_ledger import Desk

PART = ("default", "triage", shard_of("default", "triage"))


@pytest.fixture
async def desk(store: Store) -> Desk:
    found = Desk(store.engine)
    assert len(await found.ledger.hold_shards("me", lease_ms=60_000)) == 64
    return found


async def offered(desk: Desk, *identities: str) -> list[str]:
    """Invocations that wait to be fetched."""
    admitted = await desk.admit(*identities)
    for one in admitted:
        assert await desk.ledger.open(an_opening(one))
        settlement = a_settlement(one, State.ACCEPTED, outcome="accepted", ended_ms=NOW, reason="offered", due_ms=NOW + 60_000)
        assert await desk.ledger.settle(replace(settlement, run=RunTerms(5_000, NOW + 50_000, b'{"n":1}')))
    return [one.id for one in admitted]


async def runs_of(ledger: Ledger) -> OpenRuns:
    return (await ledger.open_runs([PART], now_ms=NOW))[PART]


async def test_many_who_ask_at_once_fetch_each_offer_once(desk: Desk) -> None:
    wanted = await offered(desk, *(f"e{number}" for number in range(12)))

    answers = await asyncio.gather(
        *(take(desk.engine, Poller("default", "triage", f"p{n}", f"w{n}"), limit=3, now_ms=NOW + 1_000) for n in range(8))
    )

    fetched = [each.invocation_id for answer in answers for each in answer]
    rest = await take(desk.engine, Poller("default", "triage", "p", ""), limit=20, now_ms=NOW + 1_000)
    assert sorted(fetched + [each.invocation_id for each in rest]) == sorted(wanted)
    assert {(each.number, each.lease_ms, each.ends_ms) for answer in answers for each in answer} == {
        (1, NOW + 6_000, NOW + 51_000)
    }
    assert (await runs_of(desk.ledger)).unfetched == frozenset()


async def test_offers_of_another_agent_or_team_are_not_fetched(desk: Desk) -> None:
    await offered(desk, "a")

    assert await take(desk.engine, Poller("default", "other", "p"), limit=5, now_ms=NOW) == []
    assert await take(desk.engine, Poller("others", "triage", "p"), limit=5, now_ms=NOW) == []


async def test_what_is_wanted_is_counted_until_who_waits_leaves_fetches_or_falls_silent(desk: Desk) -> None:
    first, second, silent = (Poller("default", "triage", name) for name in ("one", "two", "three"))
    await wait_for_work(desk.engine, first, want=2, until_ms=NOW + 10_000)
    await wait_for_work(desk.engine, first, want=3, until_ms=NOW + 10_000)
    await wait_for_work(desk.engine, second, want=1, until_ms=NOW + 10_000)
    await wait_for_work(desk.engine, silent, want=7, until_ms=NOW)
    counts = [(await runs_of(desk.ledger)).wanted]

    await offered(desk, "a")
    await take(desk.engine, first, limit=3, now_ms=NOW)
    counts.append((await runs_of(desk.ledger)).wanted)
    await leave(desk.engine, second, now_ms=NOW)
    counts.append((await runs_of(desk.ledger)).wanted)

    assert counts == [4, 1, 0]


async def test_an_offer_and_a_wait_are_heard_in_other_processes(desk: Desk, store: Store, store_url: str) -> None:
    other = store if store.is_embedded else connect(store_url)  # a file has one process: there the same engine hears it
    if other is not store:
        await other.start()
    heard: list[tuple[str, str]] = []
    for channel in (OFFERS, RUNS):
        other.engine.listen(channel, lambda payload, channel=channel: heard.append((channel, payload)))  # type: ignore[misc]  # mypy cannot infer a lambda with a default
    try:
        async with asyncio.timeout(10):
            while ("runs", "default/triage") not in heard:  # a listener that has just begun may miss the first
                await wait_for_work(desk.engine, Poller("default", "triage", "p"), want=1, until_ms=NOW + 10_000)
                await asyncio.sleep(0.05)
            await offered(desk, "a")
            while ("offers", "default/triage") not in heard:
                await asyncio.sleep(0.01)
        fetched = await take(other.engine, Poller("default", "triage", "q"), limit=1, now_ms=NOW)
    finally:
        if other is not store:
            await other.aclose()

    assert len(fetched) == 1


async def test_the_run_of_another_agent_that_takes_over_counts_as_its_own(desk: Desk) -> None:
    (ident,) = await offered(desk, "a")
    await desk.engine.write(lambda: begun([(1, 1, "default", "other", NOW, 0, NOW + 1, 1, NOW + 2, None)]))

    found = await desk.rows(select(runs.c.agent, runs.c.number))

    assert found == [("other", 1)]
    assert ident not in (await runs_of(desk.ledger)).runs
