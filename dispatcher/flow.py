"""When an invocation may start: rate, delay, expiry.  Pure: every function takes the time."""

from __future__ import annotations

from dataclasses import dataclass

from schemas.config import SubscriptionSpec, SubscriptionState
from schemas.invocation import Order

_NOTHING = 1e-9  # what floats leave over of a whole token


@dataclass(slots=True)
class Bucket:
    """A token bucket: `rate_per_s` on average, up to `burst` at once.  Exact, because an agent has one owner.

    Times are of a clock that never jumps.  With a new owner it starts with one token and not full, so that a
    shard that wanders does not get around the limit.
    """

    rate_per_s: float
    burst: int
    tokens: float = 1.0
    at_s: float = 0.0

    def wait_s(self, now_s: float) -> float:
        """How long until one may start; 0: now."""
        self._fill(now_s)
        return 0.0 if self.tokens >= 1 - _NOTHING else (1 - self.tokens) / self.rate_per_s

    def take(self, now_s: float) -> None:
        """One starts now."""
        self._fill(now_s)
        self.tokens -= 1

    def give_back(self) -> None:
        """The one that took a token did not start after all."""
        self.tokens += 1

    def reserve(self, now_s: float) -> float:
        """Take a token, be it one to come; how long until it is there, 0: now."""
        self.take(now_s)
        return 0.0 if self.tokens >= -_NOTHING else -self.tokens / self.rate_per_s

    def _fill(self, now_s: float) -> None:
        self.tokens = min(float(self.burst), self.tokens + (now_s - self.at_s) * self.rate_per_s) if self.at_s else self.tokens
        self.at_s = now_s


def starts_at_ms(created_ms: int, *, delay_s: float) -> int:
    """The earliest start of an invocation of a subscription with a delay."""
    return created_ms + round(delay_s * 1000)


def expires_at_ms(received_ms: int, *, expires_after_s: float | None) -> int | None:
    """When an event is not worth an attempt any more; None: never."""
    return None if expires_after_s is None else received_ms + round(expires_after_s * 1000)


def is_flowing(spec: SubscriptionSpec) -> bool:
    """Whether anything of a subscription's flow control is to be looked at before an attempt."""
    asked = (spec.expires_after, spec.concurrency, spec.rate_per_s, spec.digest)
    return bool(spec.delay) or any(each is not None for each in asked)


# What a subscription may say and still have its events begin at once; anything else has a say in when an attempt is due.
_PLAIN = frozenset(
    {"agent", "pattern", "filters", "cesql", "when", "extensions", "dedup", "order", "on_burial", "context", "retry", "state"}
)
# By value: what the store kept names every field.
_UNSAID = {name: field.default for name, field in SubscriptionSpec.model_fields.items() if name not in _PLAIN}


def begins_at_once(spec: SubscriptionSpec) -> bool:
    """Whether nothing in a subscription says more of when an attempt is due than its lane and its agent do."""
    if spec.order is Order.LATEST or spec.state is not SubscriptionState.LIVE:
        return False
    return all(getattr(spec, name) == default for name, default in _UNSAID.items())


def share(whole: int, number: int, count: int) -> int:
    """What the part of that number has of a whole, which the parts share out without a rest."""
    return whole // count + (number < whole % count)
