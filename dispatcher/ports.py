"""What the dispatcher needs from others."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any, Protocol

from schemas.config import AgentConfig, SubscriptionConfig
from schemas.context import NO_ENVELOPE, Envelope
from schemas.context import Curated as Curated  # noqa: PLC0414 - part of this contract
from schemas.event import Event
from schemas.invocation import State
from schemas.ledger import Block, Head, Held, Lease, Opening, OpenRuns, Settlement, Stall, Window

RunsOf = tuple[str, str, int]  # team, agent, shard
Asked = tuple[str, str] | tuple[str, str, int]  # team and agent; with a shard, that part of an agent alone


class Ledger(Protocol):
    """The truth about work.  Writes are durable when they return; `False` means fenced out or no longer in that state."""

    async def hold_shards(self, owner: str, *, lease_ms: int, busy: Collection[int] = ()) -> list[Lease]:
        """Renew what `owner` holds, take what is free or expired up to its fair share, give back what is above it.

        `busy` shards go back last: a call under way there would have to be repeated.
        """
        ...

    async def release_shards(self, owner: str) -> None:
        """Give every shard back: at a graceful stop, after the last settlement."""
        ...

    async def held_agents(self) -> list[Held]:
        """The agents of these shards that were not called when their owner last said so."""
        ...

    async def keep_held(self, held: Held, *, epoch: int, now_ms: int) -> bool:
        """Remember how an agent stands, for whoever owns it next."""
        ...

    async def due(self, agents: Sequence[Asked], *, now_ms: int, limit: int, skip: Sequence[str] = ()) -> list[Head]:
        """Heads of the lanes of one or more agents whose due time has come, longest due first, at most `limit` an agent.

        `skip` names lanes that are in memory here already.  An attempt left open under another epoch is closed as `unknown`
        first, once its deadline has passed or its owner is surely dead; one of the present epoch only when its deadline is
        long past, since an offer may start a lane while this is being read.
        """
        ...

    async def next_in_lane(self, lane: str) -> Head | None:
        """The lane's head, whenever it is due; None where the lane is empty."""
        ...

    async def next_due_ms(
        self, shards: Sequence[int], *, after_ms: int = 0, parts: Sequence[tuple[str, str, int]] = ()
    ) -> int | None:
        """When the next lane of these shards, or of these parts of agents, falls due after `after_ms`; None where none does.

        What is due already waits for capacity or runs: it would make the caller ask in a circle.
        """
        ...

    async def lease_quota(self, team: str, *, wanted: int) -> Block:
        """A block of the team's quota, of at most so many attempts; none granted: it is used up until the block ends."""
        ...

    async def open(self, opening: Opening) -> bool:
        """Write the attempt row and mark the invocation `running`.

        False also where the invocation is not the head of its lane: the caller's memory may be behind, the ledger decides.
        """
        ...

    async def settle(self, settlement: Settlement) -> bool:
        """Close the attempt, move the invocation, move or free its lane, put the outcome in the outbox: one transaction."""
        ...

    async def park(self, head: Head, *, epoch: int, reason: str, due_ms: int) -> bool:
        """Let the lane wait (`paused`, `hold`) without an attempt; `due_ms` 0: until someone releases it."""
        ...

    async def expire(self, head: Head, *, epoch: int, reason: str, now_ms: int, state: State = State.EXPIRED) -> bool:
        """End an invocation without another attempt, in the end state that is given; its lane moves on as in `settle`."""
        ...

    async def release(
        self, *, team: str, agent: str, shard: int, epoch: int, reason: str, subscription_uid: str = "", now_ms: int
    ) -> int:
        """Make every lane of the agent due that waits for `reason` (of one subscription, where given); how many there were."""
        ...

    async def let_in(self, *, team: str, agent: str, shard: int, epoch: int, reason: str, most: int, now_ms: int) -> int:
        """Make due at most `most` (0: all) of the agent's lanes that wait to be released for a reason that begins so.

        Those first whose events came first.  How many there were.
        """
        ...

    async def limits_of(self, ids: Sequence[str]) -> list[tuple[str, str, str]]:
        """Of these invocations: id, subscription and what its concurrency is counted by ("" where by nothing)."""
        ...

    async def gather(self, head: Head, window: Window, *, epoch: int, now_ms: int) -> int | None:
        """Close the window that `head` begins where its time has come or it is full; else let the lane wait for it.

        Gives when it is to be asked again; 0 where the lane's head hands over a closed window now, which may be another head
        than before; None where it is not ours.
        """
        ...

    async def supersede(self, lane: str, *, shard: int, epoch: int, now_ms: int) -> int:
        """End, as superseded by the lane's newest, every other invocation of it that never had an attempt; how many there
        were.
        """
        ...

    async def open_runs(self, parts: Sequence[RunsOf], *, now_ms: int) -> Mapping[RunsOf, OpenRuns]:
        """The open runs of these (team, agent, shard), and how much their agents' pollers want, on one snapshot."""
        ...

    async def over_runs(self, parts: Sequence[RunsOf], *, now_ms: int, limit: int) -> list[Head]:
        """The heads, in state `accepted` and with their `run`, whose runs are over without a report."""
        ...

    async def end_run(self, stall: Stall) -> bool:
        """End such a run as its owner decided; False where it lives (its agent was heard meanwhile), or is not ours."""
        ...


class Roster(Protocol):
    """The store's agents and subscriptions, as of now."""

    async def version(self) -> int:
        """A number that changes with every change of an agent or subscription."""
        ...

    async def agents(self) -> list[AgentConfig]:
        """All agents of all teams, secrets in the clear."""
        ...

    async def subscriptions(self) -> list[SubscriptionConfig]:
        """All subscriptions of all teams, draining ones included."""
        ...


class Curator(Protocol):
    """Builds the context; `curator.service.Curation` is one."""

    def plain(self, subscription: SubscriptionConfig, event: Event, data: Any, *, envelope: Envelope = NO_ENVELOPE) -> Curated:
        """The context of a subscription whose spec `is_plain`, at once."""
        ...

    async def full(
        self,
        subscription: SubscriptionConfig,
        event: Event,
        data: Any,
        *,
        invocation_id: str,
        envelope: Envelope = NO_ENVELOPE,
    ) -> Curated:
        """The context of any subscription, with the history, facts and lookups that it asks for."""
        ...


class Answered(Protocol):
    """The part of `egress.client.Answer` that the dispatcher looks at."""

    @property
    def status(self) -> int:
        """HTTP status."""
        ...

    @property
    def headers(self) -> Mapping[str, str]:
        """Header fields; look-up ignores case."""
        ...

    @property
    def body(self) -> bytes:
        """The body, capped."""
        ...


class Caller(Protocol):
    """The guarded way out; `egress.client.Client` is one."""

    async def request(
        self,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str] | None = None,
        body: bytes | None = None,
        timeout_s: float = 30.0,
        allow_private: bool = False,
        allow_http: bool = False,
    ) -> Answered:
        """The answer.  Raises AddressRefused, AgentTimedOut or AgentUnreachable, with `kind` and `sent` among their fields."""
        ...


class Tokens(Protocol):
    """Mints the invocation's own token for `links.token`."""

    def mint(self, *, team: str, invocation_id: str, event_id: str, expires_ms: int, attempt: int) -> str:
        """A token that opens this event and, for this attempt, this invocation's calls until `expires_ms`."""
        ...
