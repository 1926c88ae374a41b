"""The loop guard: cuts a chain of outcomes that wake agents whose outcomes wake agents, at a depth or at a rate."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass

from schemas.outcomes import Chain

DEPTH, RATE = "depth", "rate"
_MAX_KNOWN = 50_000
_WINDOW_MS = 60_000


@dataclass(frozen=True, slots=True)
class LoopLimits:
    """How long a chain may be, and how often one first event may wake one subscription in a minute by outcomes."""

    max_hops: int = 8
    max_wakes_per_minute: int = 100


class LoopGuard:
    """Says of each outcome's event whether it goes on.

    The depth travels with the events, so it holds over restarts and over any number of processes.  The rate is counted here:
    whoever publishes outcomes is alone, and begins a new minute where it takes over.
    """

    def __init__(self, limits: LoopLimits) -> None:
        self._limits = limits
        self._wakes: OrderedDict[tuple[str, str], tuple[int, int]] = OrderedDict()  # (root, subscription): since, count

    def cut(self, chain: Chain | None, uids: Iterable[str], *, now_ms: int) -> str:
        """Why the chain ends here: `depth`, `rate`, or empty where it goes on and wakes the subscriptions `uids`."""
        if chain is None or chain.hops > self._limits.max_hops:
            return DEPTH
        counts = [self._count((chain.root, uid), now_ms) for uid in uids]
        return RATE if max(counts, default=0) > self._limits.max_wakes_per_minute else ""

    def _count(self, key: tuple[str, str], now_ms: int) -> int:
        since_ms, count = self._wakes.pop(key, (now_ms, 0))
        if not 0 <= now_ms - since_ms < _WINDOW_MS:
            since_ms, count = now_ms, 0
        self._wakes[key] = (since_ms, count + 1)
        if len(self._wakes) > _MAX_KNOWN:
            self._wakes.popitem(last=False)
        return count + 1
