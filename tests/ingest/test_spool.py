"""The spool before the log: takes over in time, keeps order, drains, is bounded, and forgets nothing."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry

from eventlog.config import LogConfig
from eventlog.sql import SqlLog
from ingest.metrics import SpoolMetrics
from ingest.spool import PLACE, UNSENDABLE, Spool, SpoolBounds, spooled, waves
from schemas.errors import LogUnavailable, Saturated, TooLarge
from schemas.topics import Draft, Place, Record


class FailingLog:
    """A log that can be down, slow, or refuse single records."""

    def __init__(self) -> None:
        self.taken: list[Draft] = []
        self.is_down = False
        self.is_slow = False
        self.refused: set[bytes] = set()
        self.fail_after = -1  # so many appends are taken, then it is down
        self.largest = 0

    async def append(self, drafts: Sequence[Draft]) -> list[tuple[Place, int]]:
        if self.is_slow:
            await asyncio.Event().wait()
        if self.fail_after == 0:
            self.is_down, self.fail_after = True, -1
        if self.is_down:
            raise LogUnavailable
        if any(draft.value in self.refused for draft in drafts):
            raise TooLarge
        self.fail_after -= self.fail_after > 0
        self.taken += drafts
        self.largest = max(self.largest, len(drafts))
        return [(Place(draft.topic, 0), number) for number, draft in enumerate(drafts)]

    def values(self, key: str = "") -> list[bytes]:
        return [draft.value for draft in self.taken if draft.key == key or not key]


class Bench:
    def __init__(self, folder: Path, **bounds: float) -> None:
        self.folder = folder
        self.log = FailingLog()
        self.may_spool = True
        self.now_ms = 1_750_000_000_000
        self.bounds = SpoolBounds(**{"budget_s": 0.05, **bounds})
        self.pauses: list[float] = []
        self.make()

    def make(self) -> None:
        config = LogConfig(partitions=1, reserve_bytes=0, tail_bytes=0)
        self.held = SqlLog(self.folder / "spool.db", config, clock=lambda: self.now_ms)
        self.registry = CollectorRegistry()
        self.spool = Spool(
            self.log,
            self.held,
            policy=lambda _: self.may_spool,
            bounds=self.bounds,
            now_ms=lambda: self.now_ms,
            metrics=SpoolMetrics(self.registry),
            sleep=self._sleep,
        )

    async def _sleep(self, pause_s: float) -> None:
        self.pauses.append(pause_s)
        await asyncio.sleep(0.001)

    async def open(self) -> None:
        await self.spool.open()
        self.draining = asyncio.create_task(self.spool.run())

    async def close(self) -> None:
        self.draining.cancel()
        await self.spool.aclose()

    async def reopened(self) -> None:
        await self.close()
        self.make()
        await self.open()

    async def ring(self, key: str, number: int, *, topic: str = "nightbell.events.github", **headers: str) -> None:
        await self.spool.append([Draft(topic, key, b"%d" % number, {"ce_id": f"evt_{key}{number}", **headers})])

    async def drained(self) -> None:
        async with asyncio.timeout(5):
            while self.spool.is_holding:
                await asyncio.sleep(0.001)

    def metric(self, name: str) -> float | None:
        return self.registry.get_sample_value(f"nightbell_spool_{name}")


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    found = Bench(tmp_path)
    await found.open()
    yield found
    await found.close()


async def test_with_a_healthy_log_the_spool_is_never_touched(bench: Bench):
    await bench.ring("a", 1)

    assert bench.log.values() == [b"1"]
    assert bench.metric("events_total") == 0
    assert "ce_nbflags" not in bench.log.taken[0].headers


async def test_a_log_that_is_down_costs_the_sender_nothing_and_all_arrives_in_order_flagged(bench: Bench):
    bench.log.is_down = True
    for number in range(5):
        await bench.ring("a", number)
        await bench.ring("b", number, topic="nightbell.events.stripe")
    assert bench.log.values() == []
    assert bench.metric("bytes") == 20

    bench.log.is_down = False
    await bench.drained()

    assert bench.log.values("a") == bench.log.values("b") == [b"%d" % number for number in range(5)]
    assert {draft.topic for draft in bench.log.taken} == {"nightbell.events.github", "nightbell.events.stripe"}
    assert {draft.headers["ce_nbflags"] for draft in bench.log.taken} == {"spooled"}
    assert all(set(draft.headers) == {"ce_id", "ce_nbflags"} for draft in bench.log.taken)
    assert bench.metric("bytes") == 0
    assert bench.metric("drained_events_total") == 10


async def test_a_flag_that_is_there_stays(bench: Bench):
    bench.log.is_down = True
    await bench.ring("a", 1, ce_nbflags="ambiguous_json")
    bench.log.is_down = False
    await bench.drained()

    assert bench.log.taken[0].headers["ce_nbflags"] == "ambiguous_json,spooled"


async def test_a_log_slower_than_the_sender_waits_is_as_good_as_down(bench: Bench):
    bench.log.is_slow = True

    async with asyncio.timeout(1):
        await bench.ring("a", 1)

    assert bench.metric("events_total") == 1


async def test_while_anything_waits_what_comes_goes_to_the_tail(bench: Bench):
    bench.log.is_down = True
    await bench.ring("a", 1)
    bench.draining.cancel()
    bench.log.is_down = False

    await bench.ring("a", 2)

    assert bench.log.values() == []
    bench.draining = asyncio.create_task(bench.spool.run())
    bench.spool._wake.set()
    await bench.drained()
    assert bench.log.values("a") == [b"1", b"2"]


async def test_once_drained_the_log_is_asked_first_again(bench: Bench):
    bench.log.is_down = True
    await bench.ring("a", 1)
    bench.log.is_down = False
    await bench.drained()

    await bench.ring("a", 2)

    assert bench.log.values() == [b"1", b"2"]
    assert bench.metric("events_total") == 1


async def test_a_sender_that_comes_again_by_itself_is_told_so(bench: Bench):
    bench.log.is_down, bench.may_spool = True, False

    with pytest.raises(LogUnavailable):
        await bench.ring("a", 1)

    assert not bench.spool.is_holding


async def test_such_a_sender_is_not_held_up_by_what_others_left_in_the_spool(bench: Bench):
    bench.log.is_down = True
    await bench.ring("a", 1)
    bench.draining.cancel()
    bench.log.is_down, bench.may_spool = False, False

    await bench.ring("b", 1)

    assert bench.log.values() == [b"1"]


async def test_a_failure_in_the_middle_repeats_and_reorders_nothing(bench: Bench):
    bench.log.is_down = True
    for number in range(6):
        await bench.ring("a", number)
    bench.log.is_down, bench.log.fail_after = False, 3
    async with asyncio.timeout(5):
        while not bench.log.is_down:
            await asyncio.sleep(0.001)
    bench.log.is_down = False
    await bench.drained()

    firsts = list(dict.fromkeys(bench.log.values("a")))
    assert firsts == [b"%d" % number for number in range(6)]
    assert bench.log.largest == 1, "two of a key were on their way at once"


async def test_what_a_killed_process_left_is_found_and_drained_first(bench: Bench):
    bench.log.is_down = True
    for number in range(3):
        await bench.ring("a", number)
    await bench.reopened()
    assert bench.spool.is_holding
    assert bench.metric("bytes") == 3 * 2

    await bench.ring("a", 3)
    bench.log.is_down = False
    await bench.drained()

    assert bench.log.values("a") == [b"0", b"1", b"2", b"3"]


async def test_what_waits_is_seen_from_outside(bench: Bench):
    path = bench.folder / "spool.db"
    assert spooled(bench.folder / "none.db") == (0, 0)
    assert spooled(path) == (0, 0)
    bench.log.is_down = True
    await bench.ring("a", 1)
    bench.now_ms += 5000
    await bench.ring("a", 2)

    assert spooled(path) == (2, bench.now_ms - 5000)


async def test_an_emptied_spool_is_empty_after_a_restart(bench: Bench):
    bench.log.is_down = True
    await bench.ring("a", 1)
    bench.log.is_down = False
    await bench.drained()
    async with asyncio.timeout(5):
        while (await bench.held.bounds(PLACE)).oldest == 0:
            await asyncio.sleep(0.001)

    await bench.reopened()

    assert not bench.spool.is_holding


async def test_a_full_spool_refuses(tmp_path: Path):
    bench = Bench(tmp_path, max_bytes=4)
    await bench.open()
    bench.log.is_down = True
    await bench.ring("a", 1)
    await bench.ring("a", 2)

    with pytest.raises(Saturated):
        await bench.ring("a", 3)

    assert not bench.spool.has_room
    await bench.close()


async def test_a_spool_whose_oldest_event_is_too_old_refuses(bench: Bench):
    bench.log.is_down = True
    await bench.ring("a", 1)
    bench.now_ms += 25 * 3_600_000
    assert bench.metric("oldest_age_seconds") == 25 * 3600

    with pytest.raises(Saturated):
        await bench.ring("a", 2)


async def test_a_record_that_the_log_refuses_for_good_is_kept_aside_and_holds_up_nobody(bench: Bench):
    bench.log.is_down = True
    for number in range(3):
        await bench.ring("abc"[number], number)
    bench.log.refused = {b"1"}
    bench.log.is_down = False
    await bench.drained()

    assert sorted(bench.log.values()) == [b"0", b"2"]
    [kept] = await bench.held.read(Place(UNSENDABLE, 0), 0)
    assert (kept.value, kept.headers["reason"]) == (b"1", "too_large")


async def test_the_pause_between_two_tries_grows(bench: Bench):
    bench.log.is_down = True
    await bench.ring("a", 1)
    async with asyncio.timeout(5):
        while len(bench.pauses) < 8:
            await asyncio.sleep(0.001)

    assert bench.pauses[:3] == [0.1, 0.2, 0.4]
    assert max(bench.pauses) == 2.0


def test_waves_hold_no_key_twice_and_keep_each_keys_order():
    records = [
        Record("spool", 0, number, key, b"", {"nbspool-topic": "t"}, 0)
        for number, key in enumerate(["a", "b", "a", "c", "a", "b"])
    ]

    found = [[record.position for record in wave] for wave in waves(records)]

    assert found == [[0, 1, 3], [2, 5], [4]]
