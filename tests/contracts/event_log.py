"""What every driver of the event log must keep, as tests that each of them inherits.

A driver's test file gives a `bench` fixture (see `LogBench`) and a class that inherits `EventLogContract`, or `DurableLogContract`
where records survive the process.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from typing import Protocol

import pytest

from eventlog.config import LogConfig
from eventlog.log import Batch, EventLog, Reader
from schemas.errors import BadSetting, CursorLost, LogUnavailable, MalformedRequest, NightbellError, Saturated, TooLarge
from schemas.topics import Draft, Place, Record

PATIENCE_S = 20.0


class LogBench(Protocol):
    """What a driver's tests give to the contract."""

    prefix: str

    async def open(self, config: LogConfig | None = None) -> EventLog:
        """A started log over the same storage each time; closed when the test ends."""
        ...

    def now_ms(self) -> int:
        """The log's own time."""
        ...

    async def tick(self) -> None:
        """Let the log's own time pass by a little."""
        ...

    async def forget(self, log: EventLog, place: Place, position: int) -> None:
        """Let retention remove what is before `position`, all of it appended before the last `tick`."""
        ...


def config(**fields: int) -> LogConfig:
    return LogConfig(partitions=2, reserve_bytes=0, **fields)


def draft(topic: str, key: str = "k", value: bytes = b"v", **headers: str) -> Draft:
    return Draft(topic, key, value, headers)


def cursors(known: Mapping[Place, int] | None = None) -> Callable[[Sequence[Place]], Awaitable[Mapping[Place, int]]]:
    async def start(places: Sequence[Place]) -> Mapping[Place, int]:
        return {place: position for place, position in (known or {}).items() if place in places}

    return start


async def soon(reader: Reader) -> Batch:
    async with asyncio.timeout(PATIENCE_S):
        return await reader.next()


async def collect(reader: Reader, count: int) -> list[Record]:
    found: list[Record] = []
    while len(found) < count:
        batch = await soon(reader)
        assert batch.records
        assert batch.first <= batch.records[0].position
        assert batch.after == batch.records[-1].position + 1
        assert all((record.topic, record.partition) == batch.place for record in batch.records)
        found += batch.records
        reader.progressed(batch.place, batch.after)
    return found


async def read_all(log: EventLog, topic: str) -> list[Record]:
    found: list[Record] = []
    for place in await log.places(topic):
        bounds = await log.bounds(place)
        position = bounds.oldest
        while position < bounds.end:
            records = await log.read(place, position)
            assert records
            found += records
            position = records[-1].position + 1
    return found


