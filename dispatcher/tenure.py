"""Which shards this process owns, and for how much longer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from dispatcher.clock import Clock
from schemas.ledger import Lease


@dataclass(frozen=True, slots=True)
class Turn:
    """What a renewal changed: shards that are new here (or came back under a new epoch), and shards that are gone."""

    gained: frozenset[int]
    lost: frozenset[int]


class Tenure:
    """The leases as this process may believe them.

    A lease is counted from before it was asked for, on a clock that never jumps: so it ends here no later than in the database,
    whatever the clocks of the two machines say.
    """

    def __init__(self, clock: Clock, *, lease_ms: int) -> None:
        """Own nothing yet."""
        self._clock = clock
        self.lease_s = lease_ms / 1000
        self.epochs: dict[int, int] = {}
        self._until_s = 0.0

    def renewed(self, leases: Sequence[Lease], *, asked_at_s: float) -> Turn:
        """Take over what the ledger granted to a request that was made at `asked_at_s`."""
        before = self.epochs if self.remaining_s() > 0 else {}
        gone = frozenset(self.epochs) - frozenset(before)
        self.epochs = {lease.shard: lease.epoch for lease in leases}
        self._until_s = asked_at_s + self.lease_s
        changed = frozenset(shard for shard, epoch in self.epochs.items() if before.get(shard) != epoch)
        dropped = frozenset(shard for shard, epoch in before.items() if self.epochs.get(shard) != epoch)
        return Turn(changed, dropped | gone)

    def remaining_s(self) -> float:
        """How long the leases still hold; nothing is begun that cannot end within it."""
        return self._until_s - self._clock.boot_s() if self.epochs else 0.0

    def epoch(self, shard: int) -> int | None:
        """The epoch to write under; None where the shard is not ours, or its lease has run out."""
        return self.epochs.get(shard) if self.remaining_s() > 0 else None

    def ended(self) -> Turn:
        """Give up everything: the leases ran out before they could be renewed."""
        lost = frozenset(self.epochs)
        self.epochs = {}
        return Turn(frozenset(), lost)
