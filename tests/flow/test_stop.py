"""SIGTERM under load: the process drains and ends with 0, and nothing that was acknowledged is lost, doubled or reordered."""

from __future__ import annotations

import asyncio
import signal
from pathlib import Path

import pytest

from tests.chaos.checker import check
from tests.chaos.driver import Driver
from tests.chaos.system import System


@pytest.mark.timeout(180)
async def test_sigterm_under_load_loses_nothing(tmp_path: Path):
    system = System(tmp_path)
    codes = []
    try:
        system.start_agent("--delay-ms", "5")
        system.start()
        await system.ready()
        driver = Driver(system.ingest_url, system.folder, keys=12)
        load = asyncio.create_task(driver.run())
        for _ in range(2):
            await asyncio.sleep(1.0)
            codes.append(await asyncio.to_thread(system.stop))
            system.start()
            await system.ready()
        await asyncio.sleep(0.5)
        driver.stopping.set()
        await asyncio.wait_for(load, 30)
        await _quiet(system)
        codes.append(await asyncio.to_thread(system.stop))
    finally:
        system.close()

    verdict = check(
        sent=system.ledger("sent"),
        acked=system.ledger("acked"),
        agent=system.ledger("agent"),
        store=system.dump(),
        always=["all", "twin"],
    )

    assert codes == [0, 0, 0], system.log_tail()
    assert verdict.faults == [], verdict.faults[:10]
    assert verdict.figures["acked"] > 50
    assert verdict.figures["repeated_calls"] == 0, "a drained stop repeats no call"
    assert "draining" in system.log_tail(10_000)


async def _quiet(system: System) -> None:
    """Until every acknowledged ring is an event, and none is open."""
    acked = {line["ring"] for line in system.ledger("acked") if 200 <= line["status"] < 300}
    for _ in range(300):
        if system.rows("select count(*) as n from events")[0]["n"] >= len(acked):
            assert await system.settled()
            return
        await asyncio.sleep(0.1)


@pytest.mark.timeout(60)
async def test_a_second_sigterm_ends_it_at_once(tmp_path: Path):
    system = System(tmp_path)
    try:
        system.start_agent("--delay-ms", "20000")
        system.start()
        await system.ready()
        driver = Driver(system.ingest_url, system.folder, keys=3, pause_s=60)
        load = asyncio.create_task(driver.run())
        while not any(row["outcome"] == "" for row in system.dump()["attempts"]):
            await asyncio.sleep(0.1)
        load.cancel()
        driver.sent.close()
        driver.acked.close()
        assert system.process is not None
        system.process.send_signal(signal.SIGTERM)
        await asyncio.sleep(1)
        assert system.process.poll() is None, "it waits for the calls that are under way"
        system.process.send_signal(signal.SIGTERM)

        assert await asyncio.to_thread(system.process.wait, 10) == 1
    finally:
        system.close()
