"""First attempts that begin with their admission."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest

from dispatcher.service import Dispatcher
from schemas.invocation import Admitted, Planned, State
from tests.dispatcher.test_service import states, virtually
from tests.dispatcher.world import Heard, Running, Said, World, until


def plans(world: World, *keys: str, subscription: str = "bugs", due_in_ms: int = 0) -> list[Planned]:
    made = [world.invocation(subscription, key, due_in_ms=due_in_ms) for key in keys]
    return [Planned(event, number, (invocation,), data={"n": number}) for number, (invocation, event) in enumerate(made)]


def admit(world: World, dispatcher: Dispatcher, planned: Sequence[Planned]) -> list[Admitted]:
    """As the router does it: reserve, admit with the openings, offer."""
    reserved = dispatcher.reserve(planned)
    admitted = [
        world.ledger.admit(invocation, plan.event, plan.data, reserved.get(invocation.id))
        for plan in planned
        for invocation in plan.invocations
    ]
    dispatcher.offer(admitted, reserved)
    return admitted


@virtually
async def test_an_event_for_an_idle_agent_needs_no_transaction_between_its_admission_and_the_call(world: World) -> None:
    async with Running(world.dispatcher()) as dispatcher:
        await asyncio.sleep(0.5)
        world.ledger.calls.clear()
        admitted = admit(world, dispatcher, plans(world, "a", "b", "a"))
        await until(lambda: not world.ledger.unfinished)

    assert [one.is_open for one in admitted] == [True, True, False]
    assert world.ledger.calls.count("open") == 1, "only the one that had to wait for its lane"
    assert states(world) == {State.DONE}
    assert len(world.caller.heard) == 3


@virtually
async def test_what_is_reserved_counts_against_the_agents_limit(world: World) -> None:
    async def slow(_: Heard) -> Said:
        await asyncio.sleep(5)
        return Said()

    world.caller.scripts["triage"] = slow
    async with Running(world.dispatcher()) as dispatcher:
        await asyncio.sleep(0.5)
        first, second = plans(world, *"abc"), plans(world, *"defg")
        held = dispatcher.reserve(first)
        more = dispatcher.reserve(second)
        assert (len(held), len(more)) == (3, 1), "four at once is the limit"
        for planned, reserved in ((first, held), (second, more)):
            found = [world.ledger.admit(i, p.event, p.data, reserved.get(i.id)) for p in planned for i in p.invocations]
            dispatcher.offer(found, reserved)
        await until(lambda: not world.ledger.unfinished)

    assert world.caller.most["triage"] == 4
    assert len(world.caller.heard) == 7


@virtually
async def test_places_are_given_back_where_the_admission_failed(world: World) -> None:
    async with Running(world.dispatcher()) as dispatcher:
        await asyncio.sleep(0.5)
        for _ in range(3):
            planned = plans(world, *"abcdef")
            reserved = dispatcher.reserve(planned)
            assert len(reserved) == 4
            dispatcher.offer([], reserved)
        admit(world, dispatcher, plans(world, *"uvwxyz"))
        await until(lambda: not world.ledger.unfinished)

    assert len(world.caller.heard) == 6


@pytest.mark.parametrize(
    "more", [{"delay": 5}, {"expires_after": 60}, {"order": "latest"}, {"state": "paused"}], ids=lambda more: next(iter(more))
)
def test_a_subscription_with_a_say_in_when_is_queued_as_ever(more: dict[str, Any]) -> None:
    @virtually
    async def scenario(world: World) -> None:
        world.roster.subscription("bugs", "triage", **more)
        async with Running(world.dispatcher()) as dispatcher:
            await asyncio.sleep(0.5)
            assert dispatcher.reserve(plans(world, "a")) == {}

    scenario()


@virtually
async def test_nothing_is_reserved_for_what_is_not_due_or_has_a_lane_at_work(world: World) -> None:
    async with Running(world.dispatcher()) as dispatcher:
        await asyncio.sleep(0.5)
        assert dispatcher.reserve(plans(world, "later", due_in_ms=1000)) == {}
        admit(world, dispatcher, plans(world, "k"))
        assert dispatcher.reserve(plans(world, "k")) == {}, "its lane runs"
        await until(lambda: not world.ledger.unfinished)
    assert dispatcher.reserve(plans(world, "z")) == {}, "it has stopped"


@virtually
async def test_an_opening_under_an_old_epoch_is_queued_and_found_by_the_new_owner(world: World) -> None:
    async with Running(world.dispatcher("old")) as dispatcher:
        await asyncio.sleep(0.5)
        planned = plans(world, "a")
        reserved = dispatcher.reserve(planned)
        for row in world.ledger.shards.values():
            row.owner, row.epoch = "", row.epoch + 1
        (one,) = [world.ledger.admit(i, p.event, p.data, reserved.get(i.id)) for p in planned for i in p.invocations]
        assert not one.is_open
        dispatcher.offer([one], reserved)
        async with Running(world.dispatcher("new")):
            await until(lambda: not world.ledger.unfinished)
    assert states(world) == {State.DONE}
    assert len(world.caller.heard) == 1
