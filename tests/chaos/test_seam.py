"""The disk and the database fail at commits, under load: what is refused is refused, and what was promised is kept."""

from __future__ import annotations

import asyncio
import os
import random
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from tests.chaos.checker import Verdict, check
from tests.chaos.driver import Driver
from tests.chaos.scene import until
from tests.chaos.seam import LAUNCHER, clear_fault, set_fault
from tests.chaos.system import System

COMMITS = int(os.environ.get("NBTEST_COMMITS", "3"))  # at how many commits of each file it is killed in `make test`
MANY_COMMITS = int(os.environ.get("NBTEST_MANY_COMMITS", "25"))


class Bench:
    """One embedded installation under load, whose commits fail at will."""

    def __init__(self, system: System, driver: Driver, seam: Path) -> None:
        self.system, self.driver, self.seam = system, driver, seam
        self.chance = random.Random(5)

    def moves(self) -> tuple[int, int, int]:
        return self.driver.count, self.system.calls(), sum(self.driver.refused.values())

    async def until(self, fact, what: str) -> None:
        await until(fact, what, moves=self.moves, tail=self.system.log_tail)

    async def flows(self) -> None:
        """Until something that is sent from now on was taken and delivered."""
        calls, goal = self.system.calls(), self.driver.count + 10

        async def fact() -> bool:
            return self.driver.count >= goal and self.system.calls() > calls + 10

        await self.until(fact, "webhooks are taken and delivered")

    async def refused(self, status: int, times: int = 5) -> None:
        """Until so many requests were answered so."""
        goal = self.driver.refused.get(status, 0) + times

        async def fact() -> bool:
            return self.driver.refused.get(status, 0) >= goal

        await self.until(fact, f"requests get {status}")

    async def dies(self) -> None:
        async def fact() -> bool:
            return self.system.process.poll() is not None

        await self.until(fact, "the process dies")

    async def again(self) -> None:
        """Without the fault, in a new process."""
        clear_fault(self.seam)
        if self.system.process.poll() is None:
            self.system.kill()
        self.system.start()
        await self.system.ready()
        await self.flows()


@asynccontextmanager
async def bench(folder: Path, **env: str) -> AsyncIterator[Bench]:
    seam = folder / "seam.json"
    system = System(folder, launcher=LAUNCHER, env={"NBTEST_SEAM": str(seam)} | env)
    system.start_agent("--delay-ms", "3")
    system.start()
    driver = Driver(system.ingest_url, folder, keys=12, pause_s=0.05)
    try:
        await system.ready()
        load = asyncio.create_task(driver.run())
        yield Bench(system, driver, seam)
        clear_fault(seam)
        driver.stopping.set()
        await asyncio.wait_for(load, 120)
        await system.settled(30)
    finally:
        driver.stopping.set()
        system.close()


def judged(found: Bench) -> Verdict:
    system = found.system
    verdict = check(
        sent=system.ledger("sent"), acked=system.ledger("acked"), agent=system.ledger("agent"), store=system.dump(),
        always=["all", "twin"],
    )  # fmt: skip
    print(verdict.figures, found.driver.refused)
    assert verdict.faults == [], f"{verdict.faults[:10]}\n{system.log_tail()}"
    return verdict


@pytest.mark.timeout(600)
async def test_disks_that_fail_and_kills_around_commits_break_no_promise(tmp_path: Path):
    async with bench(tmp_path) as found:
        await found.flows()
        found.system.process.send_signal(signal.SIGSTOP)  # T-10
        await asyncio.sleep(3)
        found.system.process.send_signal(signal.SIGCONT)
        await found.flows()
        set_fault(found.seam, what="full", on=["log"])  # T-8: nothing is taken, and it takes again by itself
        taken = found.driver.count
        await found.refused(503, 30)
        assert found.driver.count - taken <= found.driver.keys, "a full disk took webhooks"
        clear_fault(found.seam)
        await found.flows()
        set_fault(found.seam, what="full", on=["store"])  # webhooks are taken, and wait
        taken = found.driver.count
        await found.until(counts(found, taken + 30), "the log takes webhooks while the store is full")
        clear_fault(found.seam)
        await found.flows()
        set_fault(found.seam, what="late", delay_s=0.2)
        await found.flows()
        set_fault(found.seam, what="late", on=["log"], delay_s=4, nth=1)  # T-7: longer than a sender waits
        await found.refused(503, 1)
        clear_fault(found.seam)
        await found.flows()
        for file in ("log", "store"):
            for what in ("eio", "eio_after"):
                set_fault(found.seam, what=what, on=[file], nth=2)
                if file == "log":
                    await found.refused(503)
                else:
                    await found.until(unready(found), "a process whose disk failed is not ready")
                await found.again()
        await killed_at_commits(found, COMMITS)  # T-5
    judged(found)


def counts(found: Bench, goal: int):
    async def fact() -> bool:
        return found.driver.count >= goal

    return fact


def unready(found: Bench):
    async def fact() -> bool:
        return not await asyncio.to_thread(found.system.is_ready)

    return fact


async def killed_at_commits(found: Bench, commits: int) -> None:
    """Killed just before and just after the n-th commit of each file, for n from 1 on."""
    for number in range(1, commits + 1):
        for file in ("log", "store"):
            await found.flows()
            set_fault(found.seam, what=("kill_before", "kill_after")[(number + (file == "log")) % 2], on=[file], nth=number)
            await found.dies()
            await found.again()


@pytest.mark.slow
@pytest.mark.timeout(1800)
async def test_killed_around_many_commits_it_loses_and_doubles_nothing(tmp_path: Path):
    async with bench(tmp_path) as found:
        await killed_at_commits(found, MANY_COMMITS)
    judged(found)
