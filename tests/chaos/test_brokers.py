"""Three brokers: the leader changes in the worst moment, and each of them goes and comes back under load."""

from __future__ import annotations

import asyncio
from collections import Counter
from pathlib import Path

import pytest
from aiokafka.admin import AIOKafkaAdminClient

from tests.chaos.cluster import launcher_of
from tests.chaos.scene import Scene, ended, judged, scene, until
from tests.servers import kafka

pytestmark = [pytest.mark.kafka, pytest.mark.postgres, pytest.mark.timeout(600)]
REPLICATED = {"NIGHTBELL_KAFKA_REPLICATION": "3", "NIGHTBELL_KAFKA_MIN_INSYNC_REPLICAS": "2"}
SINGLE = {"NIGHTBELL_KAFKA_REPLICATION": "1", "NIGHTBELL_KAFKA_MIN_INSYNC_REPLICAS": "1"}
TWO = {"all": 2}
BATCH_S = 3.0  # how long a batch may wait for a leader: KafkaConfig.request_timeout_s


async def leader_of_most(found: Scene) -> kafka.Broker:
    """The broker that leads most partitions of the events topic."""
    admin = AIOKafkaAdminClient(bootstrap_servers=found.broker.bootstrap)
    await admin.start()
    try:
        [topic] = await admin.describe_topics([found.topic])
    finally:
        await admin.close()
    [(node, _)] = Counter(part["leader"] for part in topic["partitions"]).most_common(1)
    return found.broker.brokers[node - 1]


async def change_leader_behind_its_followers(found: Scene) -> None:
    """The leader alone takes records for a while (its followers stand still), then it dies and they take over without them."""
    leader = await leader_of_most(found)
    followers = [broker for broker in found.broker.brokers if broker is not leader]
    for broker in followers:
        broker.freeze()
    taken = found.driver.count + 3 * found.driver.keys
    while found.driver.count < taken:  # acknowledged by the leader alone in a bad build, out of the spool in a good one
        await asyncio.sleep(0.1)
    await asyncio.to_thread(leader.kill)
    for broker in followers:
        broker.thaw()
    await found.still_flows()
    await asyncio.to_thread(leader.start)
    await found.still_flows()


async def test_a_leader_that_dies_before_its_followers_have_the_records_loses_none(tmp_path: Path, trio, postgres):
    async with scene(tmp_path, trio, postgres, counts=TWO, env=REPLICATED) as found:
        await change_leader_behind_its_followers(found)
        await judged(found)


async def test_the_checker_finds_fault_with_a_leader_that_acknowledges_alone(tmp_path: Path, trio, postgres):
    async with scene(tmp_path, trio, postgres, counts=TWO, env=REPLICATED, launcher=launcher_of("acks_one")) as found:
        await change_leader_behind_its_followers(found)
        found.driver.stopping.set()
        await found.system.settled(10)
        verdict = await ended(found)

    print(verdict.figures, len(verdict.faults), verdict.faults[:2])
    assert any(fault.startswith("I1 durability") and "is no event" in fault for fault in verdict.faults)


async def leave_partitions_without_a_leader(found: Scene) -> None:
    """The only replica of some partitions is away for longer than a batch may wait: the batch fails, and its number is spent."""
    leader, before = await leader_of_most(found), found.spooled
    await asyncio.to_thread(leader.kill)
    await asyncio.sleep(2 * BATCH_S)
    await until(found.something_was_spooled(before), "something is spooled without a leader", moves=found.count)
    await asyncio.to_thread(leader.start)


@pytest.mark.slow
async def test_partitions_without_a_leader_for_a_while_go_on_with_a_new_producer(tmp_path: Path, trio, postgres):
    async with scene(tmp_path, trio, postgres, counts=TWO, env=SINGLE) as found:
        await leave_partitions_without_a_leader(found)
        await found.still_flows()
        await judged(found)


async def test_the_checker_finds_fault_with_a_producer_that_is_kept_after_a_failure(tmp_path: Path, trio, postgres):
    async with scene(tmp_path, trio, postgres, counts=TWO, env=SINGLE, launcher=launcher_of("producer_kept")) as found:
        await leave_partitions_without_a_leader(found)
        await asyncio.sleep(2 * BATCH_S)
        found.driver.stopping.set()
        await found.system.settled(10)
        verdict = await ended(found)

    print("producer_kept", verdict.figures, len(verdict.faults), verdict.faults[:2])
    assert any(fault.startswith("I1 durability") and "is no event" in fault for fault in verdict.faults)


@pytest.mark.slow
@pytest.mark.timeout(1800)
async def test_every_broker_goes_and_comes_back_in_turn(tmp_path: Path, trio, postgres):
    async with scene(tmp_path, trio, postgres, env=REPLICATED) as found:
        for broker in [*found.broker.brokers, *found.broker.brokers]:
            await asyncio.to_thread(broker.kill)
            await asyncio.sleep(found.chance.uniform(1, 8))
            await found.still_flows()
            await asyncio.to_thread(broker.start)
            await found.still_flows()
        await judged(found)


@pytest.mark.slow
@pytest.mark.timeout(1800)
async def test_brokers_that_stop_in_an_orderly_way_refuse_nobody(tmp_path: Path, trio, postgres):
    async with scene(tmp_path, trio, postgres, env=REPLICATED) as found:
        for broker in found.broker.brokers:
            await asyncio.to_thread(broker.stop)
            await found.still_flows()
            await asyncio.to_thread(broker.start)
            await found.still_flows()
        assert not found.driver.refused
        await judged(found)
