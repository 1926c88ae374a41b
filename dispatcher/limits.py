"""How much of a subscription may run at once or in a second: counted in memory, exact, because an agent has one owner.

What finds no room waits in the ledger, and memory remembers only that somebody does.  So a limit that is full costs a write for
each that waits, and nothing for those that run; another lane is never held up by it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from dispatcher.flow import Bucket, share
from schemas.config import SubscriptionConfig
from schemas.invocation import Wait

Claim = tuple[str, int]  # a limit's name, and how many may run under it
_FORGET_MS = 600_000
_MANY = 1024


def claims_of(subscription: SubscriptionConfig, limit_key: str, *, part: int = 0, parts: int = 1) -> list[Claim]:
    """The limits that an invocation runs under.

    Of an agent that is spread over `parts` each has its share of a subscription's `max`, and at least one; equal keys are all
    in one part, which has the whole of `per_key`.
    """
    wanted = subscription.spec.concurrency
    if wanted is None:
        return []
    claims = [] if wanted.max is None else [(subscription.uid, max(1, share(wanted.max, part, parts)))]
    if wanted.key is not None and limit_key:
        claims.append((limit_key, wanted.per_key))
    return claims


def reason_of(limit: str) -> str:
    """Why a lane waits that found this limit full; what frees a place calls it by that."""
    return f"{Wait.CONCURRENCY}:{limit}"


@dataclass(slots=True)
class Places:
    """What runs under each limit of one agent, and which limits somebody waits for."""

    running: dict[str, int] = field(default_factory=dict)
    waited_for: dict[str, int] = field(default_factory=dict)  # the number of the last who began to wait for it
    began: int = 0
    is_known: bool = False  # whether what waited for places of an owner before has been called

    def enter(self, claims: Sequence[Claim]) -> Claim | None:
        """Take a place under each, or none where one is full: then that one."""
        for claim in claims:
            if self.running.get(claim[0], 0) >= claim[1]:
                return claim
        self.take(claims)
        return None

    def take(self, claims: Sequence[Claim]) -> None:
        """Take a place under each, full or not: what runs, runs."""
        for limit, _ in claims:
            self.running[limit] = self.running.get(limit, 0) + 1

    def leave(self, claims: Sequence[Claim]) -> list[Claim]:
        """Give the places back; the limits that somebody waits for, each with how many may come now."""
        called: list[Claim] = []
        for limit, most in claims:
            left = self.running[limit] - 1
            if left:
                self.running[limit] = left
            else:
                del self.running[limit]
            if limit in self.waited_for and left < most:
                # One place, one caller; but where none runs any more, nobody else would call if the one called never came.
                called.append((limit, 1 if left else most))
        return called

    def free(self, limit: str, most: int) -> int:
        """How many more may run under it; who asks waits for it from now on."""
        self.began += 1
        self.waited_for[limit] = self.began
        return max(0, most - self.running.get(limit, 0))


@dataclass(slots=True)
class Turns:
    """A subscription's rate.  Who finds it used up has a turn of its own, later, and waits for that in the ledger."""

    bucket: Bucket
    reserved: dict[str, int] = field(default_factory=dict)  # when whose turn is

    def due_ms(self, invocation_id: str, *, now_s: float, now_ms: int) -> int:
        """When it may start; 0: now, and its turn is used up."""
        reserved_ms = self.reserved.get(invocation_id)
        if reserved_ms is not None:
            if reserved_ms > now_ms:
                return reserved_ms
            del self.reserved[invocation_id]
            return 0
        wait_s = self.bucket.reserve(now_s)
        if not wait_s:
            return 0
        if len(self.reserved) >= _MANY:
            self._forget_late(now_ms)
        self.reserved[invocation_id] = due_ms = now_ms + max(1, round(wait_s * 1000))
        return due_ms

    def _forget_late(self, now_ms: int) -> None:
        """What never came for its turn (canceled, superseded) is not remembered for ever."""
        late = [ident for ident, due_ms in self.reserved.items() if due_ms < now_ms - _FORGET_MS]
        for ident in late:
            del self.reserved[ident]
