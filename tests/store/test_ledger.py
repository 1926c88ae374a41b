from __future__ import annotations

import asyncio

import orjson
import pytest
from sqlalchemy import delete, insert, select

from schemas.invocation import Invocation, Planned, State, Wait
from schemas.ledger import Head
from store.admission import Admission
from store.engine import Call, Engine, OneStep
from store.ledger import Ledger
from store.outbox import Outbox
from store.prepared import Prepared
from store.redress import Redress
from store.tables import NEVER_MS, agents, attempts, bodies, invocations, lanes, subscriptions
from store.versions import number_of
from tests.store.plans import LOG, NOW, PLACE, a_plan, a_settlement, an_invocation, an_opening, ids

TRIAGE = ("default", "triage")


class Desk:
    """A ledger whose shards are all held, with what was admitted to it."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.ledger = Ledger(engine)
        self.admission = Admission(engine)
        self.position = 0

    async def admit(
        self, *identities: str, key: str = "", uids: tuple[str, ...] = ("sub-1",), agent: str = "triage"
    ) -> list[Invocation]:
        plans = [a_plan(identity, key=key, uids=uids, agent=agent) for identity in identities]
        first, self.position = self.position, self.position + len(plans)
        found = await self.admission.admit(LOG, PLACE, first=first, after=self.position, plans=plans, now_ms=NOW)
        return [item.invocation for item in found]

    async def due(self, now_ms: int = NOW, *, limit: int = 10, skip: tuple[str, ...] = (), agent: str = "triage") -> list[Head]:
        return await self.ledger.due([("default", agent)], now_ms=now_ms, limit=limit, skip=skip)

    async def rows(self, statement: object) -> list[tuple[object, ...]]:
        return [tuple(row) for row in await self.engine.read(OneStep(Call(Prepared(statement))))]

    async def resume(self, head: Head, *, at_ms: int) -> None:
        """Park a lane for its paused subscription, and call it forward again."""
        invocation = head.invocation
        words = {"team": "default", "agent": invocation.agent, "shard": invocation.shard, "epoch": 1}
        assert await self.ledger.park(head, epoch=1, reason=Wait.PAUSED, due_ms=0)
        assert await self.ledger.release(**words, reason=Wait.PAUSED, now_ms=at_ms) == 1

    async def run(self, invocation: Invocation, state: State = State.DONE, *, number: int = 1, **fields: object) -> None:
        assert await self.ledger.open(an_opening(invocation, number=number))
        assert await self.ledger.settle(a_settlement(invocation, state, number=number, **fields))


@pytest.fixture
async def desk(engine: Engine) -> Desk:
    found = Desk(engine)
    assert len(await found.ledger.hold_shards("me", lease_ms=60_000)) == 64
    return found


async def test_an_invocation_is_done_and_its_lane_gone(desk: Desk) -> None:
    (one,) = await desk.admit("a")
    (head,) = await desk.due()
    opened = await desk.ledger.open(an_opening(one))
    running = await desk.rows(select(invocations.c.state, invocations.c.attempts))

    settled = await desk.ledger.settle(a_settlement(one, status=200, answer=b"ok", sent=True, duration_ms=12.5, tokens=7))

    assert (head.invocation, head.event.id, head.event.body, head.attempts) == (one, one.event_id, b'{"n": 1}', 0)
    assert (opened, settled) == (True, True)
    assert running == [("running", 1)]
    assert await desk.rows(select(lanes.c.id)) == []
    assert await desk.rows(select(invocations.c.state, invocations.c.outcome, invocations.c.ended_ms)) == [
        ("done", "delivered", NOW + 50)
    ]
    kept = select(
        attempts.c.outcome, attempts.c.status, attempts.c.answer, attempts.c.sent, attempts.c.duration_ms, attempts.c.tokens
    )
    assert await desk.rows(kept) == [("delivered", 200, b"ok", 1, 12.5, 7)]
    assert await desk.due() == []


async def test_a_lane_gives_its_invocations_in_the_order_of_admission(desk: Desk) -> None:
    wanted = await desk.admit("a", "b", "c", key="k")

    order = []
    for _ in wanted:
        (head,) = await desk.due()
        order.append(head.invocation.id)
        await desk.run(head.invocation)

    assert order == [one.id for one in wanted]


async def test_what_is_not_the_head_of_its_lane_cannot_be_opened(desk: Desk) -> None:
    _, second = await desk.admit("a", "b", key="k")

    assert not await desk.ledger.open(an_opening(second))


async def test_nothing_is_opened_twice(desk: Desk) -> None:
    (one,) = await desk.admit("a")

    answers = await asyncio.gather(*(desk.ledger.open(an_opening(one)) for _ in range(3)))

    assert sorted(answers) == [False, False, True]
    assert not await desk.ledger.open(an_opening(one, number=2))


async def test_a_stale_epoch_writes_nothing(desk: Desk) -> None:
    one, two = await desk.admit("a", "b")
    await desk.ledger.open(an_opening(two))

    answers = [
        await desk.ledger.open(an_opening(one, epoch=0)),
        await desk.ledger.settle(a_settlement(two, epoch=0)),
        await desk.ledger.park((await desk.due())[0], epoch=0, reason=Wait.PAUSED, due_ms=0),
        await desk.ledger.expire((await desk.due())[0], epoch=2, reason="late", now_ms=NOW),
        await desk.ledger.release(team="default", agent="triage", shard=one.shard, epoch=0, reason="retry", now_ms=NOW),
    ]

    assert answers == [False, False, False, False, 0]
    assert sorted(await desk.rows(select(invocations.c.state))) == [("queued",), ("running",)]


async def test_a_retry_holds_only_its_own_lane(desk: Desk) -> None:
    first, second, other = [*await desk.admit("a", "b", key="k"), *await desk.admit("c")]

    await desk.run(first, State.WAITING, outcome="failed", reason=Wait.RETRY, due_ms=NOW + 5000)

    assert ids(await desk.due()) == [other.id]
    (head, _) = sorted(await desk.due(NOW + 5000), key=lambda head: head.invocation.id != first.id)
    assert (head.invocation.id, head.attempts, head.tries, head.state) == (first.id, 1, 1, State.WAITING)
    await desk.run(first, number=2)
    assert second.id in ids(await desk.due())


async def test_due_lanes_are_bounded_by_agent_and_skip_those_in_flight(desk: Desk) -> None:
    mine = [(await desk.admit(str(number)))[0] for number in range(5)]
    other = (await desk.admit("x", agent="other"))[0]

    found = await desk.ledger.due([TRIAGE, ("default", "other")], now_ms=NOW, limit=3, skip=[mine[0].lane])

    assert len(found) == 4
    assert mine[0].id not in ids(found)
    assert other.id in ids(found)


async def test_a_settlement_that_is_repeated_counts_once(desk: Desk) -> None:
    (one,) = await desk.admit("a")
    await desk.ledger.open(an_opening(one))

    first, again = await desk.ledger.settle(a_settlement(one)), await desk.ledger.settle(a_settlement(one))
    other = await desk.ledger.settle(a_settlement(one, ended_ms=NOW + 99))

    assert (first, again, other) == (True, True, False)
    assert len(await Outbox(desk.engine).pending()) == 1


async def test_an_end_is_told_in_the_outbox_and_dropped_once_published(desk: Desk) -> None:
    outbox = Outbox(desk.engine)
    woken: list[str] = []
    outbox.listen(woken.append)
    one, two = await desk.admit("a", "b")

    await desk.run(one, outcome="delivered", reason="accepted")
    await desk.run(two, State.WAITING, outcome="failed", reason=Wait.RETRY, due_ms=NOW + 1)

    (told,) = await outbox.pending()
    assert told.key == one.ordering_key
    assert orjson.loads(told.body) == {
        "invocation": one.id, "event": one.event_id, "team": "default", "subscription": "sub-1", "agent": "triage", "state": "done",
        "outcome": "delivered", "reason": "accepted", "attempts": 1, "time": "2027-01-15T08:00:00.050Z", "causationid": one.id,
    }  # fmt: skip
    assert set(woken) == {""}
    await outbox.drop([told.seq])
    assert await outbox.pending() == []


async def test_a_gone_agent_disables_the_subscription(desk: Desk) -> None:
    await desk.engine.write(OneStep(Call(Prepared(insert(subscriptions).values(uid="sub-1", name="s", state="live")))))
    before = await number_of(desk.engine, "roster")
    (one,) = await desk.admit("a")

    await desk.run(one, State.BURIED, outcome="gone", reason="the agent answered 410", disable_subscription="sub-1")

    assert await desk.rows(select(subscriptions.c.state, subscriptions.c.disabled_reason)) == [
        ("disabled", "the agent answered 410")
    ]
    assert await number_of(desk.engine, "roster") == before + 1


async def test_a_parked_lane_waits_until_it_is_released(desk: Desk) -> None:
    (one,) = await desk.admit("a")
    (head,) = await desk.due()
    assert await desk.ledger.park(head, epoch=1, reason=Wait.PAUSED, due_ms=0)
    parked = await desk.rows(select(lanes.c.due_ms, lanes.c.hold))
    words = {"team": "default", "agent": "triage", "shard": one.shard, "epoch": 1, "now_ms": NOW + 9}

    nothing = await desk.ledger.release(**words, reason=Wait.HOLD)
    elsewhere = await desk.ledger.release(**words, reason=Wait.PAUSED, subscription_uid="sub-2")
    released = await desk.ledger.release(**words, reason=Wait.PAUSED, subscription_uid="sub-1")

    assert parked == [(NEVER_MS + one.created_ms, "paused")], "who came first is released first"
    assert (nothing, elsewhere, released) == (0, 0, 1)
    assert ids(await desk.due(NOW + 9)) == [one.id]
    assert await desk.ledger.open(an_opening(one))


async def test_retries_are_called_forward(desk: Desk) -> None:
    (one,) = await desk.admit("a")
    await desk.run(one, State.WAITING, outcome="failed", reason=Wait.RETRY, due_ms=NOW + 60_000)

    count = await desk.ledger.release(
        team="default", agent="triage", shard=one.shard, epoch=1, reason=Wait.RETRY, now_ms=NOW + 1
    )

    assert count == 1
    assert ids(await desk.due(NOW + 1)) == [one.id]


async def test_an_expired_invocation_frees_its_lane(desk: Desk) -> None:
    first, second = await desk.admit("a", "b", key="k")
    (head,) = await desk.due()

    assert await desk.ledger.expire(head, epoch=1, reason="too old", now_ms=NOW + 5)

    assert await desk.rows(select(invocations.c.state, invocations.c.reason).where(invocations.c.id == first.id)) == [
        ("expired", "too old")
    ]
    assert ids(await desk.due()) == [second.id]


async def test_the_newest_of_a_lane_supersedes_what_was_never_tried(desk: Desk) -> None:
    first, second, third, fourth = await desk.admit("a", "b", "c", "d", key="k")
    await desk.run(first, State.WAITING, outcome="failed", reason=Wait.RETRY, due_ms=NOW + 5)

    count = await desk.ledger.supersede(first.lane, shard=first.shard, epoch=1, now_ms=NOW + 1)

    states = dict(await desk.rows(select(invocations.c.id, invocations.c.state)))
    assert count == 2
    assert states == {first.id: "waiting", second.id: "superseded", third.id: "superseded", fourth.id: "queued"}
    assert await desk.rows(select(lanes.c.queued)) == [(2,)]


async def test_an_attempt_that_a_crash_left_open_is_closed_after_its_deadline(desk: Desk) -> None:
    (one,) = await desk.admit("a")
    await desk.ledger.open(an_opening(one, deadline_ms=NOW + 30_000))

    before = await desk.due(NOW + 1000)
    waits = await desk.rows(select(lanes.c.due_ms))
    (head,) = await desk.due(NOW + 30_000)

    assert before == []
    assert waits == [(NOW + 30_000,)]
    assert (head.invocation.id, head.attempts, head.tries, head.state) == (one.id, 1, 1, State.QUEUED)
    assert await desk.rows(select(attempts.c.outcome, attempts.c.ended_ms)) == [("unknown", NOW + 30_000)]
    assert not await desk.ledger.settle(a_settlement(one))  # the one who was thought dead
    await desk.run(one, number=2)


async def test_a_lane_stays_due_while_its_head_runs_that_was_parked_before(desk: Desk) -> None:
    """Found by the simulation (seed 16259): whoever took it over after a crash never looked at it again."""
    one, two, _ = await desk.admit("a", "b", "c", key="k")
    (head,) = await desk.due()
    await desk.resume(head, at_ms=NOW + 9)
    assert await desk.ledger.open(an_opening(one, started_ms=NOW + 10))

    await Redress(desk.engine).cancel("default", [two.id], reason="an operator", now_ms=NOW + 11)

    assert await desk.rows(select(lanes.c.due_ms, lanes.c.queued)) == [(NOW + 9, 2)]
    assert await desk.rows(select(invocations.c.due_ms).where(invocations.c.id == one.id)) == [(NOW + 10,)]


async def test_a_lane_that_was_called_forward_stays_so_where_a_neighbour_of_its_head_goes(desk: Desk) -> None:
    """Found by the simulation (seed 66999): the lane of a resumed subscription went to sleep again, for ever."""
    one, two, _ = await desk.admit("a", "b", "c", key="k")
    (head,) = await desk.due()
    await desk.resume(head, at_ms=NOW + 9)

    redress = Redress(desk.engine)
    await redress.cancel("default", [two.id], reason="an operator", now_ms=NOW + 11)
    canceled = await desk.rows(select(lanes.c.due_ms, lanes.c.hold, lanes.c.queued))
    assert await redress.redrive("default", [two.id], now_ms=NOW + 12) == [two.id]

    assert canceled == [(NOW + 9, "", 2)]
    assert await desk.rows(select(lanes.c.due_ms, lanes.c.hold, lanes.c.queued)) == [(NOW + 9, "", 3)]
    assert ids(await desk.due(NOW + 12)) == [one.id]


async def test_what_was_parked_and_opened_all_the_same_is_found_after_a_crash(desk: Desk) -> None:
    """The answer to the parking was lost, and who had asked goes on from memory."""
    (one,) = await desk.admit("a")
    (head,) = await desk.due()
    assert await desk.ledger.park(head, epoch=1, reason=Wait.PAUSED, due_ms=0)

    assert await desk.ledger.open(an_opening(one, started_ms=NOW + 1, deadline_ms=NOW + 30_000))

    assert await desk.rows(select(lanes.c.due_ms, lanes.c.hold)) == [(NOW + 1, "")]
    (found,) = await desk.due(NOW + 30_000)
    assert (found.invocation.id, found.attempts, found.state) == (one.id, 1, State.QUEUED)


async def test_the_next_due_time_is_that_of_the_shards_agents(desk: Desk) -> None:
    for name, shard in (("triage", 3), ("other", 4)):
        row = insert(agents).values(uid=name, team="default", name=name, shard=shard)
        await desk.engine.write(OneStep(Call(Prepared(row))))
    (one,), _ = await desk.admit("a"), await desk.admit("b", agent="other")
    await desk.run(one, State.WAITING, outcome="failed", reason=Wait.RETRY, due_ms=NOW + 700)

    found = [
        await desk.ledger.next_due_ms([3]),
        await desk.ledger.next_due_ms([3, 4]),
        await desk.ledger.next_due_ms([3, 4], after_ms=NOW),
        await desk.ledger.next_due_ms([3, 4], after_ms=NOW + 700),
        await desk.ledger.next_due_ms([]),
    ]

    assert found == [NOW + 700, NOW, NOW + 700, None, None]


async def test_the_head_of_a_lane_is_known_whenever_it_is_due(desk: Desk) -> None:
    first, second = await desk.admit("a", "b", key="k")
    await desk.run(first, State.WAITING, outcome="failed", reason=Wait.RETRY, due_ms=NOW + 700)

    head = await desk.ledger.next_in_lane(first.lane)
    await desk.run(first, number=2)
    following = await desk.ledger.next_in_lane(first.lane)
    await desk.run(second)

    assert head is not None
    assert head.invocation.id == first.id
    assert following is not None
    assert following.invocation.id == second.id
    assert await desk.ledger.next_in_lane(first.lane) is None


async def test_those_who_ask_for_the_next_of_their_lanes_at_once_share_one_look(desk: Desk, monkeypatch) -> None:
    invocations = [(await desk.admit(f"e{number}", key=f"k{number}"))[0] for number in range(5)]
    looks: list[object] = []
    read = desk.engine.read

    async def counted(script, **words):
        looks.append(script)
        return await read(script, **words)

    monkeypatch.setattr(desk.engine, "read", counted)
    lanes = [each.lane for each in invocations]

    found = await asyncio.gather(*(desk.ledger.next_in_lane(lane) for lane in [*reversed(lanes), "gone", lanes[0]]))

    assert [head.invocation.id if head else None for head in found] == [
        *(each.id for each in reversed(invocations)), None, invocations[0].id
    ]  # fmt: skip
    assert len(looks) == 1


async def test_a_redrive_keeps_the_id_and_begins_a_new_budget(desk: Desk) -> None:
    (one,) = await desk.admit("a")
    await desk.run(one, State.BURIED, outcome="rejected", reason="400")

    done = await Redress(desk.engine).redrive("default", [one.id, "inv_none"], now_ms=NOW + 9)

    (head,) = await desk.due(NOW + 9)
    assert done == [one.id]
    assert (head.invocation.id, head.attempts, head.tries, head.budget_ms) == (one.id, 1, 0, NOW + 9)
    await desk.run(one, number=2, tries=1)
    assert await Redress(desk.engine).redrive("default", [one.id], now_ms=NOW) == []


async def test_a_redrive_goes_before_what_waits_behind_its_old_place(desk: Desk) -> None:
    first, second = await desk.admit("a", "b", key="k")
    await desk.run(first, State.BURIED, outcome="rejected", reason="400")

    await Redress(desk.engine).redrive("default", [first.id], now_ms=NOW + 9)

    assert ids(await desk.due(NOW + 9)) == [first.id]
    await desk.run(first, number=2)
    assert ids(await desk.due(NOW + 9)) == [second.id]


async def test_another_team_redrives_and_cancels_nothing(desk: Desk) -> None:
    one, two = await desk.admit("a", "b")
    await desk.run(one, State.BURIED, outcome="rejected", reason="400")
    redress = Redress(desk.engine)

    assert await redress.redrive("evil", [one.id], now_ms=NOW) == []
    assert await redress.cancel("evil", [two.id], reason="x", now_ms=NOW) == []


async def test_what_waits_is_canceled_and_what_runs_is_not(desk: Desk) -> None:
    first, second, third = await desk.admit("a", "b", "c", key="k")
    (elsewhere,) = await desk.admit("d", uids=("sub-2",))
    await desk.ledger.open(an_opening(first))

    one = await Redress(desk.engine).cancel("default", [first.id, second.id], reason="asked", now_ms=NOW)
    count = await Redress(desk.engine).cancel_all("sub-1", reason="deleted", now_ms=NOW)

    states = dict(await desk.rows(select(invocations.c.id, invocations.c.state)))
    assert one == [second.id]
    assert count == 1
    assert states == {first.id: "running", second.id: "canceled", third.id: "canceled", elsewhere.id: "queued"}


async def test_many_settlements_at_once_are_all_kept(desk: Desk) -> None:
    wanted = await desk.admit(*(f"e{number}" for number in range(300)))

    opened = await asyncio.gather(*(desk.ledger.open(an_opening(one)) for one in wanted))
    settled = await asyncio.gather(*(desk.ledger.settle(a_settlement(one)) for one in wanted))

    assert all(opened)
    assert all(settled)
    assert await desk.rows(select(lanes.c.id)) == []
    assert len(await Outbox(desk.engine).pending()) == 300


async def test_what_an_agent_says_is_kept_whatever_it_is(desk: Desk) -> None:
    (one,) = await desk.admit("a")

    await desk.run(one, State.BURIED, outcome="rejected", reason="nul \0 \ud800", error="\ud800\0", answer=b"\x00\xff" * 3000)

    assert await desk.rows(select(invocations.c.reason)) == [("nul \ufffd ?",)]
    assert await desk.rows(select(attempts.c.error, attempts.c.answer)) == [("?\ufffd", b"\x00\xff" * 2048)]


async def test_an_event_without_its_body_still_has_its_head(desk: Desk) -> None:
    (one,) = await desk.admit("a")
    await desk.engine.write(OneStep(Call(Prepared(delete(bodies)))))

    (head,) = await desk.due()

    assert (head.invocation.id, head.event.body) == (one.id, b"")


async def test_a_replayed_event_names_its_replay(desk: Desk) -> None:
    plan = a_plan("a")
    await desk.admission.admit(LOG, PLACE, first=0, after=1, plans=[Planned(plan.event, 0, ())], now_ms=NOW)
    await desk.admission.admit_replay([Planned(plan.event, 0, (an_invocation(plan.event, replay="rpl_1"),))])

    (head,) = await desk.due()

    assert (head.event.replayid, head.invocation.replay_id) == ("rpl_1", "rpl_1")


async def test_a_first_attempt_is_opened_with_its_admission(desk: Desk) -> None:
    first, second, other = a_plan("a", key="k"), a_plan("b", key="k", position=1), a_plan("c", key="m", position=2)
    openings = {plan.invocations[0].id: an_opening(plan.invocations[0]) for plan in (first, second)}
    openings[other.invocations[0].id] = an_opening(other.invocations[0], epoch=7)

    admitted = await desk.admission.admit(
        LOG, PLACE, first=0, after=3, plans=[first, second, other], now_ms=NOW, openings=openings
    )

    assert [one.is_open for one in admitted] == [True, False, False], "the second waits for its lane, the third is not ours"
    assert await desk.rows(select(invocations.c.state, invocations.c.attempts).order_by(invocations.c.seq)) == [
        ("running", 1),
        ("queued", 0),
        ("queued", 0),
    ]
    assert await desk.rows(select(attempts.c.number, attempts.c.started_ms, attempts.c.deadline_ms, attempts.c.owner)) == [
        (1, NOW, NOW + 30_000, "me")
    ]
    (head,) = await desk.due()
    assert head.invocation.id == other.invocations[0].id
    assert await desk.ledger.settle(a_settlement(first.invocations[0]))
    assert await desk.ledger.open(an_opening(second.invocations[0]))
    assert await desk.rows(select(lanes.c.queued).order_by(lanes.c.id)) == [(1,), (1,)]


async def test_an_event_that_is_known_opens_nothing(desk: Desk) -> None:
    plan = a_plan("a")
    openings = {plan.invocations[0].id: an_opening(plan.invocations[0])}
    await desk.admission.admit(LOG, PLACE, first=0, after=1, plans=[plan], now_ms=NOW)

    again = await desk.admission.admit(LOG, PLACE, first=1, after=2, plans=[plan], now_ms=NOW, openings=openings)

    assert again == []
    assert await desk.rows(select(attempts.c.number)) == []
