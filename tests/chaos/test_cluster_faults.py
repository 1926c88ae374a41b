"""Kafka, PostgreSQL and every role are killed, frozen and restarted under load; the independent checker judges what is left."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import aiohttp
import pytest

from tests.chaos.cluster import PARTITIONS
from tests.chaos.driver import signed
from tests.chaos.scene import FAULTS, SESSION_S, Scene, judged, scene, until

pytestmark = [pytest.mark.kafka, pytest.mark.postgres, pytest.mark.timeout(1800)]
KILLS = int(os.environ.get("NBTEST_CLUSTER_KILLS", "3"))  # of each role in `make test`
MANY_KILLS = int(os.environ.get("NBTEST_MANY_CLUSTER_KILLS", "20"))  # of each role in `make test-all`


async def test_nothing_is_lost_doubled_or_reordered_whatever_part_fails(tmp_path: Path, broker, postgres):
    async with scene(tmp_path, broker, postgres, keys=8, repeats=1, through_proxies=True, is_seamed=True) as found:
        members = found.system.members
        await found.through(
            [
                ("rolled", lambda: nobody_notices_a_roll(found)),
                (f"{KILLS} kills of each role", lambda: found.kill_everyone(KILLS)),
                ("poison", found.poison),
                ("frozen past their lease", lambda: found.freeze_past_their_lease(members["router"][0], members["dispatcher"][0])),
                ("subscriptions changed", found.change_subscriptions),
                ("database fails at statements and commits", found.failing_database),
                ("killed at a commit", found.killed_at_commits),
                ("PostgreSQL killed", lambda: found.restart_postgres(down_s=1)),
                ("broker killed", lambda: found.restart_broker(down_s=1)),
                ("broker frozen", found.freeze_broker),
                *[(f"network: {name}", lambda name=name: bad_network(found, name)) for name in FAULTS],
            ]
        )  # fmt: skip
        await judged(found)
        [rejected] = await asyncio.to_thread(found.system.rows, "select count(*) as n from rejected")
        assert rejected["n"] == 1
        assert found.driver.again > 0, "no delivery was repeated"
        await retention_overtakes_a_cursor(found)


async def nobody_notices_a_roll(found: Scene) -> None:
    """One of each role is restarted; no sender gets an error, and no agent hears of anything twice."""
    through_proxies, found.driver.urls = found.driver.urls, found.system.ingest_urls  # a proxy would take what nobody takes
    await found.roll([members[1] for members in found.system.members.values()])
    found.driver.urls = through_proxies
    assert set(found.driver.refused) <= {found.driver.NOBODY}, f"a sender got an error: {found.driver.refused}"
    calls = found.system.ledger("agent")
    assert len(calls) == len({call["invocation"] for call in calls}), "an agent was called again, though all ended gracefully"


async def retention_overtakes_a_cursor(found: Scene) -> None:
    """The routers stop at the partition whose records are gone, say so, and skip nothing; the others are read."""
    routers = found.system.members["router"]
    for member in routers:
        member.kill()
    async with aiohttp.ClientSession() as session:
        for number in range(24):
            body, headers = signed(f"late-{number}", 100 + number, 0)
            async with session.post(found.system.ingest_urls[0], data=body, headers=headers) as answer:
                assert answer.status == 202
    rows = await asyncio.to_thread(found.system.rows, _CURSORS.format(topic=found.topic))
    cursors = {row["partition"]: row["position"] for row in rows}
    ends = await found.ends_of(found.topic, PARTITIONS)
    lagging = {number: ends[number] - at for number, at in cursors.items() if ends[number] > at}
    assert len(lagging) > 1, (cursors, ends)
    gone = min(lagging)
    await found.delete_records(gone, ends[gone])

    for member in routers:
        member.start()

    async def the_others_are_read() -> bool:
        [late] = await asyncio.to_thread(found.system.rows, _LATE)
        return late["n"] == 24 - lagging[gone]

    async def it_is_said() -> bool:
        said = [line for member in routers for line in member.log.read_text().splitlines() if '"event":"cursor_lost"' in line]
        return any(f'"partition":{gone}' in line for line in said)

    await until(the_others_are_read, "the other partitions are read", tail=found.system.log_tail)
    await until(it_is_said, "a lost cursor is said", tail=found.system.log_tail)
    rows = await asyncio.to_thread(found.system.rows, _CURSORS.format(topic=found.topic))
    assert {row["partition"]: row["position"] for row in rows}[gone] == cursors[gone]

    async def one_alone_counts_it() -> bool:  # which of the two is settled by a rebalance
        lost = [member.metric("nightbell_route_cursors_lost") for member in routers]
        return sum(lost) == 1 and [member.is_ready() for member in routers] == [not count for count in lost]

    await until(one_alone_counts_it, "its owner counts it and is not ready, the other one is", tail=found.system.log_tail)
    assert found.system.crashes() == []


_CURSORS = "select partition, position from cursors where topic = '{topic}'"
_LATE = "select count(*) as n from events where envelope::text like '%\"late-%'"


async def bad_network(found: Scene, fault: str) -> None:
    """Every way is bad in the same manner; one after the other, and for longer, in the slow test below."""
    await found.network.fault(list(found.network.ways), FAULTS[fault], for_s=1)


@pytest.mark.slow
@pytest.mark.timeout(7200)
async def test_many_kills_of_each_role(tmp_path: Path, broker, postgres):
    async with scene(tmp_path, broker, postgres, keys=8) as found:
        for number in range(1, MANY_KILLS + 1):
            await found.kill_everyone(1)
            print(f"{number} kills of each role, {found.count()} taken and called, refused {found.driver.refused}", flush=True)
        await found.change_subscriptions()
        await found.still_flows()
        verdict = await judged(found)
        print(f"{MANY_KILLS} kills of each role: {verdict.figures}")


@pytest.mark.slow
@pytest.mark.timeout(1800)
async def test_many_kills_of_everything_at_once(tmp_path: Path, broker, postgres):
    async with scene(tmp_path, broker, postgres, repeats=2) as found:
        for _ in range(MANY_KILLS // 2):
            await asyncio.sleep(found.chance.uniform(0.1, 2))
            await found.kill_all_at_once()
        await judged(found)


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("down_s", [30, 90])
async def test_a_broker_that_is_away_for_long(tmp_path: Path, broker, postgres, down_s: int):
    async with scene(tmp_path, broker, postgres) as found:
        before = dict(found.driver.refused)
        await found.restart_broker(down_s=down_s)
        await found.still_flows()
        assert found.driver.refused == before, "a webhook was refused, though there was a spool"
        await judged(found)


@pytest.mark.slow
@pytest.mark.timeout(1800)
async def test_a_database_that_is_away_for_long(tmp_path: Path, broker, postgres):
    async with scene(tmp_path, broker, postgres) as found:
        before = dict(found.driver.refused)
        await found.restart_postgres(down_s=20)
        await found.still_flows()
        assert found.driver.refused == before, "a webhook was refused, though ingest needs no database"
        await judged(found)


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("fault", list(FAULTS))
async def test_each_way_of_the_network_in_turn(tmp_path: Path, broker, postgres, fault: str):
    async with scene(tmp_path, broker, postgres, through_proxies=True) as found:
        for way in found.network.ways:
            await found.network.fault([way], FAULTS[fault], for_s=SESSION_S + 2)
            await found.still_flows()
        await judged(found)


@pytest.mark.slow
@pytest.mark.timeout(1800)
async def test_a_rolling_restart_of_every_role_refuses_nobody(tmp_path: Path, broker, postgres):
    async with scene(tmp_path, broker, postgres) as found:
        await found.roll(found.system.roles_running)
        verdict = await judged(found)
        assert set(found.driver.refused) <= {found.driver.NOBODY}, f"a sender got an error: {found.driver.refused}"
        assert verdict.figures["again"] == 0, "an agent was called again, though everyone ended gracefully"
