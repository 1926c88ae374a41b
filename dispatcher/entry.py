"""Whether an attempt is due, or what becomes of the invocation instead: delay, expiry, newer events, digests, limits."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Protocol

from dispatcher import breaker
from dispatcher.agents import Agent
from dispatcher.attempt import Desk
from dispatcher.book import Book
from dispatcher.digest import window_of
from dispatcher.feed import Feed
from dispatcher.flow import Bucket, expires_at_ms, share, starts_at_ms
from dispatcher.lanes import AgentKey, Picture
from dispatcher.limits import Claim, Turns, claims_of, reason_of
from dispatcher.quotas import Quotas
from dispatcher.retry import blocks
from schemas.config import SubscriptionConfig
from schemas.errors import Busy
from schemas.invocation import Order, State, Wait
from schemas.ledger import Head

_STORE_PAUSE_S = 1.0


class Release(Protocol):
    """Makes due what waits for a reason (of one subscription, where given)."""

    async def __call__(self, agent: Agent, reason: str, *, subscription_uid: str = "") -> int:
        """How many lanes."""
        ...


class Entry:
    """The door before every attempt of a subscription with flow control; each check that says no has seen to what follows."""

    def __init__(
        self,
        desk: Desk,
        picture: Picture,
        feed: Feed,
        *,
        let_go: Callable[[Agent, Head], None],
        go_on: Callable[[Agent, Head], Awaitable[None]],
        release: Release,
        quotas: Quotas,
    ) -> None:
        self._picture, self._feed = picture, feed
        self._ledger, self._tenure, self._clock = desk.ledger, desk.tenure, desk.clock
        self._let_go, self._go_on, self._release, self._quotas = let_go, go_on, release, quotas
        self._changed: dict[
            AgentKey, set[tuple[str, str]]
        ] = {}  # what waits for reasons that are no more: reason, subscription

    async def claims(self, agent: Agent, head: Head, subscription: SubscriptionConfig) -> list[Claim] | None:
        """The places that the attempt runs under, taken; None where there is to be no attempt now."""
        epoch = self._tenure.epoch(head.invocation.shard)
        if epoch is None:
            self._let_go(agent, head)
            return None
        if not await self._is_due(agent, head, subscription, epoch):
            agent.stand(breaker.abandoned(agent.standing))  # a probe that did not come about
            self._give_back(agent)
            return None
        return await self._entered(agent, head, subscription, epoch)

    async def leave(self, agent: Agent, claims: list[Claim]) -> None:
        """The attempt is over: give its places back, and call those that wait for them."""
        for limit, wanted in agent.places.leave(claims):
            await self._call(agent, limit, wanted)

    async def _call(self, agent: Agent, limit: str, wanted: int) -> None:
        waited_for = agent.places.waited_for
        before = waited_for.get(limit)
        came = await self._called_in(agent, reason_of(limit), wanted)
        if came < wanted and waited_for.get(limit) == before:  # nobody waits any more, nor began to meanwhile
            waited_for.pop(limit, None)
        if came:
            self._feed.ask(agent)

    def is_limited(self, agent: Agent, book: Book) -> bool:
        """Whether runs of this agent hold places under a limit of a subscription."""
        return bool(agent.claims) or any(found.spec.concurrency for found in book.of_agent.get(agent.key, ()))

    async def follow_runs(self, agent: Agent, book: Book) -> None:
        """Give back the places of runs that ended; take those of runs that an owner before began, full or not."""
        for ident in [each for each in agent.claims if each not in agent.runs]:
            await self.leave(agent, agent.claims.pop(ident))
        unknown = [ident for ident in agent.runs if ident not in agent.claims]
        if not unknown:
            return
        with suppress(Busy):  # then at the next change of its runs
            for ident, uid, limit_key in await self._ledger.limits_of(unknown):
                subscription = book.subscriptions.get(uid)
                if subscription is None or ident in agent.claims or ident not in agent.runs:
                    continue
                claims = claims_of(subscription, limit_key, part=agent.setting.part, parts=agent.setting.parts)
                agent.places.take(claims)
                agent.claims[ident] = claims

    async def _called_in(self, agent: Agent, reason: str, most: int) -> int:
        """As `call_in`, patiently: a place that nobody is called to would stay empty."""
        while True:
            try:
                return await self.call_in(agent, reason, most=most)
            except Busy:
                await asyncio.sleep(_STORE_PAUSE_S)

    def changed(self, agent: Agent, before: Book, book: Book) -> bool:
        """Note what may go now because its subscription changed: nobody else would call it.  Whether there is any."""
        waits: set[tuple[str, str]] = set()
        for found in book.of_agent.get(agent.key, ()):
            old = before.subscriptions.get(found.uid)
            if old is None or old is found:
                continue
            if (old.spec.rate_per_s, old.spec.burst) != (found.spec.rate_per_s, found.spec.burst):
                agent.turns.pop(found.uid, None)
                waits.add((Wait.RATE, found.uid))
            if blocks(old) and not blocks(found):
                waits.add((Wait.BLOCKED, found.uid))
            if old.spec.concurrency != found.spec.concurrency:
                waits.add((Wait.CONCURRENCY, ""))
        if waits:
            self._changed.setdefault(agent.key, set()).update(waits)
        return bool(waits)

    async def readmit(self, agent: Agent, book: Book) -> None:
        """Call what waits here for what no longer holds: places of an owner before, settings of yesterday."""
        waits = self._changed.pop(agent.key, set())
        if not agent.places.is_known and any(found.spec.concurrency for found in book.of_agent.get(agent.key, ())):
            waits.add((Wait.CONCURRENCY, ""))
        agent.places.is_known = True
        for reason, uid in sorted(waits):
            if reason == Wait.CONCURRENCY:
                await self.call_in(agent, f"{Wait.CONCURRENCY}:")
            else:
                await self._release(agent, reason, subscription_uid=uid)

    async def call_in(self, agent: Agent, reason: str, *, most: int = 0) -> int:
        """Make due, at most so many, what waits for a reason that begins so."""
        epoch = self._tenure.epoch(agent.setting.shard)
        if epoch is None:
            return 0
        team, name = agent.names
        shard, now_ms = agent.setting.shard, self._clock.now_ms()
        return await self._ledger.let_in(
            team=team, agent=name, shard=shard, epoch=epoch, reason=reason, most=most, now_ms=now_ms
        )

    async def _is_due(self, agent: Agent, head: Head, subscription: SubscriptionConfig, epoch: int) -> bool:
        spec, invocation, now_ms = subscription.spec, head.invocation, self._clock.now_ms()
        ends_ms = expires_at_ms(head.event.received_ms, expires_after_s=spec.expires_after)
        if ends_ms is not None and now_ms >= ends_ms:
            await self._ledger.expire(head, epoch=epoch, reason="its time was over", now_ms=now_ms)
            agent.metrics.ended(State.EXPIRED)
            await self._go_on(agent, head)
            return False
        begins_ms = starts_at_ms(invocation.created_ms, delay_s=spec.delay)
        if head.attempts == 0 and now_ms < begins_ms:
            await self._park(agent, head, epoch, Wait.DELAY, begins_ms)
            return False
        if invocation.order is Order.LATEST and head.attempts == 0 and self._picture.has_behind(agent.queue, invocation.lane):
            superseded = await self._ledger.supersede(invocation.lane, shard=invocation.shard, epoch=epoch, now_ms=now_ms)
            if superseded:
                agent.metrics.ended(State.SUPERSEDED, superseded)
                self._forget(agent, head)
                self._feed.ask(agent)
                return False
        return await self._is_gathered(agent, head, subscription, epoch)

    async def _is_gathered(self, agent: Agent, head: Head, subscription: SubscriptionConfig, epoch: int) -> bool:
        """Whether it may go as it is: no digest, a closed one, or one that had its first attempt."""
        window = window_of(subscription.spec)
        if window is None or head.digest or head.attempts:
            return True
        due_ms = await self._ledger.gather(head, window, epoch=epoch, now_ms=self._clock.now_ms())
        if due_ms:
            agent.metrics.waits(Wait.DEBOUNCE)
            self._forget(agent, head)
            self._feed.wake_at(agent, due_ms)
        else:
            self._forget(agent, head)
            self._feed.ask(agent)  # its head is another now, with a digest
        return False

    async def _entered(self, agent: Agent, head: Head, subscription: SubscriptionConfig, epoch: int) -> list[Claim] | None:
        if subscription.spec.rate_per_s is not None:
            turns = self._turns(agent, subscription)
            now_s, now_ms = self._clock.boot_s(), self._clock.now_ms()
            if due_ms := turns.due_ms(head.invocation.id, now_s=now_s, now_ms=now_ms):
                await self._stay_out(agent, head, epoch, Wait.RATE, due_ms)
                return None
        limit_key = head.invocation.flow.limit_key if head.invocation.flow else ""
        claims = claims_of(subscription, limit_key, part=agent.setting.part, parts=agent.setting.parts)
        if full := agent.places.enter(claims):
            limit, most = full
            await self._stay_out(agent, head, epoch, reason_of(limit), 0)
            if free := agent.places.free(limit, most):  # who left while this was written called nobody
                await self._call(agent, limit, free)
            return None
        return claims

    def _turns(self, agent: Agent, subscription: SubscriptionConfig) -> Turns:
        spec = subscription.spec
        assert spec.rate_per_s is not None
        turns = agent.turns.get(subscription.uid)
        if turns is None:
            turns = agent.turns[subscription.uid] = Turns(Bucket(spec.rate_per_s, spec.burst))
        rate_per_s, part, parts = spec.rate_per_s / agent.setting.parts, agent.setting.part, agent.setting.parts
        turns.bucket.rate_per_s, turns.bucket.burst = rate_per_s, max(1, share(spec.burst, part, parts))
        return turns

    async def _stay_out(self, agent: Agent, head: Head, epoch: int, reason: str, due_ms: int) -> None:
        agent.stand(breaker.abandoned(agent.standing))
        self._give_back(agent)
        await self._park(agent, head, epoch, reason, due_ms)

    def _give_back(self, agent: Agent) -> None:
        """What counts attempts does not count this one."""
        if agent.bucket is not None:
            agent.bucket.give_back()
        if agent.setting.quota is not None:
            self._quotas.give_back(agent)

    async def _park(self, agent: Agent, head: Head, epoch: int, reason: str, due_ms: int) -> None:
        await self._ledger.park(head, epoch=epoch, reason=reason, due_ms=due_ms)
        agent.metrics.waits(reason.partition(":")[0])
        self._forget(agent, head)
        if due_ms:
            self._feed.wake_at(agent, due_ms)

    def _forget(self, agent: Agent, head: Head) -> None:
        self._picture.forget(agent.queue, head.invocation.lane)
