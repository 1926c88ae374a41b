"""A dispatcher beside others: what it hears of shards, and what it holds on to."""

from __future__ import annotations

import asyncio

from schemas.ids import shard_of
from tests.dispatcher.test_service import virtually
from tests.dispatcher.world import Heard, Running, Said, World, until


@virtually
async def test_work_that_another_process_queued_is_found_at_the_call_of_its_shard(world: World) -> None:
    async with Running(world.dispatcher()) as dispatcher:
        await asyncio.sleep(0.5)
        world.admit("bugs", "k")
        other = (shard_of("default", "triage") + 1) % 64
        before = world.clock.elapsed_s
        dispatcher.wake_shards([other])
        await asyncio.sleep(0.2)
        assert not world.caller.heard, "another shard's work is nothing to look for"

        dispatcher.wake_shards([other, shard_of("default", "triage")])
        await until(lambda: not world.ledger.unfinished)

    assert world.clock.elapsed_s - before < 1, "the look over all comes every five seconds"


@virtually
async def test_the_shard_of_an_agent_that_is_being_called_is_given_back_last(world: World) -> None:
    asked: list[set[int]] = []
    hold = world.ledger.hold_shards

    async def holding(owner, *, lease_ms, busy=()):
        asked.append(set(busy))
        return await hold(owner, lease_ms=lease_ms, busy=busy)

    async def slow(_: Heard) -> Said:
        await asyncio.sleep(8)
        return Said()

    world.ledger.hold_shards = holding
    world.caller.scripts["triage"] = slow
    async with Running(world.dispatcher(lease_ms=6_000)) as dispatcher:
        dispatcher.offer([world.admit("bugs", "k")])
        await asyncio.sleep(5)
        assert asked[-1] == {shard_of("default", "triage")}
        await until(lambda: not world.ledger.unfinished)
        await asyncio.sleep(5)
        assert asked[-1] == set()
