"""The reader's own decisions, over a member of a group that the test plays."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence

import pytest

from eventlog.config import KafkaConfig, LogConfig
from eventlog.kafka_reader import Assigned, KafkaReader, Revoked
from eventlog.log import Bounds
from eventlog.observer import Observer
from schemas.errors import CursorLost, FencedOut, LogUnavailable, NightbellError
from schemas.topics import Place, Record
from tests.contracts.event_log import cursors

A = Place("t", 0)
B = Place("t", 1)


def records(place: Place, first: int, count: int = 1) -> list[Record]:
    return [Record(place.topic, place.partition, first + n, "k", b"v", {}, 0) for n in range(count)]


class FakeMember:
    def __init__(self, home: FakeHome) -> None:
        self.home = home
        self.sought: dict[Place, int] = {}
        self.held: set[Place] = set()
        self.fetches: list[dict[Place, list[Record]] | NightbellError] = []
        self.commits: list[Mapping[Place, int]] = []
        self.is_stopped = False

    async def start(self, topics: Sequence[str], revoked: Revoked, assigned: Assigned) -> None:
        self.revoked, self.assigned = revoked, assigned
        assigned(list(self.home.assignment))

    def subscribe(self, topics: Sequence[str], revoked: Revoked, assigned: Assigned) -> None:
        revoked()
        assigned(list(self.home.assignment))

    async def fetch(self, *, max_records: int, timeout_s: float) -> dict[Place, list[Record]]:
        await asyncio.sleep(0)
        got = self.fetches.pop(0) if self.fetches else {}
        if isinstance(got, NightbellError):
            raise got
        return got

    def go_on(self, place: Place, position: int) -> None:
        self.sought[place] = position
        self.held.discard(place)

    def hold(self, place: Place) -> None:
        self.held.add(place)

    async def commit(self, cursors: Mapping[Place, int]) -> None:
        self.commits.append(cursors)
        raise FencedOut("rebalance", reason="CommitFailedError")

    async def stop(self) -> None:
        self.is_stopped = True


class FakeHome:
    def __init__(self) -> None:
        self.stalls: list[Place] = []
        self.failures: list[str] = []
        self.observer = Observer(stalled=self.stalls.append, commit_failed=self.failures.append)
        self.assignment = [A, B]
        self.members: list[FakeMember] = []
        self.ends = {A: 100, B: 100}

    def group_consumer(self, group: str) -> FakeMember:
        self.members.append(FakeMember(self))
        return self.members[-1]

    async def places(self, topic: str) -> list[Place]:
        return [A, B]

    async def bounds_of(self, places: Sequence[Place]) -> dict[Place, Bounds]:
        return {place: Bounds(10, self.ends[place]) for place in places}

    def left(self, reader: KafkaReader) -> None:
        pass


CONFIG = LogConfig(kafka=KafkaConfig(stall_timeout_s=1, commit_interval_s=0.05))


@pytest.fixture
def home() -> FakeHome:
    return FakeHome()


@pytest.fixture
async def reader(home: FakeHome) -> AsyncIterator[KafkaReader]:
    reader = KafkaReader(home, group="g", topics=["t"], start=cursors({A: 42}), config=CONFIG)
    yield reader
    await reader.aclose()


async def turn(reader: KafkaReader, home: FakeHome, *fetches: dict[Place, list[Record]] | NightbellError) -> object:
    reading = asyncio.create_task(reader.next())
    while not home.members or not home.members[-1].sought:
        await asyncio.sleep(0)
    home.members[-1].fetches += fetches
    try:
        return await reading
    except NightbellError as exc:
        return exc


async def test_each_place_is_sought_before_it_is_fetched(reader: KafkaReader, home: FakeHome) -> None:
    await turn(reader, home, {A: records(A, 42)})

    assert home.members[0].sought == {A: 42, B: 10}


async def test_a_revocation_ends_ownership_and_drops_what_was_fetched(reader: KafkaReader, home: FakeHome) -> None:
    batch = await turn(reader, home, {A: records(A, 42), B: records(B, 10)})
    member = home.members[0]

    member.revoked()
    member.assigned([A])
    again = await turn(reader, home, {A: records(A, 42)})

    assert not batch.is_owned()
    assert again.place == A
    assert again.is_owned()


async def test_a_cursor_overtaken_while_reading_rests_until_sought(reader: KafkaReader, home: FakeHome) -> None:
    await turn(reader, home, {A: records(A, 42)})

    error = await turn(reader, home, CursorLost("gone", topic="t", partition=0, position=43))
    held = set(home.members[0].held)
    reader.seek(A, 60)

    assert isinstance(error, CursorLost)
    assert held == {A}
    assert not home.members[0].held
    assert home.members[0].sought[A] == 60


async def test_a_failed_fetch_is_told_and_the_next_call_joins_anew(reader: KafkaReader, home: FakeHome) -> None:
    error = await turn(reader, home, LogUnavailable("broken"))
    home.members.clear()
    batch = await turn(reader, home, {B: records(B, 10)})

    assert isinstance(error, LogUnavailable)
    assert batch.first == 10


async def test_a_silent_stall_is_noticed_and_the_reader_joins_anew(reader: KafkaReader, home: FakeHome) -> None:
    await turn(reader, home, {A: records(A, 42), B: records(B, 99)})
    reading = asyncio.create_task(reader.next())  # the other place's batch
    await reading
    first = home.members[0]

    reading = asyncio.create_task(reader.next())
    async with asyncio.timeout(10):
        while len(home.members) < 2:
            await asyncio.sleep(0.01)
    reading.cancel()
    await asyncio.wait([reading])

    assert home.stalls == [A]  # the other is at its end
    assert first.is_stopped


async def test_a_commit_that_fails_harms_nothing(reader: KafkaReader, home: FakeHome) -> None:
    batch = await turn(reader, home, {A: records(A, 42)})
    reader.progressed(batch.place, batch.after)
    async with asyncio.timeout(5):
        while not home.failures:
            await asyncio.sleep(0.01)

    assert home.members[0].commits == [{A: 43}]
    assert home.failures == ["CommitFailedError"]
    assert batch.is_owned()
