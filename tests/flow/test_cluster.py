"""The whole line on a real Kafka and a real PostgreSQL, two processes of each role: received, routed, delivered, traced."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import aiohttp
import pytest

from tests.chaos.checker import check
from tests.chaos.cluster import ClusterSystem
from tests.chaos.driver import Driver, signed
from tests.chaos.system import SOURCE_SECRET
from tests.servers import kafka
from tests.servers.postgres import PostgresServer, fresh_database, running_postgres

FETCHING = """\
version: 1
sources:
  github-chaos: {{provider: github, secrets: ["{secret}"]}}
agents:
  fetcher: {{protocol: pull, max_concurrency: 20}}
  reviewer: {{protocol: pull, max_concurrency: 20}}
subscriptions:
  fetched: {{agent: fetcher, pattern: {{type: [{{prefix: github.}}]}}}}
  told: {{agent: reviewer, pattern: {{type: [nightbell.invocation.done], data: {{invocation: {{agent: [fetcher]}}}}}}}}
"""
pytestmark = [pytest.mark.kafka, pytest.mark.postgres, pytest.mark.timeout(300)]


@pytest.fixture(scope="module")
def postgres() -> Iterator[PostgresServer]:
    with running_postgres() as server:
        yield server


@pytest.fixture
async def cluster(postgres: PostgresServer, tmp_path: Path) -> AsyncIterator[ClusterSystem]:
    log_url = (await asyncio.to_thread(kafka.shared)).url
    system = ClusterSystem(tmp_path, log_url=log_url, store_url=await fresh_database(postgres, f"t{uuid4().hex}"))
    try:
        await asyncio.to_thread(system.install)
        yield system
    finally:
        await asyncio.to_thread(system.close)


async def test_webhooks_go_through_every_role_once_in_order_and_are_traced(cluster: ClusterSystem):
    cluster.start_agent("--delay-ms", "3")
    cluster.start()
    await cluster.ready(60)
    await asyncio.to_thread(cluster.apply)
    driver = Driver(cluster.ingest_urls, cluster.folder, keys=12, pause_s=0.02)
    load = asyncio.create_task(driver.run())
    await asyncio.sleep(3)
    driver.stopping.set()
    await load
    assert await cluster.settled()

    verdict = check(
        sent=cluster.ledger("sent"), acked=cluster.ledger("acked"), agent=cluster.ledger("agent"),
        store=cluster.dump(), always=["all", "twin"],
    )  # fmt: skip
    assert verdict.faults == []
    assert verdict.figures["calls"] == 2 * verdict.figures["events"], "an agent was called twice"
    assert verdict.figures["acked"] > 50
    await every_api_tells_the_same_story(cluster)
    for member in cluster.members["router"]:
        assert member.metric("nightbell_route_events_total") > 0, f"{member.name} routed nothing"
    for member in cluster.roles_running:
        assert await asyncio.to_thread(member.stop) == 0, member.tail(30)
    assert cluster.crashes() == []


async def every_api_tells_the_same_story(cluster: ClusterSystem) -> None:
    call = cluster.ledger("agent")[0]
    for member in cluster.members["api"]:
        base = f"http://127.0.0.1:{member.port}/v1"
        async with aiohttp.ClientSession(headers={"authorization": f"Bearer {cluster.key}"}) as session:
            async with session.get(f"{base}/events/{call['event']}/trace") as answer:
                assert answer.status == 200
                told = json.dumps(await answer.json())
            async with session.get(f"{base}/invocations/{call['invocation']}") as answer:
                assert (await answer.json())["state"] == "done"
        assert call["invocation"] in told
        assert "delivered" in told


async def test_ingest_starts_and_takes_webhooks_while_store_and_log_are_out_of_reach(cluster: ClusterSystem):
    ingest = cluster.members["ingest"][0]
    ingest.start()
    await cluster.ready(30, ingest)
    await asyncio.to_thread(cluster.members["api"][0].start)
    await cluster.ready(30, cluster.members["api"][0])
    await asyncio.to_thread(cluster.apply)
    assert await first_answer(cluster, "one") == 202
    ingest.kill()

    store_url, log_url = cluster.store_url, cluster.log_url
    cluster.store_url, cluster.log_url = "postgresql://nobody@127.0.0.1:1/none", "kafka://127.0.0.1:1"
    ingest.start()
    await cluster.ready(30, ingest)
    assert await first_answer(cluster, "two") == 202
    assert ingest.metric("nightbell_spool_bytes") > 0
    assert os.stat(ingest.folder / "data" / "book.sealed").st_mode & 0o077 == 0
    ingest.kill()

    cluster.store_url, cluster.log_url = store_url, log_url
    ingest.start()
    cluster.members["router"][0].start()
    await cluster.ready(30, ingest, cluster.members["router"][0])
    for _ in range(100):
        rows = await asyncio.to_thread(cluster.rows, "select envelope, flags from events order by received_ms")
        if len(rows) == 2:
            break
        await asyncio.sleep(0.1)
    assert [json.loads(row["envelope"])["deliveryid"] for row in rows] == ["one", "two"]
    assert json.loads(rows[1]["envelope"])["flags"] == ["spooled"]
    assert ingest.metric("nightbell_spool_bytes") == 0


async def first_answer(cluster: ClusterSystem, ring: str, within_s: float = 10) -> int:
    """The status that the first ingest gives to a webhook, once it knows the source."""
    body, headers = signed(ring, 0, 0)
    async with aiohttp.ClientSession() as session:
        for _ in range(int(within_s / 0.2)):
            async with session.post(cluster.ingest_urls[0], data=body, headers=headers) as answer:
                if answer.status != 404:
                    return answer.status
            await asyncio.sleep(0.2)
    return 404


class Api:
    """One of the API processes, as an agent or an operator calls it."""

    def __init__(self, session: aiohttp.ClientSession, port: int) -> None:
        self._session, self._base = session, f"http://127.0.0.1:{port}"

    async def post(self, path: str, key: str, body: dict[str, object]) -> dict[str, Any]:
        async with self._session.post(f"{self._base}{path}", json=body, headers={"authorization": f"Bearer {key}"}) as answer:
            assert answer.status in {200, 201}, (path, answer.status, await answer.text())
            return await answer.json()

    async def fetch(self, agent: str, key: str) -> list[dict[str, Any]]:
        found = await self.post(f"/v1/agents/{agent}/leases", key, {"max": 2, "wait_s": 2})
        return [item["delivery"] for item in found["items"]]


async def test_agents_fetch_from_any_api_and_what_came_of_it_wakes_another(cluster: ClusterSystem):
    cluster.config.write_text(FETCHING.format(secret=SOURCE_SECRET))
    cluster.start()
    await cluster.ready(60)
    await asyncio.to_thread(cluster.command, "apply", "-f", str(cluster.config))
    rings = [f"ring-{number}" for number in range(8)]
    async with aiohttp.ClientSession() as session:
        apis = [Api(session, member.port) for member in cluster.members["api"]]
        fetcher, reviewer = [
            (await apis[0].post("/v1/keys", cluster.key, {"name": name, "role": "agent", "agent": name}))["key"]
            for name in ("fetcher", "reviewer")
        ]
        for ring in rings:
            assert await first_answer(cluster, ring) == 202

        leased: list[str] = []
        async with asyncio.timeout(60):
            while len(leased) < len(rings):
                got = await asyncio.gather(*(api.fetch("fetcher", fetcher) for api in apis))
                for number, delivery in [(number, delivery) for number, some in enumerate(got) for delivery in some]:
                    leased.append(delivery["invocation"]["id"])
                    here, other = apis[number], apis[1 - number]
                    run, token = f"/v1/invocations/{leased[-1]}", delivery["links"]["token"]
                    assert not (await other.post(f"{run}/heartbeat", token, {}))["stop"]
                    await here.post(f"{run}/complete", token, {"outcome": "done", "result": {"by": number}})
        assert len(set(leased)) == len(leased), "the same work was leased twice"

        told: list[str] = []
        async with asyncio.timeout(60):
            while len(told) < len(rings):
                for delivery in [each for api in apis for each in await api.fetch("reviewer", reviewer)]:
                    event = await described(cluster, session, delivery["event"]["id"])
                    assert event["type"] == "nightbell.invocation.done"
                    told.append(event["causationid"])
                    done = {"outcome": "done"}
                    await apis[0].post(
                        f"/v1/invocations/{delivery['invocation']['id']}/complete", delivery["links"]["token"], done
                    )
        assert sorted(told) == sorted(leased)
    assert cluster.crashes() == []


async def described(cluster: ClusterSystem, session: aiohttp.ClientSession, event_id: str) -> dict[str, Any]:
    """An event, as an API tells it to an operator."""
    base, headers = f"http://127.0.0.1:{cluster.members['api'][1].port}", {"authorization": f"Bearer {cluster.key}"}
    async with session.get(f"{base}/v1/events/{event_id}", headers=headers) as answer:
        return await answer.json()
