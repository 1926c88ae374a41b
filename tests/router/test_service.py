"""The router at work over a log in memory."""

from __future__ import annotations

import asyncio
import gc
import threading
from contextlib import asynccontextmanager
from dataclasses import replace

from prometheus_client import CollectorRegistry

from eventlog.memory import MemoryLog
from router.metrics import RouterMetrics
from router.rule import compile_rule
from router.service import Router, read_event
from schemas.config import SubscriptionConfig, SubscriptionSpec, SubscriptionState
from schemas.errors import FencedOut
from schemas.event import Event, to_headers
from schemas.ids import event_id
from schemas.topics import Draft, Place
from tests.fakes.admission import Admissions, Rules

TOPIC = "nightbell.events.github"


def event(number: int, *, key: str = "k", kind: str = "github.push") -> Event:
    return Event(
        id=event_id("default", "g", str(number)), team="default", source="g", provider="github", family="github", type=kind,
        partitionkey=key, time_ms=1, received_ms=2, traceparent="00-0-0-01", datacontenttype="application/json",
        body=b'{"n":%d}' % number,
    )  # fmt: skip


def draft(item: Event) -> Draft:
    return Draft(TOPIC, item.partitionkey, item.body, to_headers(item))


def rule(prefix: str = "github.") -> SubscriptionSpec:
    return SubscriptionSpec(agent="a", pattern={"type": [{"prefix": prefix}]})


class House:
    def __init__(self, *specs: SubscriptionSpec) -> None:
        self.log, self.rules, self.store = MemoryLog(), Rules(*(specs or (rule(),))), Admissions()
        self.handed: list = []
        self.said: list = []
        self.registry = CollectorRegistry()
        self.open = asyncio.Event()
        self.open.set()
        self.router = Router(
            self.log, self.rules, self.store, now_ms=lambda: 1000, then=self,
            say=lambda name, **fields: self.said.append((name, fields)), metrics=RouterMetrics(self.registry),
        )  # fmt: skip

    def reserve(self, plans) -> dict:
        return {}

    def offer(self, admitted, reserved=None) -> None:
        self.handed.extend(admitted)

    async def room(self) -> None:
        await self.open.wait()

    def counted(self, outcome: str) -> float:
        return self.registry.get_sample_value("nightbell_route_events_total", {"outcome": outcome})

    async def until(self, condition) -> None:
        async with asyncio.timeout(5):
            while not condition():
                await asyncio.sleep(0.001)


@asynccontextmanager
async def running(house: House):
    await house.log.start()
    await house.log.ensure({TOPIC: 2})
    house.router.watch([TOPIC])
    task = asyncio.create_task(house.router.run())
    try:
        yield house
    finally:
        house.router.stop()
        house.open.set()
        async with asyncio.timeout(5):
            await task
        await house.log.aclose()


async def test_a_matching_event_becomes_an_invocation_and_is_handed_on():
    async with running(House()) as house:
        await house.log.append([draft(event(1))])
        await house.until(lambda: house.handed)

    assert [item.event.id for item in house.handed] == [event(1).id]
    assert house.handed[0].data == {"n": 1}
    assert house.counted("matched") == 1


async def test_rebalances_make_no_record_look_poisonous():
    """Five times the place goes to another router and back while the first record is being admitted: not the record's doing."""
    house = House()
    admit, fenced = house.store.admit, iter(range(5))

    async def fenced_at_first(*args, **more):
        if next(fenced, None) is not None:
            raise FencedOut
        return await admit(*args, **more)

    house.store.admit = fenced_at_first
    house.store.positions[Place(TOPIC, 0)] = house.store.positions[Place(TOPIC, 1)] = 0
    async with running(house):
        await house.log.append([draft(event(1))])
        await house.until(lambda: house.handed)

    assert house.store.aside == []
    assert list(house.store.died.values()) == [1]


async def test_an_event_that_nothing_matches_is_kept_all_the_same():
    async with running(House(rule("stripe."))) as house:
        await house.log.append([draft(event(1))])
        await house.until(lambda: house.store.seen)

    assert house.handed == []
    assert house.counted("unmatched") == 1


async def test_a_repeated_event_gives_nothing_new():
    async with running(House()) as house:
        for _ in range(3):
            await house.log.append([draft(event(1))])
        await house.until(lambda: house.counted("duplicate") == 2)

    assert len(house.handed) == 1


