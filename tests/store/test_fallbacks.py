"""What would be buried goes along its chain, in the transaction that would have buried it."""

from __future__ import annotations

import json
from typing import Any

import pytest
from sqlalchemy import insert, select, update

from schemas.config import SubscriptionSpec
from schemas.ids import shard_of
from schemas.invocation import Invocation, State, Wait
from schemas.ledger import Head
from store.conservation import gaps
from store.engine import Call, Engine, OneStep
from store.fallbacks import fallbacks_of
from store.prepared import Prepared
from store.redress import Redress
from store.retention import Keep, Retention
from store.subscriptions import drop_drained
from store.tables import agents, fallbacks, invocations, lanes, outbox, subscriptions
from tests.store.plans import NOW, a_settlement, an_opening, ids
from tests.store.test_ledger import Desk

CHAIN: list[Any] = [{"wait": 60}, {"agent": "second"}, {"notify": "oncall", "answer_within": 600}]


@pytest.fixture
async def desk(engine: Engine) -> Desk:
    found = Desk(engine)
    await found.ledger.hold_shards("me", lease_ms=60_000)
    for name in ("triage", "second", "oncall"):
        row = insert(agents).values(uid=name, team="default", name=name, shard=shard_of("default", name), spec="{}")
        await engine.write(OneStep(Call(Prepared(row))))
    return found


async def subscribed(desk: Desk, *steps: Any, lane: str = "wait") -> None:
    spec = SubscriptionSpec(agent="triage", pattern={"type": ["x"]}, fallback=steps, fallback_lane=lane)
    row = insert(subscriptions).values(
        uid="sub-1", team="default", name="s", agent="triage", spec=json.dumps(spec.model_dump(mode="json")), state="live"
    )
    await desk.engine.write(OneStep(Call(Prepared(row))))


async def buried(desk: Desk, head: Invocation, *, number: int = 1, at_ms: int = NOW, reason: str = "rejected: 422") -> None:
    assert await desk.ledger.open(an_opening(head, number=number, started_ms=at_ms))
    settlement = a_settlement(head, State.BURIED, number=number, outcome="rejected", reason=reason, ended_ms=at_ms)
    assert await desk.ledger.settle(settlement)


async def head_of(desk: Desk, agent: str, now_ms: int) -> Head:
    (head,) = await desk.due(now_ms, agent=agent)
    return head


async def test_an_invocation_goes_from_link_to_link_and_is_buried_at_the_end(desk: Desk) -> None:
    await subscribed(desk, *CHAIN)
    (one,) = await desk.admit("a")

    await buried(desk, one)
    again = await head_of(desk, "triage", NOW + 60_000)
    early = await desk.due(NOW + 59_000)
    await buried(desk, again.invocation, number=2, at_ms=NOW + 60_000, reason="max_attempts: 500")
    second = await head_of(desk, "second", NOW + 60_000)
    await buried(desk, second.invocation, number=3, at_ms=NOW + 60_000, reason="max_age: timeout")
    oncall = await head_of(desk, "oncall", NOW + 60_000)
    await buried(desk, oncall.invocation, number=4, at_ms=NOW + 60_000, reason="told")
    asked = await desk.rows(select(invocations.c.state, invocations.c.reason, invocations.c.due_ms))
    silent = await head_of(desk, "oncall", NOW + 660_000)
    gap = await gaps(desk.engine, since_ms=NOW - 1, until_ms=NOW + 1)
    await desk.ledger.expire(silent, epoch=1, reason=silent.fell_for, now_ms=NOW + 660_000, state=State.BURIED)

    assert early == []
    assert [h.step for h in (again, second, oncall, silent)] == [1, 2, 3, 4]
    assert [h.tries for h in (again, second, oncall, silent)] == [0] * 4
    assert again.fell_for == "rejected: 422"
    assert oncall.fell_for == silent.fell_for == "max_age: timeout"
    assert second.invocation.shard == shard_of("default", "second")
    assert asked == [(State.WAITING, Wait.HUMAN, NOW + 660_000)]
    assert set(gap.values()) == {0}
    assert await desk.rows(select(invocations.c.state, invocations.c.reason)) == [(State.BURIED, "max_age: timeout")]
    assert await desk.rows(select(lanes.c.id)) == []
    assert len(await desk.rows(select(outbox.c.seq))) == 1, "one end, told once"
    (seq,) = (row[0] for row in await desk.rows(select(invocations.c.seq)))
    noted = (await fallbacks_of(desk.engine, [seq]))[seq]
    assert [(row.step, row.kind, row.agent, row.attempts, row.reason) for row in noted] == [
        (1, "wait", "triage", 1, "rejected: 422"),
        (2, "agent", "second", 2, "max_attempts: 500"),
        (3, "notify", "oncall", 3, "max_age: timeout"),
        (4, "answer", "oncall", 4, "max_age: timeout"),
    ]


