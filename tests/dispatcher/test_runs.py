"""Runs under supervision, as the owner of their shard sees them: in virtual time, over a ledger in memory."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

from schemas.config import AgentConfig, AgentSpec
from schemas.ids import shard_of
from schemas.invocation import Order, State
from tests.dispatcher.test_service import virtually
from tests.dispatcher.world import SECRET, Heard, Running, Said, World, until


def runner(world: World, **spec: Any) -> None:
    """An agent that answers 202 to all, and a subscription of its own."""

    async def accepts(_: Heard) -> Said:
        return Said(202)

    world.roster.agent("runner", **spec)
    world.roster.subscription("runs", "runner", retry={"first_delay": 1, "max_delay": 1, "max_attempts": 3})
    world.caller.scripts["runner"] = accepts


def states(world: World) -> Counter[State]:
    return Counter(world.ledger.states().values())


def told(world: World) -> list[dict[str, Any]]:
    return [fields for name, fields in world.said if name == "run_over"]


@virtually
async def test_a_202_is_a_promise_and_the_next_of_its_key_waits_for_its_end(world: World) -> None:
    runner(world, supervision={"lease": "30s"})
    async with Running(world.dispatcher()) as dispatcher:
        first, second = (world.admit("runs", "key") for _ in range(2))
        dispatcher.offer([first, second])
        await until(lambda: world.ledger.rows[first.invocation.id].state is State.ACCEPTED)
        await asyncio.sleep(10)
        waiting = world.ledger.rows[second.invocation.id].state

        world.ledger.report(first.invocation.id, 1)
        dispatcher.notice_runs("default/runner")
        await until(lambda: world.ledger.rows[second.invocation.id].state is State.ACCEPTED, within_s=1)

    assert waiting is State.QUEUED
    assert len(world.caller.ids("runner")) == 2


@virtually
async def test_where_nobody_watches_a_202_is_the_end(world: World) -> None:
    runner(world, supervision={"accepted": "done"})
    async with Running(world.dispatcher()) as dispatcher:
        dispatcher.offer([world.admit("runs", "key")])
        await until(lambda: not world.ledger.unfinished)

    assert states(world) == {State.DONE: 1}


@virtually
async def test_open_runs_count_against_the_agents_limit(world: World) -> None:
    runner(world, supervision={"lease": "1h", "max_run": "2h"}, max_concurrency=3)
    async with Running(world.dispatcher()) as dispatcher:
        admitted = [world.admit("runs", f"k{number}") for number in range(8)]
        dispatcher.offer(admitted)
        await asyncio.sleep(30)
        heard = len(world.caller.ids("runner"))
        world.ledger.report(world.caller.ids("runner")[0], 1)
        dispatcher.notice_runs("default/runner")
        await until(lambda: len(world.caller.ids("runner")) == heard + 1, within_s=1)
        await asyncio.sleep(10)

    assert (heard, len(world.caller.ids("runner"))) == (3, 4)


@virtually
async def test_a_run_keeps_the_place_of_its_subscription_until_it_ends(world: World) -> None:
    runner(world, supervision={"lease": "1h", "max_run": "2h"}, max_concurrency=10)
    world.roster.subscription("runs", "runner", order=Order.NONE, concurrency={"max": 2})
    async with Running(world.dispatcher()) as dispatcher:
        dispatcher.offer([world.admit("runs", f"k{number}") for number in range(4)])
        await asyncio.sleep(30)
        heard = len(world.caller.ids("runner"))
        world.ledger.report(world.caller.ids("runner")[0], 1)
        dispatcher.notice_runs("default/runner")
        await until(lambda: len(world.caller.ids("runner")) == heard + 1, within_s=2)
        await asyncio.sleep(10)

    assert (heard, len(world.caller.ids("runner"))) == (2, 3)


@virtually
async def test_a_new_owner_counts_the_runs_that_it_finds(world: World) -> None:
    runner(world, supervision={"lease": "1h", "max_run": "2h"}, max_concurrency=2)
    async with Running(world.dispatcher("one")) as dispatcher:
        dispatcher.offer([world.admit("runs", f"k{number}") for number in range(4)])
        await asyncio.sleep(5)
    async with Running(world.dispatcher("two")):
        await asyncio.sleep(30)

    assert len(world.caller.ids("runner")) == 2


@virtually
async def test_a_run_that_nothing_is_heard_of_is_tried_again_and_heartbeats_carry_one_that_works(world: World) -> None:
    runner(world, supervision={"lease": "30s"})
    async with Running(world.dispatcher()) as dispatcher:
        silent, lively = world.admit("runs", "silent"), world.admit("runs", "lively")
        dispatcher.offer([silent, lively])
        for _ in range(10):
            await asyncio.sleep(10)
            world.ledger.heartbeat(lively.invocation.id, for_ms=30_000)

    heard = world.caller.ids("runner")
    assert heard.count(lively.invocation.id) == 1
    assert heard.count(silent.invocation.id) == 3
    assert world.ledger.rows[silent.invocation.id].state in {State.BURIED, State.ACCEPTED}
    assert {line["verdict"] for line in told(world)} == {"stalled"}


@virtually
async def test_runs_that_stall_again_and_again_are_buried_when_their_attempts_are_used_up(world: World) -> None:
    runner(world, supervision={"lease": "5s"})
    async with Running(world.dispatcher()) as dispatcher:
        dispatcher.offer([world.admit("runs", "key")])
        await until(lambda: not world.ledger.unfinished, within_s=60)

    assert states(world) == {State.BURIED: 1}
    assert len(world.caller.ids("runner")) == 3


@virtually
async def test_a_run_ends_at_its_longest_time_though_it_is_heard_of(world: World) -> None:
    runner(world, supervision={"lease": "5s", "max_run": "20s", "on_stall": "escalate"})
    async with Running(world.dispatcher()) as dispatcher:
        one = world.admit("runs", "key")
        dispatcher.offer([one])
        for _ in range(15):
            await asyncio.sleep(2)
            world.ledger.heartbeat(one.invocation.id, for_ms=5_000)

    row = world.ledger.rows[one.invocation.id]
    assert (row.state, row.reason, len(world.caller.ids("runner"))) == (State.WAITING, "human", 1)


@virtually
async def test_nothing_is_offered_to_a_pull_agent_that_nobody_asks_for(world: World) -> None:
    puller(world)
    async with Running(world.dispatcher()) as dispatcher:
        dispatcher.offer([world.admit("work", f"k{number}") for number in range(3)])
        await asyncio.sleep(60)

    assert states(world) == {State.QUEUED: 3}
    assert world.caller.heard == []


@virtually
async def test_as_much_is_offered_as_is_wanted_and_what_nobody_fetched_goes_back(world: World) -> None:
    puller(world)
    async with Running(world.dispatcher()) as dispatcher:
        dispatcher.offer([world.admit("work", f"k{number}") for number in range(5)])
        world.ledger.wanted["puller"] = 2
        dispatcher.notice_runs("default/puller")
        await asyncio.sleep(5)
        offered = states(world)
        world.ledger.wanted["puller"] = 0
        await asyncio.sleep(90)

    assert offered == {State.ACCEPTED: 2, State.QUEUED: 3}
    assert states(world) == {State.QUEUED: 5}
    assert {row.tries for row in world.ledger.rows.values()} == {0}
    assert [line["verdict"] for line in told(world)] == ["unfetched"] * 2


@virtually
async def test_pollers_get_no_more_than_the_agents_limit(world: World) -> None:
    puller(world, max_concurrency=2)
    async with Running(world.dispatcher()) as dispatcher:
        world.ledger.wanted["puller"] = 50
        dispatcher.notice_runs("default/puller")
        await asyncio.sleep(1)
        dispatcher.offer([world.admit("work", f"k{number}") for number in range(9)])
        await asyncio.sleep(5)

    assert states(world) == {State.ACCEPTED: 2, State.QUEUED: 7}


def puller(world: World, **spec: Any) -> None:
    made = AgentSpec(protocol="pull", **spec)
    world.roster.agents_now["puller"] = AgentConfig(
        "default", "puller", "uid-p", shard_of("default", "puller"), made, (SECRET,)
    )
    world.roster.subscription("work", "puller", order=Order.NONE)
