"""The dispatcher at work: owns shards, runs lanes, wakes agents."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from dispatcher import breaker
from dispatcher.agents import Agent, Agents
from dispatcher.attempt import Desk, abandoned, settled
from dispatcher.book import Book, read_book
from dispatcher.clock import Clock, SystemClock
from dispatcher.feed import Pace
from dispatcher.headstart import NONE_RESERVED, HeadStart
from dispatcher.lanes import AgentKey, Bounds, Picture, Placed
from dispatcher.metrics import DispatchMetrics
from dispatcher.ports import Caller, Curator, Ledger, Roster, Tokens
from dispatcher.sent import KeepSent
from dispatcher.standings import kept_standings
from dispatcher.tenure import Tenure, Turn
from dispatcher.workers import Workers
from schemas.errors import Busy
from schemas.invocation import Admitted, Planned, Wait
from schemas.ledger import Lease, Opening

_RENEWALS_PER_LEASE = 3
_FIRST_PAUSE_S = 0.5
_PATIENCE_S = 1.0
_STOP_WRITES_S = 5.0


@dataclass(frozen=True, slots=True)
class DispatcherConfig:
    """What the dispatcher is told.  `owner` names this process among all that share the ledger."""

    owner: str
    api_url: str
    user_agent: str = "Nightbell"
    lease_ms: int = 60_000
    grace_s: float = 20.0
    max_in_flight: int = 512
    look_every_s: float = 0.5
    bounds: Bounds = field(default_factory=Bounds)
    pace: Pace = field(default_factory=Pace)
    keep_sent: KeepSent = "all"


class Dispatcher:
    """Wakes agents.  `run` serves until `stop`; `offer` and `room` are the router's side of the hand-over in memory."""

    def __init__(
        self,
        ledger: Ledger,
        roster: Roster,
        caller: Caller,
        *,
        curate: Curator,
        tokens: Tokens,
        say: Callable[..., Any],
        metrics: DispatchMetrics,
        config: DispatcherConfig,
        clock: Clock | None = None,
    ) -> None:
        self._ledger, self._roster, self._config, self._metrics = ledger, roster, config, metrics
        self._clock = clock or SystemClock()
        self._picture = Picture(config.bounds)
        self._agents = Agents(self._picture, metrics)
        self._tenure = Tenure(self._clock, lease_ms=config.lease_ms)
        api_url = config.api_url.rstrip("/")
        self._desk = Desk(
            ledger, caller, curate, tokens, self._tenure, self._clock, config.owner, api_url, say, config.keep_sent
        )
        self._workers = Workers(
            self._desk, self._picture, self._agents, metrics, pace=config.pace, max_in_flight=config.max_in_flight
        )
        self._head_start = HeadStart(self._desk, self._agents, self._workers)
        self._stopping = asyncio.Event()
        self._unreleased: set[AgentKey] = set()  # agents whose resumed lanes are still to be called forward
        self.is_ready = False
        metrics.in_memory.set_function(lambda: self._picture.count)
        metrics.in_memory_bytes.set_function(lambda: self._picture.bytes)

    # The router's side

    def reserve(self, plans: Sequence[Planned]) -> Mapping[str, Opening]:
        """First attempts that can begin with their admission; each holds a place until it is offered."""
        return self._head_start.reserve(plans)

    def offer(self, admitted: Sequence[Admitted], reserved: Mapping[str, Opening] = NONE_RESERVED) -> None:
        """Take what was just admitted, in lane order, so that it need not be read back; what finds no place is read later.

        Every place in `reserved` is given back, also where nothing was admitted.
        """
        if reserved:
            self._head_start.given_back(reserved, admitted)
        if self._workers.is_stopping:
            return
        now_ms = self._clock.now_ms()
        touched: dict[AgentKey, Agent] = {}
        for one in admitted:
            agent = None if one.is_open else self._agents.get(self._picture.key_of(one.invocation))
            if agent is not None:  # else another process's, or so new that its book is not read yet: the next look finds it
                touched[agent.key] = agent
                self._place(agent, one, now_ms)
        for agent in touched.values():
            self._workers.start(agent)
            if agent.queue.more:
                self._workers.feed.look()

    def _place(self, agent: Agent, one: Admitted, now_ms: int) -> None:
        if one.invocation.due_ms > now_ms:
            self._workers.feed.wake_at(agent, one.invocation.due_ms)
            flow = one.invocation.flow
            if flow is not None and flow.full_at and one.ahead + 1 >= flow.full_at:
                agent.queue.more = True  # the ledger has let its lane go
        elif agent.standing.state != breaker.CLOSED:
            agent.queue.more = True
        elif self._picture.offer(one) is Placed.LEFT:
            self._metrics.left.inc()

    async def room(self) -> None:
        """Wait while the hand-over is full, but not for ever: a stage that must not stop goes on through the ledger.

        So a dispatcher that cannot keep pace slows the router, and the router the log; agents that are down cannot, beyond this
        patience, since each fills no more than its own share.
        """
        if not self._picture.is_full:
            return
        self._workers.eased.clear()
        try:
            async with asyncio.timeout(_PATIENCE_S):
                await self._workers.eased.wait()
        except TimeoutError:
            return

    # The operators' side

    def notice(self) -> None:
        """Agents or subscriptions changed in this process: look now."""
        self._workers.book_called.set()

    def wake(self, team: str = "", agent: str = "") -> None:
        """Rows of this agent (of any, where none is named) were changed from outside, by a redrive or a replay: look now."""
        found = self._agents.get((team, agent))
        if found is None or found.setting.part_of:  # a part: others of it may be here too
            self._workers.feed.look_over()
        else:
            self._workers.feed.ask(found)

    def notice_runs(self, whose: str = "") -> None:
        """The runs of an agent (`team/agent`; of any, where none is named) changed, or somebody waits for its work."""
        if not whose:
            self._workers.runs.sweep()
        for agent in self._agents if whose else ():
            if "/".join(agent.names) == whose:
                self._workers.runs.count_again(agent)
        self._workers.feed.look()

    def wake_shards(self, shards: Iterable[int]) -> None:
        """Work of these shards was queued by another process: look now for the agents of those that are ours."""
        called = set(shards) & self._tenure.epochs.keys()
        if called:
            for agent in self._agents:
                if agent.setting.shard in called:
                    self._workers.feed.ask(agent)

    @property
    def standings(self) -> dict[AgentKey, breaker.Standing]:
        """How the agents of this process stand, for people."""
        return {agent.key: agent.standing for agent in self._agents}

    @property
    def in_memory(self) -> int:
        """How many invocations are handed over in memory, running ones included."""
        return self._picture.count

    # Life

    async def run(self) -> None:
        """Own shards and run their lanes until `stop`; then let what runs finish within the grace, and give the shards back.

        After a crash it may be run again: memory starts empty, and the ledger knows the rest.
        """
        self._turned(self._tenure.ended())
        try:
            async with asyncio.TaskGroup() as tasks:
                await self._serve(tasks)
        finally:
            self._workers.tasks = None  # what a router still offers is closed as `unknown` in time
        with suppress(Busy):  # out of reach: then the leases run out by themselves
            await self._ledger.release_shards(self._config.owner)

    async def _serve(self, tasks: asyncio.TaskGroup) -> None:
        self._workers.begin(tasks)
        try:
            await self._read_book()
            each = (self._hold_shards(), self._follow_roster(), self._workers.feed.run())
            loops = [tasks.create_task(loop) for loop in each]
            await self._stopping.wait()
            for loop in loops[1:]:
                loop.cancel()
            await self._drain()
            loops[0].cancel()
        finally:
            self._workers.end()
            self.is_ready = False

    def stop(self) -> None:
        """Begin no more attempts; `run` returns when those that run have ended or the grace is over."""
        self.is_ready = False
        self._workers.end()
        self._stopping.set()

    async def _drain(self) -> None:
        workers = {worker for agent in self._agents for worker in agent.workers}
        if workers:
            await asyncio.wait(workers, timeout=self._config.grace_s)
        for agent in list(self._agents):
            running = [head for worker, head in agent.workers.items() if head is not None and not worker.done()]
            agent.stop()
            epoch = self._tenure.epoch(agent.setting.shard)
            for head in running if epoch is not None else ():
                with suppress(TimeoutError):
                    async with asyncio.timeout(_STOP_WRITES_S):
                        await settled(self._desk, abandoned(head, epoch=epoch or 0, now_ms=self._clock.now_ms()))

    async def _hold_shards(self) -> None:
        """Renew the leases three times in each; where that fails until they have run out, let go of everything at once."""
        while True:
            asked_at_s = self._clock.boot_s()
            # What is held must be let go in time.  Who holds nothing waits as long as a lease would be worth having: a store
            # that is slow today would else give it none.
            patience_s = self._tenure.remaining_s() if self._tenure.epochs else self._tenure.lease_s / 2
            try:
                async with asyncio.timeout(max(patience_s, _FIRST_PAUSE_S)):
                    busy = {agent.setting.shard for agent in self._agents if agent.workers}
                    leases = await self._ledger.hold_shards(self._config.owner, lease_ms=self._config.lease_ms, busy=busy)
                    await self._remember(leases)
            except (Busy, TimeoutError):
                await asyncio.sleep(max(0.0, min(_FIRST_PAUSE_S, self._tenure.remaining_s())) or _FIRST_PAUSE_S)
                if self._tenure.epochs and self._tenure.remaining_s() <= 0:
                    self._turned(self._tenure.ended())
                continue
            self._turned(self._tenure.renewed(leases, asked_at_s=asked_at_s))
            self.is_ready = not self._stopping.is_set()
            await asyncio.sleep(self._tenure.lease_s / _RENEWALS_PER_LEASE)

    async def _remember(self, leases: Sequence[Lease]) -> None:
        """Read how the agents of new shards stood: nobody calls an agent in vain that was held a moment ago."""
        gained = {lease.shard for lease in leases if self._tenure.epochs.get(lease.shard) != lease.epoch}
        if gained:
            self._agents.remember(await kept_standings(self._ledger, now_ms=self._clock.now_ms()))

    def _turned(self, turn: Turn) -> None:
        """Take over what is ours now, let go at once of what is not."""
        self._metrics.shards.set(len(self._tenure.epochs))
        if turn.lost:
            self._metrics.lost.inc(len(turn.lost))
            self._agents.leave(self._picture.retain(set(self._tenure.epochs) - turn.lost))
        if turn.gained or turn.lost:
            self._adopt(self._agents.refresh(self._workers.book, self._tenure.epochs))

    def _adopt(self, fresh: Sequence[Agent]) -> None:
        """Agents that are new here: nobody knows what was paused or resumed while they were elsewhere."""
        if fresh:
            self._unreleased.update(agent.key for agent in fresh)
            for agent in fresh:
                self._workers.runs.count_again(agent)
            self._workers.book_called.set()
            self._workers.feed.look_over()
        for agent in fresh:
            if agent.standing.state != breaker.CLOSED:
                self._workers.feed.ask(agent)
                self._workers.feed.wake_at(agent, agent.standing.probe_at_ms)

    async def _follow_roster(self) -> None:
        while True:
            try:
                async with asyncio.timeout(self._config.look_every_s):
                    await self._workers.book_called.wait()
            except TimeoutError:
                pass
            self._workers.book_called.clear()
            await self._read_book()

    async def _read_book(self) -> None:
        """Take over today's settings where they changed; a store that cannot be reached leaves yesterday's in force."""
        with suppress(Busy):
            before = self._workers.book
            book = await read_book(self._roster, before, user_agent=self._config.user_agent)
            if book is not before:
                self._workers.book = book
                self._workers.disabled.clear()
                self._adopt(self._agents.refresh(book, self._tenure.epochs))
                self._unreleased.update(agent.key for agent in self._agents if self._has_resumed(before, agent))
                for agent in self._agents:
                    if self._workers.entry.changed(agent, before, book):
                        self._unreleased.add(agent.key)
                for agent in self._agents:
                    self._workers.feed.ask(agent)
            for key in list(self._unreleased):
                self._unreleased.discard(key)  # before the wait: an agent that comes anew meanwhile is owed another release
                if agent_now := self._agents.get(key):
                    try:
                        await self._release_resumed(agent_now)
                    except Busy:
                        self._unreleased.add(key)
                        raise
                    self._workers.feed.ask(agent_now)

    def _has_resumed(self, before: Book, agent: Agent) -> bool:
        """Whether a subscription of this agent is live that was not."""
        return bool(set(self._workers.book.live(agent.key)[0]) - set(before.live(agent.key)[0]))

    async def _release_resumed(self, agent: Agent) -> None:
        """Call forward the lanes that waited for a subscription which is live: they cannot tell by themselves."""
        live, are_all = self._workers.book.live(agent.key)
        for uid in [""] if are_all and live else live:
            await self._workers.release(agent, Wait.PAUSED, subscription_uid=uid)
        await self._workers.entry.readmit(agent, self._workers.book)
