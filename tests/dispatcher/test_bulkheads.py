"""Row T-16 in virtual time: one agent of a hundred is dead for an hour, and the other ninety-nine do not notice."""

from __future__ import annotations

import asyncio
import random
from statistics import quantiles

from dispatcher.lanes import Bounds
from tests.dispatcher.world import Heard, Running, Said, World, agreeable
from tests.fakes.clock import run_virtually

AGENTS, HOUR_S, EACH_S = 100, 3600.0, 60.0


async def latencies(world: World, *, dead: bool) -> list[float]:
    """From admission to the call, of every event for the ninety-nine, over an hour; the dead one gets ten times as many."""
    chance = random.Random(16)

    async def hangs(_: Heard) -> Said:
        await asyncio.sleep(7200)
        return Said()

    for number in range(AGENTS):
        world.roster.agent(f"a{number}", max_concurrency=4, timeout_s=10)
        world.roster.subscription(f"to-a{number}", f"a{number}", retry={"first_delay": 1, "max_delay": 60})
        world.caller.scripts[f"a{number}"] = agreeable
    if dead:
        world.caller.scripts["a0"] = hangs
    admitted: dict[str, float] = {}
    async with Running(world.dispatcher()) as dispatcher:
        while world.clock.elapsed_s < HOUR_S:
            name = "a0" if chance.random() < 0.09 else f"a{chance.randint(1, AGENTS - 1)}"
            one = world.admit(f"to-{name}", f"k{chance.randint(0, 5)}")
            admitted[one.invocation.id] = world.clock.elapsed_s
            dispatcher.offer([one])
            await dispatcher.room()
            await asyncio.sleep(chance.expovariate(AGENTS / EACH_S))
        await asyncio.sleep(1)
        world.caller.scripts["a0"] = agreeable
        others = [heard for heard in world.caller.heard if heard.agent != "a0"]
    return [heard.at_s - admitted[heard.id] for heard in others]


def test_an_agent_that_is_dead_for_an_hour_costs_the_other_ninety_nine_nothing() -> None:
    found = {}
    for dead in (False, True):
        world = World(max_in_flight=64, bounds=Bounds(max_count=256, min_share=2))
        found[dead] = run_virtually(latencies(world, dead=dead), world.clock)

    p99 = {dead: quantiles(times, n=100)[98] for dead, times in found.items()}
    assert len(found[True]) == len(found[False]) > 4000
    assert p99[True] <= p99[False] * 1.1 + 0.001
    assert max(found[True]) < 0.5
