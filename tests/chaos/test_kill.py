"""kill -9 of the whole embedded system under load, at random moments; the independent checker judges what is left."""

from __future__ import annotations

import asyncio
import os
import random
from pathlib import Path

import pytest

from tests.chaos.checker import Verdict, check
from tests.chaos.driver import Driver
from tests.chaos.system import EXTRA, System

KILLS = int(os.environ.get("NBTEST_KILLS", "6"))  # the whole of it, 30 and more, is the slow test below


async def run_with_kills(
    system: System, *, kills: int, seed: int, keys: int = 24, change: bool = True, flaky: bool = False
) -> Verdict:
    """Load, kill and restart `kills` times, let it settle, and check."""
    chance = random.Random(seed)
    system.start_agent("--delay-ms", "3", *(["--fail-agent", "sink", "--fail-first", "1"] if flaky else []))
    system.start()
    await system.ready()
    driver = Driver(system.ingest_url, system.folder, keys=keys, pause_s=0.05 if flaky else 0.0)
    load = asyncio.create_task(driver.run())
    try:
        for number in range(kills):
            await asyncio.sleep(chance.uniform(0.05, 0.9))
            if change and number % 5 == 2:
                await _change_subscriptions(system, number)
            system.kill()
            system.start()
            await system.ready()
        driver.stopping.set()
        await asyncio.wait_for(load, 60)
        await _settled(system)
    finally:
        load.cancel()
        system.close()
    return check(
        sent=system.ledger("sent"),
        acked=system.ledger("acked"),
        agent=system.ledger("agent"),
        store=system.dump(),
        always=["all", "twin"],
    )


async def _change_subscriptions(system: System, number: int) -> None:
    path = system.folder / f"extra-{number}.yaml"
    path.write_text(EXTRA.format(n=number))
    await asyncio.to_thread(system.command, "apply", "-f", str(path))


async def _settled(system: System, within_s: float = 60) -> None:
    """Until nothing is open and nothing new came for a while."""
    quiet, before = 0, -1
    for _ in range(int(within_s / 0.2)):
        await asyncio.sleep(0.2)
        events = system.rows("select count(*) as n from events")[0]["n"]
        quiet = quiet + 1 if system.open_invocations() == 0 and events == before else 0
        before = events
        if quiet >= 4:
            return


@pytest.mark.slow
@pytest.mark.timeout(1200)
async def test_thirty_kills_and_more_change_nothing(tmp_path: Path):
    verdict = await run_with_kills(System(tmp_path), kills=int(os.environ.get("NBTEST_MANY_KILLS", "40")), seed=11)

    print(f"\n{verdict.figures}")
    assert verdict.faults == []


@pytest.mark.timeout(300)
async def test_an_agent_that_fails_first_is_retried_over_kills(tmp_path: Path):
    verdict = await run_with_kills(System(tmp_path), kills=2, seed=5, change=False, flaky=True)

    assert verdict.faults == []


@pytest.mark.timeout(300)
async def test_nothing_is_lost_doubled_or_reordered_over_kills(tmp_path: Path):
    seed = int(os.environ.get("NBTEST_SEED", "7"))
    system = System(tmp_path)

    verdict = await run_with_kills(system, kills=KILLS, seed=seed)

    print(f"\n{KILLS} kills (seed {seed}): {verdict.figures}")
    assert verdict.faults == [], f"{len(verdict.faults)} faults, seed {seed}: {verdict.faults[:10]}\n{system.log_tail()}"
    assert verdict.figures["acked"] > 10 * KILLS


@pytest.mark.timeout(240)
@pytest.mark.parametrize("how", ["acknowledge_before_durable", "cursor_before_rows", "retries_in_memory"])
async def test_the_checker_finds_fault_with_a_broken_build(tmp_path: Path, how: str):
    import sys

    system = System(tmp_path, launcher=[sys.executable, "-m", "tests.chaos.broken", how])

    verdict = await run_with_kills(system, kills=3, seed=3, change=False, flaky=how == "retries_in_memory")

    assert verdict.faults, f"the build without {how} passed: {verdict.figures}"
