"""How an agent stands outlives the process that found it out."""

from __future__ import annotations

import asyncio

import pytest

from dispatcher import breaker
from dispatcher.breaker import FRESH, OPEN, Standing
from dispatcher.retry import MAX_PAUSE_MS
from dispatcher.standings import is_news, standing_of
from schemas.invocation import State
from schemas.ledger import Held
from tests.dispatcher.test_service import virtually
from tests.dispatcher.world import Heard, Running, Said, World, until

TRIAGE = ("default", "triage")


async def forbidden(_: Heard) -> Said:
    return Said(403)


@virtually
async def test_a_restart_leaves_a_held_agent_alone_until_its_next_probe_is_due(world: World) -> None:
    world.caller.scripts["triage"] = forbidden
    async with Running(world.dispatcher()) as dispatcher:
        dispatcher.offer([world.admit("bugs", f"k{number}") for number in range(20)])
        await asyncio.sleep(60)
        before = dispatcher.standings[TRIAGE]
    world.caller.heard.clear()

    async with Running(world.dispatcher("two")) as after:
        await asyncio.sleep(1)
        kept = after.standings[TRIAGE]
        await asyncio.sleep(90)

    calls_at_s = [heard.at_s for heard in world.caller.heard]
    assert (kept.state, kept.cause, kept.pauses, kept.probe_at_ms) == (OPEN, before.cause, before.pauses, before.probe_at_ms)
    assert world.clock.now_ms() >= before.probe_at_ms
    assert len(calls_at_s) <= 3, "one probe after another, with the pauses that it had reached"


@virtually
async def test_a_restart_finds_an_agent_that_was_mended_meanwhile_by_its_probe(world: World) -> None:
    world.caller.scripts["triage"] = forbidden
    async with Running(world.dispatcher()) as dispatcher:
        dispatcher.offer([world.admit("bugs", f"k{number}") for number in range(20)])
        await asyncio.sleep(30)
    del world.caller.scripts["triage"]

    async with Running(world.dispatcher("two")):
        await until(lambda: not world.ledger.unfinished, within_s=90)

    assert set(world.ledger.states().values()) == {State.DONE}
    assert world.ledger.held[TRIAGE].cause == "", "closed, and that is kept too"


@virtually
async def test_a_healthy_agent_costs_the_ledger_no_word_about_its_standing(world: World) -> None:
    async with Running(world.dispatcher()) as dispatcher:
        dispatcher.offer([world.admit("bugs", f"k{number}") for number in range(50)])
        await until(lambda: not world.ledger.unfinished)

    assert "keep_held" not in world.ledger.calls


@virtually
async def test_a_store_that_is_away_when_the_breaker_opens_ends_nothing(world: World) -> None:
    keep = world.ledger.keep_held

    async def away(held: Held, **more: int) -> bool:
        world.ledger.is_down = True
        try:
            return await keep(held, **more)
        finally:
            world.ledger.is_down = False

    world.ledger.keep_held = away  # type: ignore[method-assign]
    world.caller.scripts["triage"] = forbidden
    async with Running(world.dispatcher()) as dispatcher:
        dispatcher.offer([world.admit("bugs", "k")])
        await asyncio.sleep(20)
        assert dispatcher.standings[TRIAGE].state == OPEN
        del world.caller.scripts["triage"]
        await until(lambda: not world.ledger.unfinished, within_s=60)


def test_a_clock_that_stepped_back_does_not_hold_an_agent_for_ever() -> None:
    held = Held("default", "triage", "misconfigured", 7, pauses=3, probe_at_ms=10**12)

    assert standing_of(held, now_ms=1_000).probe_at_ms == 1_000 + MAX_PAUSE_MS


def test_an_agent_whose_setting_changed_while_nobody_served_it_is_probed_at_once() -> None:
    held = Held("default", "triage", "misconfigured", 7, pauses=3, probe_at_ms=200_000, is_mended=True)

    assert standing_of(held, now_ms=100_000).may_probe(100_000)


@pytest.mark.parametrize(
    ("before", "now", "news"),
    [
        (FRESH, Standing(failures=1), False),
        (Standing(failures=19), Standing(OPEN, breaker.FAILING), True),
        (Standing(breaker.PROBING, pauses=1), Standing(OPEN, pauses=2), True),
        (Standing(breaker.PROBING), FRESH, True),
    ],
)
def test_only_an_agent_that_is_or_was_not_called_is_news(before: Standing, now: Standing, *, news: bool) -> None:
    assert is_news(before, now) is news
