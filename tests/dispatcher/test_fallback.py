"""A second move, link by link, over a ledger in memory in virtual time."""

from __future__ import annotations

import asyncio
from typing import Any

from schemas.invocation import Order, State
from tests.dispatcher.test_service import states, virtually
from tests.dispatcher.world import Heard, Running, Said, World, until

QUICK = {"first_delay": 1, "max_delay": 2, "max_attempts": 2}


def chained(world: World, *steps: Any, order: Order = Order.STRICT, **spec: Any) -> None:
    world.roster.agent("second", max_concurrency=2)
    world.roster.agent("oncall")
    world.roster.subscription("bugs", "triage", order=order, retry=QUICK, fallback=steps, **spec)


async def failing(_: Heard) -> Said:
    return Said(500)


async def refusing(_: Heard) -> Said:
    return Said(422)


def calls(world: World) -> list[str]:
    return [heard.agent for heard in world.caller.heard]


@virtually
async def test_another_agent_gets_what_the_first_could_not_do(world: World) -> None:
    chained(world, {"agent": "second"})
    world.caller.scripts["triage"] = failing
    async with Running(world.dispatcher()) as dispatcher:
        dispatcher.offer([world.admit("bugs", "k")])
        await until(lambda: not world.ledger.unfinished)

    assert calls(world) == ["triage", "triage", "second"]
    assert states(world) == {State.DONE}
    assert len({heard.id for heard in world.caller.heard}) == 1, "the same invocation, with the same id"
    assert [heard.document["invocation"]["attempt"] for heard in world.caller.heard] == [1, 2, 3]


@virtually
async def test_a_refusal_starts_the_chain_at_once_and_its_end_buries(world: World) -> None:
    chained(world, {"agent": "second", "attempts": 3})
    world.caller.scripts |= {"triage": refusing, "second": failing}
    async with Running(world.dispatcher()) as dispatcher:
        dispatcher.offer([world.admit("bugs", "k")])
        await until(lambda: not world.ledger.unfinished)

    assert calls(world) == ["triage", "second", "second", "second"]
    assert states(world) == {State.BURIED}


@virtually
async def test_after_a_wait_the_agent_gets_one_more_try(world: World) -> None:
    chained(world, {"wait": 300}, {"agent": "second"})
    world.caller.scripts["triage"] = failing
    async with Running(world.dispatcher()) as dispatcher:
        dispatcher.offer([world.admit("bugs", "k")])
        await until(lambda: not world.ledger.unfinished, within_s=400)

    assert calls(world) == ["triage", "triage", "triage", "second"]
    assert world.caller.heard[2].at_s - world.caller.heard[1].at_s >= 300
    assert states(world) == {State.DONE}


@virtually
async def test_the_lane_waits_for_its_head_on_the_chain_and_keeps_its_order(world: World) -> None:
    chained(world, {"wait": 60}, {"agent": "second"})
    first: list[str] = []

    async def fails_the_first(heard: Heard) -> Said:
        first.append(heard.id)
        return Said(500 if heard.id == first[0] else 200)

    world.caller.scripts["triage"] = fails_the_first
    async with Running(world.dispatcher()) as dispatcher:
        admitted = [world.admit("bugs", "k") for _ in range(5)]
        dispatcher.offer(admitted)
        await until(lambda: not world.ledger.unfinished, within_s=200)

    heard = [heard.id for heard in world.caller.heard]
    assert list(dict.fromkeys(heard)) == [one.invocation.id for one in admitted]
    assert heard[:4] == [admitted[0].invocation.id] * 4
    assert calls(world)[3:] == ["second", "triage", "triage", "triage", "triage"]
    assert states(world) == {State.DONE}


@virtually
async def test_the_lane_goes_on_meanwhile_where_that_was_chosen(world: World) -> None:
    chained(world, {"wait": 60}, fallback_lane="go_on")
    first: list[str] = []

    async def fails_the_first(heard: Heard) -> Said:
        first.append(heard.id)
        return Said(500 if heard.id == first[0] and len(first) < 5 else 200)

    world.caller.scripts["triage"] = fails_the_first
    async with Running(world.dispatcher()) as dispatcher:
        admitted = [world.admit("bugs", "k") for _ in range(3)]
        dispatcher.offer(admitted)
        await until(lambda: not world.ledger.unfinished, within_s=100)

    heard = [heard.id for heard in world.caller.heard]
    assert heard[2:4] == [one.invocation.id for one in admitted[1:]]
    assert heard[-1] == admitted[0].invocation.id
    assert world.caller.heard[-1].at_s >= 60


@virtually
async def test_a_person_is_told_and_may_answer_until_the_time_is_over(world: World) -> None:
    chained(world, {"notify": "oncall", "answer_within": 600})
    world.caller.scripts["triage"] = refusing
    async with Running(world.dispatcher()) as dispatcher:
        dispatcher.offer([world.admit("bugs", "k")])
        await until(lambda: "oncall" in calls(world))
        notice = world.caller.heard[-1]
        await asyncio.sleep(590)
        assert states(world) == {State.WAITING}
        await until(lambda: not world.ledger.unfinished, within_s=60)

    invocation = notice.document["invocation"]["id"]
    assert notice.id == f"{invocation}.notice1"
    assert notice.document["type"] == "nightbell.invocation.needs_human"
    assert "answered 422" in notice.document["why"]
    assert notice.document["links"]["redrive"] == f"https://nightbell.test/v1/invocations/{invocation}/redrive"
    assert "token" not in notice.document["links"]
    assert notice.document["answer_until"]
    assert states(world) == {State.BURIED}
    (row,) = world.ledger.rows.values()
    assert "answered 422" in row.reason, "buried for what it was told of, not for the silence"
    assert calls(world) == ["triage", "oncall"]


