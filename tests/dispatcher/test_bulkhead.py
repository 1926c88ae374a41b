"""One agent that hangs leaves the others their places: counted, in virtual time."""

from __future__ import annotations

import asyncio

import pytest

from schemas.invocation import State
from tests.dispatcher.test_service import virtually
from tests.dispatcher.world import Heard, Running, Said, World, until

PLACES = 100
OTHERS = [f"agent-{number}" for number in range(20)]


async def hangs(_: Heard) -> Said:
    await asyncio.sleep(9)
    return Said()


def crowd(world: World, *hanging: str) -> None:
    for name in hanging:
        world.roster.agent(name, max_concurrency=10_000, timeout_s=10)
        world.roster.subscription(f"to-{name}", name)
        world.caller.scripts[name] = hangs
    for name in OTHERS:
        world.roster.agent(name, max_concurrency=4)
        world.roster.subscription(f"to-{name}", name)


@pytest.mark.parametrize("number", [1, 2, 3])
def test_agents_that_hang_leave_the_others_to_start_at_once(number: int) -> None:
    hanging = [f"hangs-{each}" for each in range(number)]

    @virtually
    async def scenario(world: World) -> None:
        crowd(world, *hanging)
        async with Running(world.dispatcher(max_in_flight=PLACES)) as dispatcher:
            await asyncio.sleep(0.1)
            for name in hanging:
                dispatcher.offer([world.admit(f"to-{name}", f"k{each}") for each in range(200)])
            await asyncio.sleep(1)
            held = {name: world.caller.running[name] for name in hanging}
            waits = []
            for turn in range(10):
                began_s = world.clock.elapsed_s
                before = len(world.caller.heard)
                dispatcher.offer([world.admit(f"to-{name}", f"k{turn}") for name in OTHERS])
                await asyncio.sleep(0.5)
                started = [heard for heard in world.caller.heard[before:] if heard.agent in OTHERS]
                waits += [heard.at_s - began_s for heard in started]
            assert sum(held.values()) < PLACES, "some places are free, though each could take them all"
            assert min(held.values()) >= 1
            assert len(waits) == 10 * len(OTHERS), "none of the others waited for an agent that hangs"
            assert max(waits) < 0.2
            await until(lambda: not world.ledger.unfinished, within_s=600)
        assert set(world.ledger.states().values()) == {State.DONE}

    scenario()


@virtually
async def test_an_agent_that_is_alone_has_most_places_to_the_end(world: World) -> None:
    crowd(world, "busy")
    async with Running(world.dispatcher(max_in_flight=PLACES)) as dispatcher:
        await asyncio.sleep(0.1)
        dispatcher.offer([world.admit("to-busy", f"k{each}") for each in range(300)])
        await asyncio.sleep(1)
        alone = world.caller.running["busy"]
        await until(lambda: not world.ledger.unfinished, within_s=600)

    assert alone >= PLACES * 3 // 5
    assert world.caller.most["busy"] <= PLACES * 2 // 3 + 1
    assert world.clock.elapsed_s < 9 * (300 / alone + 2), "it went on at that width to the end"


@virtually
async def test_a_dead_agents_calls_are_few_once_that_is_known(world: World) -> None:
    crowd(world)
    world.roster.agent("dead", max_concurrency=50, timeout_s=5)
    world.roster.subscription(
        "to-dead", "dead", retry={"first_delay": 1, "max_delay": 5, "max_attempts": 1000, "max_age": 7200}
    )

    async def refused(_: Heard) -> Said:
        return Said(500)

    world.caller.scripts["dead"] = refused
    async with Running(world.dispatcher(max_in_flight=PLACES)) as dispatcher:
        await asyncio.sleep(0.1)
        dispatcher.offer([world.admit("to-dead", f"k{each}") for each in range(200)])
        await asyncio.sleep(120)
        before = len(world.caller.ids("dead"))
        await asyncio.sleep(3600)
        probes = len(world.caller.ids("dead")) - before

    assert probes <= 3600 / 5 + 10, "one probe every five seconds, whatever waits for it"
