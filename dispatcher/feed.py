"""Reads due lanes from the ledger: what memory had no place for, what was waiting, what a crash left behind."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from heapq import heappop, heappush

from dispatcher import breaker
from dispatcher.agents import Agent, Agents
from dispatcher.clock import Clock
from dispatcher.lanes import AgentKey, Picture
from dispatcher.ports import Ledger
from dispatcher.runs import Supervision
from dispatcher.tenure import Tenure
from schemas.errors import Busy
from schemas.invocation import Order, Wait
from schemas.ledger import Head

_BUCKET_MS = 5  # wakes are rounded up to it: many retries that fall due together are read together
_NEAR_MS = 60_000
_MAX_NEAR = 20_000
_AGENTS_AT_ONCE = 64
_HEADS_AT_ONCE = 32
_STORE_PAUSE_S = 1.0


@dataclass(frozen=True, slots=True)
class Pace:
    """How often the whole of our shards is looked over though nothing called for it: what other processes changed is found
    so.
    """

    sweep_ms: int = 5_000


class Feed:
    """Decides when the ledger is read, for whom, and hands what it finds to `start`."""

    def __init__(
        self,
        ledger: Ledger,
        picture: Picture,
        agents: Agents,
        tenure: Tenure,
        clock: Clock,
        *,
        start: Callable[[Agent], None],
        probe: Callable[[Agent, Sequence[Head]], Awaitable[None]],
        runs: Supervision,
        pace: Pace,
    ) -> None:
        self._ledger, self._picture, self._agents = ledger, picture, agents
        self._tenure, self._clock, self._pace = tenure, clock, pace
        self._start, self._probe, self._runs = start, probe, runs
        self._called = asyncio.Event()
        self._near: list[tuple[int, AgentKey]] = []
        self._near_known: set[tuple[int, AgentKey]] = set()
        self._sweep_at_ms = 0

    def ask(self, agent: Agent) -> None:
        """There is, or may be, more of this agent in the ledger."""
        agent.queue.more = True
        self._called.set()

    def look(self) -> None:
        """Someone's `more` may be wanted now."""
        self._called.set()

    def look_over(self) -> None:
        """Read everything of ours now."""
        self._sweep_at_ms = 0
        self._called.set()

    def wake_at(self, agent: Agent, due_ms: int) -> None:
        """Read this agent's lanes when `due_ms` has come.

        The row in the ledger is what remembers the retry; this only saves waiting for the next look over all, so a wake that is
        far off, or one too many, is left to that.
        """
        if due_ms - self._clock.now_ms() > _NEAR_MS or len(self._near) >= _MAX_NEAR:
            return
        entry = (due_ms + _BUCKET_MS - due_ms % _BUCKET_MS, agent.key)
        if entry not in self._near_known:
            self._near_known.add(entry)
            heappush(self._near, entry)
            if self._near[0] is entry:
                self._called.set()

    async def run(self) -> None:
        """Read whenever something calls for it, until cancelled."""
        while True:
            await self._rest()
            try:
                await self.turn()
            except Busy:
                self._sweep_at_ms = 0
                await asyncio.sleep(_STORE_PAUSE_S)

    async def turn(self) -> None:
        """Do what is called for now, once."""
        self._called.clear()
        now_ms = self._clock.now_ms()
        while self._near and self._near[0][0] <= now_ms:
            entry = heappop(self._near)
            self._near_known.discard(entry)
            if agent := self._agents.get(entry[1]):
                agent.queue.more = True
        if now_ms >= self._sweep_at_ms:
            self._runs.sweep()
            await self._look_over_all(now_ms)
        await self._runs.turn()
        wanting = [agent for agent in self._agents if agent.wants(now_ms)]
        for agent in wanting:
            if agent.standing.state != breaker.CLOSED:
                await self._find_probe(agent, now_ms)
        served = [agent for agent in wanting if agent.standing.state == breaker.CLOSED]
        for first in range(0, len(served), _AGENTS_AT_ONCE):
            await self._read(served[first : first + _AGENTS_AT_ONCE], now_ms)

    async def _rest(self) -> None:
        """Wait until something calls, or the next thing known falls due."""
        due_ms = self._sweep_at_ms if not self._near else min(self._sweep_at_ms, self._near[0][0])
        wait_ms = due_ms - self._clock.now_ms()
        if wait_ms <= 0 or self._called.is_set():
            await asyncio.sleep(0)
            return
        try:
            async with asyncio.timeout(wait_ms / 1000):
                await self._called.wait()
        except TimeoutError:
            return

    async def _look_over_all(self, now_ms: int) -> None:
        """Ask for every agent where anything of ours is due; the next time is at the sweep's pace, or when more falls due."""
        shards = list(self._tenure.epochs)
        parts = [part for part in self._picture.parts if part[2] in self._tenure.epochs]
        due_ms = await self._ledger.next_due_ms(shards, parts=parts) if shards else None
        if due_ms is not None and due_ms <= now_ms:
            for agent in self._agents:
                agent.queue.more = True
                self._start(agent)
            due_ms = await self._ledger.next_due_ms(shards, after_ms=now_ms, parts=parts)
        self._sweep_at_ms = now_ms + self._pace.sweep_ms
        if due_ms is not None:
            self._sweep_at_ms = min(self._sweep_at_ms, max(due_ms, now_ms + _BUCKET_MS))

    async def _read(self, agents: Sequence[Agent], now_ms: int) -> None:
        skip: list[str] = []
        for agent in agents:
            agent.queue.more = False  # before the question: what is left in the ledger meanwhile sets it again
            skip += agent.queue.lanes
        heads = await self._ledger.due(
            [agent.setting.asked for agent in agents], now_ms=now_ms, limit=_HEADS_AT_ONCE, skip=skip
        )
        counts: dict[AgentKey, int] = {}
        for head in heads:
            key = self._picture.key_of(head.invocation)
            counts[key] = counts.get(key, 0) + 1
            agent_now = self._agents.get(key)
            if agent_now is not None:
                self._take_in(agent_now, head)
        for agent in agents:
            if counts.get(agent.key, 0) >= _HEADS_AT_ONCE:
                agent.queue.more = True
            self._start(agent)

    def _take_in(self, agent: Agent, head: Head) -> None:
        if not self._picture.has_room(agent.queue):
            agent.queue.more = True
            return
        self._picture.found(head, more=head.invocation.order is not Order.NONE)

    async def _find_probe(self, agent: Agent, now_ms: int) -> None:
        """Let an agent that is not called have its one probe, with whatever of it is due.

        Where only retries wait, they are called forward: an agent's recovery is found by the breaker's short pauses, or when
        its setting was mended, not by the long pauses that its invocations have reached.  Nothing else starts meanwhile.
        """
        agent.queue.more = False
        skip = list(agent.queue.lanes)
        heads = await self._ledger.due([agent.setting.asked], now_ms=now_ms, limit=_HEADS_AT_ONCE, skip=skip)
        if not heads and await self._called_forward(agent, now_ms):
            heads = await self._ledger.due([agent.setting.asked], now_ms=now_ms, limit=_HEADS_AT_ONCE, skip=skip)
        if heads:
            await self._probe(agent, heads)

    async def _called_forward(self, agent: Agent, now_ms: int) -> int:
        epoch = self._tenure.epoch(agent.setting.shard)
        if epoch is None:
            return 0
        team, name = agent.names
        reason = Wait.RETRY if agent.standing.cause == breaker.FAILING else Wait.HOLD
        return await self._ledger.release(
            team=team, agent=name, shard=agent.setting.shard, epoch=epoch, reason=reason, now_ms=now_ms
        )
