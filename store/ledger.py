"""The ledger of invocations, lanes and attempts, as the dispatcher uses it: implements `dispatcher.ports.Ledger`."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import TypeAlias

from schemas.invocation import Invocation, State
from schemas.ledger import Block, Head, Held, Lease, Opening, OpenRuns, Settlement, Stall, Window
from store import shards
from store.digests import limits_of
from store.engine import Engine, Script, fetch
from store.flowing import gathered
from store.gather import Gathering
from store.heads import NEXT_DUE, NEXT_OF_PART, due_heads, heads_of
from store.mending import closed_stale
from store.moves import Move, move_of, moved
from store.openings import opened
from store.quotas import leased
from store.releases import Waiters, let_in, released, superseded
from store.runs import RunsOf, open_runs, over_runs, run_over
from store.standings import held_agents, standing_kept
from store.tables import NEVER_MS

_SLICE = 500
_NEXTS = 32  # heads with their bodies in one read
Asked: TypeAlias = tuple[str, str] | tuple[str, str, int]  # team and agent; with a shard, that part of an agent alone


class Ledger:
    """The truth about work.  Openings, settlements and looks at what is next share transactions: N at once cost about one."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._openings: Gathering[Opening, bool] = Gathering(self._open_all)
        self._moves: Gathering[Move, bool] = Gathering(self._move_all)
        self._nexts: Gathering[str, Head | None] = Gathering(self._next_of_all, max_items=_NEXTS)

    # --- shards ---

    async def hold_shards(self, owner: str, *, lease_ms: int, busy: Collection[int] = ()) -> list[Lease]:
        """Renew what `owner` holds, take free or expired ones up to its fair share, give back what is above it, `busy` last."""
        return await shards.hold_shards(self._engine, owner, lease_ms=lease_ms, busy=busy)

    async def release_shards(self, owner: str) -> None:
        """Give every shard back."""
        await shards.release_shards(self._engine, owner)

    # --- how agents stand ---

    async def held_agents(self) -> list[Held]:
        """The agents that were not called when an owner last said so."""
        return await held_agents(self._engine)

    async def keep_held(self, held: Held, *, epoch: int, now_ms: int) -> bool:
        """Remember how an agent stands, for whoever owns it next."""
        return await self._engine.write(lambda: standing_kept(held, epoch=epoch, now_ms=now_ms))

    async def lease_quota(self, team: str, *, wanted: int) -> Block:
        """A block of the team's quota, of at most so many attempts; none granted: it is used up until the block ends."""
        return await self._engine.write(lambda: leased(team, wanted))

    # --- what there is to do ---

    async def due(self, agents: Sequence[Asked], *, now_ms: int, limit: int, skip: Sequence[str] = ()) -> list[Head]:
        """Heads of due lanes, agent by agent, the longest due first, at most `limit` each.

        An attempt left open by a crash is closed as `unknown` once its deadline has passed; before, its lane is not given.
        """
        heads = await self._engine.read(lambda: due_heads(agents, now_ms, limit, skip), needs_snapshot=False)
        left_open = [seq for head, seq in heads if head.state is State.RUNNING]
        if left_open:
            await self._engine.write(lambda: closed_stale(left_open, now_ms))
            lanes = [head.invocation.lane for head, _ in heads]
            heads = await self._engine.read(lambda: heads_of(lanes), needs_snapshot=False)
        # Between two reads a lane may have gone to another agent: its next one is not for those who asked.
        mine = set(agents)
        return [
            head
            for head, _ in heads
            if head.state in {State.QUEUED, State.WAITING} and not mine.isdisjoint(_names(head.invocation))
        ]

    async def next_in_lane(self, lane: str) -> Head | None:
        """The lane's head, whenever it is due; None where the lane is empty."""
        return await self._nexts.add(lane)

    async def next_due_ms(
        self, shards: Sequence[int], *, after_ms: int = 0, parts: Sequence[tuple[str, str, int]] = ()
    ) -> int | None:
        """When the next lane of these shards, or of these parts of agents, falls due after `after_ms`; None where none does."""
        rows = await fetch(self._engine, NEXT_DUE, after_ms, shards)
        dues = [rows[0][0]]
        for part in parts:
            dues += [row[0] for row in await fetch(self._engine, NEXT_OF_PART, *part, after_ms)]
        return min((due_ms for due_ms in dues if due_ms is not None), default=None)

    # --- attempts ---

    async def open(self, opening: Opening) -> bool:
        """Write the attempt row and mark the invocation `running`; False where it is not the head, not waiting, or not ours."""
        return await self._openings.add(opening)

    async def settle(self, settlement: Settlement) -> bool:
        """Close the attempt, move the invocation, move or free its lane, put the outcome in the outbox: one transaction."""
        return await self._moves.add(move_of(settlement))

    async def park(self, head: Head, *, epoch: int, reason: str, due_ms: int) -> bool:
        """Let the lane wait without an attempt; `due_ms` 0: until someone releases it, the oldest first."""
        invocation = head.invocation
        due_ms = due_ms or NEVER_MS + invocation.created_ms
        move = Move(invocation.id, State.WAITING, reason, 0, shard=invocation.shard, epoch=epoch, due_ms=due_ms)
        return await self._moves.add(move)

    async def expire(self, head: Head, *, epoch: int, reason: str, now_ms: int, state: State = State.EXPIRED) -> bool:
        """End an invocation without another attempt; its lane moves on as in `settle`."""
        invocation = head.invocation
        return await self._moves.add(Move(invocation.id, state, reason, now_ms, shard=invocation.shard, epoch=epoch))

    async def limits_of(self, ids: Sequence[str]) -> list[tuple[str, str, str]]:
        """Of these invocations: id, subscription and what its concurrency is counted by ("" where by nothing)."""
        return await limits_of(self._engine, ids)

    async def gather(self, head: Head, window: Window, *, epoch: int, now_ms: int) -> int | None:
        """Close the window that `head` begins where its time has come or it is full; else let the lane wait for it.

        Gives when it is to be asked again, 0 where the lane's head hands over a closed window now, None where it is not ours.
        """
        invocation = head.invocation
        found = await self._engine.write(lambda: gathered(invocation.lane, invocation.shard, epoch, window, now_ms))
        return None if found is None else found.due_ms

    # --- runs under supervision ---

    async def open_runs(self, parts: Sequence[RunsOf], *, now_ms: int) -> dict[RunsOf, OpenRuns]:
        """The open runs of these (team, agent, shard), and how much their agents' pollers want."""
        return await self._engine.read(lambda: open_runs(parts, now_ms))

    async def over_runs(self, parts: Sequence[RunsOf], *, now_ms: int, limit: int) -> list[Head]:
        """The heads, in state `accepted`, whose runs are over without a report."""
        return [head for head, _ in await self._engine.read(lambda: over_runs(parts, now_ms, limit))]

    async def end_run(self, stall: Stall) -> bool:
        """End such a run as its shard's owner decided; False where it lives, or is not ours."""
        return await self._engine.write(lambda: run_over(stall))

    # --- many at once, in slices that let others write between them ---

    async def release(
        self, *, team: str, agent: str, shard: int, epoch: int, reason: str, subscription_uid: str = "", now_ms: int
    ) -> int:
        """Make every lane of the agent due that waits for `reason` (of one subscription, where given); how many there were."""
        wanted = Waiters(team, agent, reason, subscription_uid)
        return await self._in_slices(lambda: released(wanted, shard, epoch, now_ms, _SLICE))

    async def let_in(self, *, team: str, agent: str, shard: int, epoch: int, reason: str, most: int, now_ms: int) -> int:
        """Make due at most `most` (0: all) of the agent's lanes whose reason to wait begins with `reason`, oldest first."""
        wanted = Waiters(team, agent, reason, "")
        if most:
            return await self._engine.write(lambda: let_in(wanted, shard, epoch, now_ms, most))
        return await self._in_slices(lambda: let_in(wanted, shard, epoch, now_ms, _SLICE))

    async def supersede(self, lane: str, *, shard: int, epoch: int, now_ms: int) -> int:
        """End, as superseded by the lane's newest, every other invocation of it that never had an attempt; how many."""
        return await self._in_slices(lambda: superseded(lane, shard, epoch, now_ms, _SLICE))

    async def _in_slices(self, script: Callable[[], Script[int]]) -> int:
        total = 0
        while count := await self._engine.write(script):
            total += count
            if count < _SLICE:
                break
        return total

    async def _next_of_all(self, lanes: Sequence[str]) -> list[Head | None]:
        found = {
            head.invocation.lane: head for head, _ in await self._engine.read(lambda: heads_of(lanes), needs_snapshot=False)
        }
        return [found.get(lane) for lane in lanes]

    async def _open_all(self, openings: Sequence[Opening]) -> list[bool]:
        return await self._engine.write(lambda: opened(openings))

    async def _move_all(self, moves: Sequence[Move]) -> list[bool]:
        return await self._engine.write(lambda: moved(moves))


def _names(invocation: Invocation) -> set[Asked]:
    """By what its agent may have been asked for: whole, or the part of its shard."""
    return {(invocation.team, invocation.agent), (invocation.team, invocation.agent, invocation.shard)}
