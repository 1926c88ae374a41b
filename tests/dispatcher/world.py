"""A small world around a Dispatcher: agents that answer by script, a ledger in memory, virtual time."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

import orjson
from prometheus_client import CollectorRegistry

from dispatcher.metrics import DispatchMetrics
from dispatcher.ports import Curated
from dispatcher.service import Dispatcher, DispatcherConfig
from schemas.config import AgentConfig, AgentSpec, QuotaSpec, SubscriptionConfig, SubscriptionSpec, SubscriptionState
from schemas.context import NO_ENVELOPE, Envelope
from schemas.event import Event
from schemas.ids import event_id, invocation_id, shard_of
from schemas.invocation import Admitted, Invocation, Order
from tests.fakes.clock import VirtualClock
from tests.fakes.ledger import FakeLedger

SECRET = "whsec_MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY="


@dataclass(frozen=True)
class Said:
    """An agent's answer."""

    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""


@dataclass(frozen=True)
class Heard:
    """A call as an agent got it."""

    agent: str
    at_s: float
    headers: dict[str, str]
    document: dict[str, Any]

    @property
    def id(self) -> str:
        return self.headers["webhook-id"]


Script = Callable[[Heard], Awaitable[Said]]


async def agreeable(_: Heard) -> Said:
    await asyncio.sleep(0.01)
    return Said()


class FakeCaller:
    """Calls scripted agents; enforces the attempt's time limit as egress does."""

    def __init__(self, clock: VirtualClock) -> None:
        self.clock = clock
        self.scripts: dict[str, Script] = {}
        self.heard: list[Heard] = []
        self.running: dict[str, int] = {}
        self.most: dict[str, int] = {}

    async def request(
        self, method: str, url: str, *, headers: Any = None, body: bytes | None = None, timeout_s: float = 30.0, **_: Any
    ) -> Said:
        from schemas.errors import AgentTimedOut

        name = url.rsplit("/", 1)[-1]
        heard = Heard(name, self.clock.elapsed_s, dict(headers), orjson.loads(body or b"null"))
        self.heard.append(heard)
        self.running[name] = self.running.get(name, 0) + 1
        self.most[name] = max(self.most.get(name, 0), self.running[name])
        try:
            async with asyncio.timeout(timeout_s):
                return await self.scripts.get(name, agreeable)(heard)
        except TimeoutError as exc:
            raise AgentTimedOut("no answer", kind="timeout", sent=True) from exc
        finally:
            self.running[name] -= 1

    def ids(self, agent: str) -> list[str]:
        return [heard.id for heard in self.heard if heard.agent == agent]


class FakeRoster:
    def __init__(self) -> None:
        self.number = 1
        self.quota: QuotaSpec | None = None
        self.agents_now: dict[str, AgentConfig] = {}
        self.subscriptions_now: dict[str, SubscriptionConfig] = {}

    async def version(self) -> int:
        return self.number

    async def agents(self) -> list[AgentConfig]:
        return list(self.agents_now.values())

    async def subscriptions(self) -> list[SubscriptionConfig]:
        return list(self.subscriptions_now.values())

    def agent(self, name: str, **spec: Any) -> None:
        made = AgentSpec(url=f"http://agents.test/{name}", allow_private=True, **spec)
        self.agents_now[name] = AgentConfig(
            "default", name, f"uid-{name}", shard_of("default", name), made, (SECRET,), self.quota
        )
        self.number += 1

    def subscription(self, name: str, agent: str, *, order: Order = Order.STRICT, **spec: Any) -> None:
        made = SubscriptionSpec(agent=agent, pattern={"type": ["x"]}, order=order, **spec)
        self.subscriptions_now[name] = SubscriptionConfig("default", name, f"sub-{name}", 1, made)
        self.number += 1

    def spec_of(self, uid: str) -> SubscriptionSpec | None:
        return next((found.spec for found in self.subscriptions_now.values() if found.uid == uid), None)

    def drop_subscription(self, name: str) -> None:
        del self.subscriptions_now[name]
        self.number += 1

    def state(self, name: str, state: SubscriptionState) -> None:
        before = self.subscriptions_now[name]
        spec = before.spec.model_copy(update={"state": state})
        self.subscriptions_now[name] = SubscriptionConfig("default", name, before.uid, 1, spec)
        self.number += 1


