"""What the router needs from others."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from schemas.config import SubscriptionConfig
from schemas.invocation import Admitted, Planned
from schemas.ledger import Opening
from schemas.topics import Place, Record


class NextStage(Protocol):
    """The dispatcher of this process, or nobody: what was admitted is handed on in memory."""

    def reserve(self, plans: Sequence[Planned]) -> Mapping[str, Opening]:
        """First attempts that would begin at once: each holds a place until `offer` gives it back."""
        ...

    def offer(self, admitted: Sequence[Admitted], reserved: Mapping[str, Opening] = ...) -> None:
        """Take what was admitted, in lane order; `reserved` is what `reserve` gave for it."""
        ...

    async def room(self) -> None:
        """Wait while the hand-over is full."""
        ...


class Rulebook(Protocol):
    """The store's subscriptions, as the ruleset is built from them."""

    async def version(self) -> int:
        """A number that changes with every change of a subscription or agent."""
        ...

    async def subscriptions(self) -> list[SubscriptionConfig]:
        """All subscriptions of all teams that are not yet gone."""
        ...


class Admission(Protocol):
    """The one transaction that makes a plan exactly-once."""

    async def cursors(self, log_id: str, places: Sequence[Place]) -> Mapping[Place, int]:
        """The next position to read, by place; a place never read is left out."""
        ...

    async def admit(
        self,
        log_id: str,
        place: Place,
        *,
        first: int,
        after: int,
        plans: Sequence[Planned],
        now_ms: int,
        openings: Mapping[str, Opening] = ...,
        begins: bool = ...,
    ) -> list[Admitted]:
        """Move the cursor from `first` to `after` by compare-and-set, keep the events that are new, queue their invocations.

        Those of `openings` (by invocation) that are new, first of their lane and still ours begin with their first attempt
        open.
        Returns the invocations that were queued, in order; events seen before give none.  A place without a cursor gets one
        where `first` is 0 or its reading `begins` there.
        Raises `FencedOut` where the cursor was elsewhere: another router was here.
        """
        ...

    async def deaths(self, log_id: str, place: Place, position: int, reason: str) -> int:
        """Count one more death at this record, durably, and return how many there were."""
        ...

    async def spare(self, log_id: str, place: Place, position: int) -> None:
        """Take the last death at this record back: it was not its doing."""
        ...

    async def set_aside(self, log_id: str, record: Record, *, first: int, reason: str, now_ms: int, begins: bool = ...) -> None:
        """Keep a poison record for people and move the cursor from `first` past it, in one transaction; as `admit`."""
        ...
