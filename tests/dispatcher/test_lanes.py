"""The picture of lanes in memory, against a model of the ledger."""

from __future__ import annotations

from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from dispatcher.lanes import Bounds, Picture, Placed, Queue
from schemas.invocation import Admitted, Invocation, Order
from schemas.ledger import Head
from tests.dispatcher.world import event_of

KEY = ("default", "triage")


def admitted(number: int, lane: str, ahead: int, *, agent: str = "triage", shard: int = 3) -> Admitted:
    event = event_of(number, lane, 0)
    invocation = Invocation(
        f"inv_{number}", "default", event.id, "sub", "bugs", 1, agent, shard, lane, lane, Order.STRICT, 0, 0
    )
    return Admitted(invocation, event, None, ahead)


def taken_ids(picture: Picture, queue: Queue) -> list[str]:
    found = []
    while (head := picture.take(queue)) is not None:
        found.append(head.invocation.id)
    return found


def test_the_first_of_a_lane_is_ready_and_the_next_stands_behind_it() -> None:
    picture = Picture()

    assert picture.offer(admitted(1, "a", 0)) is Placed.READY
    assert picture.offer(admitted(2, "a", 1)) is Placed.BEHIND
    assert picture.offer(admitted(3, "b", 0)) is Placed.READY
    assert taken_ids(picture, picture.queues[KEY]) == ["inv_1", "inv_3"]


def test_a_lane_goes_on_with_the_next_when_its_head_ended() -> None:
    picture = Picture()
    first, second = admitted(1, "a", 0), admitted(2, "a", 1)
    picture.offer(first)
    picture.offer(second)
    queue = picture.queues[KEY]
    head = picture.take(queue)
    assert head is not None

    assert picture.finished(queue, head) is False

    assert taken_ids(picture, queue) == ["inv_2"]


def test_what_has_unknown_work_before_it_is_left_in_the_ledger() -> None:
    picture = Picture()

    assert picture.offer(admitted(5, "a", 1)) is Placed.LEFT
    assert picture.queues[KEY].more
    assert taken_ids(picture, picture.queues[KEY]) == []


def test_once_one_was_left_all_behind_it_are_left_too() -> None:
    picture = Picture()
    picture.offer(admitted(1, "a", 0))

    assert picture.offer(admitted(3, "a", 2)) is Placed.LEFT, "number 2 was never offered"
    assert picture.offer(admitted(4, "a", 1)) is Placed.LEFT, "even where the count would fit"
    queue = picture.queues[KEY]
    head = picture.take(queue)
    assert head is not None
    assert picture.finished(queue, head) is True, "the ledger is to be asked"


def test_memory_that_lags_behind_the_ledger_still_takes_the_newcomer() -> None:
    picture = Picture()
    picture.offer(admitted(1, "a", 0))
    picture.take(picture.queues[KEY])

    assert picture.offer(admitted(2, "a", 0)) is Placed.BEHIND, "the ledger has settled number 1 already"


def test_an_invocation_read_from_the_ledger_is_not_doubled_by_its_own_offer() -> None:
    picture = Picture()
    one = admitted(1, "a", 0)
    picture.found(Head(one.invocation, one.event, 0, 0), more=False)

    picture.offer(one)

    assert picture.count == 1


def test_a_slow_agent_fills_its_own_share_only() -> None:
    picture = Picture(Bounds(max_count=100, min_share=2))
    picture.offer(admitted(0, "x", 0, agent="other", shard=4))

    placed = [picture.offer(admitted(number, f"l{number}", 0)) for number in range(1, 100)]

    assert placed.count(Placed.READY) == 50
    assert not picture.is_full
    assert picture.offer(admitted(200, "y", 0, agent="other", shard=4)) is Placed.READY


def test_bytes_bound_the_hand_over_too() -> None:
    picture = Picture(Bounds(max_bytes=40))

    placed = [picture.offer(admitted(number, f"l{number}", 0)) for number in range(10)]

    assert Placed.LEFT in placed
    assert picture.bytes < 80


def test_a_shard_that_is_lost_takes_its_agents_along() -> None:
    picture = Picture()
    picture.offer(admitted(1, "a", 0))
    picture.offer(admitted(2, "b", 0))
    picture.offer(admitted(3, "c", 0, agent="other", shard=4))
    lost_queue = picture.queues[KEY]
    head = picture.take(lost_queue)
    assert head is not None

    assert picture.retain({4}) == [lost_queue]

    picture.finished(lost_queue, head)
    assert (picture.count, picture.active, list(picture.queues)) == (1, 1, [("default", "other")])
    assert picture.take(lost_queue) is None