async def test_the_order_of_a_key_is_that_of_the_log():
    async with running(House()) as house:
        for number in range(200):
            await house.log.append([draft(event(number, key=f"key-{number % 7}"))])
        await house.until(lambda: len(house.handed) == 200)

    for key in range(7):
        numbers = [item.data["n"] for item in house.handed if item.event.partitionkey == f"key-{key}"]
        assert numbers == sorted(numbers)


async def test_a_busy_store_is_asked_again_and_nothing_is_skipped():
    house = House()
    house.store.fail_next = 3
    async with running(house):
        for number in range(5):
            await house.log.append([draft(event(number))])
        await house.until(lambda: len(house.handed) == 5)

    assert [item.data["n"] for item in house.handed] == list(range(5))


async def test_a_record_that_cannot_be_read_is_set_aside_and_the_rest_goes_on():
    async with running(House()) as house:
        await house.log.append([draft(event(1))])
        await house.log.append([Draft(TOPIC, "k", b"?", {"ce_nbwire": "99"})])
        await house.log.append([draft(event(2))])
        await house.until(lambda: len(house.handed) == 2)

    assert [item.data["n"] for item in house.handed] == [1, 2]
    assert len(house.store.aside) == 1
    assert house.counted("dead") == 1


async def test_a_store_that_is_away_while_records_are_tried_alone_is_waited_for():
    async with running(House()) as house:
        await house.log.append([draft(event(1))])
        await house.until(lambda: len(house.handed) == 1)
        for number in (2, 3, 4):
            house.store.fail_next = number  # the first store call of each, then the next ones too
            await house.log.append([Draft(TOPIC, "k", b"?", {"ce_nbwire": "99"}), draft(event(number))])
            await house.until(lambda number=number: len(house.handed) == number)

    assert [item.data["n"] for item in house.handed] == [1, 2, 3, 4]
    assert len(house.store.aside) == 3


async def test_a_record_that_killed_the_process_three_times_is_not_tried_again():
    house = House()
    await house.log.start()
    await house.log.ensure({TOPIC: 2})
    await house.log.append([draft(event(1)), draft(event(2))])
    places = [
        place
        for place in await house.log.places(TOPIC)
        if (await house.log.bounds(place)).end > (await house.log.bounds(place)).oldest
    ]
    first = (await house.log.bounds(places[0])).oldest
    house.store.died[places[0], first] = 3
    async with running(house):
        await house.until(lambda: house.handed)

    assert [item.data["n"] for item in house.handed] == [2]
    assert house.store.aside[0][0] == first


async def test_another_routers_cursor_is_believed():
    house = House()
    async with running(house):
        await house.log.append([draft(event(1))])
        await house.until(lambda: house.handed)
        (place,) = house.store.positions
        house.store.positions[place] += 1  # another router admitted event 2, and we do not know it
        house.store.seen[event(2).id] = 0
        await house.log.append([draft(event(2))])
        await house.log.append([draft(event(3))])
        await house.until(lambda: len(house.handed) == 2)

    assert [item.data["n"] for item in house.handed] == [1, 3]


async def test_a_cursor_outside_the_log_is_told_and_left_there_and_the_other_places_go_on():
    house = House()
    await house.log.start()
    await house.log.ensure({TOPIC: 2})
    lost, other = await house.log.places(TOPIC)
    house.store.positions[lost] = 99
    async with running(house):
        await house.until(lambda: house.said and any(name == "cursor_lost" for name, _ in house.said))
        number = 1
        while not house.handed:
            await house.log.append([draft(event(number, key=f"k{number}"))])
            await asyncio.sleep(0.005)
            number += 1
        was_ready = house.router.is_ready

    told = [fields for name, fields in house.said if name == "cursor_lost"]
    assert [(fields["topic"], fields["partition"]) for fields in told] == [(lost.topic, lost.partition)]
    assert "outside the log" in told[0]["detail"]
    assert not was_ready
    assert house.store.positions[lost] == 99
    assert house.store.positions[other] > 0


async def test_changed_rules_are_in_force_once_noticed():
    house = House(rule("stripe."))
    async with running(house):
        await house.log.append([draft(event(1))])
        await house.until(lambda: house.store.seen)
        house.rules.configs = [SubscriptionConfig("default", "sub-0", "uid-0", 2, rule("github."))]
        house.rules.number = 2
        house.router.notice()
        await house.until(lambda: house.router.rules.version == 2)
        await house.log.append([draft(event(2))])
        await house.until(lambda: house.handed)

    assert [item.invocation.generation for item in house.handed] == [2]


