from __future__ import annotations

import asyncio

from sqlalchemy import update

from store.engine import Call, Engine, OneStep
from store.ledger import Ledger
from store.prepared import Prepared
from store.shards import SHARDS_FREED
from store.tables import owners, shards

LEASE_MS = 60_000


async def let_leases_end(engine: Engine, owner: str) -> None:
    for statement in (
        update(shards).where(shards.c.owner == owner).values(lease_ms=1),
        update(owners).where(owners.c.id == owner).values(lease_ms=1),
    ):
        await engine.write(OneStep(Call(Prepared(statement))))


async def test_who_is_alone_holds_all_and_keeps_the_epochs(engine: Engine) -> None:
    ledger = Ledger(engine)

    first = await ledger.hold_shards("a", lease_ms=LEASE_MS)
    again = await ledger.hold_shards("a", lease_ms=LEASE_MS)

    assert [lease.shard for lease in first] == list(range(64))
    assert {lease.epoch for lease in first} == {lease.epoch for lease in again} == {1}
    assert again[0].until_ms >= first[0].until_ms


async def test_a_newcomer_gets_its_share_within_two_renewals(engine: Engine) -> None:
    ledger = Ledger(engine)
    await ledger.hold_shards("a", lease_ms=LEASE_MS)

    none_yet = await ledger.hold_shards("b", lease_ms=LEASE_MS)
    mine = await ledger.hold_shards("a", lease_ms=LEASE_MS)
    theirs = await ledger.hold_shards("b", lease_ms=LEASE_MS)

    assert none_yet == []
    assert (len(mine), len(theirs)) == (32, 32)
    assert {lease.shard for lease in mine} | {lease.shard for lease in theirs} == set(range(64))
    assert {lease.epoch for lease in theirs} == {2}


async def test_three_share_evenly(engine: Engine) -> None:
    ledger = Ledger(engine)

    for _ in range(3):
        found = [await ledger.hold_shards(owner, lease_ms=LEASE_MS) for owner in "abc"]

    assert sorted(len(leases) for leases in found) == [20, 22, 22]


async def test_the_shards_of_the_dead_are_taken_over_under_a_new_epoch(engine: Engine) -> None:
    ledger = Ledger(engine)
    await ledger.hold_shards("a", lease_ms=LEASE_MS)
    await let_leases_end(engine, "a")

    taken = await ledger.hold_shards("b", lease_ms=LEASE_MS)
    back = await ledger.hold_shards("a", lease_ms=LEASE_MS)

    assert {lease.epoch for lease in taken} == {2}
    assert len(taken) == 64
    assert back == []


async def test_a_late_owner_keeps_what_nobody_took(engine: Engine) -> None:
    ledger = Ledger(engine)
    await ledger.hold_shards("a", lease_ms=LEASE_MS)
    await let_leases_end(engine, "a")

    back = await ledger.hold_shards("a", lease_ms=LEASE_MS)

    assert {lease.epoch for lease in back} == {1}


async def test_what_is_released_is_free_at_once_and_told(engine: Engine) -> None:
    ledger = Ledger(engine)
    heard: list[str] = []
    engine.listen(SHARDS_FREED, heard.append)
    await ledger.hold_shards("a", lease_ms=LEASE_MS)

    await ledger.release_shards("a")
    taken = await ledger.hold_shards("b", lease_ms=LEASE_MS)

    assert set(heard) == {""}
    assert len(taken) == 64


async def test_no_shard_has_two_owners_whoever_asks_at_once(engine: Engine) -> None:
    ledger = Ledger(engine)

    for _ in range(3):
        found = await asyncio.gather(*(ledger.hold_shards(f"o{number}", lease_ms=LEASE_MS) for number in range(5)))

    held = [lease.shard for leases in found for lease in leases]
    assert len(held) == len(set(held)) == 64


async def test_what_is_given_back_is_idle_where_it_can_be(engine: Engine) -> None:
    ledger = Ledger(engine)
    await ledger.hold_shards("a", lease_ms=LEASE_MS)
    await ledger.hold_shards("b", lease_ms=LEASE_MS)

    mine = await ledger.hold_shards("a", lease_ms=LEASE_MS, busy=range(40, 64))

    assert {lease.shard for lease in mine} == {*range(8), *range(40, 64)}
