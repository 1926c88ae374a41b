"""A Ledger in memory, with the semantics that dispatcher.ports asks for: epochs, lanes, leases, attempts left open by a crash."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from schemas.config import SubscriptionSpec
from schemas.errors import StoreUnavailable
from schemas.fallback import Kind, agent_at, chain_of, link_at, onward
from schemas.invocation import END_STATES, Admitted, Invocation, Order, State
from schemas.ledger import Block, Head, Held, Lease, Opening, OpenRuns, Run, Settlement, Stall, Window
from schemas.runs import CANCELED, OFFERED

STALE_MS = 60_000  # an attempt of the present epoch whose settlement never came is closed this long after its deadline


@dataclass
class Row:
    """One invocation, with its attempts by number."""

    invocation: Invocation
    event: object
    state: State = State.QUEUED
    reason: str = ""
    due_ms: int | None = 0
    attempts: int = 0
    tries: int = 0
    opened: dict[int, Opening] = field(default_factory=dict)
    settled: dict[int, str] = field(default_factory=dict)
    digest: tuple[object, ...] = ()
    run: Run | None = None
    step: int = 0
    home: str = ""
    fell_for: str = ""
    budget_ms: int = 0

    @property
    def is_open(self) -> bool:
        return self.state not in END_STATES


@dataclass
class ShardRow:
    owner: str = ""
    epoch: int = 0
    until_ms: int = 0


async def _at_once() -> None:
    await asyncio.sleep(0)


class FakeLedger:
    """Every method is one transaction: it waits, takes effect at one instant, waits again, so that a crash may fall on either side."""

    def __init__(self, now_ms: Callable[[], int], *, shards: int = 64, delay: Callable[[], Awaitable[None]] = _at_once) -> None:
        self.now_ms, self.delay = now_ms, delay
        self.rows: dict[str, Row] = {}
        self.lanes: dict[str, list[str]] = {}
        self.shards = {number: ShardRow() for number in range(shards)}
        self.members: dict[str, int] = {}
        self.outbox: list[tuple[str, State]] = []
        self.disabled: set[str] = set()
        self.quotas: dict[str, tuple[int, int]] = {}  # attempts, and the span in ms
        self.taken: dict[tuple[str, int], int] = {}
        self.held: dict[tuple[str, str], Held] = {}
        self.calls: list[str] = []
        self.spec_of: Callable[[str], SubscriptionSpec | None] = lambda _: None  # of a subscription's uid
        self.agents: Callable[[], Mapping[str, int]] = dict  # today's agents, with their shards
        self.fenced = 0
        self.is_down = False
        self.wanted: dict[str, int] = {}  # by agent: how much its pollers wait for

    async def lease_quota(self, team: str, *, wanted: int) -> Block:
        await self._begin("lease_quota")
        if team not in self.quotas:
            return Block(1 << 30, 1_000)
        attempts, per_ms = self.quotas[team]
        now = self.now_ms()
        span = (team, now - now % per_ms)
        granted = max(0, min(wanted, attempts - self.taken.get(span, 0)))
        self.taken[span] = self.taken.get(span, 0) + granted
        return Block(granted, span[1] + per_ms - now)

    # The router's side

    def admit(self, invocation: Invocation, event: object, data: object = None, opening: Opening | None = None) -> Admitted:
        assert invocation.id not in self.rows, "an invocation is admitted once"
        lane = self.lanes.setdefault(invocation.lane, [])
        ahead = len(lane)
        row = self.rows[invocation.id] = Row(invocation, event, due_ms=invocation.due_ms)
        lane.append(invocation.id)
        is_open = opening is not None and not ahead and self.shards[opening.shard].epoch == opening.epoch
        if opening is not None and is_open:
            row.state, row.attempts = State.RUNNING, opening.number
            row.opened[opening.number] = opening
        return Admitted(invocation, event, data, ahead, is_open)

    # dispatcher.ports.Ledger

    async def _begin(self, name: str) -> None:
        self.calls.append(name)
        await self.delay()
        if self.is_down:
            raise StoreUnavailable

    async def hold_shards(self, owner: str, *, lease_ms: int, busy: Collection[int] = ()) -> list[Lease]:
        await self._begin("hold_shards")
        now = self.now_ms()
        self.members[owner] = now + lease_ms
        live = [name for name, until in self.members.items() if until > now]
        share = -(-len(self.shards) // len(live))
        mine = [number for number, row in self.shards.items() if row.owner == owner and row.until_ms > now]
        mine.sort(key=lambda number: number not in busy)
        for number in mine[share:]:
            self.shards[number].owner, self.shards[number].until_ms = "", 0
        mine = mine[:share]
        for number, row in self.shards.items():
            if len(mine) >= share:
                break
            if number not in mine and (not row.owner or row.until_ms <= now):
                row.owner, row.epoch = owner, row.epoch + 1
                mine.append(number)
        for number in mine:
            self.shards[number].until_ms = now + lease_ms
        await self.delay()
        return [Lease(number, self.shards[number].epoch, now + lease_ms) for number in mine]

    async def release_shards(self, owner: str) -> None:
        await self._begin("release_shards")
        self.members.pop(owner, None)
        for row in self.shards.values():
            if row.owner == owner:
                row.owner, row.until_ms = "", 0

    async def held_agents(self) -> list[Held]:
        await self._begin("held_agents")
        return [held for held in self.held.values() if held.cause]

    async def keep_held(self, held: Held, *, epoch: int, now_ms: int) -> bool:
        await self._begin("keep_held")
        if not self._is_mine(held.shard, epoch):
            return False
        self.held[held.team, held.agent] = held
        return True

    async def due(self, agents: Sequence[tuple[Any, ...]], *, now_ms: int, limit: int, skip: Sequence[str] = ()) -> list[Head]:
        await self._begin("due")
        skipped, found = set(skip), []
        for key in agents:
            heads = [
                row
                for lane, ids in self.lanes.items()
                if ids and lane not in skipped
                for row in [self.rows[ids[0]]]
                if (row.invocation.team, row.invocation.agent, row.invocation.shard)[: len(key)] == key
                and self._is_due(row, now_ms)
            ]
            heads.sort(key=lambda row: row.due_ms or 0)
            found += [self._head(row) for row in heads[:limit]]
        await self.delay()
        return found

    def _is_due(self, row: Row, now_ms: int) -> bool:
        if row.state is State.RUNNING:
            opening = row.opened[row.attempts]
            is_present = opening.epoch == self.shards[row.invocation.shard].epoch
            if opening.deadline_ms + is_present * STALE_MS > now_ms:
                return False
            row.settled[row.attempts] = "unknown"
            row.state, row.due_ms, row.tries = State.WAITING, now_ms, row.tries + 1
        return row.due_ms is not None and row.due_ms <= now_ms

    def _head(self, row: Row) -> Head:
        return Head(
            row.invocation,
            row.event,
            row.attempts,
            row.tries,
            row.state,
            budget_ms=row.budget_ms,
            step=row.step,
            fell_for=row.fell_for,
            digest=row.digest,
            run=row.run,
        )

    async def next_in_lane(self, lane: str) -> Head | None:
        await self._begin("next_in_lane")
        ids = self.lanes.get(lane)
        found = self._head(self.rows[ids[0]]) if ids else None
        await self.delay()
        return found

    async def next_due_ms(self, shards: Sequence[int], *, after_ms: int = 0, parts: Sequence[Any] = ()) -> int | None:
        await self._begin("next_due_ms")
        heads = [self.rows[ids[0]] for ids in self.lanes.values() if ids]
        dues = [row.due_ms for row in heads if row.due_ms is not None and row.due_ms > after_ms]
        return min(dues, default=None)

    def _is_mine(self, shard: int, epoch: int) -> bool:
        if self.shards[shard].epoch == epoch:
            return True
        self.fenced += 1
        return False

    def is_head(self, opening: Opening) -> bool:
        lane = self.lanes.get(self.rows[opening.invocation_id].invocation.lane)
        return bool(lane) and lane[0] == opening.invocation_id

    async def open(self, opening: Opening) -> bool:
        await self._begin("open")
        row = self.rows[opening.invocation_id]
        if not self._is_mine(opening.shard, opening.epoch) or not self.is_head(opening):
            return False
        if row.state not in {State.QUEUED, State.WAITING} or opening.number != row.attempts + 1:
            return False
        if opening.shard != row.invocation.shard:
            return False
        row.state, row.attempts = State.RUNNING, opening.number
        row.opened[opening.number] = opening
        await self.delay()
        return True

    async def settle(self, settlement: Settlement) -> bool:
        await self._begin("settle")
        row = self.rows[settlement.invocation_id]
        if not self._is_mine(settlement.shard, settlement.epoch):
            return False
        if row.state is not State.RUNNING or row.attempts != settlement.number:
            return False
        row.settled[settlement.number] = settlement.outcome
        row.tries = settlement.tries
        if settlement.disable_subscription:
            self.disabled.add(settlement.disable_subscription)
        may_fall = settlement.state is State.BURIED and not settlement.disable_subscription
        if not (may_fall and self._fell(row, settlement.reason, settlement.ended_ms)):
            self._moved(row, settlement.state, settlement.reason, settlement.due_ms or None)
        if settlement.run is not None:
            terms, checkpoint = settlement.run, row.run.checkpoint if row.run else b""
            fetched = terms.offer is None
            row.run = Run(settlement.number, settlement.due_ms, terms.ends_ms, fetched, "", checkpoint)
            row.due_ms = None
        await self.delay()
        return True

    # Runs

    async def open_runs(self, parts: Sequence[tuple[str, str, int]], *, now_ms: int) -> dict[tuple[str, str, int], OpenRuns]:
        await self._begin("open_runs")
        found = {}
        for key in parts:
            rows = [
                row
                for row in self.rows.values()
                if (row.invocation.team, row.invocation.agent, row.invocation.shard) == key and row.state is State.ACCEPTED
            ]
            ids = frozenset(row.invocation.id for row in rows)
            waiting = frozenset(row.invocation.id for row in rows if row.reason == OFFERED)
            found[key] = OpenRuns(ids, waiting, self.wanted.get(key[1], 0))
        await self.delay()
        return found

    async def over_runs(self, parts: Sequence[tuple[str, str, int]], *, now_ms: int, limit: int) -> list[Head]:
        await self._begin("over_runs")
        found = [
            self._head(row)
            for row in self.rows.values()
            if (row.invocation.team, row.invocation.agent, row.invocation.shard) in parts
            and row.state is State.ACCEPTED
            and row.run is not None
            and row.run.is_over(now_ms)
        ]
        await self.delay()
        return found[:limit]

    async def end_run(self, stall: Stall) -> bool:
        await self._begin("end_run")
        row = self.rows[stall.invocation_id]
        if not self._is_mine(stall.shard, stall.epoch) or row.attempts != stall.number or row.run is None:
            return False
        is_over = row.state is State.ACCEPTED and row.run.is_over(stall.at_ms)
        is_asked = stall.verdict == CANCELED and row.run.signal and row.state in {State.QUEUED, State.WAITING}
        if not is_over and not is_asked:
            return False
        row.tries, row.run = stall.tries, replace(row.run, signal="")
        row.settled[row.attempts] = stall.verdict
        self._moved(row, stall.state, stall.reason, stall.due_ms or (None if stall.state is State.WAITING else 0))
        await self.delay()
        return True

    def heartbeat(self, invocation_id: str, *, for_ms: int) -> bool:
        """What an agent does meanwhile: False where its run is of no use any more."""
        row = self.rows[invocation_id]
        if row.state is not State.ACCEPTED or row.run is None:
            return False
        row.run = replace(row.run, lease_ms=min(self.now_ms() + for_ms, row.run.ends_ms))
        return True

    def report(self, invocation_id: str, number: int) -> bool:
        """An agent tells that the run of this attempt is done."""
        row = self.rows[invocation_id]
        if row.attempts != number or row.state not in {State.RUNNING, State.ACCEPTED, State.WAITING}:
            return False
        self._moved(row, State.DONE, "reported", 0)
        return True

    def _fell(self, row: Row, reason: str, now_ms: int) -> bool:
        spec = self.spec_of(row.invocation.subscription_uid)
        chain = chain_of(spec.fallback) if spec is not None else ()
        home, known = row.home or row.invocation.agent, self.agents()
        step = onward(chain, row.step, home=home, known=known)
        if step is None or spec is None:
            return False
        here, link, agent = link_at(chain, row.step), chain[step - 1], agent_at(chain, step, home=home)
        if here is None or here.kind not in {Kind.NOTIFY, Kind.ANSWER}:
            row.fell_for = reason
        before, lane = row.invocation, row.invocation.lane
        if spec.fallback_lane == "go_on" and lane != before.id:
            self.lanes[lane].remove(before.id)
            if not self.lanes[lane]:
                del self.lanes[lane]
            lane = before.id
            self.lanes[lane] = [before.id]
        row.invocation = replace(before, agent=agent, shard=known[agent], lane=lane)
        row.step, row.home, row.tries = step, home, 0
        row.due_ms = row.budget_ms = now_ms + round(link.wait_s * 1000)
        row.state = State.WAITING if link.wait_s else State.QUEUED
        row.reason = link.kind.value
        return True

    def _moved(self, row: Row, state: State, reason: str, due_ms: int | None) -> None:
        row.state, row.reason, row.due_ms = state, reason, due_ms
        if state in END_STATES:
            lane = self.lanes[row.invocation.lane]
            lane.remove(row.invocation.id)
            if not lane:
                del self.lanes[row.invocation.lane]
            self.outbox.append((row.invocation.id, state))

    async def park(self, head: Head, *, epoch: int, reason: str, due_ms: int) -> bool:
        await self._begin("park")
        row = self.rows[head.invocation.id]
        if not self._is_mine(head.invocation.shard, epoch) or row.state not in {State.QUEUED, State.WAITING}:
            return False
        self._moved(row, State.WAITING, reason, due_ms or None)
        return True

    async def expire(self, head: Head, *, epoch: int, reason: str, now_ms: int, state: State = State.EXPIRED) -> bool:
        await self._begin("expire")
        row = self.rows[head.invocation.id]
        if not self._is_mine(head.invocation.shard, epoch) or row.state not in {State.QUEUED, State.WAITING}:
            return False
        if not (state is State.BURIED and self._fell(row, reason, now_ms)):
            self._moved(row, state, reason, 0)
        return True

    async def release(
        self, *, team: str, agent: str, shard: int, epoch: int, reason: str, subscription_uid: str = "", now_ms: int
    ) -> int:
        await self._begin("release")
        if not self._is_mine(shard, epoch):
            return 0
        released = 0
        for row in self.rows.values():
            invocation = row.invocation
            if (
                (invocation.team, invocation.agent) == (team, agent)
                and row.state is State.WAITING
                and row.reason == reason
                and subscription_uid in {"", invocation.subscription_uid}
            ):
                row.due_ms, released = now_ms, released + 1
        return released

    async def let_in(self, *, team: str, agent: str, shard: int, epoch: int, reason: str, most: int, now_ms: int) -> int:
        await self._begin("let_in")
        if not self._is_mine(shard, epoch):
            return 0
        waiting = [
            row
            for row in self.rows.values()
            if (row.invocation.team, row.invocation.agent) == (team, agent)
            and row.state is State.WAITING
            and row.due_ms is None
            and row.reason.startswith(reason)
        ]
        waiting.sort(key=lambda row: row.invocation.created_ms)
        for row in waiting[: most or None]:
            row.due_ms = now_ms
        return len(waiting[: most or None])

    async def limits_of(self, ids: Sequence[str]) -> list[tuple[str, str, str]]:
        await self._begin("limits_of")
        found = [self.rows[ident].invocation for ident in ids]
        return [(each.id, each.subscription_uid, each.flow.limit_key if each.flow else "") for each in found]

    async def gather(self, head: Head, window: Window, *, epoch: int, now_ms: int) -> int | None:
        await self._begin("gather")
        if not self._is_mine(head.invocation.shard, epoch):
            return None
        taken = []
        for ident in self.lanes.get(head.invocation.lane, []):
            row = self.rows[ident]
            if row.attempts or row.digest or len(taken) == window.max_events:
                break
            taken.append(row)
        if not taken:
            return 0
        due_ms = window.closes_ms(taken[0].invocation.created_ms, taken[-1].invocation.created_ms)
        if len(taken) < window.max_events and now_ms < due_ms:
            self._moved(taken[0], State.WAITING, "debounce", due_ms)
            return due_ms
        newest = taken[-1]
        newest.digest = tuple(row.event for row in taken)
        newest.due_ms, newest.state = now_ms, State.QUEUED
        for row in taken[:-1]:
            self._moved(row, State.DIGESTED, newest.invocation.id, 0)
        return 0

    async def supersede(self, lane: str, *, shard: int, epoch: int, now_ms: int) -> int:
        await self._begin("supersede")
        ids = self.lanes.get(lane, [])
        if not self._is_mine(shard, epoch) or len(ids) < 2:
            return 0
        assert self.rows[ids[0]].invocation.order is Order.LATEST
        newest, superseded = ids[-1], 0
        for each in ids[:-1]:
            row = self.rows[each]
            if row.attempts == 0:
                self._moved(row, State.SUPERSEDED, newest, 0)
                superseded += 1
        return superseded

    def lane_is_full(self, lane: str) -> None:
        """As admission does: a lane whose window is full goes at once, unless its head waits for something else."""
        row = self.rows[self.lanes[lane][0]]
        now = self.now_ms()
        if row.reason in {"", "debounce"} and row.state is not State.RUNNING and row.due_ms is not None and row.due_ms > now:
            row.due_ms = now

    # What people do meanwhile

    def unblock(self, row: Row, *, skip: bool) -> None:
        if skip:
            self._moved(row, State.BURIED, "skipped", 0)
        else:
            row.state, row.reason, row.due_ms, row.tries = State.QUEUED, "redriven", self.now_ms(), 0

    def cancel(self, invocation_id: str) -> bool:
        row = self.rows[invocation_id]
        if row.state not in {State.QUEUED, State.WAITING}:
            return False
        self._moved(row, State.CANCELED, "canceled", 0)
        return True

    @property
    def unfinished(self) -> list[Row]:
        return [row for row in self.rows.values() if row.is_open]

    def states(self) -> dict[str, State]:
        return {each: row.state for each, row in self.rows.items()}


def copy_of(head: Head, **changes: object) -> Head:
    """The same head with other fields."""
    return replace(head, **changes)
