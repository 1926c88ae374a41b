from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from schemas.errors import Saturated, StoreUnavailable
from store.gather import Gathering


class Desk:
    """Doubles numbers, one batch at a time, when it is let."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.gate = asyncio.Event()
        self.failure: Exception | None = None

    async def run(self, items: Sequence[int]) -> list[int]:
        self.batches.append(list(items))
        await self.gate.wait()
        if self.failure is not None and (13 in items or not isinstance(self.failure, ValueError)):
            raise self.failure
        return [2 * item for item in items]


@pytest.fixture
def desk() -> Desk:
    return Desk()


async def started(gathering: Gathering[int, int], *items: int) -> list[asyncio.Task[int]]:
    tasks = []
    for item in items:
        tasks.append(asyncio.ensure_future(gathering.add(item)))
        await asyncio.sleep(0)
    await asyncio.sleep(0)
    return tasks


async def test_what_comes_while_one_is_under_way_goes_together(desk: Desk) -> None:
    tasks = await started(Gathering(desk.run), 1, 2, 3, 4)

    desk.gate.set()

    assert await asyncio.gather(*tasks) == [2, 4, 6, 8]
    assert [len(batch) for batch in desk.batches] == [2, 2] or desk.batches == [[1], [2, 3, 4]]


async def test_a_batch_has_its_bound(desk: Desk) -> None:
    tasks = await started(Gathering(desk.run, max_items=2), *range(6))

    desk.gate.set()
    await asyncio.gather(*tasks)

    assert max(len(batch) for batch in desk.batches) == 2


async def test_too_many_are_refused(desk: Desk) -> None:
    gathering = Gathering(desk.run, max_waiting=2)
    tasks = [*await started(gathering, 1), *await started(gathering, 2, 3)]

    with pytest.raises(Saturated):
        await gathering.add(4)

    desk.gate.set()
    assert await asyncio.gather(*tasks) == [2, 4, 6]


async def test_an_outage_is_everyones(desk: Desk) -> None:
    desk.failure = StoreUnavailable()
    tasks = await started(Gathering(desk.run), 1, 2, 3)

    desk.gate.set()
    found = await asyncio.gather(*tasks, return_exceptions=True)

    assert all(isinstance(each, StoreUnavailable) for each in found)
    assert sum(len(batch) for batch in desk.batches) == 3


async def test_a_bad_item_costs_only_its_caller(desk: Desk) -> None:
    desk.failure = ValueError("unlucky")
    tasks = await started(Gathering(desk.run), 1, 2, 13, 4)

    desk.gate.set()
    found = await asyncio.gather(*tasks, return_exceptions=True)

    assert [str(each) for each in found] == ["2", "4", "unlucky", "8"]


async def test_a_cancelled_caller_leaves_the_others_their_results(desk: Desk) -> None:
    tasks = await started(Gathering(desk.run), 1, 2, 3)

    tasks[1].cancel()
    desk.gate.set()

    assert await asyncio.gather(tasks[0], tasks[2]) == [2, 6]