async def test_a_disabled_subscription_takes_nothing_new_and_a_paused_one_queues():
    disabled = rule().model_copy(update={"state": SubscriptionState.DISABLED})
    paused = rule().model_copy(update={"state": SubscriptionState.PAUSED})
    async with running(House(disabled, paused)) as house:
        await house.log.append([draft(event(1))])
        await house.until(lambda: house.handed)

    assert [item.invocation.subscription_uid for item in house.handed] == ["uid-1"]


async def test_a_store_out_of_reach_leaves_the_old_rules_in_force():
    house = House()
    async with running(house):
        await house.until(lambda: house.router.is_ready)
        house.rules.broken = True
        house.router.notice()
        await house.log.append([draft(event(1))])
        await house.until(lambda: house.handed)

    assert any(name == "rules_not_loaded" for name, _ in house.said)


async def test_a_full_next_stage_stops_the_reading():
    house = House()
    house.open.clear()
    async with running(house):
        await house.log.append([draft(event(1))])
        await asyncio.sleep(0.02)
        assert house.handed == []
        house.open.set()
        await house.until(lambda: house.handed)


async def test_a_big_record_is_planned_beside_the_loop(monkeypatch):
    threads: dict[int, bool] = {}

    def seen(record):
        threads[len(record.value) > 1000] = threading.current_thread() is threading.main_thread()
        return read_event(record)

    monkeypatch.setattr("router.service.read_event", seen)
    big = replace(event(2), body=b'{"text": "%s"}' % (b"x" * 300_000))

    async with running(House()) as house:
        await house.log.append([draft(event(1)), draft(big)])
        await house.until(lambda: len(house.handed) == 2)

    assert threads == {False: True, True: False}


async def test_after_a_record_that_held_the_loop_the_next_are_planned_beside_it_until_one_is_quick_again(monkeypatch):
    on_loop: list[bool] = []
    held_s = iter([0.021, 0.030, 0.001, 0.001])
    now = 0.0

    def clock() -> float:
        return now

    def seen(record):
        nonlocal now
        on_loop.append(threading.current_thread() is threading.main_thread())
        now += next(held_s)
        return read_event(record)

    monkeypatch.setattr("router.service.read_event", seen)
    monkeypatch.setattr("router.service.perf_counter", clock)
    monkeypatch.setattr("router.service.thread_time", clock)

    async with running(House()) as house:
        await house.log.append([draft(event(number)) for number in range(4)])
        await house.until(lambda: len(house.handed) == 4)

    assert on_loop == [True, False, False, True]


async def test_a_large_ruleset_is_built_beside_the_loop_and_with_the_collector_at_rest(monkeypatch):
    built: list[tuple[bool, bool]] = []

    def seen(config):
        built.append((threading.current_thread() is threading.main_thread(), gc.isenabled()))
        return compile_rule(config)

    monkeypatch.setattr("router.ruleset.compile_rule", seen)
    for number in (3, 101):
        async with running(House(*[rule()] * number)):
            pass

    assert built == [(True, False)] * 3 + [(False, False)] * 101
    assert gc.isenabled()


async def test_a_place_whose_first_records_are_gone_gets_its_cursor_where_it_begins():
    house = House()
    await house.log.start()
    await house.log.ensure({TOPIC: 2})
    (place,) = {place for place, _ in await house.log.append([draft(event(number)) for number in range(3)])}
    house.log._cut(house.log._partition(place), 2)
    async with running(house):
        await house.until(lambda: house.handed)

    assert [item.data["n"] for item in house.handed] == [2]
    assert house.store.positions[place] == 3


class Forgetful(MemoryLog):
    """Its readers say of their first batch that it is another's, and of the later ones that they are theirs."""

    def reader(self, **words):
        found = super().reader(**words)
        read, number = found.next, iter(range(1_000))

        async def told():
            batch = await read()
            is_ours = next(number) > 0
            return replace(batch, is_owned=lambda: is_ours)

        found.next = told
        return found


async def test_what_another_router_was_to_admit_is_not_skipped_by_who_reads_on() -> None:
    """Found by the simulation (seed 18369): a place had no cursor as yet, and a later batch made it one."""
    house = House()
    house.log = house.router._log = Forgetful()
    async with running(house):
        await house.log.append([draft(event(1))])
        await asyncio.sleep(0.02)
        await house.log.append([draft(event(2))])
        await house.until(lambda: any(name == "router_fenced" for name, _ in house.said))

    assert house.store.positions == {}
    assert house.store.seen == {}
