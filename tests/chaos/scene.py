"""A cluster under load, what can be done to it, and the verdict.

Every wait here is for a fact, and gives up only when nothing has moved for long: a machine with other work to do takes longer,
and that is no fault.
"""

from __future__ import annotations

import asyncio
import os
import random
import signal
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import uuid4

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.admin.records_to_delete import RecordsToDelete

from tests.chaos.checker import Verdict, check
from tests.chaos.cluster import LEASE_S, ROLES, ClusterSystem, Role
from tests.chaos.driver import Driver
from tests.chaos.seam import LAUNCHER, clear_fault, set_fault
from tests.chaos.system import EXTRA
from tests.servers import kafka
from tests.servers.postgres import PostgresServer, fresh_database
from tests.servers.proxy import Proxy

SEED = int(os.environ.get("NBTEST_SEED", "11"))
SESSION_S = 6.0  # what the roles are told, see tests.chaos.cluster
PATIENCE_S = 90.0  # without any progress
DOORS = ("ingest", "router")  # the ways to Kafka that can be made bad one by one


async def until(
    fact: Callable[[], Awaitable[bool]], what: str, *, moves: Callable[[], object] = lambda: None, tail: Callable[[], str] = str
) -> None:
    """Wait for a fact; where it does not come and `moves` gives the same for long, fail with what was waited for."""
    since, before = time.monotonic(), moves()
    while not await fact():
        await asyncio.sleep(0.2)
        if (now := moves()) != before:
            since, before = time.monotonic(), now
        elif time.monotonic() - since > PATIENCE_S:
            raise AssertionError(f"waited {PATIENCE_S} s in vain: {what}\n{tail()}")


@dataclass
class Network:
    """Every way between two parts, each through proxies of its own."""

    ways: dict[str, list[Proxy]] = field(default_factory=dict)

    def heal(self) -> None:
        for proxies in self.ways.values():
            for proxy in proxies:
                proxy.heal()

    async def fault(self, names: Sequence[str], how: Callable[[Proxy], None], *, for_s: float) -> None:
        for name in names:
            for proxy in self.ways[name]:
                how(proxy)
        await asyncio.sleep(for_s)
        self.heal()


FAULTS: dict[str, Callable[[Proxy], None]] = {
    "latency": lambda proxy: proxy.latency(0.05, jitter_s=0.2),  # as where one packet of ten is lost and sent again
    "slices": lambda proxy: proxy.throttle(200_000, slice_bytes=1000),
    "drop": lambda proxy: proxy.stall(),
    "half-open, answers lost": lambda proxy: proxy.stall("down"),
    "half-open, requests lost": lambda proxy: proxy.stall("up"),
    "cut": lambda proxy: proxy.cut(),
    "refused": lambda proxy: proxy.refuse(),
}


DATABASE_FAULTS: tuple[dict[str, Any], ...] = (
    {"at": "statement", "what": "deadlock", "rate": 0.05},
    {"at": "statement", "what": "lost", "rate": 0.03},
    {"at": "statement", "what": "late", "rate": 0.1, "delay_s": 0.3},
    {"at": "commit", "what": "late", "rate": 0.3, "delay_s": 0.3},
    {"at": "commit", "what": "lost", "rate": 0.1},
    {"at": "commit", "what": "doubt", "rate": 0.1},
)


