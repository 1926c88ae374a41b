"""kill -9 of the whole embedded system under load, at random moments; the independent checker judges what is left."""

from __future__ import annotations

import asyncio
import os
import random
import sys
from pathlib import Path

import pytest

from tests.chaos.checker import Verdict, check
from tests.chaos.driver import Driver
from tests.chaos.system import EXTRA, System

KILLS = int(os.environ.get("NBTEST_KILLS", "6"))  # in `make test`; the slow test below takes NBTEST_MANY_KILLS
FLAKY = ("--fail-agent", "sink", "--fail-first", "1")


async def run_with_kills(
    system: System, *, kills: int, seed: int, keys: int = 24, change: bool = True, agent: tuple[str, ...] = (),
    pause_s: float = 0.02, repeats: int = 0,
) -> Verdict:  # fmt: skip
    """Load, kill and restart `kills` times, let it settle, and check."""
    chance = random.Random(seed)
    system.start_agent("--delay-ms", "3", *agent)
    system.start()
    await system.ready()
    driver = Driver(system.ingest_url, system.folder, keys=keys, pause_s=pause_s, repeats=repeats)
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
        await asyncio.wait_for(load, 120)
        await system.settled(patience_s=30)
    finally:
        load.cancel()
        system.close()
    verdict = check(
        sent=system.ledger("sent"),
        acked=system.ledger("acked"),
        agent=system.ledger("agent"),
        store=system.dump(),
        always=["all", "twin"],
    )
    verdict.figures["repeats"] = driver.again
    return verdict


async def _change_subscriptions(system: System, number: int) -> None:
    path = system.folder / f"extra-{number}.yaml"
    path.write_text(EXTRA.format(n=number))
    await asyncio.to_thread(system.command, "apply", "-f", str(path))


@pytest.mark.slow
@pytest.mark.timeout(1800)
async def test_thirty_kills_and_more_change_nothing(tmp_path: Path):
    verdict = await run_with_kills(System(tmp_path), kills=int(os.environ.get("NBTEST_MANY_KILLS", "40")), seed=11, repeats=1)

    print(f"\n{verdict.figures}")
    assert verdict.faults == []


@pytest.mark.timeout(600)
async def test_nothing_is_lost_doubled_or_reordered_over_kills(tmp_path: Path):
    """With an agent that fails first, so that retries live through kills, and senders that deliver the same again and again."""
    seed = int(os.environ.get("NBTEST_SEED", "7"))
    system = System(tmp_path)

    verdict = await run_with_kills(system, kills=KILLS, seed=seed, agent=FLAKY, pause_s=0.05, repeats=2)

    print(f"\n{KILLS} kills (seed {seed}): {verdict.figures}")
    assert verdict.faults == [], f"{len(verdict.faults)} faults, seed {seed}: {verdict.faults[:10]}\n{system.log_tail()}"
    assert verdict.figures["acked"] > 10 * KILLS
    assert verdict.figures["repeats"] > 0


BROKEN = {
    "acknowledge_before_durable": "I1 durability",
    "cursor_before_rows": "I1 durability",
    "retries_in_memory": "I1 durability",
    "dedup_in_memory": "I4 single invocation",
    "lanes_off": "I3 order",
}


@pytest.mark.timeout(600)
async def test_the_checker_finds_fault_with_each_broken_build(tmp_path: Path):
    """All of them at once: each mostly waits."""

    async def run(how: str) -> Verdict:
        system = System(tmp_path / how, launcher=[sys.executable, "-m", "tests.chaos.broken", how])
        agent = FLAKY if how == "retries_in_memory" else ()
        return await run_with_kills(system, kills=3, seed=3, keys=12, change=False, agent=agent, pause_s=0.05, repeats=1)

    verdicts = dict(zip(BROKEN, await asyncio.gather(*map(run, BROKEN)), strict=True))

    for how, verdict in verdicts.items():
        print(how, verdict.figures, len(verdict.faults), verdict.faults[:1])
    passed = [how for how, verdict in verdicts.items() if not any(fault.startswith(BROKEN[how]) for fault in verdict.faults)]
    assert not passed, f"builds that passed: { {how: verdicts[how].faults[:3] for how in passed} }"
