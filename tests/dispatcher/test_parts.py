"""An agent that is spread over several shards: its keys in order, its limits held together, over several processes."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from dispatcher.book import parts_of, setting_of
from dispatcher.flow import share
from schemas.config import AgentConfig, AgentSpec
from schemas.ids import part_of, shard_of, shards_of
from schemas.invocation import Admitted, Flow
from schemas.ledger import Held
from tests.dispatcher.world import SECRET, Heard, Running, Said, World, until
from tests.fakes.clock import run_virtually


@given(st.integers(1, 10_000), st.integers(1, 64))
def test_shares_sum_up_to_the_whole(whole: int, count: int) -> None:
    shares = [share(whole, number, count) for number in range(count)]

    assert sum(shares) == whole
    assert max(shares) - min(shares) <= 1


@given(st.text(), st.integers(1, 64))
def test_an_agent_has_as_many_shards_as_it_asks_for_and_its_first_stays(name: str, count: int) -> None:
    found = shards_of("default", name, count)

    assert len(set(found)) == count
    assert found[0] == shard_of("default", name)


def test_a_parts_setting_is_the_agents_with_a_share_of_its_limits() -> None:
    spec = AgentSpec(url="http://a.test/", max_concurrency=8, rate_per_s=9, burst=4, shards=3)
    whole = setting_of(AgentConfig("t", "big", "u", shard_of("t", "big"), spec, (SECRET,)), user_agent="x")

    parts = list(parts_of(whole, 3))

    assert [part.key for part in parts] == [("t", "big"), ("t", "big~1"), ("t", "big~2")]
    assert [part.max_concurrency for part in parts] == [3, 3, 2]
    assert sum(part.rate_per_s or 0 for part in parts) == 9
    assert {part.name for part in parts} == {"big"}
    assert all(part.target is whole.target for part in parts)


def admit(world: World, key: str, count: int, **flow: Any) -> Admitted:
    invocation, event = world.invocation("s", key)
    made = Flow(is_part=True, **flow)
    shard = shards_of("default", "big", count)[part_of(made.limit_key or invocation.lane, count)]
    return world.ledger.admit(replace(invocation, shard=shard, flow=made), event, {"sequence": world.sequence})


def test_two_processes_share_an_agent_keep_its_order_and_its_limit() -> None:
    world = World(lease_ms=3_000)
    started: dict[str, list[int]] = {}
    callers: set[str] = set()

    async def answer(heard: Heard) -> Said:
        started.setdefault(heard.document["invocation"]["ordering_key"], []).append(heard.document["context"]["n"]["sequence"])
        callers.add(world.ledger.shards[world.ledger.rows[heard.id].invocation.shard].owner)
        await asyncio.sleep(0.5)
        return Said(500 if heard.document["invocation"]["attempt"] == 1 and len(world.caller.heard) % 5 == 0 else 200)

    async def main() -> None:
        world.roster.agent("big", max_concurrency=6, shards=4)
        world.roster.subscription("s", "big", retry={"first_delay": 1, "max_delay": 1})
        world.caller.scripts["big"] = answer
        first, second = world.dispatcher("first"), world.dispatcher("second")
        async with Running(first), Running(second):
            await asyncio.sleep(5)  # the first gives its surplus back at its next renewal
            for number in range(60):
                one = admit(world, f"k{number % 12}", 4)
                first.offer([one])
                second.offer([one])
            await until(lambda: not world.ledger.unfinished, within_s=200)

    run_virtually(main(), world.clock)

    assert callers == {"first", "second"}
    assert world.caller.most["big"] <= 6
    assert all(list(dict.fromkeys(order)) == sorted(set(order)) for order in started.values())


def test_a_part_that_moves_loses_nothing() -> None:
    world = World()

    async def main() -> None:
        world.roster.agent("big", max_concurrency=4, shards=4, timeout_s=2)
        world.roster.subscription("s", "big")
        for number in range(40):
            admit(world, f"k{number}", 4)
        task = asyncio.create_task(world.dispatcher("first", lease_ms=4_000).run())
        await until(lambda: len(world.caller.heard) >= 8)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        async with Running(world.dispatcher("second", lease_ms=4_000)):
            await until(lambda: not world.ledger.unfinished, within_s=200)

    run_virtually(main(), world.clock)

    assert {row.state.value for row in world.ledger.rows.values()} == {"done"}


def test_equal_limit_keys_meet_in_one_part() -> None:
    world = World()
    running: dict[str, int] = {}
    most: dict[str, int] = {}

    async def counted(heard: Heard) -> Said:
        limit = world.ledger.rows[heard.id].invocation.flow.limit_key
        running[limit] = running.get(limit, 0) + 1
        most[limit] = max(most.get(limit, 0), running[limit])
        await asyncio.sleep(0.5)
        running[limit] -= 1
        return Said()

    async def main() -> None:
        world.roster.agent("big", max_concurrency=40, shards=4)
        world.roster.subscription("s", "big", concurrency={"key": "data.org", "per_key": 2})
        world.caller.scripts["big"] = counted
        for number in range(30):
            admit(world, f"k{number}", 4, limit_key=f"org{number % 3}")
        async with Running(world.dispatcher("first")), Running(world.dispatcher("second")):
            await until(lambda: not world.ledger.unfinished, within_s=200)

    run_virtually(main(), world.clock)

    assert most == {"org0": 2, "org1": 2, "org2": 2}


def test_whoever_takes_a_part_over_knows_how_the_agent_stood() -> None:
    world = World()
    found: dict[str, str] = {}

    async def main() -> None:
        world.roster.agent("big", max_concurrency=4, shards=2)
        world.roster.subscription("s", "big")
        shard = shards_of("default", "big", 2)[1]
        world.ledger.held["default", "big"] = Held("default", "big", "failing", shard, pauses=3, since_ms=world.clock.now_ms())
        async with Running(world.dispatcher()) as dispatcher:
            await until(lambda: len(dispatcher.standings) == 2)
            found.update({key[1]: standing.cause for key, standing in dispatcher.standings.items()})

    run_virtually(main(), world.clock)

    assert found == {"big": "failing", "big~1": "failing"}
