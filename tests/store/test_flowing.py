"""Late events, digests and blocked keys, on each engine."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import orjson
import pytest
from sqlalchemy import select

from schemas.config import QuotaSpec
from schemas.ids import shard_of, shards_of
from schemas.invocation import Flow, Invocation, State, Wait
from schemas.ledger import Head, Window
from store.apply import Applier
from store.conservation import gaps
from store.decide import Wish
from store.digests import notes_of
from store.engine import Engine
from store.folding import folds_of
from store.lanes import lane_page
from store.ledger import Ledger
from store.outbox import Outbox
from store.parts import gathered_in
from store.quotas import standing_of
from store.redress import Redress
from store.retention import Keep, Retention
from store.tables import flows, invocations, lanes, marks
from store.vault import Vault
from tests.store.plans import LOG, NOW, PLACE, a_plan, a_settlement, an_opening, ids
from tests.store.test_ledger import TRIAGE, Desk

DEBOUNCE = Window(wait_ms=1_000, max_wait_ms=3_000, max_events=4)
BATCH = Window(wait_ms=0, max_wait_ms=5_000, max_events=3)


class FlowDesk(Desk):
    """A ledger to which invocations with flow control are admitted."""

    async def let_in(
        self, identity: str, *, key: str = "k", at_ms: int = NOW, due_in_ms: int = 0, replay: str = "", **flow: object
    ) -> list[Invocation]:
        plan = a_plan(identity, key=key, body=identity.encode())
        wanted = tuple(
            replace(each, created_ms=at_ms, due_ms=at_ms + due_in_ms, flow=Flow(**flow), replay_id=replay)
            for each in plan.invocations
        )
        first, self.position = self.position, self.position + 1
        found = await self.admission.admit(
            LOG, PLACE, first=first, after=self.position, plans=[replace(plan, invocations=wanted)], now_ms=at_ms
        )
        return [item.invocation for item in found]

    async def gather(self, window: Window, now_ms: int) -> int | None:
        (head,) = await self.due(now_ms)
        return await self.ledger.gather(head, window, epoch=1, now_ms=now_ms)

    async def head(self, now_ms: int) -> Head:
        (head,) = await self.due(now_ms)
        return head


@pytest.fixture
async def desk(engine: Engine) -> FlowDesk:
    found = FlowDesk(engine)
    assert len(await found.ledger.hold_shards("me", lease_ms=60_000)) == 64
    return found


def bodies_of(head: Head) -> list[bytes]:
    return [event.body for event in head.digest]


# --- digests


async def test_a_quiet_key_hands_over_all_of_its_events_as_one_digest(desk: FlowDesk) -> None:
    for number, name in enumerate("abc"):
        await desk.let_in(name, at_ms=NOW + number * 500, due_in_ms=1_000, full_at=4)

    first = await desk.gather(DEBOUNCE, NOW + 1_000)
    early = await desk.due(NOW + 1_999)
    closed = await desk.gather(DEBOUNCE, NOW + 2_000)
    head = await desk.head(NOW + 2_000)

    assert (first, early, closed) == (NOW + 2_000, [], 0)
    assert bodies_of(head) == [b"a", b"b", b"c"]
    assert head.event.body == b"c"
    assert await desk.rows(select(invocations.c.state, invocations.c.reason).order_by(invocations.c.seq)) == [
        ("digested", f"in the digest of {head.invocation.id}"),
        ("digested", f"in the digest of {head.invocation.id}"),
        ("queued", "digest"),
    ]
    assert await desk.rows(select(lanes.c.queued)) == [(1,)]


async def test_a_key_that_is_never_quiet_is_handed_over_after_its_longest_wait(desk: FlowDesk) -> None:
    window = replace(DEBOUNCE, max_events=100)
    for number in range(8):
        await desk.let_in(f"e{number}", at_ms=NOW + number * 500, due_in_ms=1_000, full_at=100)

    asked_again, closed = await desk.gather(window, NOW + 1_000), await desk.gather(window, NOW + 3_000)

    assert (asked_again, closed) == (NOW + 3_000, 0), "the last came after 3.5 s, and the longest wait is 3 s"
    assert len((await desk.head(NOW + 3_000)).digest) == 8


async def test_what_comes_after_the_closing_is_in_the_next_digest(desk: FlowDesk) -> None:
    await desk.let_in("a", due_in_ms=1_000, full_at=4)
    assert await desk.gather(DEBOUNCE, NOW + 1_000) == 0
    await desk.let_in("b", at_ms=NOW + 1_001, due_in_ms=1_000, full_at=4)
    first = await desk.head(NOW + 1_001)
    await desk.run(first.invocation, ended_ms=NOW + 1_500)

    early = await desk.due(NOW + 2_000)
    closed = await desk.gather(DEBOUNCE, NOW + 2_001)

    assert (bodies_of(first), early, closed) == ([b"a"], [], 0)
    assert bodies_of(await desk.head(NOW + 2_001)) == [b"b"]


async def test_a_retry_of_a_digest_hands_over_the_same_events(desk: FlowDesk) -> None:
    await desk.let_in("a", due_in_ms=1_000, full_at=4)
    await desk.let_in("b", at_ms=NOW + 1, due_in_ms=1_000, full_at=4)
    assert await desk.gather(DEBOUNCE, NOW + 1_001) == 0
    head = await desk.head(NOW + 1_001)
    assert await desk.ledger.open(an_opening(head.invocation))
    await desk.let_in("c", at_ms=NOW + 1_100, due_in_ms=1_000, full_at=4)
    words = {"reason": Wait.RETRY, "due_ms": NOW + 5_000, "outcome": "failed"}
    assert await desk.ledger.settle(a_settlement(head.invocation, State.WAITING, **words))

    again = await desk.head(NOW + 5_000)

    assert (again.invocation.id, bodies_of(again), again.attempts) == (head.invocation.id, [b"a", b"b"], 1)


async def test_a_full_batch_goes_at_once_and_the_rest_waits(desk: FlowDesk) -> None:
    for name in "abcd":
        await desk.let_in(name, due_in_ms=5_000, full_at=3)

    closed = await desk.gather(BATCH, NOW)

    assert closed == 0
    assert bodies_of(await desk.head(NOW)) == [b"a", b"b", b"c"]


async def test_a_batch_that_is_not_full_goes_when_its_first_has_waited(desk: FlowDesk) -> None:
    await desk.let_in("a", due_in_ms=5_000, full_at=3)
    await desk.let_in("b", at_ms=NOW + 4_000, due_in_ms=5_000, full_at=3)

    early, closed = await desk.due(NOW + 4_999), await desk.gather(BATCH, NOW + 5_000)

    assert (early, closed) == ([], 0)
    assert bodies_of(await desk.head(NOW + 5_000)) == [b"a", b"b"]


async def test_a_batch_that_fills_while_one_retries_does_not_overtake_it(desk: FlowDesk) -> None:
    await desk.let_in("a", due_in_ms=5_000, full_at=1)
    one = replace(BATCH, max_events=1)
    assert await desk.gather(one, NOW) == 0
    head = await desk.head(NOW)
    assert await desk.ledger.open(an_opening(head.invocation))
    words = {"reason": Wait.RETRY, "due_ms": NOW + 9_000, "outcome": "failed"}
    assert await desk.ledger.settle(a_settlement(head.invocation, State.WAITING, **words))

    await desk.let_in("b", at_ms=NOW + 100, due_in_ms=5_000, full_at=1)

    assert await desk.due(NOW + 6_000) == []
    assert ids(await desk.due(NOW + 9_000)) == [head.invocation.id]


async def test_a_digest_takes_no_more_than_its_bytes_and_never_less_than_one(desk: FlowDesk) -> None:
    for name in ("aaaa", "bbbb", "cccc"):
        await desk.let_in(name, due_in_ms=1_000, full_at=100)

    closed = await desk.gather(replace(DEBOUNCE, max_events=100, max_bytes=8), NOW + 1_000)

    assert closed == 0
    assert bodies_of(await desk.head(NOW + 1_000)) == [b"aaaa", b"bbbb"]


async def test_another_owner_closes_no_window(desk: FlowDesk) -> None:
    await desk.let_in("a", due_in_ms=1_000, full_at=4)
    head = await desk.head(NOW + 1_000)

    assert await desk.ledger.gather(head, DEBOUNCE, epoch=7, now_ms=NOW + 1_000) is None
    assert await desk.rows(select(flows.c.digest_id)) == []


async def test_what_was_canceled_is_in_no_digest(desk: FlowDesk) -> None:
    await desk.let_in("a", due_in_ms=1_000, full_at=4)
    (middle,) = await desk.let_in("b", at_ms=NOW + 1, due_in_ms=1_000, full_at=4)
    await desk.let_in("c", at_ms=NOW + 2, due_in_ms=1_000, full_at=4)
    await Redress(desk.engine).cancel("default", [middle.id], reason="by hand", now_ms=NOW + 3)

    assert await desk.gather(DEBOUNCE, NOW + 1_002) == 0
    assert bodies_of(await desk.head(NOW + 1_002)) == [b"a", b"c"]


async def test_every_event_of_a_digest_is_accounted_for(desk: FlowDesk) -> None:
    for name in "abc":
        await desk.let_in(name, due_in_ms=1_000, full_at=4)
    await desk.gather(DEBOUNCE, NOW + 1_000)
    head = await desk.head(NOW + 1_000)
    await desk.run(head.invocation)
    rows = await desk.rows(select(invocations.c.id, invocations.c.event_id).order_by(invocations.c.seq))

    noted = await notes_of(desk.engine, [str(row[0]) for row in rows])
    told = [orjson.loads(line.body) for line in await Outbox(desk.engine).pending()]

    assert {noted[str(ident)].digest_id for ident, _ in rows} == {head.invocation.id}
    assert noted[head.invocation.id].events == tuple(event for _, event in rows)
    assert noted[str(rows[0][0])].digest_state == "done"
    assert [(line["state"], line["reason"].rpartition(" ")[2]) for line in told] == [
        ("digested", head.invocation.id),
        ("digested", head.invocation.id),
        ("done", ""),
    ]
    assert await gaps(desk.engine, since_ms=0, until_ms=NOW + 1) == {"route": 0, "dispatch": 0}


async def test_a_redriven_digest_hands_over_all_of_its_events_again(desk: FlowDesk) -> None:
    for name in "ab":
        await desk.let_in(name, due_in_ms=1_000, full_at=4)
    await desk.gather(DEBOUNCE, NOW + 1_000)
    head = await desk.head(NOW + 1_000)
    await desk.run(head.invocation, State.BURIED, outcome="rejected")
    redress = Redress(desk.engine)
    everyone = [str(row[0]) for row in await desk.rows(select(invocations.c.id))]

    redriven = await redress.redrive("default", everyone, now_ms=NOW + 2_000)

    again = await desk.head(NOW + 2_000)
    assert redriven == [head.invocation.id], "what was handed over with another has no fate of its own"
    assert bodies_of(again) == [b"a", b"b"]
    assert await desk.ledger.gather(again, DEBOUNCE, epoch=1, now_ms=NOW + 2_000) == 0


# --- late events


def seen(version: str, time_ms: int = NOW, *, drops: bool = False) -> dict[str, object]:
    return {"seen_key": "sub-1 k", "version": version, "time_ms": time_ms, "drops": drops}


async def test_an_older_version_of_a_thing_is_marked_and_goes_on(desk: FlowDesk) -> None:
    (newer,) = await desk.let_in("a", **seen("7"))
    (late,) = await desk.let_in("b", **seen("3"))

    assert newer.flow is not None
    assert newer.flow.stale == ""
    assert late.flow is not None
    assert orjson.loads(late.flow.stale) == {"by": "version", "this": "3", "seen": "7", "event": newer.event_id}
    (head,) = await desk.due()
    await desk.run(head.invocation)
    assert (await desk.head(NOW)).invocation.flow == Flow(stale=late.flow.stale), "the ledger remembers it"


async def test_a_late_event_may_be_dropped_and_is_accounted_for(desk: FlowDesk) -> None:
    await desk.let_in("a", **seen("7", drops=True))

    left = await desk.let_in("b", **seen("3", drops=True))

    assert left == []
    (fold,) = await folds_of(desk.engine, a_plan("b", key="k").event.id)
    assert orjson.loads(fold.stale)["by"] == "version"
    assert (await gaps(desk.engine, since_ms=0, until_ms=NOW + 1))["route"] == 0


async def test_what_a_key_has_seen_is_kept_over_a_restart_and_only_grows(desk: FlowDesk) -> None:
    await desk.let_in("a", **seen("7"))
    again = FlowDesk(desk.engine)
    again.position = desk.position

    (late,) = await again.let_in("b", **seen("3"))
    (same,) = await again.let_in("c", **seen("7"))
    (newer,) = await again.let_in("d", **seen("10"))
    (late_again,) = await again.let_in("e", **seen("9"))

    stale = [bool(each.flow and each.flow.stale) for each in (late, same, newer, late_again)]
    assert stale == [True, False, False, True], "10 is more than 9, though its text is less"
    assert await desk.rows(select(marks.c.version)) == [("10",)]


async def test_without_versions_the_vendors_time_says_what_is_late(desk: FlowDesk) -> None:
    await desk.let_in("a", **seen("", NOW))

    (late,) = await desk.let_in("b", **seen("", NOW - 1))
    (other_kind,) = await desk.let_in("c", **seen("v2-beta", NOW + 5))

    assert late.flow is not None
    assert orjson.loads(late.flow.stale)["by"] == "time"
    assert other_kind.flow is not None
    assert other_kind.flow.stale == ""


async def test_late_ones_of_one_batch_are_found_too(desk: FlowDesk) -> None:
    plans = []
    for position, version in enumerate(("5", "2", "6", "4")):
        plan = a_plan(f"v{version}", key="k", position=position)
        flow = Flow(seen_key="sub-1 k", version=version, time_ms=NOW)
        plans.append(replace(plan, invocations=tuple(replace(each, flow=flow) for each in plan.invocations)))

    found = await desk.admission.admit(LOG, PLACE, first=0, after=4, plans=plans, now_ms=NOW)

    stale = [bool(item.invocation.flow and item.invocation.flow.stale) for item in found]
    assert stale == [False, True, False, True]


async def test_old_marks_go_with_their_days(desk: FlowDesk) -> None:
    await desk.let_in("a", **seen("7"))

    gone = await Retention(desk.engine, Keep(marks_days=1), pause_s=0).sweep(NOW + 86_400_001)

    assert gone["marks"] == 1
    assert await desk.rows(select(marks.c.version)) == []


# --- blocked keys


async def blocked(desk: FlowDesk) -> list[Invocation]:
    found = [*await desk.let_in("a"), *await desk.let_in("b")]
    assert await desk.ledger.open(an_opening(found[0]))
    words = {"reason": Wait.BLOCKED, "outcome": "rejected", "due_ms": 0}
    assert await desk.ledger.settle(a_settlement(found[0], State.WAITING, **words))
    return found


async def test_a_blocked_key_holds_what_comes_and_is_listed(desk: FlowDesk) -> None:
    first, _ = await blocked(desk)
    await desk.let_in("c")

    assert await desk.due(NOW + 10_000_000) == []
    (row,) = await lane_page(desk.engine, "default", hold=Wait.BLOCKED, limit=10)
    assert (row.head, row.queued, row.hold, row.ordering_key) == (first.id, 3, "blocked", first.ordering_key)


async def test_a_skipped_head_is_buried_and_its_key_goes_on(desk: FlowDesk) -> None:
    first, second = await blocked(desk)
    redress = Redress(desk.engine)

    skipped = await redress.skip("default", [first.id, second.id], reason="skipped", now_ms=NOW + 100)

    assert skipped == [first.id]
    assert ids(await desk.due(NOW + 100)) == [second.id]
    assert await desk.rows(select(invocations.c.state).order_by(invocations.c.seq)) == [("buried",), ("queued",)]


async def test_a_redriven_head_is_tried_again_before_its_followers(desk: FlowDesk) -> None:
    first, second = await blocked(desk)
    redress = Redress(desk.engine)

    redriven = await redress.redrive("default", [first.id, second.id], now_ms=NOW + 100)

    assert redriven == [first.id]
    (head,) = await desk.due(NOW + 100)
    assert (head.invocation.id, head.attempts, head.tries, head.budget_ms) == (first.id, 1, 0, NOW + 100)
    assert await desk.rows(select(lanes.c.queued, lanes.c.hold)) == [(2, "")]
    await desk.run(first, number=2)
    assert ids(await desk.due(NOW + 200)) == [second.id]


# --- places


async def test_lanes_that_wait_for_a_place_are_called_oldest_first(desk: FlowDesk) -> None:
    for number, key in enumerate("xyz"):
        (found,) = await desk.let_in(key, key=key, at_ms=NOW - number)
        reason = "concurrency:one" if key != "y" else "concurrency:other"
        (head,) = await desk.due()
        assert head.invocation.id == found.id
        assert await desk.ledger.park(head, epoch=1, reason=reason, due_ms=0)
    wanted = {"team": "default", "agent": TRIAGE[1], "epoch": 1, "now_ms": NOW + 1, "shard": found.shard}

    first = await desk.ledger.let_in(reason="concurrency:one", most=1, **wanted)
    came = [head.invocation.event_id for head in await desk.due(NOW + 1)]
    rest = await desk.ledger.let_in(reason="concurrency:", most=0, **wanted)

    assert (first, rest) == (1, 2)
    assert came == [a_plan("z", key="z").event.id]
    assert len(await desk.due(NOW + 1)) == 3


# --- agents that are spread over shards


async def test_a_lane_keeps_the_shard_that_it_has(desk: FlowDesk) -> None:
    async def planned(name: str, shard: int) -> list[Invocation]:
        plan = a_plan(name, key="k")
        wanted = tuple(replace(each, shard=shard, flow=Flow(is_part=True)) for each in plan.invocations)
        first, desk.position = desk.position, desk.position + 1
        found = await desk.admission.admit(
            LOG, PLACE, first=first, after=desk.position, plans=[replace(plan, invocations=wanted)], now_ms=NOW
        )
        return [item.invocation for item in found]

    (first,), (second,) = await planned("a", 5), await planned("b", 9)

    assert (first.shard, second.shard) == (5, 5)
    assert ids(await desk.ledger.due([(*TRIAGE, 5)], now_ms=NOW, limit=5)) == [first.id]
    assert await desk.ledger.due([(*TRIAGE, 9)], now_ms=NOW, limit=5) == []
    assert await desk.ledger.next_due_ms([], parts=[(*TRIAGE, 5)]) == NOW


async def test_lanes_on_a_shard_that_is_no_longer_its_agents_are_given_to_one_that_is(desk: FlowDesk) -> None:
    plan = a_plan("a", key="k")
    stray = (shard_of(*TRIAGE) + 1) % 64
    wanted = tuple(replace(each, shard=stray) for each in plan.invocations)
    await desk.admission.admit(LOG, PLACE, first=0, after=1, plans=[replace(plan, invocations=wanted)], now_ms=NOW)

    moved = [await gathered_in(desk.engine, *TRIAGE, 2), await gathered_in(desk.engine, *TRIAGE, 2)]

    assert moved == [1, 0]
    ((shard,),) = await desk.rows(select(lanes.c.shard))
    assert shard in shards_of(*TRIAGE, 2)
    assert await desk.rows(select(invocations.c.shard)) == [(shard,)]


# --- quotas of teams


async def test_a_quota_is_given_out_in_blocks_and_never_more_than_it_in_a_span(engine: Engine) -> None:
    vault = Vault([bytes(32)])
    applier = Applier(engine, vault, Redress(engine))
    wish = Wish(team="default", managed_by="api", quota=QuotaSpec(attempts=10, per=86_400))
    ledger = Ledger(engine)

    made = await applier.apply(wish, actor="me", act="quota.put", now_ms=NOW)
    again = await applier.apply(wish, actor="me", act="quota.put", now_ms=NOW)
    blocks = await asyncio.gather(*(ledger.lease_quota("default", wanted=4) for _ in range(5)))
    other = await ledger.lease_quota("another", wanted=4)

    assert [plan.changes[0].action.value for plan in (made, again)] == ["create", "unchanged"]
    assert sorted(block.granted for block in blocks) == [0, 0, 2, 4, 4]
    assert all(0 < block.ends_in_ms <= 86_400_000 for block in blocks)
    assert other.granted > 4
    found = await standing_of(engine, "default")
    assert found is not None
    assert (found.spec.attempts, found.taken) == (10, 10)


async def test_a_new_span_gives_out_the_whole_quota_again(engine: Engine) -> None:
    applier = Applier(engine, Vault([bytes(32)]), Redress(engine))
    wish = Wish(team="default", managed_by="api", quota=QuotaSpec(attempts=3, per=0.3))
    await applier.apply(wish, actor="me", act="quota.put", now_ms=NOW)
    ledger = Ledger(engine)

    granted = 0
    for _ in range(2):
        block = await ledger.lease_quota("default", wanted=3)
        granted += block.granted
        await asyncio.sleep(block.ends_in_ms / 1000 + 0.01)
    last = await ledger.lease_quota("default", wanted=5)

    assert (granted, last.granted) == (6, 3)