class Scene:
    """A cluster under load, and what can be done to it."""

    def __init__(
        self, system: ClusterSystem, broker: kafka.Cluster, postgres: PostgresServer, driver: Driver, network: Network
    ) -> None:
        self.system, self.broker, self.postgres, self.driver, self.network = system, broker, postgres, driver, network
        self.chance = random.Random(SEED)
        self.changes = 0
        self.load: asyncio.Task[None] | None = None

    def start_load(self) -> None:
        """Let the sender begin."""
        self.load = asyncio.create_task(self.driver.run())

    # --- roles ---

    async def kill(self, member: Role) -> None:
        """kill -9 at a random moment, and start again at once."""
        await asyncio.sleep(self.chance.uniform(0.05, 1.0))
        member.kill()
        member.start()
        await self.system.ready(PATIENCE_S, member)

    async def kill_everyone(self, times: int) -> None:
        """`times` rounds, each of which kills one of each role at random moments, now the one and now the other of the two."""
        for _ in range(times):
            async with asyncio.TaskGroup() as group:
                for role in ROLES:
                    group.create_task(self.kill(self.chance.choice(self.system.members[role])))

    async def kill_all_at_once(self) -> None:
        """Every process of every role, in the same moment."""
        for member in self.system.roles_running:
            member.kill()
        for member in self.system.roles_running:
            member.start()
        await self.system.ready(PATIENCE_S)

    async def freeze_past_their_lease(self, router: Role, dispatcher: Role) -> None:
        """SIGSTOP until others have taken over what these two owned; then SIGCONT."""

        async def both_hold_some() -> bool:
            [now] = await asyncio.to_thread(self.system.rows, _OWNERS)
            return now["owners"] == 2

        await until(both_hold_some, "both dispatchers hold shards", moves=self.count, tail=self.system.log_tail)
        router.freeze()
        dispatcher.freeze()
        frozen_at = time.monotonic()

        async def others_have_all() -> bool:
            [now] = await asyncio.to_thread(self.system.rows, _OWNERS)
            return now["owners"] < 2 and time.monotonic() - frozen_at > SESSION_S + LEASE_S

        await until(others_have_all, "somebody takes the shards of a frozen dispatcher", tail=self.system.log_tail)
        router.thaw()
        dispatcher.thaw()

    async def roll(self, members: Sequence[Role]) -> None:
        """One after the other: SIGTERM, wait for its end, start, wait until it is ready."""
        for member in members:
            code = await asyncio.to_thread(member.stop)
            assert code == 0, f"{member.name} ended with {code}:\n{member.tail(40)}"
            member.start()
            await self.system.ready(PATIENCE_S, member)

    async def revive(self) -> None:
        """Start what has died."""
        dead = [member for member in self.system.roles_running if member.process is None or member.process.poll() is not None]
        for member in dead:
            member.start()
        await self.system.ready(PATIENCE_S, *dead)

    # --- servers ---

    async def restart_broker(self, *, down_s: float) -> None:
        """kill -9; away for `down_s`, and until something had to be spooled."""
        [broker] = self.broker.brokers
        before = self.spooled
        await asyncio.to_thread(broker.kill)
        await asyncio.sleep(down_s)
        await until(self.something_was_spooled(before), "something is spooled while Kafka is away", moves=self.count)
        await asyncio.to_thread(broker.start)

    async def freeze_broker(self) -> None:
        """SIGSTOP until something had to be spooled, since the broker answers nobody."""
        before = self.spooled
        self.broker.brokers[0].freeze()
        try:
            await until(self.something_was_spooled(before), "something is spooled while Kafka is frozen", moves=self.count)
        finally:
            self.broker.brokers[0].thaw()

    @property
    def spooled(self) -> float:
        return sum(member.metric("nightbell_spool_events_total") for member in self.system.members_of("ingest"))

    def something_was_spooled(self, before: float) -> Callable[[], Awaitable[bool]]:
        async def fact() -> bool:
            return await asyncio.to_thread(lambda: self.spooled) > before

        return fact

    async def restart_postgres(self, *, down_s: float) -> None:
        await asyncio.to_thread(self.postgres.stop, signal.SIGQUIT)
        await asyncio.sleep(down_s)
        await asyncio.to_thread(self.postgres.start)

    async def poison(self) -> None:
        """A record on the events topic that no router can read."""
        producer = AIOKafkaProducer(bootstrap_servers=self.broker.bootstrap, acks="all")
        await producer.start()
        try:
            await producer.send_and_wait(
                self.topic, b"{}", b"default/github-chaos/PR_0", headers=[("ce_nbwire", b"1"), ("ce_time", b"no")]
            )
        finally:
            await producer.stop()

    @property
    def topic(self) -> str:
        return f"{self.system.prefix}.events.github"

    @property
    def seam(self) -> Path:
        """Where the roles read how their SQL driver fails, see `tests.chaos.seam`."""
        return self.system.folder / "seam.json"

    async def failing_database(self, for_s: float = 1.5) -> None:
        """Statements and commits fail at random, in every way in which a database fails."""
        for fault in DATABASE_FAULTS:
            set_fault(self.seam, **fault)
            await asyncio.sleep(for_s)
        clear_fault(self.seam)

    async def killed_at_commits(self) -> None:
        """Every process that commits is killed just after its fifth one from now, before anybody hears of it."""
        set_fault(self.seam, what="kill_after", nth=5)

        async def two_died() -> bool:
            return sum(member.process.poll() is not None for member in self.system.roles_running) >= 2

        await until(two_died, "processes die at their commits", moves=self.count)
        clear_fault(self.seam)
        await self.revive()

    async def ends_of(self, topic: str, partitions: int) -> dict[int, int]:
        """Where each partition ends."""
        consumer = AIOKafkaConsumer(bootstrap_servers=self.broker.bootstrap)
        await consumer.start()
        try:
            found = await consumer.end_offsets([TopicPartition(topic, number) for number in range(partitions)])
        finally:
            await consumer.stop()
        return {place.partition: end for place, end in found.items()}

    async def delete_records(self, partition: int, before: int) -> None:
        """What retention does, now: the partition begins at `before`."""
        admin = AIOKafkaAdminClient(bootstrap_servers=self.broker.bootstrap)
        await admin.start()
        try:
            await admin.delete_records({TopicPartition(self.topic, partition): RecordsToDelete(before)})
        finally:
            await admin.close()

    # --- people ---

    async def change_subscriptions(self) -> None:
        self.changes += 1
        path = self.system.folder / f"extra-{self.changes}.yaml"
        path.write_text(EXTRA.format(n=self.changes))
        await asyncio.to_thread(self.system.command, "apply", "-f", str(path))

    # --- facts ---

    def count(self) -> tuple[int, int]:
        """What moves while all is well: requests acknowledged, calls made."""
        return self.driver.count, self.system.calls()

    def has_taken(self, goal: int) -> Callable[[], Awaitable[bool]]:
        async def fact() -> bool:
            return self.driver.count >= goal

        return fact

    async def still_flows(self) -> None:
        """Until something that was sent from now on has been delivered."""
        calls, goal = self.system.calls(), self.driver.count + 12

        async def flows() -> bool:
            return self.driver.count >= goal and self.system.calls() > calls + 12

        await until(flows, "webhooks are taken and delivered", moves=self.count, tail=lambda: self.system.log_tail(6))

    async def through(self, acts: Sequence[tuple[str, Callable[[], Awaitable[Any]]]]) -> None:
        """One act after the other, and after each the line goes on."""
        for name, act in acts:
            started = time.monotonic()
            await act()
            await self.still_flows()
            print(f"{name}: {time.monotonic() - started:.1f} s, {self.driver.count} sent", flush=True)


