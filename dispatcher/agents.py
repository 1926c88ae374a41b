"""The agents that this process serves: each with its lanes, its standing and its limits, walled off from the others."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from dispatcher import breaker
from dispatcher.book import Book, Setting
from dispatcher.breaker import Standing
from dispatcher.flow import Bucket
from dispatcher.lanes import AgentKey, Picture, Queue
from dispatcher.limits import Claim, Places, Turns
from dispatcher.metrics import AgentMetrics, DispatchMetrics
from schemas.ledger import Head


@dataclass(slots=True, eq=False)
class Agent:
    """One agent at work.  A worker is a task that runs one invocation after another, as long as there are any."""

    setting: Setting
    queue: Queue
    metrics: AgentMetrics
    standing: Standing = breaker.FRESH
    workers: dict[asyncio.Task[None], Head | None] = field(default_factory=dict)
    bucket: Bucket | None = None
    later: asyncio.TimerHandle | None = None  # when the rate lets the next one start
    keeping: asyncio.Lock = field(default_factory=asyncio.Lock)  # one write of its standing at a time
    reserved: int = 0  # places held for what is being admitted
    places: Places = field(default_factory=Places)
    turns: dict[str, Turns] = field(default_factory=dict)  # by subscription, of those that have a rate
    runs: set[str] = field(default_factory=set)  # invocations that it accepted, or that it is to fetch
    claims: dict[str, list[Claim]] = field(default_factory=dict)  # the places of these runs
    unfetched: set[str] = field(default_factory=set)  # of these, what waits to be fetched
    wanted: int = 0  # how much its pollers wait for, where it fetches its work
    over_at_ms: int = 0  # when its runs are looked at next

    @property
    def key(self) -> AgentKey:
        """Team and name."""
        return self.setting.key

    @property
    def names(self) -> tuple[str, str]:
        """Team and name as the ledger has them: those of the whole agent, where this is a part of one."""
        return self.setting.key[0], self.setting.name

    @property
    def part(self) -> tuple[str, str, int]:
        """Team, name and shard: whose runs these are."""
        return (*self.names, self.setting.shard)

    @property
    def is_open_for_work(self) -> bool:
        """Whether one more of its invocations may start now."""
        running = self.queue.running + self.reserved
        if self.setting.is_pull and running + len(self.unfetched) >= self.wanted:
            return False
        return self.standing.state == breaker.CLOSED and running + len(self.runs) < self.setting.max_concurrency

    def wants(self, now_ms: int) -> bool:
        """Whether its due lanes should be read from the ledger: memory runs low, and they could start."""
        if not self.queue.more:
            return False
        if self.standing.state != breaker.CLOSED:
            return self.standing.may_probe(now_ms)
        return len(self.queue.ready) * 2 <= self.setting.max_concurrency

    def set(self, setting: Setting) -> None:
        """Take today's setting: its limits count from now."""
        self.setting = setting
        self.metrics.limit.set(setting.max_concurrency)
        if setting.rate_per_s is None:
            self.bucket = None
        elif self.bucket is None:
            self.bucket = Bucket(setting.rate_per_s, setting.burst)
        else:
            self.bucket.rate_per_s, self.bucket.burst = setting.rate_per_s, setting.burst

    def stand(self, standing: Standing) -> None:
        """Take a new standing."""
        if standing.state != self.standing.state:
            self.metrics.breaker.set(breaker.CODE_BY_STATE[standing.state])
        self.standing = standing

    def stop(self) -> None:
        """Cancel whatever runs."""
        if self.later is not None:
            self.later.cancel()
        for worker in self.workers:
            worker.cancel()


class Agents:
    """All agents of the shards that are ours, by (team, name)."""

    def __init__(self, picture: Picture, metrics: DispatchMetrics) -> None:
        self._picture, self._metrics = picture, metrics
        self._by_key: dict[AgentKey, Agent] = {}
        self._remembered: Mapping[tuple[str, str], Standing] = {}

    def __iter__(self) -> Iterator[Agent]:
        return iter(list(self._by_key.values()))  # a copy: callers wait in between, and agents come and go

    def __len__(self) -> int:
        return len(self._by_key)

    def get(self, key: AgentKey) -> Agent | None:
        """The agent, where it is ours."""
        return self._by_key.get(key)

    def remember(self, standings: Mapping[tuple[str, str], Standing]) -> None:
        """How agents stood a moment ago, by team and name: for those whose shards are being taken over.

        The parts of an agent that is spread over shards are called at one address, so what the last of them said of it holds
        for whoever takes one over.
        """
        self._remembered = standings

    def refresh(self, book: Book, shards: Iterable[int]) -> list[Agent]:
        """Take today's settings for the agents of `shards`; returns those that are new here."""
        ours, fresh = frozenset(shards), []
        self._picture.parts = book.parts
        for key, setting in book.settings.items():
            if setting.shard not in ours:
                continue
            agent = self._by_key.get(key)
            if agent is None:
                agent = Agent(setting, self._picture.queue(key, setting.shard), self._metrics.of(setting.key[1]))
                self._by_key[key] = agent
                agent.metrics.inflight.set_function(agent.workers.__len__)
                agent.stand(self._remembered.get(agent.names, breaker.FRESH))
                agent.set(setting)
                fresh.append(agent)
            elif agent.setting != setting:
                agent.set(setting)
                agent.stand(breaker.probed_soon(agent.standing))
        if fresh and self._remembered:
            adopted = {agent.names for agent in fresh}
            self._remembered = {names: kept for names, kept in self._remembered.items() if names not in adopted}
        return fresh

    def leave(self, queues: Iterable[Queue]) -> None:
        """Stop the agents whose queues were dropped; what they ran is another process's now."""
        for queue in queues:
            agent = self._by_key.pop(queue.key, None)
            if agent is not None:
                agent.stop()
