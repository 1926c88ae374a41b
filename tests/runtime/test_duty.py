"""One of several processes does what only one should."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from runtime.duty import on_duty
from schemas.errors import StoreUnavailable
from store.connect import Store, connect
from store.duties import hold_duty, release_duty

LEASE_S = 0.2


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    found = connect(f"sqlite:///{tmp_path / 'store.db'}")
    await found.start(may_migrate=True)
    yield found
    await found.aclose()


async def test_a_duty_is_held_by_one_until_it_is_given_back_or_runs_out(store: Store):
    engine = store.engine
    assert await hold_duty(engine, "sweep", "a", lease_ms=60_000)
    assert not await hold_duty(engine, "sweep", "b", lease_ms=60_000)
    assert await hold_duty(engine, "other", "b", lease_ms=60_000)
    assert await hold_duty(engine, "sweep", "a", lease_ms=60_000)

    await release_duty(engine, "sweep", "b")
    assert not await hold_duty(engine, "sweep", "b", lease_ms=60_000)
    await release_duty(engine, "sweep", "a")
    assert await hold_duty(engine, "sweep", "b", lease_ms=-1)
    assert await hold_duty(engine, "sweep", "a", lease_ms=60_000)


class Work:
    def __init__(self) -> None:
        self.doing: set[str] = set()
        self.log: list[str] = []

    async def of(self, name: str) -> None:
        assert not self.doing, f"{name} began while {self.doing} was at it"
        self.doing.add(name)
        self.log.append(name)
        try:
            await asyncio.Event().wait()
        finally:
            self.doing.discard(name)

    async def until_begun(self, count: int) -> None:
        async with asyncio.timeout(5):
            while len(self.log) < count:
                await asyncio.sleep(0.01)


async def test_the_next_one_goes_on_when_the_first_ends(store: Store):
    work = Work()
    tasks = [
        asyncio.create_task(on_duty(store.engine, "sweep", name, lambda name=name: work.of(name), lease_s=LEASE_S))
        for name in "ab"
    ]
    await work.until_begun(1)
    await asyncio.sleep(2 * LEASE_S)
    assert len(work.log) == 1

    first = work.log[0]
    tasks["ab".index(first)].cancel()
    await work.until_begun(2)

    assert sorted(work.log) == ["a", "b"]
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def test_work_ends_before_the_lease_does_when_the_store_is_away(store: Store, monkeypatch: pytest.MonkeyPatch):
    work = Work()
    task = asyncio.create_task(on_duty(store.engine, "sweep", "a", lambda: work.of("a"), lease_s=LEASE_S))
    await work.until_begun(1)

    async def away(*_: object, **__: object) -> bool:
        raise StoreUnavailable

    with monkeypatch.context() as patched:
        patched.setattr("runtime.duty.hold_duty", away)
        async with asyncio.timeout(LEASE_S):
            while work.doing:
                await asyncio.sleep(0.005)
    await work.until_begun(2)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_a_bug_in_the_work_reaches_the_supervisor(store: Store):
    async def broken() -> None:
        raise ValueError("a bug")

    with pytest.raises(ValueError, match="a bug"):
        async with asyncio.timeout(5):
            await on_duty(store.engine, "sweep", "a", broken, lease_s=LEASE_S)