_OWNERS = "select count(distinct owner) as owners from shards where owner <> ''"


def network_of(system_ports: Sequence[int], postgres: PostgresServer, broker: kafka.Cluster, stack: ExitStack) -> Network:
    """Proxies between all parts: `sender-ingest`, `ingest-kafka`, `router-kafka`, `ROLE-postgres`; `dispatcher-agent` is added
    when the agent's port is known."""
    ways = {"sender-ingest": [stack.enter_context(Proxy(("127.0.0.1", port))) for port in system_ports]}
    ways |= {f"{door}-kafka": broker.proxies(door) for door in DOORS if broker.brokers[0].doors}
    ways |= {f"{role}-postgres": [stack.enter_context(Proxy(("127.0.0.1", postgres.port)))] for role in ROLES}
    return Network(ways)


@asynccontextmanager
async def scene(
    folder: Path, broker: kafka.Cluster, postgres: PostgresServer, *,
    keys: int = 12, delay_ms: float = 5, repeats: int = 0, through_proxies: bool = False, is_idle: bool = False,
    is_seamed: bool = False,
    **system_options: Any,
) -> AsyncIterator[Scene]:  # fmt: skip
    """An installation of two of each role (or of what `system_options` say), under load from `keys` keys until the end.

    `is_idle`: the load begins with `start_load`.  `is_seamed`: its SQL driver fails at will.
    """
    database = f"t{uuid4().hex}"
    store_url = await fresh_database(postgres, database)
    with ExitStack() as stack:
        network = Network()

        def door(port: int) -> int:
            if not through_proxies:
                return port
            proxy = stack.enter_context(Proxy(("127.0.0.1", port)))
            network.ways["dispatcher-agent"] = [proxy]
            return proxy.port

        if is_seamed:
            system_options |= {"launcher": LAUNCHER, "env": {"NBTEST_SEAM": str(folder / "seam.json")}}
        system = ClusterSystem(folder, log_url=broker.url, store_url=store_url, agent_door=door, **system_options)
        urls = system.ingest_urls
        if through_proxies:
            ports = [member.ingest_port for member in system.members_of("ingest")]
            network.ways |= network_of(ports, postgres, broker, stack).ways
            system.ways = {role: ways_of(role, network, broker, database) for role in ROLES}
            urls = [f"http://{proxy.address}/in/github-chaos" for proxy in network.ways["sender-ingest"]]
        stack.callback(system.close)
        await asyncio.to_thread(system.install)
        system.start_agent("--delay-ms", str(delay_ms))
        system.start()
        await system.ready(PATIENCE_S)
        await asyncio.to_thread(system.apply)
        driver = Driver(urls, folder, keys=keys, pause_s=0.25, repeats=repeats)
        driver.backlog = system.backlog
        found = Scene(system, broker, postgres, driver, network)
        try:
            if not is_idle:
                found.start_load()
                await found.still_flows()
            yield found
        finally:
            driver.stopping.set()
            network.heal()
            if found.load is not None:
                await asyncio.wait_for(found.load, PATIENCE_S)