class LanesBesideALedger(RuleBasedStateMachine):
    """The ledger is a list of ids per lane; offers may come late, in order; anything may be forgotten; feeds read back."""

    def __init__(self) -> None:
        super().__init__()
        self.picture = Picture(Bounds(max_count=2, min_share=1))
        self.queue = self.picture.queue(KEY, 3)
        self.ledger: dict[str, list[str]] = {}
        self.waiting: set[str] = set()
        self.all: dict[str, Admitted] = {}
        self.offers: list[Admitted] = []
        self.running: dict[str, Head] = {}
        self.settled: dict[str, Head] = {}
        self.asked: dict[str, Head | None] = {}
        self.number = 0

    @rule(lane=st.sampled_from("ab"))
    def admit(self, lane: str) -> None:
        self.number += 1
        queue = self.ledger.setdefault(lane, [])
        one = admitted(self.number, lane, len(queue))
        queue.append(one.invocation.id)
        self.all[one.invocation.id] = one
        self.offers.append(one)

    @precondition(lambda self: self.offers)
    @rule()
    def offer(self) -> None:
        self.picture.offer(self.offers.pop(0))

    @rule()
    def take(self) -> None:
        head = self.picture.take(self.queue)
        if head is None:
            return
        lane = head.invocation.lane
        assert lane not in {**self.running, **self.settled}, "one at a time in a lane"
        if (self.ledger.get(lane) or [None])[0] != head.invocation.id:
            # The ledger says no.  Without people's changes that happens only where an offer came after its own end.
            assert head.invocation.id not in self.ledger.get(lane, [])
            self.picture.forget(self.queue, lane)
            self.queue.more = True
            return
        self.running[lane] = head

    @precondition(lambda self: self.running)
    @rule(data=st.data())
    def settle(self, data: st.DataObject) -> None:
        lane = data.draw(st.sampled_from(sorted(self.running)))
        self.settled[lane] = self.running.pop(lane)
        self.ledger[lane].pop(0)

    @precondition(lambda self: self.settled)
    @rule(data=st.data())
    def hear_of_it(self, data: st.DataObject) -> None:
        lane = data.draw(st.sampled_from(sorted(self.settled)))
        if self.picture.finished(self.queue, self.settled.pop(lane)):
            self.asked[lane] = self.read(lane)

    @precondition(lambda self: self.asked)
    @rule(data=st.data())
    def answer(self, data: st.DataObject) -> None:
        lane = data.draw(st.sampled_from(sorted(self.asked)))
        head = self.asked.pop(lane)
        if head is None:
            self.picture.forget(self.queue, lane)
            self.queue.more = True
        else:
            self.picture.resume(self.queue, head)

    @precondition(lambda self: self.running)
    @rule(data=st.data())
    def wait(self, data: st.DataObject) -> None:
        lane = data.draw(st.sampled_from(sorted(self.running)))
        self.running.pop(lane)
        self.waiting.add(lane)
        self.picture.forget(self.queue, lane)

    @precondition(lambda self: self.waiting)
    @rule()
    def fall_due(self) -> None:
        self.waiting.pop()
        self.queue.more = True

    @rule()
    def feed(self) -> None:
        self.queue.more = False
        for lane in sorted(self.ledger):
            head = self.read(lane)
            if head is None or lane in self.waiting:
                continue
            if not self.picture.has_room(self.queue):
                self.queue.more = True
            else:
                self.picture.found(head, more=True)

    @rule()
    def hold(self) -> None:
        self.picture.forget_ready(self.queue)

    def read(self, lane: str) -> Head | None:
        ids = self.ledger.get(lane)
        one = self.all[ids[0]] if ids else None
        return Head(one.invocation, one.event, 0, 0) if one else None

    @invariant()
    def the_counts_are_those_of_what_is_there(self) -> None:
        held = [head for lane in self.queue.lanes.values() for head in lane.heads]
        assert self.picture.count == self.queue.count == len(held)
        assert self.picture.bytes == sum(len(head.event.body) for head in held)
        assert self.picture.active == bool(held)
        assert self.queue.running == len(self.running) + len(self.settled) + len(self.asked)
        assert self.queue.count <= 2 + len("ab")

    @invariant()
    def nothing_is_lost_from_sight(self) -> None:
        offered_later = {one.invocation.id for one in self.offers}
        for lane, ids in self.ledger.items():
            if not ids or lane in self.waiting or lane in self.queue.lanes:
                continue
            assert self.queue.more or offered_later & set(ids), f"lane {lane} is due, and nobody would look"

    @invariant()
    def a_lane_in_memory_is_in_the_order_of_the_ledger_without_gaps(self) -> None:
        for lane in self.queue.lanes.values():
            held = [head.invocation.id for head in lane.heads]
            if lane.key in self.settled:
                assert held.pop(0) == self.settled[lane.key].invocation.id
            there = [each for each in held if each in self.ledger.get(lane.key, [])]
            assert not lane.busy or there == held, "what runs is not over"
            assert there == self.ledger.get(lane.key, [])[: len(there)]


TestLanesBesideALedger: Any = LanesBesideALedger.TestCase
TestLanesBesideALedger.settings = settings(max_examples=150, stateful_step_count=60, deadline=None)