class EventLogContract:
    """The promises that do not need storage which outlives the process."""

    @pytest.fixture
    async def log(self, bench: LogBench) -> AsyncIterator[EventLog]:
        log = await bench.open(config())
        yield log
        await log.aclose(grace_s=5)

    @pytest.fixture
    def topic(self, bench: LogBench) -> str:
        return f"{bench.prefix}.events.a"

    @pytest.fixture
    def other(self, bench: LogBench) -> str:
        return f"{bench.prefix}.events.b"

    async def test_what_was_appended_is_read_back_byte_for_byte(self, log: EventLog, topic: str) -> None:
        value = bytes(range(256)) * 3 + b"\r\n\x00"
        headers = {"ce_id": "evt_1", "ce_subject": "Zürich/日本/🔔", "ce_empty": "", "ce_control": "a\tb\nc"}

        [(place, position)] = await log.append([Draft(topic, "Schlüssel/日本/🔔", value, headers)])
        [record] = await log.read(place, position)

        assert (record.topic, record.partition, record.position) == (topic, place.partition, position)
        assert (record.key, record.value, dict(record.headers)) == ("Schlüssel/日本/🔔", value, headers)

    async def test_an_empty_value_and_no_headers_are_kept(self, log: EventLog, topic: str) -> None:
        [(place, position)] = await log.append([Draft(topic, "k", b"", {})])

        [record] = await log.read(place, position)

        assert (record.value, dict(record.headers)) == (b"", {})

    async def test_appending_nothing_gives_nothing(self, log: EventLog) -> None:
        assert await log.append([]) == []

    async def test_a_record_bears_the_logs_own_time(self, log: EventLog, bench: LogBench, topic: str) -> None:
        before = bench.now_ms()
        [(place, position)] = await log.append([draft(topic)])
        after = bench.now_ms()

        [record] = await log.read(place, position)

        assert before <= record.appended_ms <= after

    async def test_records_of_one_call_lie_where_it_says_in_their_order(self, log: EventLog, topic: str) -> None:
        drafts = [draft(topic, f"key-{n % 5}", b"%d" % n) for n in range(50)]

        places = await log.append(drafts)

        for sent, (place, position) in zip(drafts, places, strict=True):
            record = (await log.read(place, position, max_records=1))[0]
            assert (record.key, record.value) == (sent.key, sent.value)
        by_key: dict[str, list[int]] = defaultdict(list)
        for sent, (_, position) in zip(drafts, places, strict=True):
            by_key[sent.key].append(position)
        assert all(positions == sorted(set(positions)) for positions in by_key.values())

    async def test_one_call_may_carry_several_topics(self, log: EventLog, topic: str, other: str) -> None:
        places = await log.append([draft(topic, "a", b"1"), draft(other, "a", b"2"), draft(topic, "b", b"3")])

        assert [place.topic for place, _ in places] == [topic, other, topic]
        assert sorted(record.value for record in await read_all(log, topic)) == [b"1", b"3"]
        assert [record.value for record in await read_all(log, other)] == [b"2"]

    async def test_a_key_keeps_its_partition_and_its_order_under_concurrent_appends(self, log: EventLog, topic: str) -> None:
        async def write(key: str) -> None:
            for n in range(40):
                await log.append([draft(topic, key, b"%d" % n)])

        await asyncio.gather(*[write(f"key-{n}") for n in range(12)])

        by_key: dict[str, list[Record]] = defaultdict(list)
        for record in await read_all(log, topic):
            by_key[record.key].append(record)
        assert len(by_key) == 12
        for records in by_key.values():
            assert [int(record.value) for record in records] == list(range(40))
            assert len({record.partition for record in records}) == 1
        assert {records[0].partition for records in by_key.values()} == {0, 1}

    async def test_a_record_of_the_largest_size_is_taken_and_a_larger_one_is_refused(self, bench: LogBench, topic: str) -> None:
        log = await bench.open(config(max_record_bytes=2_000_000))
        headers = {"h": "x" * 10}
        room = log.max_record_bytes - len("k") - len('{"h":"xxxxxxxxxx"}')

        [(place, position)] = await log.append([Draft(topic, "k", b"v" * room, headers)])
        with pytest.raises(TooLarge):
            await log.append([Draft(topic, "k", b"v" * (room + 1), headers)])

        assert log.max_record_bytes == 2_000_000
        [record] = await log.read(place, position)
        assert len(record.value) == room
        assert (await log.bounds(place)).end == position + 1

    @pytest.mark.parametrize(("key", "header"), [("\ud800", "x"), ("k", "\udcff")])
    async def test_text_that_is_not_unicode_is_refused(self, log: EventLog, topic: str, key: str, header: str) -> None:
        with pytest.raises(MalformedRequest):
            await log.append([Draft(topic, key, b"", {"h": header})])

    async def test_a_topic_has_the_partitions_it_was_made_with(self, log: EventLog, topic: str, other: str) -> None:
        await log.ensure({topic: 3, other: 1})
        await log.ensure({topic: 3})

        assert await log.places(topic) == [Place(topic, 0), Place(topic, 1), Place(topic, 2)]
        assert await log.places(other) == [Place(other, 0)]
        with pytest.raises(BadSetting, match="3"):
            await log.ensure({topic: 4})

    async def test_a_topic_that_is_not_there_has_no_places_until_an_append_makes_it(self, log: EventLog, topic: str) -> None:
        assert await log.places(topic) == []

        await log.append([draft(topic)])

        assert len(await log.places(topic)) == 2

    async def test_bounds_of_an_empty_place_are_equal_and_the_end_rises(self, log: EventLog, topic: str) -> None:
        await log.ensure({topic: 1})
        place = Place(topic, 0)
        empty = await log.bounds(place)

        places = await log.append([draft(topic, f"{n}") for n in range(5)])
        filled = await log.bounds(place)

        assert empty.oldest == empty.end
        assert filled.oldest == empty.oldest == places[0][1]
        assert filled.end == places[-1][1] + 1

    async def test_a_place_that_is_not_there_is_lost(self, log: EventLog, topic: str) -> None:
        await log.ensure({topic: 1})

        for place in (Place(topic, 7), Place(f"{topic}.none", 0)):
            with pytest.raises(CursorLost):
                await log.bounds(place)
            with pytest.raises(CursorLost):
                await log.read(place, 0)

    async def test_reading_stops_at_the_number_and_size_asked_for(self, log: EventLog, topic: str) -> None:
        await log.ensure({topic: 1})
        places = await log.append([draft(topic, value=bytes([n]) * 1000) for n in range(10)])
        place, first = places[0]

        by_number = await log.read(place, first, max_records=3)
        by_size = await log.read(place, first, max_bytes=3_500)
        at_least_one = await log.read(place, first, max_bytes=10)

        assert [record.value[0] for record in by_number] == [0, 1, 2]
        assert 1 <= len(by_size) <= 3
        assert len(at_least_one) == 1

    async def test_reading_at_the_end_gives_nothing_and_outside_is_lost(self, log: EventLog, topic: str) -> None:
        await log.ensure({topic: 1})
        await log.append([draft(topic)])
        place = Place(topic, 0)
        end = (await log.bounds(place)).end

        assert await log.read(place, end) == []
        with pytest.raises(CursorLost) as caught:
            await log.read(place, end + 1)
        assert (caught.value.fields["topic"], caught.value.fields["partition"]) == place
        assert caught.value.fields["position"] == end + 1

    async def test_an_instant_names_the_first_record_from_then_on(self, log: EventLog, bench: LogBench, topic: str) -> None:
        await log.ensure({topic: 1})
        place = Place(topic, 0)
        early = bench.now_ms() - 60_000
        old = await log.append([draft(topic) for _ in range(5)])
        await bench.tick()
        between = bench.now_ms()
        new = await log.append([draft(topic) for _ in range(5)])
        await bench.tick()

        assert await log.position_at(place, early) == old[0][1]
        assert await log.position_at(place, between) == new[0][1]
        assert await log.position_at(place, bench.now_ms() + 1) == (await log.bounds(place)).end

    async def test_lag_counts_records_and_the_age_of_the_next(self, log: EventLog, bench: LogBench, topic: str) -> None:
        await log.ensure({topic: 1})
        places = await log.append([draft(topic) for _ in range(7)])
        place, first = places[0]
        await bench.tick()

        behind = await log.lag(place, first + 2)
        level = await log.lag(place, first + 7)

        assert behind.records == 5
        assert 0 < behind.seconds < 60
        assert level == (0, 0.0)

    async def test_what_retention_removed_is_lost_to_a_lagging_cursor(self, log: EventLog, bench: LogBench, topic: str) -> None:
        await log.ensure({topic: 1})
        places = await log.append([draft(topic, value=b"%d" % n) for n in range(10)])
        await bench.tick()
        more = await log.append([draft(topic, value=b"new")])
        place, first = places[0]

        await bench.forget(log, place, more[0][1])

        assert await log.bounds(place) == (more[0][1], more[0][1] + 1)
        assert [record.value for record in await log.read(place, more[0][1])] == [b"new"]
        with pytest.raises(CursorLost):
            await log.read(place, first)
        reader = log.reader(group=f"{topic}.g", topics=[topic], start=cursors({place: first}))
        with pytest.raises(CursorLost) as caught:
            await soon(reader)
        assert caught.value.fields["position"] == first
        reader.seek(place, more[0][1])
        assert [record.value for record in (await soon(reader)).records] == [b"new"]
        await reader.aclose()

    async def test_positions_go_on_after_everything_was_removed(self, log: EventLog, bench: LogBench, topic: str) -> None:
        await log.ensure({topic: 1})
        places = await log.append([draft(topic) for _ in range(3)])
        await bench.tick()
        place, end = places[0][0], places[-1][1] + 1

        await bench.forget(log, place, end)

        assert await log.bounds(place) == (end, end)
        assert (await log.append([draft(topic)]))[0][1] >= end

    async def test_a_full_queue_refuses_and_what_was_taken_is_kept(self, bench: LogBench, topic: str) -> None:
        log = await bench.open(config(queue_records=8, memory_bytes=40_000))
        await log.ensure({topic: 1})

        results = await asyncio.gather(
            *[log.append([draft(topic, value=b"x" * 1000)]) for _ in range(60)], return_exceptions=True
        )

        refused = [result for result in results if isinstance(result, BaseException)]
        taken = [result for result in results if not isinstance(result, BaseException)]
        assert refused
        assert all(isinstance(error, Saturated) for error in refused)
        assert taken
        assert len(await read_all(log, topic)) == len(taken)

    async def test_a_queue_that_was_full_takes_again(self, bench: LogBench, topic: str) -> None:
        log = await bench.open(config(queue_bytes=8_000, memory_bytes=40_000))
        await asyncio.gather(*[log.append([draft(topic, value=b"x" * 1000)]) for _ in range(60)], return_exceptions=True)
        await bench.tick()

        await log.trim(older_than_ms=bench.now_ms() + 1)

        assert await log.append([draft(topic, value=b"x" * 1000)])

    async def test_a_reader_gets_everything_and_wakes_for_more(self, log: EventLog, topic: str, other: str) -> None:
        await log.append([draft(topic, f"{n}", b"old-%d" % n) for n in range(20)])
        await log.ensure({other: 2})
        reader = log.reader(group=f"{topic}.g", topics=[topic, other], start=cursors())

        old = await collect(reader, 20)
        waiting = asyncio.create_task(collect(reader, 10))
        await asyncio.sleep(0)
        await log.append([draft(other, f"{n}", b"new-%d" % n) for n in range(10)])
        new = await waiting

        assert {record.value for record in old} == {b"old-%d" % n for n in range(20)}
        assert {record.value for record in new} == {b"new-%d" % n for n in range(10)}
        await reader.aclose()

    async def test_a_reader_keeps_each_places_order_while_appends_go_on(self, log: EventLog, topic: str) -> None:
        await log.ensure({topic: 2})
        reader = log.reader(group=f"{topic}.g", topics=[topic], start=cursors())

        async def write(key: str) -> None:
            for n in range(50):
                await log.append([draft(topic, key, b"%d" % n)])

        records, *_ = await asyncio.gather(collect(reader, 400), *[write(f"{n}") for n in range(8)])

        for place in await log.places(topic):
            positions = [record.position for record in records if record.partition == place.partition]
            assert positions == sorted(set(positions))
        for key in range(8):
            assert [int(record.value) for record in records if record.key == f"{key}"] == list(range(50))
        await reader.aclose()

    async def test_a_reader_starts_where_the_callers_cursor_says(self, log: EventLog, topic: str) -> None:
        await log.ensure({topic: 1})
        places = await log.append([draft(topic, value=b"%d" % n) for n in range(10)])
        asked: list[Sequence[Place]] = []

        async def start(given: Sequence[Place]) -> Mapping[Place, int]:
            asked.append(given)
            return {places[0][0]: places[6][1]}

        reader = log.reader(group=f"{topic}.g", topics=[topic], start=start)
        batch = await soon(reader)

        assert [list(given) for given in asked] == [[Place(topic, 0)]]
        assert batch.first == places[6][1]
        assert batch.records[0].value == b"6"
        assert batch.is_owned()
        await reader.aclose()
        assert not batch.is_owned()

    async def test_a_cursor_beyond_the_end_is_lost_and_the_other_places_go_on(
        self, log: EventLog, topic: str, other: str
    ) -> None:
        await log.ensure({topic: 1, other: 1})
        await log.append([draft(topic, value=b"a"), draft(other, value=b"b")])
        reader = log.reader(group=f"{topic}.g", topics=[topic, other], start=cursors({Place(topic, 0): 99}))

        errors: list[CursorLost] = []
        values: list[bytes] = []
        for _ in range(2):
            try:
                values += [record.value for record in (await soon(reader)).records]
            except CursorLost as exc:
                errors.append(exc)

        assert [error.fields["position"] for error in errors] == [99]
        assert values == [b"b"]
        await reader.aclose()

    async def test_a_reader_goes_back_where_it_is_told_to(self, log: EventLog, topic: str) -> None:
        await log.ensure({topic: 1})
        await log.append([draft(topic, value=b"%d" % n) for n in range(10)])
        reader = log.reader(group=f"{topic}.g", topics=[topic], start=cursors())
        first = await soon(reader)

        reader.seek(first.place, first.first)
        again = await collect(reader, 10)
        await log.append([draft(topic, value=b"10")])
        more = await collect(reader, 1)

        assert [record.value for record in again] == [b"%d" % n for n in range(10)]
        assert [record.value for record in more] == [b"10"]
        await reader.aclose()

    async def test_seeking_a_place_that_is_not_assigned_is_nothing(self, log: EventLog, topic: str) -> None:
        await log.ensure({topic: 1})
        await log.append([draft(topic)])
        reader = log.reader(group=f"{topic}.g", topics=[topic], start=cursors())

        reader.seek(Place(f"{topic}.none", 3), 5)

        assert len(await collect(reader, 1)) == 1
        await reader.aclose()

    async def test_a_reader_watches_topics_that_come_later(self, log: EventLog, topic: str, other: str) -> None:
        await log.ensure({topic: 1})
        kept: dict[Place, int] = {}
        reader = log.reader(group=f"{topic}.g", topics=[topic], start=cursors(kept))
        [(place, position)] = await log.append([draft(topic, value=b"a")])
        assert [record.value for record in await collect(reader, 1)] == [b"a"]
        kept[place] = position + 1

        reader.watch([other])
        waiting = asyncio.create_task(collect(reader, 2))
        await asyncio.sleep(0.05)
        await log.append([draft(other, "1", b"b"), draft(other, "2", b"b")])

        assert [record.value for record in await waiting] == [b"b", b"b"]
        await log.append([draft(topic, value=b"c")])
        assert [record.value for record in await collect(reader, 1)] == [b"c"]
        await reader.aclose()

    async def test_a_start_that_fails_is_told_and_asked_again(self, log: EventLog, topic: str) -> None:
        await log.append([draft(topic)])
        calls = 0

        async def start(_: Sequence[Place]) -> Mapping[Place, int]:
            nonlocal calls
            calls += 1
            if calls == 1:
                raise LogUnavailable("the store is away")
            return {}

        reader = log.reader(group=f"{topic}.g", topics=[topic], start=start)

        with pytest.raises(LogUnavailable, match="the store is away"):
            await soon(reader)
        assert len(await collect(reader, 1)) == 1
        await reader.aclose()

    async def test_a_second_reader_of_a_group_takes_over_and_gives_back(self, log: EventLog, topic: str) -> None:
        await log.ensure({topic: 1})
        await log.append([draft(topic, value=b"1")])
        kept: dict[Place, int] = {}
        first = log.reader(group=f"{topic}.g", topics=[topic], start=cursors(kept))
        batch = await soon(first)
        assert batch.is_owned()

        second = log.reader(group=f"{topic}.g", topics=[topic], start=cursors(kept))
        readers = [asyncio.create_task(drain(reader, kept)) for reader in (first, second)]
        for n in range(2, 6):
            await log.append([draft(topic, value=b"%d" % n)])
        await reached(kept, Place(topic, 0), (await log.bounds(Place(topic, 0))).end)
        for reading in readers:
            reading.cancel()
        await asyncio.gather(*readers, return_exceptions=True)
        await second.aclose()
        await log.append([draft(topic, value=b"6")])
        last = await collect(first, 1)

        assert last[-1].value == b"6"
        assert not batch.is_owned()
        await first.aclose()

    async def test_two_groups_read_the_same(self, log: EventLog, topic: str) -> None:
        await log.ensure({topic: 1})
        readers = [log.reader(group=f"{topic}.{name}", topics=[topic], start=cursors()) for name in "ab"]
        await log.append([draft(topic, value=b"%d" % n) for n in range(5)])

        both = [[record.value for record in await collect(reader, 5)] for reader in readers]

        assert both == [[b"0", b"1", b"2", b"3", b"4"]] * 2
        for reader in readers:
            await reader.aclose()

    async def test_a_cancelled_append_harms_nobody(self, log: EventLog, topic: str) -> None:
        await log.ensure({topic: 1})
        hasty = [asyncio.create_task(log.append([draft(topic, value=b"hasty")])) for _ in range(5)]
        await asyncio.sleep(0)
        for task in hasty:
            task.cancel()
        await asyncio.gather(*hasty, return_exceptions=True)

        await log.append([draft(topic, value=b"patient")])

        assert [record.value for record in await read_all(log, topic)][-1] == b"patient"

    async def test_a_graceful_stop_finishes_what_is_under_way_and_refuses_what_comes_later(
        self, bench: LogBench, topic: str
    ) -> None:
        log = await bench.open(config())
        await log.ensure({topic: 1})
        reader = log.reader(group=f"{topic}.g", topics=[topic], start=cursors())
        reading = asyncio.create_task(reader.next())
        under_way = [asyncio.create_task(log.append([draft(topic, value=b"%d" % n)])) for n in range(20)]
        await asyncio.sleep(0)

        await log.aclose(grace_s=5)

        assert [len(places) for places in await asyncio.gather(*under_way)] == [1] * 20
        with pytest.raises(LogUnavailable):
            await log.append([draft(topic)])
        await asyncio.wait([reading], timeout=PATIENCE_S)
        if reading.exception() is None:
            reading = asyncio.create_task(reader.next())  # the first had found a record in time
            await asyncio.wait([reading], timeout=PATIENCE_S)
        assert isinstance(reading.exception(), LogUnavailable)

    async def test_a_log_that_takes_appends_is_healthy_and_a_closed_one_is_not(self, bench: LogBench, topic: str) -> None:
        log = await bench.open(config())
        await log.append([draft(topic)])

        assert await log.healthy()
        await log.aclose(grace_s=5)
        assert not await log.healthy()

    async def test_a_log_may_be_closed_twice(self, bench: LogBench) -> None:
        log = await bench.open(config())

        await log.aclose(grace_s=5)
        await log.aclose(grace_s=5)

        with pytest.raises(LogUnavailable):
            await log.append([draft("t")])