async def test_the_lane_goes_with_its_head_and_comes_back(desk: Desk) -> None:
    await subscribed(desk, {"agent": "second"})
    first, behind = await desk.admit("a", "b", key="k")
    woken: list[str] = []
    desk.engine.listen("work", woken.append)

    await buried(desk, first)
    meanwhile = await desk.due(NOW)
    second = await head_of(desk, "second", NOW)
    await desk.run(second.invocation, number=2)
    after = await desk.due(NOW)

    assert meanwhile == [], "its place in the lane is kept"
    assert ids(after) == [behind.id]
    assert after[0].invocation.agent == "triage"
    assert await desk.due(NOW, agent="second") == []
    assert {int(shard) for payload in woken for shard in payload.split(",")} >= {
        shard_of("default", "second"),
        shard_of("default", "triage"),
    }, "both owners are woken"


async def test_the_lane_goes_on_meanwhile_where_that_was_chosen(desk: Desk) -> None:
    await subscribed(desk, {"wait": 60}, lane="go_on")
    first, behind = await desk.admit("a", "b", key="k")

    await buried(desk, first)
    now = await desk.due(NOW)
    later = await desk.due(NOW + 60_000)
    gap = await gaps(desk.engine, since_ms=NOW - 1, until_ms=NOW + 1)

    assert ids(now) == [behind.id]
    assert sorted(ids(later)) == sorted([behind.id, first.id])
    assert set(gap.values()) == {0}


async def test_a_410_starts_no_chain(desk: Desk) -> None:
    await subscribed(desk, {"agent": "second"})
    (one,) = await desk.admit("a")

    await desk.run(one, State.BURIED, outcome="gone", reason="gone", disable_subscription="sub-1")

    assert await desk.rows(select(invocations.c.state, invocations.c.step)) == [(State.BURIED, 0)]


async def test_an_agent_that_is_gone_is_passed_over(desk: Desk) -> None:
    await subscribed(desk, {"agent": "nobody"}, {"agent": "second"})
    (one,) = await desk.admit("a")

    await buried(desk, one)

    assert (await head_of(desk, "second", NOW)).step == 2


async def test_a_zombie_moves_nothing_along(desk: Desk) -> None:
    await subscribed(desk, {"agent": "second"})
    (one,) = await desk.admit("a")
    await desk.ledger.open(an_opening(one))

    assert not await desk.ledger.settle(a_settlement(one, State.BURIED, epoch=7, outcome="rejected"))

    assert await desk.rows(select(fallbacks.c.seq)) == []
    assert await desk.rows(select(invocations.c.state)) == [(State.RUNNING,)]


async def test_the_owner_of_the_first_agent_opens_nothing_that_went_to_another(desk: Desk) -> None:
    await subscribed(desk, {"agent": "second"})
    (one,) = await desk.admit("a")
    await buried(desk, one)

    assert not await desk.ledger.open(an_opening(one, number=2)), "its memory is behind; the shard of the row decides"


async def test_a_redrive_of_what_a_chain_could_not_save_begins_at_its_own_agent(desk: Desk) -> None:
    await subscribed(desk, {"agent": "second"})
    (one,) = await desk.admit("a")
    await buried(desk, one)
    await buried(desk, (await head_of(desk, "second", NOW)).invocation, number=2)

    assert await Redress(desk.engine).redrive("default", [one.id], now_ms=NOW + 9) == [one.id]

    head = await head_of(desk, "triage", NOW + 9)
    assert (head.invocation.agent, head.invocation.shard, head.step, head.attempts) == ("triage", one.shard, 0, 2)
    await buried(desk, head.invocation, number=3, at_ms=NOW + 9)
    assert (await head_of(desk, "second", NOW + 9)).step == 1, "with its whole chain before it"


async def test_a_redrive_answers_for_the_person_who_was_told(desk: Desk) -> None:
    await subscribed(desk, {"notify": "oncall", "answer_within": 600})
    one, behind = await desk.admit("a", "b", key="k")
    await buried(desk, one)
    await buried(desk, (await head_of(desk, "oncall", NOW)).invocation, number=2)

    assert await Redress(desk.engine).redrive("default", [one.id], now_ms=NOW + 9) == [one.id]

    head = await head_of(desk, "triage", NOW + 9)
    assert head.invocation.id == one.id
    assert await desk.rows(select(lanes.c.queued)) == [(2,)]
    await desk.run(head.invocation, number=3)
    assert ids(await desk.due(NOW + 9)) == [behind.id]


async def test_a_deleted_subscription_drains_only_when_its_chains_have(desk: Desk) -> None:
    await subscribed(desk, {"agent": "second"})
    (one,) = await desk.admit("a")
    await buried(desk, one)
    await desk.engine.write(OneStep(Call(Prepared(update(subscriptions).values(draining=1, updated_ms=NOW)))))

    early = await desk.engine.write(lambda: drop_drained(NOW + 10**6))
    await desk.run((await head_of(desk, "second", NOW)).invocation, number=2)
    late = await desk.engine.write(lambda: drop_drained(NOW + 10**6))

    assert (early, late) == ([], ["sub-1"])


async def test_what_a_chain_did_goes_with_its_event(desk: Desk) -> None:
    await subscribed(desk, {"agent": "second"})
    (one,) = await desk.admit("a")
    await buried(desk, one)
    await buried(desk, (await head_of(desk, "second", NOW)).invocation, number=2)

    await Retention(desk.engine, Keep(events_days=1), pause_s=0).sweep(NOW + 10 * 86_400_000)

    assert await desk.rows(select(fallbacks.c.seq)) == []