@virtually
async def test_a_notice_that_nobody_takes_is_tried_again_and_then_the_chain_goes_on(world: World) -> None:
    chained(world, {"notify": "oncall"}, {"agent": "second"})
    world.caller.scripts |= {"triage": refusing, "oncall": failing}
    async with Running(world.dispatcher()) as dispatcher:
        dispatcher.offer([world.admit("bugs", "k")])
        await until(lambda: not world.ledger.unfinished, within_s=900)

    assert calls(world).count("oncall") == 6
    assert calls(world)[-1] == "second"
    assert states(world) == {State.DONE}


@virtually
async def test_a_notice_answered_with_410_disables_nothing(world: World) -> None:
    chained(world, {"notify": "oncall"})

    async def gone(_: Heard) -> Said:
        return Said(410)

    world.caller.scripts |= {"triage": refusing, "oncall": gone}
    async with Running(world.dispatcher()) as dispatcher:
        dispatcher.offer([world.admit("bugs", "k")])
        await until(lambda: not world.ledger.unfinished)

    assert world.ledger.disabled == set()
    assert calls(world) == ["triage", "oncall"]


@virtually
async def test_what_a_held_agent_kept_too_long_goes_to_another(world: World) -> None:
    chained(world, {"agent": "second"})
    world.roster.subscription("bugs", "triage", retry={**QUICK, "max_age": 120}, fallback=[{"agent": "second"}])

    async def forbidden(_: Heard) -> Said:
        return Said(403)

    world.caller.scripts["triage"] = forbidden
    async with Running(world.dispatcher()) as dispatcher:
        dispatcher.offer([world.admit("bugs", f"k{number % 5}") for number in range(20)])
        await until(lambda: not world.ledger.unfinished, within_s=600)

    assert states(world) == {State.DONE}
    assert len(set(world.caller.ids("second"))) == 20


@virtually
async def test_a_410_is_no_failure_and_starts_no_chain(world: World) -> None:
    chained(world, {"agent": "second"})

    async def gone(_: Heard) -> Said:
        return Said(410)

    world.caller.scripts["triage"] = gone
    async with Running(world.dispatcher()) as dispatcher:
        dispatcher.offer([world.admit("bugs", "k")])
        await until(lambda: not world.ledger.unfinished)

    assert calls(world) == ["triage"]
    assert states(world) == {State.BURIED}


@virtually
async def test_a_chain_goes_on_where_it_stood_after_a_restart(world: World) -> None:
    chained(world, {"wait": 600}, {"agent": "second"})
    world.caller.scripts["triage"] = failing
    async with Running(world.dispatcher()) as dispatcher:
        dispatcher.offer([world.admit("bugs", "k")])
        await until(lambda: any(row.step for row in world.ledger.rows.values()))

    async with Running(world.dispatcher("two")):
        await until(lambda: not world.ledger.unfinished, within_s=700)

    assert calls(world) == ["triage", "triage", "triage", "second"]
    assert states(world) == {State.DONE}


@virtually
async def test_the_other_agent_may_be_another_processs(world: World) -> None:
    chained(world, {"agent": "second"})
    world.caller.scripts["triage"] = failing
    async with Running(world.dispatcher("one")) as one, Running(world.dispatcher("two")):
        await asyncio.sleep(30)
        for number in range(10):
            one.offer([world.admit("bugs", f"k{number % 3}")])
        await until(lambda: not world.ledger.unfinished, within_s=300)

    assert states(world) == {State.DONE}
    assert sorted(set(world.caller.ids("second"))) == sorted(world.ledger.rows)


@virtually
async def test_what_waits_at_another_agent_for_a_paused_subscription_goes_on_once_it_is_live(world: World) -> None:
    from schemas.config import SubscriptionState

    chained(world, {"agent": "second"})
    world.caller.scripts["triage"] = refusing

    async def pausing(_: Heard) -> Said:
        world.roster.state("bugs", SubscriptionState.PAUSED)
        return Said(422)

    world.caller.scripts["triage"] = pausing
    async with Running(world.dispatcher()) as dispatcher:
        dispatcher.offer([world.admit("bugs", "k")])
        await asyncio.sleep(20)
        world.roster.state("bugs", SubscriptionState.LIVE)
        await until(lambda: not world.ledger.unfinished, within_s=30)

    assert calls(world)[-1] == "second"
    assert states(world) == {State.DONE}


@virtually
async def test_a_subscription_without_a_chain_asks_nothing_more_of_the_ledger(world: World) -> None:
    world.caller.scripts["triage"] = refusing
    async with Running(world.dispatcher()) as dispatcher:
        await asyncio.sleep(0.5)
        world.ledger.calls.clear()
        dispatcher.offer([world.admit("bugs", f"k{number}") for number in range(10)])
        await until(lambda: not world.ledger.unfinished)

    assert {name for name in world.ledger.calls if name not in {"hold_shards", "release_shards"}} == {"open", "settle"}
    assert states(world) == {State.BURIED}
