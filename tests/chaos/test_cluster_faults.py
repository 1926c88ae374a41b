"""Kafka, PostgreSQL and every role are killed, frozen and restarted under load; the independent checker judges what is left."""

from __future__ import annotations

import asyncio
import os
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from uuid import uuid4

import pytest
from aiokafka import AIOKafkaProducer

from tests.chaos.checker import Verdict, check
from tests.chaos.cluster import LEASE_S, ROLES, ClusterSystem, Role
from tests.chaos.driver import Driver
from tests.chaos.system import EXTRA
from tests.servers import kafka
from tests.servers.postgres import PostgresServer, fresh_database, running_postgres

pytestmark = [pytest.mark.kafka, pytest.mark.postgres, pytest.mark.timeout(300)]
SEED = int(os.environ.get("NBTEST_SEED", "11"))
SESSION_S = 6.0  # what the roles are told, see tests.chaos.cluster


@pytest.fixture(scope="module")
def postgres() -> Iterator[PostgresServer]:
    with running_postgres() as server:
        yield server


@pytest.fixture(scope="module")
def broker() -> Iterator[kafka.Cluster]:
    with kafka.Cluster() as cluster:  # not the session's: this one is killed
        yield cluster


class Scene:
    """A cluster under load, and what can be done to it."""

    def __init__(self, system: ClusterSystem, broker: kafka.Cluster, postgres: PostgresServer, driver: Driver) -> None:
        self.system, self.broker, self.postgres, self.driver = system, broker, postgres, driver
        self.chance = random.Random(SEED)
        self.changes = 0

    async def kill(self, member: Role) -> None:
        """kill -9, and start again at once."""
        await asyncio.sleep(self.chance.uniform(0.05, 1.5))
        member.kill()
        member.start()
        await self.system.ready(60, member)

    async def kill_everyone(self, times: int) -> None:
        """`times` rounds, each of which kills one of each role at random moments, now the one and now the other of the two."""
        for _ in range(times):
            async with asyncio.TaskGroup() as group:
                for role in ROLES:
                    group.create_task(self.kill(self.chance.choice(self.system.members[role])))

    async def freeze(self, *members: Role, for_s: float) -> None:
        for member in members:
            member.freeze()
        await asyncio.sleep(for_s)
        for member in members:
            member.thaw()

    async def restart_broker(self, *, down_s: float) -> None:
        [broker] = self.broker.brokers
        await asyncio.to_thread(broker.kill)
        await asyncio.sleep(down_s)
        await asyncio.to_thread(broker.start)

    async def freeze_broker(self, *, for_s: float) -> None:
        self.broker.brokers[0].freeze()
        await asyncio.sleep(for_s)
        self.broker.brokers[0].thaw()

    async def restart_postgres(self, *, down_s: float) -> None:
        import signal

        await asyncio.to_thread(self.postgres.stop, signal.SIGQUIT)
        await asyncio.sleep(down_s)
        await asyncio.to_thread(self.postgres.start)

    async def change_subscriptions(self) -> None:
        self.changes += 1
        path = self.system.folder / f"extra-{self.changes}.yaml"
        path.write_text(EXTRA.format(n=self.changes))
        await asyncio.to_thread(self.system.command, "apply", "-f", str(path))

    async def poison(self) -> None:
        """A record on the events topic that no router can read."""
        producer = AIOKafkaProducer(bootstrap_servers=self.broker.bootstrap, acks="all")
        await producer.start()
        try:
            topic = f"{self.system.prefix}.events.github"
            await producer.send_and_wait(
                topic, b"{}", b"default/github-chaos/PR_0", headers=[("ce_nbwire", b"1"), ("ce_time", b"no")]
            )
        finally:
            await producer.stop()

    async def still_flows(self, within_s: float = 30) -> None:
        """Until something that was sent from now on has been delivered."""
        called = len(self.system.ledger("agent"))
        goal = self.driver.count + 20
        for _ in range(int(within_s / 0.2)):
            await asyncio.sleep(0.2)
            if self.driver.count >= goal and len(self.system.ledger("agent")) > called + 20:
                return
        raise AssertionError(f"nothing flows any more: {self.driver.count - goal + 20} sent\n{self.system.log_tail(6)}")


@asynccontextmanager
async def scene(folder: Path, broker: kafka.Cluster, postgres: PostgresServer, *, keys: int = 12) -> AsyncIterator[Scene]:
    system = ClusterSystem(folder, log_url=broker.url, store_url=await fresh_database(postgres, f"t{uuid4().hex}"))
    try:
        await asyncio.to_thread(system.install)
        system.start_agent("--delay-ms", "5")
        system.start()
        await system.ready(90)
        await asyncio.to_thread(system.apply)
        driver = Driver(system.ingest_urls, folder, keys=keys, pause_s=0.25)
        load = asyncio.create_task(driver.run())
        found = Scene(system, broker, postgres, driver)
        try:
            await found.still_flows()
            yield found
        finally:
            driver.stopping.set()
            await asyncio.wait_for(load, 60)
    finally:
        await asyncio.to_thread(system.close)