class DurableLogContract(EventLogContract):
    """The promises of a log that outlives the process."""

    async def test_what_was_appended_is_there_after_a_restart(self, bench: LogBench, topic: str) -> None:
        log = await bench.open(config())
        places = await log.append([draft(topic, f"{n}", b"%d" % n, ce_id=f"{n}") for n in range(100)])
        name = log.log_id
        await log.aclose(grace_s=5)

        again = await bench.open(config())

        assert again.log_id == name
        for n, (place, position) in enumerate(places):
            record = (await again.read(place, position, max_records=1))[0]
            assert (record.key, record.value, record.headers["ce_id"]) == (f"{n}", b"%d" % n, f"{n}")
        more = await again.append([draft(topic, f"{n}") for n in range(100)])
        for (place, position), (same, later) in zip(places, more, strict=True):
            assert place == same
            assert later > position

    async def test_a_reader_goes_on_from_its_cursor_after_a_restart(self, bench: LogBench, topic: str) -> None:
        log = await bench.open(config())
        await log.ensure({topic: 1})
        await log.append([draft(topic, value=b"%d" % n) for n in range(10)])
        reader = log.reader(group=f"{topic}.g", topics=[topic], start=cursors())
        batch = await soon(reader)
        await log.aclose(grace_s=5)

        again = await bench.open(config())
        await again.append([draft(topic, value=b"new")])
        reader = again.reader(group=f"{topic}.g", topics=[topic], start=cursors({batch.place: batch.after}))

        expected = [b"%d" % n for n in range(len(batch.records), 10)] + [b"new"]
        assert [record.value for record in await collect(reader, len(expected))] == expected
        await reader.aclose()


async def drain(reader: Reader, kept: dict[Place, int]) -> None:
    while True:
        try:
            batch = await reader.next()
        except NightbellError:
            continue
        if batch.is_owned():
            kept[batch.place] = max(batch.after, kept.get(batch.place, 0))


async def reached(kept: dict[Place, int], place: Place, end: int) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while kept.get(place, 0) < end:
            await asyncio.sleep(0.01)
