"""Lanes at work: one worker for each invocation that runs, each agent's within its limit."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

from dispatcher import breaker
from dispatcher.agents import Agent, Agents
from dispatcher.attempt import Desk, Ended, attempt, told
from dispatcher.book import Book
from dispatcher.entry import Entry
from dispatcher.fallback import awaits_answer, goes_on
from dispatcher.feed import Feed, Pace
from dispatcher.lanes import AgentKey, Picture
from dispatcher.metrics import DispatchMetrics
from dispatcher.protocols.base import MISCONFIGURED, is_success
from dispatcher.quotas import Quotas
from dispatcher.retry import Block, Bury, Delivered, Hold, RetryAt, Supervise, blocks, retry_after_ms
from dispatcher.runs import Supervision
from dispatcher.standings import is_news, keep_standing
from schemas.config import SubscriptionConfig, SubscriptionState
from schemas.errors import Busy
from schemas.fallback import Link, chain_of, policy_at
from schemas.invocation import Admitted, Invocation, Order, State, Wait
from schemas.ledger import Head, Opening

_STORE_PAUSE_S = 1.0
# A bulkhead: an agent may hold so many places for each that is free.  One that hangs ends with two thirds of the process, two
# with two fifths each once their first calls have ended: some places are always free for the others.  A few are everyone's.
_PLACES_PER_FREE, _MIN_PLACES = 2, 4
_SECOND_LOOK_MS = 20  # after a no of the ledger: soon, but never in a circle


@dataclass(frozen=True, slots=True)
class Begun:
    """A first attempt whose row is written already, for the subscription as it was then."""

    opening: Opening
    subscription: SubscriptionConfig


class Workers:
    """Starts what may run, and lets each lane go on as the ledger has it."""

    def __init__(
        self, desk: Desk, picture: Picture, agents: Agents, metrics: DispatchMetrics, *, pace: Pace, max_in_flight: int
    ) -> None:
        self._desk, self._picture, self._agents, self._metrics = desk, picture, agents, metrics
        self._ledger, self._tenure, self._clock, self._say = desk.ledger, desk.tenure, desk.clock, desk.say
        self.runs = Supervision(desk.ledger, agents, desk.tenure, desk.clock, book=lambda: self.book, say=desk.say)
        self.runs.changed, self.runs.over = self._go_on_with, self._leave_places
        self.feed = Feed(
            *(desk.ledger, picture, agents, desk.tenure, desk.clock),
            start=self.start,
            probe=self.probe,
            runs=self.runs,
            pace=pace,
        )
        self.quotas = Quotas(desk.ledger, desk.clock, start=self.start)
        self.entry = Entry(
            desk, picture, self.feed, let_go=self._let_go, go_on=self._go_on, release=self.release, quotas=self.quotas
        )
        self.book = Book()
        self.disabled: set[str] = set()  # by a 410, until the book says so too
        self.book_called = asyncio.Event()
        self.eased = asyncio.Event()
        self.tasks: asyncio.TaskGroup | None = None
        self.is_stopping = True
        self._max_in_flight, self._in_flight = max_in_flight, 0
        self._crowded: dict[AgentKey, Agent] = {}  # agents that could go on but for the process's own limit, in turn
        self._capped: dict[AgentKey, Agent] = {}  # agents that could go on but for their share of it

    def begin(self, tasks: asyncio.TaskGroup) -> None:
        """Start workers in this group from now on."""
        self.tasks, self.is_stopping, self._in_flight = tasks, False, 0
        self._crowded.clear()
        self._capped.clear()

    def end(self) -> None:
        """Start none any more."""
        self.is_stopping = True
        self.quotas.stop()
        self.eased.set()

    async def _leave_places(self, agent: Agent) -> None:
        """Give back the places of runs that are over, and take those of runs that an owner before began."""
        if self.entry.is_limited(agent, self.book):
            await self.entry.follow_runs(agent, self.book)

    def _go_on_with(self, agent: Agent) -> None:
        """A run of this agent ended, or somebody waits for its work."""
        self.feed.ask(agent)
        self.start(agent)

    def start(self, agent: Agent) -> None:
        """Start what may run of this agent: one worker for each invocation, up to its limit."""
        while (head := self._next(agent)) is not None:
            self._employ(agent, head)

    def _employ(self, agent: Agent, head: Head, begun: Begun | None = None) -> None:
        assert self.tasks is not None
        agent.workers[self.tasks.create_task(self._work(agent, head, begun))] = head
        self._in_flight += 1

    @property
    def is_free(self) -> bool:
        """Whether one more invocation may start in this process now, before all that wait for a place."""
        return not self.is_stopping and not self._crowded and self._in_flight < self._max_in_flight

    def has_share(self, agent: Agent) -> bool:
        """Whether the agent may hold one more of the process's places."""
        free = self._max_in_flight - self._in_flight
        return agent.queue.running + agent.reserved < max(_PLACES_PER_FREE * free, _MIN_PLACES)

    def live(self, subscription_uid: str) -> SubscriptionConfig | None:
        """The subscription, where its invocations may be tried."""
        return None if subscription_uid in self.disabled else self.book.subscriptions.get(subscription_uid)

    def agent_of(self, invocation: Invocation) -> Agent | None:
        """The agent, or the part of one, that it is for; None where that is another process's."""
        return self._agents.get(self._picture.key_of(invocation))

    def hold(self, agent: Agent) -> None:
        """Keep a place for an invocation of this agent that is being opened."""
        agent.reserved += 1
        self._in_flight += 1

    def let(self, agent: Agent) -> None:
        """Give that place back."""
        agent.reserved -= 1
        self._in_flight -= 1

    def take_up(self, agent: Agent, admitted: Admitted, begun: Begun) -> None:
        """Go on with an attempt whose row is open; where that cannot be, its row is closed as `unknown` in time."""
        head = self._picture.begun(admitted) if self.tasks is not None and not agent.queue.dropped else None
        if head is not None:
            self._employ(agent, head, begun)

    def _next(self, agent: Agent) -> Head | None:
        """The agent's next invocation, where one may start now; where not now, it is seen to that someone asks again."""
        if self.is_stopping or not agent.queue.ready or agent.queue.dropped or not agent.is_open_for_work:
            return None
        if self._in_flight >= self._max_in_flight:
            self._crowded[agent.key] = agent
            return None
        if not self.has_share(agent):
            self._capped[agent.key] = agent
            return None
        if agent.bucket is not None:
            now_s = self._clock.boot_s()
            if wait_s := agent.bucket.wait_s(now_s):
                self._start_later(agent, wait_s)
                return None
            agent.bucket.take(now_s)
        quota = agent.setting.quota
        if quota is not None and not self.quotas.take(agent, quota):
            if agent.bucket is not None:
                agent.bucket.give_back()
            return None
        return self._picture.take(agent.queue)

    def _start_later(self, agent: Agent, wait_s: float) -> None:
        if agent.later is None:
            agent.later = asyncio.get_running_loop().call_later(wait_s, self._start_now, agent)

    def _start_now(self, agent: Agent) -> None:
        agent.later = None
        self.start(agent)

    async def _work(self, agent: Agent, first: Head, begun: Begun | None) -> None:
        """Run one invocation after another, taking lanes in turn, until this agent has none that may run."""
        worker = asyncio.current_task()
        assert worker is not None
        head: Head | None = first
        try:
            while head is not None:
                agent.workers[worker] = head
                try:
                    await (self._run_one(agent, head) if begun is None else self._run_begun(agent, head, begun))
                except Busy:
                    await self._wait_for_store(agent, head)
                if not self._picture.is_full:
                    self.eased.set()
                if agent.queue.more and agent.wants(self._clock.now_ms()):
                    self.feed.look()
                self._in_flight -= 1
                begun = None
                if (head := None if self._crowded else self._next(agent)) is not None:
                    self._in_flight += 1
        finally:
            agent.workers.pop(worker, None)
            self._in_flight -= head is not None
            self._let_in(agent)

    def _let_in(self, leaving: Agent) -> None:
        """A place is free in this process: the next agent in turn has it, the one that leaves it queues at the end."""
        if leaving.queue.ready and not leaving.queue.dropped:
            self._crowded[leaving.key] = leaving
        while self._crowded and self._in_flight < self._max_in_flight:
            key = next(iter(self._crowded))
            self.start(self._crowded.pop(key))
        for key in list(self._capped):
            self.start(self._capped.pop(key))

    async def _wait_for_store(self, agent: Agent, head: Head) -> None:
        """The store is out of reach; it has all of this.  The worker keeps its place meanwhile, so that not all rush on."""
        self._picture.forget(agent.queue, head.invocation.lane)
        agent.stand(breaker.abandoned(agent.standing))
        await asyncio.sleep(_STORE_PAUSE_S)
        self.feed.ask(agent)

    async def _run_one(self, agent: Agent, head: Head) -> None:
        subscription = self.book.subscriptions.get(head.invocation.subscription_uid)
        is_live = subscription is not None and subscription.spec.state is SubscriptionState.LIVE
        if subscription is None or not is_live or subscription.uid in self.disabled:
            await self._turn_away(agent, head, subscription)
            return
        if head.run is not None and head.run.signal and head.run.number == head.attempts:
            await self.runs.end(agent, head)
            self._let_go(agent, head)
            return
        if head.step and awaits_answer(head, subscription):
            await self._end_wait(agent, head, subscription)
            return
        if subscription.uid not in self.book.flowing and head.invocation.order is not Order.LATEST:
            await self._try(agent, head, subscription)
            return
        claims = await self.entry.claims(agent, head, subscription)
        if claims is None:
            return
        try:
            await self._try(agent, head, subscription)
        finally:
            if claims and head.invocation.id in agent.runs and head.invocation.id not in agent.claims:
                agent.claims[head.invocation.id] = claims  # its run keeps the places
            elif claims:
                await self.entry.leave(agent, claims)

    async def _try(self, agent: Agent, head: Head, subscription: SubscriptionConfig) -> None:
        probe = agent.standing.cause if agent.standing.state == breaker.PROBING else ""
        ended = await attempt(self._desk, head, agent.setting, subscription, probe=probe, pauses=agent.standing.pauses)
        await self._close(agent, head, ended)

    async def _run_begun(self, agent: Agent, head: Head, begun: Begun) -> None:
        pauses = agent.standing.pauses
        ended = await attempt(
            self._desk, head, agent.setting, begun.subscription, probe="", pauses=pauses, opening=begun.opening
        )
        await self._close(agent, head, ended)

    async def _close(self, agent: Agent, head: Head, ended: Ended | None) -> None:
        if ended is None:
            self._let_go(agent, head)
            return
        told(self._desk, head, ended)
        self._count(agent, head, ended)
        await self._judge(agent, ended)
        await self._move_on(agent, head, ended)

    async def _end_wait(self, agent: Agent, head: Head, subscription: SubscriptionConfig) -> None:
        """The person who was told said nothing in time: the chain goes on, or ends."""
        epoch = self._tenure.epoch(head.invocation.shard)
        if epoch is not None:
            await self._bury_untried(agent, head, subscription, epoch, why=head.fell_for)
        self._let_go(agent, head)

    def _let_go(self, agent: Agent, head: Head) -> None:
        """It is not ours to try, or no longer: forget the lane, and ask the ledger what is."""
        if self._tenure.epoch(head.invocation.shard) is None:
            self._metrics.fenced.inc()
        self._picture.forget(agent.queue, head.invocation.lane)
        agent.stand(breaker.abandoned(agent.standing))
        agent.queue.more = True
        self.feed.wake_at(agent, self._clock.now_ms() + _SECOND_LOOK_MS)

    async def _turn_away(self, agent: Agent, head: Head, subscription: SubscriptionConfig | None) -> None:
        """No attempt: the subscription is paused, disabled or gone."""
        epoch = self._tenure.epoch(head.invocation.shard)
        if epoch is not None and subscription is None:
            await self._ledger.expire(
                head, epoch=epoch, reason="its subscription is gone", now_ms=self._clock.now_ms(), state=State.CANCELED
            )
            agent.metrics.ended(State.CANCELED)
        elif epoch is not None:
            await self._ledger.park(head, epoch=epoch, reason=Wait.PAUSED, due_ms=0)
            agent.metrics.waits(Wait.PAUSED)
            now = self.book.subscriptions.get(head.invocation.subscription_uid)
            if now is not subscription and now is not None and now.spec.state is SubscriptionState.LIVE:
                # It was resumed while this was written: what the resuming called forward, this has just put back.
                await self.release(agent, Wait.PAUSED, subscription_uid=now.uid)
        self._let_go(agent, head)

    async def _move_on(self, agent: Agent, head: Head, ended: Ended) -> None:
        """Let the lane go on, wait, or end, as the ledger has it now."""
        lane = head.invocation.lane
        match ended.step:
            case RetryAt(due_ms, _) | Hold(due_ms, _):
                agent.metrics.waits(ended.settlement.reason)
                self._picture.forget(agent.queue, lane)
                self.feed.wake_at(agent, due_ms)
                return
            case Block(why):
                agent.metrics.waits(ended.settlement.reason)
                self._picture.forget(agent.queue, lane)
                self._say_blocked(agent, head, why)
                return
            case Supervise(due_ms, _):
                self.runs.begins(agent, head, ended.step)
                if self._picture.has_behind(agent.queue, lane):
                    agent.queue.more = True  # the run may have ended by now: what stands behind it is asked for
                self._picture.forget(agent.queue, lane)
                self.feed.wake_at(agent, due_ms)
                return
            case Bury(reason, disable=False) if link := self._next_link(head):
                agent.metrics.fell_back(link.kind)
                self._say("fell_back", invocation=head.invocation.id, agent=agent.key[1], to=link.kind.value, reason=reason)
                self._picture.forget(agent.queue, lane)
                self.feed.wake_at(agent, ended.settlement.ended_ms + round(link.wait_s * 1000))
                return
            case Bury(_, disable=True):
                self.disabled.add(head.invocation.subscription_uid)
                self.book_called.set()
            case _:
                pass
        await self._go_on(agent, head)

    def _say_blocked(self, agent: Agent, head: Head, why: str) -> None:
        invocation = head.invocation
        self._say("lane_blocked", agent=agent.key[1], lane=invocation.lane, invocation=invocation.id, reason=why)

    def _next_link(self, head: Head) -> Link | None:
        subscription = self.book.subscriptions.get(head.invocation.subscription_uid)
        return goes_on(subscription, head.step) if subscription is not None else None

    async def _go_on(self, agent: Agent, head: Head) -> None:
        """Let the lane go on behind a head that came to its end."""
        lane = head.invocation.lane
        if lane not in agent.queue.lanes or not self._picture.finished(agent.queue, head):
            return
        following = await self._ledger.next_in_lane(lane) if not agent.queue.dropped else None
        now_ms = self._clock.now_ms()
        is_here = following is not None and self._picture.key_of(following.invocation) == agent.key
        if not is_here or following is None or following.state is not State.QUEUED or self._may_wait(following, now_ms):
            self._picture.forget(agent.queue, lane)
            self.feed.ask(agent)  # what was offered while the ledger was asked stands there now
            return
        self._picture.resume(agent.queue, following)

    def _may_wait(self, following: Head, now_ms: int) -> bool:
        """Whether it is not due yet, and nothing but the time can make it so: a digest may be full before."""
        subscription = self.book.subscriptions.get(following.invocation.subscription_uid)
        has_digest = subscription is not None and subscription.spec.digest is not None
        return following.invocation.due_ms > now_ms and not has_digest

    async def _judge(self, agent: Agent, ended: Ended) -> None:
        """Let the attempt count for the agent's standing."""
        before, now_ms = agent.standing, self._clock.now_ms()
        if ended.outcome.is_ours:
            agent.stand(breaker.abandoned(before))
            return
        if before is breaker.FRESH and is_success(ended.outcome):
            return
        pause_until_ms = ended.step.due_ms if isinstance(ended.step, Hold) else now_ms
        agent.stand(breaker.after(before, ended.outcome.word, now_ms=now_ms, pause_until_ms=pause_until_ms))
        if is_news(before, agent.standing):
            await keep_standing(self._desk, agent)
        if agent.standing.state != breaker.CLOSED:
            self._picture.forget_ready(agent.queue)
            agent.queue.more = True
            self.feed.wake_at(agent, agent.standing.probe_at_ms)
            self._say("agent_held", agent=agent.key[1], cause=agent.standing.cause, probe_at_ms=agent.standing.probe_at_ms)
        elif breaker.has_recovered(before, agent.standing):
            self._say("agent_released", agent=agent.key[1], cause=before.cause, held_ms=now_ms - (before.since_ms or now_ms))
            for reason in (Wait.HOLD, Wait.RETRY):
                await self.release(agent, reason)
            self.feed.ask(agent)
            self.start(agent)

    async def probe(self, agent: Agent, heads: Sequence[Head]) -> None:
        """Send one of these to an agent that is not called otherwise; bury those whose time ran out while it was held."""
        now_ms = self._clock.now_ms()
        epoch = self._tenure.epoch(agent.setting.shard)
        self._picture.forget_ready(agent.queue)  # a lane that was on its way when the agent was closed may have gone on since
        for head in heads:
            subscription = self.book.subscriptions.get(head.invocation.subscription_uid)
            if epoch is None:
                return
            if subscription is not None and self._has_had_its_time(agent, head, subscription, now_ms):
                await self._bury_untried(agent, head, subscription, epoch, why="max_age: the agent was held")
                continue
            if self._picture.found(head, more=head.invocation.order is not Order.NONE):
                taken = self._picture.take(agent.queue)
                assert taken is head, "nothing else was ready"
                agent.queue.more = True
                agent.stand(breaker.probing(agent.standing))
                self._employ(agent, head)
                return
        self.feed.ask(agent)

    async def _bury_untried(self, agent: Agent, head: Head, subscription: SubscriptionConfig, epoch: int, *, why: str) -> None:
        """Bury it without another attempt, or what stands for that: a link of its chain takes it, or its key is blocked."""
        is_over = goes_on(subscription, head.step) is None
        if is_over and blocks(subscription):
            await self._ledger.park(head, epoch=epoch, reason=Wait.BLOCKED, due_ms=0)
            agent.metrics.waits(Wait.BLOCKED)
            self._say_blocked(agent, head, why)
            return
        await self._ledger.expire(head, epoch=epoch, reason=why, now_ms=self._clock.now_ms(), state=State.BURIED)
        if is_over:
            agent.metrics.ended(State.BURIED)

    def _has_had_its_time(self, agent: Agent, head: Head, subscription: SubscriptionConfig, now_ms: int) -> bool:
        begun_ms = head.budget_ms or head.invocation.created_ms
        had_its_chance = agent.standing.cause == MISCONFIGURED or head.tries > 0 or head.step > 0
        spec = subscription.spec
        policy = policy_at(chain_of(spec.fallback), head.step, spec.retry) if head.step else spec.retry
        return had_its_chance and now_ms >= begun_ms + policy.max_age * 1000

    def _count(self, agent: Agent, head: Head, ended: Ended) -> None:
        settlement, metrics = ended.settlement, agent.metrics
        metrics.attempted(settlement.outcome, settlement.status)
        metrics.duration.observe(settlement.duration_ms / 1000)
        if is_success(ended.outcome) and ended.outcome.offer is None:
            metrics.event_to_agent.observe(max(0, settlement.ended_ms - head.event.received_ms) / 1000)
        if isinstance(ended.step, Delivered) or (isinstance(ended.step, Bury) and not self._next_link(head)):
            metrics.ended(settlement.state)
        if (
            asked_ms := retry_after_ms(ended.outcome.retry_after, now_ms=settlement.ended_ms)
            if ended.outcome.retry_after
            else None
        ):
            self._metrics.retry_after.observe(asked_ms / 1000)
        if ended.outcome.error.startswith("address"):
            self._metrics.blocked.labels(agent.key[1]).inc()

    async def release(self, agent: Agent, reason: str, *, subscription_uid: str = "") -> int:
        """Make due what waits for this reason; how many lanes."""
        epoch = self._tenure.epoch(agent.setting.shard)
        if epoch is None:
            return 0
        team, name = agent.names
        return await self._ledger.release(
            team=team,
            agent=name,
            shard=agent.setting.shard,
            epoch=epoch,
            reason=reason,
            subscription_uid=subscription_uid,
            now_ms=self._clock.now_ms(),
        )
