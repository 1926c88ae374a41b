"""An embedded installation, killed in the middle of its work, goes on upon Kafka and PostgreSQL: nothing is missing, nothing repeated."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import pytest

from tests.chaos.checker import check
from tests.chaos.cluster import ClusterSystem
from tests.chaos.driver import Driver
from tests.chaos.system import System
from tests.servers import kafka
from tests.servers.postgres import PostgresServer, fresh_database, running_postgres

pytestmark = [pytest.mark.kafka, pytest.mark.postgres, pytest.mark.timeout(240)]


@pytest.fixture(scope="module")
def postgres() -> Iterator[PostgresServer]:
    with running_postgres() as server:
        yield server


async def test_everything_moves_and_unfinished_work_goes_on(tmp_path: Path, postgres: PostgresServer):
    old = System(tmp_path)
    old.start()  # no agent: everything waits
    await old.ready(60)
    driver = Driver(old.ingest_url, tmp_path, keys=6, pause_s=0.02)
    load = asyncio.create_task(driver.run())
    await asyncio.sleep(2)
    old.kill()
    driver.stopping.set()

    log_url = (await asyncio.to_thread(kafka.shared)).url
    store_url = await fresh_database(postgres, f"t{uuid4().hex}")
    new = ClusterSystem(tmp_path, log_url=log_url, store_url=store_url, counts={"all": 1})
    new.agent_port = old.agent_port
    new.master_key = (tmp_path / "data" / "master.key").read_text().strip()
    try:
        new.command("migrate")
        moved = new.command("move", str(tmp_path / "data"), "--json")
        tables = {line["table"]: line for line in map(json.loads, moved.stdout.splitlines())}
        assert all(line["whole"] and line["rows"] == line["arrived"] for line in tables.values())
        assert tables["sources"]["rows"] == 1
        assert tables["events"]["rows"] > 20
        assert tables["invocations"]["rows"] == tables["seen"]["rows"] * 2
        new.key = (tmp_path / "data" / "admin.key").read_text().strip()
        new.start_agent()
        new.start()
        await new.ready(90)
        driver.urls = new.ingest_urls  # the vendors' retries, and what they send next, go to the new address
        await asyncio.wait_for(load, 30)
        later = Driver(new.ingest_urls, tmp_path, keys=6, first_seq=10_000)
        await asyncio.wait_for(asyncio.gather(later.run(), _stop_soon(later)), 30)
        await new.settled(60)
        verdict = check(
            sent=new.ledger("sent"), acked=new.ledger("acked"), agent=new.ledger("agent"),
            store=await asyncio.to_thread(new.dump), always=["all", "twin"],
        )  # fmt: skip
        assert verdict.faults == []
        assert verdict.figures["calls"] == 2 * verdict.figures["events"], "an agent was called twice"
        assert new.crashes() == []
    finally:
        load.cancel()
        await asyncio.to_thread(new.close)
        old.close()


async def _stop_soon(driver: Driver) -> None:
    await asyncio.sleep(1)
    driver.stopping.set()


async def test_another_master_key_moves_nothing(tmp_path: Path, postgres: PostgresServer):
    old = System(tmp_path)
    old.start()
    await old.ready(60)
    old.stop()
    new = ClusterSystem(tmp_path, log_url="kafka://127.0.0.1:1", store_url=await fresh_database(postgres, f"t{uuid4().hex}"))
    new.command("migrate")

    refused = new.command("move", str(tmp_path / "data"), check=False)

    assert refused.returncode != 0
    assert "NIGHTBELL_MASTER_KEY" in refused.stderr