def ways_of(role: str, network: Network, broker: kafka.Cluster, database: str) -> dict[str, str]:
    """What a role is told, so that it goes through its own proxies."""
    [proxy] = network.ways[f"{role}-postgres"]
    return {
        "NIGHTBELL_LOG_URL": broker.url_of(role if role in DOORS else "router"),
        "NIGHTBELL_STORE_URL": f"postgresql://postgres@{proxy.address}/{database}",
    }


async def ended(found: Scene) -> Verdict:
    """Stop the load, let everything come to its end where it can, and let the checker judge; the verdict may be bad."""
    system = found.system
    found.driver.stopping.set()
    verdict = check(
        sent=system.ledger("sent"), acked=system.ledger("acked"), agent=system.ledger("agent"),
        store=await asyncio.to_thread(system.dump), always=["all", "twin"],
    )  # fmt: skip
    calls = system.ledger("agent")
    # How many calls repeated one that the agent had had: a kill costs as many as were under way in the process.
    verdict.figures["again"] = len(calls) - len({call["invocation"] for call in calls})
    verdict.figures["repeats"] = found.driver.again
    return verdict


async def judged(found: Scene) -> Verdict:
    """As `ended`, after everything has come to its end; nothing may be wrong."""
    found.driver.stopping.set()
    assert await found.system.settled(PATIENCE_S), "it never came to rest"
    verdict = await ended(found)
    print(f"\nseed {SEED}: {verdict.figures} refused {found.driver.refused}")
    assert verdict.faults == [], f"{len(verdict.faults)} faults: {verdict.faults[:10]}\n{found.system.log_tail(10)}"
    assert found.system.crashes() == []
    return verdict