def again(system: ClusterSystem) -> int:
    """How many calls repeated one that the agent had had: a kill costs as many as were under way in the process."""
    calls = system.ledger("agent")
    return len(calls) - len({call["invocation"] for call in calls})


async def judged(found: Scene) -> Verdict:
    """Stop the load, let everything come to its end, and let the checker judge."""
    system = found.system
    found.driver.stopping.set()
    await system.settled(90)
    verdict = check(
        sent=system.ledger("sent"), acked=system.ledger("acked"), agent=system.ledger("agent"),
        store=await asyncio.to_thread(system.dump), always=["all", "twin"],
    )  # fmt: skip
    verdict.figures["again"] = again(system)
    verdict.figures["refused"] = sum(found.driver.refused.values())
    print(f"\nseed {SEED}: {verdict.figures} {found.driver.refused}")
    assert verdict.faults == [], f"{len(verdict.faults)} faults: {verdict.faults[:10]}\n{system.log_tail(10)}"
    assert system.crashes() == []
    return verdict


async def test_nothing_is_lost_doubled_or_reordered_whatever_part_fails(tmp_path: Path, broker, postgres):
    async with scene(tmp_path, broker, postgres) as found:
        system = found.system
        routers, dispatchers = system.members["router"], system.members["dispatcher"]
        acts: list[tuple[str, Callable[[], Awaitable[None]]]] = [
            ("kills", lambda: found.kill_everyone(3)),
            ("poison", found.poison),
            ("router and dispatcher frozen past their lease", lambda: found.freeze(routers[0], dispatchers[0], for_s=SESSION_S + LEASE_S)),
            ("subscriptions changed", found.change_subscriptions),
            ("PostgreSQL killed", lambda: found.restart_postgres(down_s=1)),
            ("broker killed", lambda: found.restart_broker(down_s=1)),
            ("broker frozen", lambda: found.freeze_broker(for_s=4)),
        ]  # fmt: skip
        for name, act in acts:
            started = asyncio.get_running_loop().time()
            await act()
            await found.still_flows()
            print(f"{name}: {asyncio.get_running_loop().time() - started:.1f} s, {found.driver.count} sent", flush=True)
        verdict = await judged(found)
        assert verdict.figures["acked"] > 500
        [rejected] = await asyncio.to_thread(system.rows, "select count(*) as n from rejected")
        assert rejected["n"] == 1
        spooled = sum(member.metric("nightbell_spool_events_total") for member in system.members["ingest"])
        assert spooled > 0, "the broker was away, and nothing was spooled"


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("role", ROLES)
async def test_twenty_kills_of_a_role(tmp_path: Path, broker, postgres, role: str):
    async with scene(tmp_path, broker, postgres) as found:
        for number in range(20):
            await found.kill(found.chance.choice(found.system.members[role]))
            if number % 5 == 2:
                await found.change_subscriptions()
        await judged(found)


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("down_s", [30, 90])
async def test_a_broker_that_is_away_for_long(tmp_path: Path, broker, postgres, down_s: int):
    async with scene(tmp_path, broker, postgres) as found:
        before = dict(found.driver.refused)
        await found.restart_broker(down_s=down_s)
        await found.still_flows(60)
        assert found.driver.refused == before, "a webhook was refused, though there was a spool"
        await judged(found)


@pytest.mark.slow
@pytest.mark.timeout(900)
async def test_a_database_that_is_away_for_long(tmp_path: Path, broker, postgres):
    async with scene(tmp_path, broker, postgres) as found:
        before = dict(found.driver.refused)
        await found.restart_postgres(down_s=20)
        await found.still_flows(60)
        assert found.driver.refused == before, "a webhook was refused, though ingest needs no database"
        await judged(found)


@pytest.mark.slow
@pytest.mark.timeout(900)
async def test_a_rolling_restart_of_every_role_refuses_nobody(tmp_path: Path, broker, postgres):
    async with scene(tmp_path, broker, postgres) as found:
        for member in found.system.roles_running:
            assert await asyncio.to_thread(member.stop) == 0, member.tail(40)
            member.start()
            await found.system.ready(40, member)
        verdict = await judged(found)
        assert set(found.driver.refused) <= {0}, f"a sender got an error: {found.driver.refused}"
        assert verdict.figures["again"] == 0, "an agent was called again, though everyone ended gracefully"
