"""How much comes in at once: a rate per source, and what may be in flight."""

from __future__ import annotations

import math
from dataclasses import dataclass

from schemas.errors import Saturated, Throttled


@dataclass(frozen=True, slots=True)
class Limits:
    """The edge's bounds."""

    max_body_bytes: int = 26 * 1024 * 1024
    body_timeout_s: float = 10.0
    append_timeout_s: float = 8.0
    max_inflight_requests: int = 2048
    max_inflight_bytes: int = 256 * 1024 * 1024


class Bucket:
    """A token bucket: `rate_per_s` requests a second, as many at once (at least one)."""

    __slots__ = ("_at_s", "_rate", "_tokens")

    def __init__(self, rate_per_s: float, now_s: float) -> None:
        self._rate = rate_per_s
        self._tokens = max(1.0, rate_per_s)
        self._at_s = now_s

    def take(self, now_s: float) -> None:
        """Take one token.  Raises `Throttled` with the seconds until there is one."""
        self._tokens = min(max(1.0, self._rate), self._tokens + max(0.0, now_s - self._at_s) * self._rate)
        self._at_s = now_s
        if self._tokens < 1:
            raise Throttled(None, retry_after_s=max(1, math.ceil((1 - self._tokens) / self._rate)))
        self._tokens -= 1


class Flight:
    """What is in flight in this process."""

    __slots__ = ("_limits", "in_bytes", "requests")

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self.requests = 0
        self.in_bytes = 0

    def enter(self) -> None:
        """One more request.  Raises `Saturated`."""
        if self.requests >= self._limits.max_inflight_requests:
            raise Saturated
        self.requests += 1

    def hold(self, count: int) -> None:
        """So many more bytes.  Raises `Saturated`."""
        if self.in_bytes + count > self._limits.max_inflight_bytes:
            raise Saturated
        self.in_bytes += count

    def leave(self, count: int) -> None:
        """The request is over, and its bytes."""
        self.requests -= 1
        self.in_bytes -= count
