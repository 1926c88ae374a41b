"""Contexts that ask for more than a view: gathered before the call, within the lease, with a verdict."""

from __future__ import annotations

import pytest

from curator.service import Curation
from curator.tokens import default_counter
from dispatcher.protocols.webhook import Webhook
from schemas.config import SubscriptionConfig, SubscriptionSpec
from schemas.invocation import State
from schemas.times import ms_of
from tests.contracts.agent_protocol import ATTEMPT, HEAD, LINKS, TARGET
from tests.dispatcher.world import Running, World, until
from tests.fakes.clock import run_virtually


def a_world() -> World:
    made = World()
    made.roster.agent("triage", timeout_s=10)
    made.roster.subscription("plain", "triage")
    made.roster.subscription(
        "full", "triage", context={"facts": ["tier"], "enrich": {"crm": {"url": "https://crm.test/", "timeout": 7}}}
    )
    return made


def test_a_contract_that_asks_for_more_is_awaited_and_stands_in_the_body() -> None:
    world = a_world()

    async def scenario() -> None:
        dispatcher = world.dispatcher()
        async with Running(dispatcher):
            dispatcher.offer([world.admit("plain", "a"), work := world.admit("full", "b")])
            await until(lambda: not world.ledger.unfinished)

        assert world.curator.full_ones == [work.invocation.id]
        bodies = {call.document["invocation"]["subscription"]: call.document for call in world.caller.heard}
        assert bodies["full"]["facts"] == {"tier": {"value": "gold"}}
        assert "facts" not in bodies["plain"]

    run_virtually(scenario(), world.clock)


def test_what_a_context_took_is_not_taken_from_the_agents_time() -> None:
    world = a_world()

    async def scenario() -> None:
        world.curator.takes_s = 6.0
        dispatcher = world.dispatcher()
        async with Running(dispatcher):
            began_ms = world.clock.now_ms()
            dispatcher.offer([world.admit("full", "b")])
            await until(lambda: not world.ledger.unfinished)

        [call] = world.caller.heard
        assert ms_of(call.document["invocation"]["deadline"]) - began_ms > 15_900

    run_virtually(scenario(), world.clock)


def test_a_context_that_hangs_is_given_up_and_tried_again() -> None:
    world = a_world()

    async def scenario() -> None:
        world.curator.takes_s = 3600.0
        dispatcher = world.dispatcher()
        async with Running(dispatcher):
            dispatcher.offer([work := world.admit("full", "b")])
            await until(lambda: bool(world.ledger.rows[work.invocation.id].tries), within_s=60)

        assert world.caller.heard == []
        assert world.ledger.rows[work.invocation.id].state is State.WAITING

    run_virtually(scenario(), world.clock)


@pytest.mark.parametrize(("verdict", "state"), [("park", State.WAITING), ("refuse", State.BURIED)])
def test_a_verdict_keeps_the_agent_asleep(verdict: str, state: State) -> None:
    world = a_world()

    async def scenario() -> None:
        world.curator.verdict = verdict
        dispatcher = world.dispatcher()
        async with Running(dispatcher):
            dispatcher.offer([work := world.admit("full", "b")])
            await until(lambda: bool(world.ledger.rows[work.invocation.id].tries))

        row = world.ledger.rows[work.invocation.id]
        assert world.caller.heard == []
        assert row.state is state

    run_virtually(scenario(), world.clock)


@pytest.mark.parametrize("limit", [500, 700, 1200])
def test_a_budget_bounds_the_bytes_as_sent(limit: int) -> None:
    data = {"lines": [f"line {n} of a long story about nothing" for n in range(400)]}
    spec = SubscriptionSpec(agent="triage", pattern={}, context={"view": "data", "max_tokens": limit})
    subscription = SubscriptionConfig("default", "bugs", "sub_1", 1, spec)
    protocol = Webhook()

    made = Curation(fence_secret=b"k" * 32).plain(subscription, HEAD.event, data, envelope=protocol.envelope(HEAD, LINKS))

    body = protocol.build(HEAD, made, TARGET, LINKS, ATTEMPT).body
    assert default_counter().count(body.decode()) <= limit
    assert made.tokens > 20