class FakeCurator:
    """Makes a context of the data alone; `verdict` is what it says of every full one."""

    def __init__(self) -> None:
        self.verdict = "deliver"
        self.full_ones: list[str] = []
        self.takes_s = 0.0

    def plain(self, subscription: SubscriptionConfig, event: Event, data: Any, *, envelope: Envelope = NO_ENVELOPE) -> Curated:
        return Curated(orjson.dumps({"n": data}), 5, 10, "d")

    async def full(
        self, subscription: SubscriptionConfig, event: Event, data: Any, *, invocation_id: str, envelope: Envelope
    ) -> Curated:
        self.full_ones.append(invocation_id)
        await asyncio.sleep(self.takes_s)
        siblings = (("facts", b'{"tier":{"value":"gold"}}'),)
        reason = "" if self.verdict == "deliver" else "required and absent: facts.plan"
        return Curated(
            orjson.dumps({"n": data}), 9, 20, "f", siblings=siblings, missing=("plan",), verdict=self.verdict, reason=reason
        )


class FakeTokens:
    def mint(self, *, team: str, invocation_id: str, event_id: str, expires_ms: int, attempt: int) -> str:
        return f"tok-{invocation_id}-{attempt}-{expires_ms}"


class World:
    """Everything around one or more dispatchers."""

    def __init__(self, **config: Any) -> None:
        self.clock = VirtualClock()
        self.ledger = FakeLedger(self.clock.now_ms)
        self.roster = FakeRoster()
        self.ledger.spec_of = self.roster.spec_of
        self.ledger.agents = lambda: {name: agent.shard for name, agent in self.roster.agents_now.items()}
        self.curator = FakeCurator()
        self.caller = FakeCaller(self.clock)
        self.said: list[tuple[str, dict[str, Any]]] = []
        self.config = config
        self.sequence = 0
        self.metrics = DispatchMetrics(CollectorRegistry())

    def dispatcher(self, owner: str = "one", *, ledger: Any = None, **config: Any) -> Dispatcher:
        made = DispatcherConfig(owner=owner, api_url="https://nightbell.test/", **{**self.config, **config})
        return Dispatcher(
            ledger or self.ledger,
            self.roster,
            self.caller,
            curate=self.curator,
            tokens=FakeTokens(),
            say=lambda name, **fields: self.said.append((name, fields)),
            metrics=DispatchMetrics(CollectorRegistry()),
            config=made,
            clock=self.clock,
        )

    def invocation(self, subscription: str, key: str, *, due_in_ms: int = 0) -> tuple[Invocation, Event]:
        self.sequence += 1
        found = self.roster.subscriptions_now[subscription]
        agent = found.spec.agent
        event = event_of(self.sequence, key, self.clock.now_ms())
        made = invocation_id(event.id, found.uid)
        order = found.spec.order
        lane = made if order is Order.NONE else f"{found.uid}|{key}"
        now = self.clock.now_ms()
        return (
            Invocation(
                made, "default", event.id, found.uid, subscription, 1, agent, shard_of("default", agent), key, lane,
                order, now, now + due_in_ms,
            ),
            event,
        )  # fmt: skip

    def admit(self, subscription: str, key: str, **more: Any) -> Admitted:
        """Admit one invocation, without telling any dispatcher."""
        invocation, event = self.invocation(subscription, key, **more)
        return self.ledger.admit(invocation, event, {"sequence": self.sequence})


def event_of(sequence: int, key: str, now_ms: int) -> Event:
    return Event(
        id=event_id("default", "src", f"{sequence}"),
        team="default",
        source="src",
        provider="github",
        family="github",
        type="github.issues.opened",
        partitionkey=key,
        time_ms=now_ms,
        received_ms=now_ms,
        traceparent="00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
        datacontenttype="application/json",
        body=b'{"sequence":%d}' % sequence,
        kind="ticket.created",
        subject="acme/shop/issues/42",
    )


async def until(claim: Callable[[], bool], *, within_s: float = 60.0, every_s: float = 0.005) -> None:
    """Wait in virtual time until `claim` holds."""
    async with asyncio.timeout(within_s):
        while not claim():
            await asyncio.sleep(every_s)


class Running:
    """`async with Running(dispatcher)`: it runs inside, and is stopped at the end."""

    def __init__(self, dispatcher: Dispatcher) -> None:
        self.dispatcher = dispatcher

    async def __aenter__(self) -> Dispatcher:
        self.task = asyncio.create_task(self.dispatcher.run())
        await until(lambda: self.dispatcher.is_ready or self.task.done())
        return self.dispatcher

    async def __aexit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is not None and not self.task.done():
            self.task.cancel()
            await asyncio.gather(self.task, return_exceptions=True)
            return
        self.dispatcher.stop()
        await self.task
