"""What the dispatcher needs from others."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from schemas.config import AgentConfig, SubscriptionConfig
from schemas.event import Event
from schemas.ledger import Head, Lease, Opening, Settlement


class Ledger(Protocol):
    """The truth about work.  Writes are durable when they return; `False` means fenced out or no longer in that state."""

    async def hold_shards(self, owner: str, *, lease_ms: int) -> list[Lease]:
        """Renew what `owner` holds, take what is free or expired up to its fair share, give back what is above it."""
        ...

    async def release_shards(self, owner: str) -> None:
        """Give every shard back: at a graceful stop, after the last settlement."""
        ...

    async def due(self, agents: Sequence[tuple[str, str]], *, now_ms: int, limit: int, skip: Sequence[str] = ()) -> list[Head]:
        """Heads of the lanes of one or more (team, agent) whose due time has come, longest due first, at most `limit` each agent.

        `skip` names lanes that are in flight here already.  An attempt left open by a crash is closed as `unknown` first.
        """
        ...

    async def next_in_lane(self, lane: str) -> Head | None:
        """The lane's head, whenever it is due; None where the lane is empty."""
        ...

    async def next_due_ms(self, shards: Sequence[int]) -> int | None:
        """When the earliest lane of these shards is due; None where there is none."""
        ...

    async def open(self, opening: Opening) -> bool:
        """Write the attempt row and mark the invocation `running`."""
        ...

    async def settle(self, settlement: Settlement) -> bool:
        """Close the attempt, move the invocation, move or free its lane, put the outcome in the outbox: one transaction."""
        ...

    async def park(self, head: Head, *, epoch: int, reason: str, due_ms: int) -> bool:
        """Let the lane wait (`paused`, `hold`) without an attempt; `due_ms` 0: until someone releases it."""
        ...

    async def expire(self, head: Head, *, epoch: int, reason: str, now_ms: int) -> bool:
        """End an invocation that is not worth an attempt any more."""
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


@dataclass(frozen=True, slots=True)
class Curated:
    """The agent's context as built by the curator: JSON bytes of its value, and what it cost."""

    context: bytes
    tokens: int
    raw_tokens: int
    digest: str
    left_out: tuple[str, ...] = ()


class Curator(Protocol):
    """Builds the context; wired to `curator.curate`."""

    def __call__(self, event: Event, data: Any, *, view: str | None, max_tokens: int | None) -> Curated:
        """The context of one event, under a budget."""
        ...


class Tokens(Protocol):
    """Mints the invocation's own token for `links.token`."""

    def mint(self, *, team: str, invocation_id: str, event_id: str, expires_ms: int) -> str:
        """A token that opens this event and this invocation's calls until `expires_ms`."""
        ...
