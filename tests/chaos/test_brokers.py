"""Three brokers: the leader changes in the worst moment, and each of them goes and comes back under load."""

from __future__ import annotations

import asyncio
from collections import Counter
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
from aiokafka.admin import AIOKafkaAdminClient

from tests.chaos.cluster import launcher_of
from tests.chaos.scene import Scene, ended, judged, scene, until
from tests.chaos.test_bad_agents import attempts_told, bad_agents, expect
from tests.servers import kafka

pytestmark = [pytest.mark.kafka, pytest.mark.postgres, pytest.mark.timeout(1800)]
REPLICATED = {"NIGHTBELL_KAFKA_REPLICATION": "3", "NIGHTBELL_KAFKA_MIN_INSYNC_REPLICAS": "2"}
SINGLE = {"NIGHTBELL_KAFKA_REPLICATION": "1", "NIGHTBELL_KAFKA_MIN_INSYNC_REPLICAS": "1"}
TWO = {"all": 2}
BATCH_S = 3.0  # how long a batch may wait for a leader: KafkaConfig.request_timeout_s


async def leaders_of(found: Scene) -> Counter[int]:
    """How many partitions of the events topic each broker leads."""
    admin = AIOKafkaAdminClient(bootstrap_servers=found.broker.bootstrap)
    await admin.start()
    try:
        [topic] = await admin.describe_topics([found.topic])
    finally:
        await admin.close()
    return Counter(part["leader"] for part in topic["partitions"])


async def leader_for_all(*scenes: Scene) -> kafka.Broker:
    """The broker that leads most in each: its death is to be felt everywhere."""
    counts = [await leaders_of(each) for each in scenes]
    nodes = range(1, len(scenes[0].broker.brokers) + 1)
    return scenes[0].broker.brokers[max(nodes, key=lambda node: min(count[node] for count in counts)) - 1]


async def change_leader_behind_its_followers(found: Scene, *others: Scene) -> None:
    """The leader alone takes records for a while, since its followers stand still; then it dies and they take over without them.

    It is away for longer than a batch may wait for a leader: where a partition has no other replica, the batch fails, and its
    sequence number is spent.
    """
    leader = await leader_for_all(found, *others)
    followers = [broker for broker in found.broker.brokers if broker is not leader]
    spooled = {each: each.spooled for each in (found, *others)}
    for broker in followers:
        broker.freeze()
    # Acknowledged by the leader alone in a bad build, out of the spool in a good one.
    goals = {each: each.driver.count + 2 * each.driver.keys for each in spooled}
    for each, goal in goals.items():
        await until(each.has_taken(goal), "the sender is answered", moves=each.count)
    await asyncio.to_thread(leader.kill)
    for broker in followers:
        broker.thaw()
    await asyncio.sleep(2 * BATCH_S)
    await until(found.something_was_spooled(spooled[found]), "something is spooled without a leader", moves=found.count)
    await asyncio.to_thread(leader.start)


@pytest.mark.timeout(900)
async def test_a_leader_that_dies_before_its_followers_have_the_records_loses_none(tmp_path: Path, trio, postgres):
    """What the agents say meanwhile has its consequences too: rows T-14 and T-15, for which this installation is as good."""
    async with scene(tmp_path, trio, postgres, counts=TWO, keys=8, is_idle=True, env=REPLICATED) as good:
        async with bad_agents(good.system):
            good.start_load()
            await good.still_flows()
            await change_leader_behind_its_followers(good)
            await good.still_flows()
            await judged(good)
            await expect(good.system, attempts_told(*(member.log for member in good.system.roles_running)))


@pytest.mark.slow
@pytest.mark.timeout(1800)
async def test_builds_that_trust_one_broker_are_found_out(tmp_path: Path, trio, postgres):
    """Two builds that are broken on purpose, on the same brokers in the same moment: the checker finds fault with both."""

    async def opened(name: str, **options) -> Scene:
        made = scene(tmp_path / name, trio, postgres, counts=TWO, keys=24, is_idle=True, **options)
        return await stack.enter_async_context(made)

    async with AsyncExitStack() as stack:
        alone = await opened("acks_one", env=REPLICATED, launcher=launcher_of("acks_one"))
        kept = await opened("producer_kept", env=SINGLE, launcher=launcher_of("producer_kept"))
        for each in (alone, kept):
            each.start_load()
            await each.still_flows()
        await change_leader_behind_its_followers(kept, alone)
        await alone.still_flows()  # the other one never flows again
        for broken in (alone, kept):
            broken.driver.stopping.set()
            await broken.system.settled(10)
            verdict = await ended(broken)
            print(broken.system.folder.name, verdict.figures, len(verdict.faults), verdict.faults[:2])
            lost = [fault for fault in verdict.faults if fault.startswith("I1 durability") and "is no event" in fault]
            assert lost, f"the build {broken.system.folder.name} passed: {verdict.figures}"


@pytest.mark.slow
@pytest.mark.timeout(1800)
async def test_partitions_without_a_leader_for_a_while_go_on_with_a_new_producer(tmp_path: Path, trio, postgres):
    async with scene(tmp_path, trio, postgres, counts=TWO, env=SINGLE) as found:
        await change_leader_behind_its_followers(found)
        await found.still_flows()
        await judged(found)


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
