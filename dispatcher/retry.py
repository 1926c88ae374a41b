"""What becomes of an invocation after an attempt: pure, so that a run can be replayed from a file."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC
from email.utils import parsedate_to_datetime
from hashlib import sha256

from dispatcher.protocols.base import ACCEPTED, DELIVERED, GONE, MISCONFIGURED, REJECTED, THROTTLED, Outcome
from schemas.config import RetryPolicy, SubscriptionConfig
from schemas.ledger import RunTerms

MIN_PAUSE_MS, MAX_PAUSE_MS = 100, 300_000
RETRY_AFTER_SPREAD = 0.2
_MAX_DOUBLINGS = 40  # beyond it every policy is at its max_delay, and the power would grow for nothing


@dataclass(frozen=True, slots=True)
class Delivered:
    """It is done."""

    reason: str


@dataclass(frozen=True, slots=True)
class RetryAt:
    """It is tried again at `due_ms`."""

    due_ms: int
    reason: str


@dataclass(frozen=True, slots=True)
class Hold:
    """The agent is misconfigured: everything of it waits, this one is the next probe at `due_ms`."""

    due_ms: int
    reason: str


@dataclass(frozen=True, slots=True)
class Bury:
    """No more attempts; `disable` says that the agent wants nothing more of this subscription."""

    reason: str
    disable: bool = False


@dataclass(frozen=True, slots=True)
class Block:
    """It would be buried; instead its key waits until an operator redrives or skips it."""

    reason: str


@dataclass(frozen=True, slots=True)
class Supervise:
    """Its agent accepted it, or is to fetch it: its run counts as alive until `due_ms`."""

    due_ms: int
    terms: RunTerms


Step = Delivered | RetryAt | Hold | Bury | Block | Supervise


def blocking(step: Step, subscription: SubscriptionConfig) -> Step:
    """The step, by the subscription's choice of what a burial does to its key.

    An agent that wants nothing more (410) holds its keys by the subscription's state; what only drains shall come to an end.
    """
    if not isinstance(step, Bury) or step.disable or not blocks(subscription):
        return step
    return Block(step.reason)


def blocks(subscription: SubscriptionConfig) -> bool:
    """Whether a burial blocks its key."""
    return subscription.spec.on_burial == "block" and not subscription.draining


def next_step(
    outcome: Outcome, *, tries: int, pauses: int, policy: RetryPolicy, begun_ms: int, now_ms: int, attempt_id: str
) -> Step:
    """Decide what becomes of an invocation after an attempt.

    `tries` counts the attempt that just ended, so the first call passes 1; `pauses` counts the probes of this agent that found
    it misconfigured, this one included.  `begun_ms` is when the present budget began.  A `Retry-After` wins over our own
    backoff, but never beyond `policy.max_delay`.  The jitter comes from `attempt_id`.  `max_age` never cuts short what it
    still allows: the last attempt is made when it ends, and only then does age bury.
    """
    word = outcome.word
    if word in {DELIVERED, ACCEPTED}:
        return Delivered(word)
    if word in {GONE, REJECTED}:
        return Bury(GONE, disable=True) if word == GONE else Bury(f"{REJECTED}: {outcome.error}")
    why = outcome.error or word
    ends_ms = begun_ms + round(policy.max_age * 1000)
    is_held = word == MISCONFIGURED
    if now_ms >= ends_ms or (tries >= policy.max_attempts and not is_held):
        return Bury(f"{'max_age' if now_ms >= ends_ms else 'max_attempts'}: {why}")
    if is_held:
        return Hold(min(now_ms + pause_ms(policy, pauses=pauses, attempt_id=attempt_id), ends_ms), why)
    delay = delay_ms(outcome, tries=tries, policy=policy, now_ms=now_ms, attempt_id=attempt_id)
    return RetryAt(min(now_ms + delay, ends_ms), why)


def delay_ms(outcome: Outcome, *, tries: int, policy: RetryPolicy, now_ms: int, attempt_id: str) -> int:
    """How long to wait before the next try: what the agent asked for and up to a fifth more, else backoff with full jitter."""
    cap_ms = policy.max_delay * 1000
    asked_ms = retry_after_ms(outcome.retry_after, now_ms=now_ms) if outcome.word == THROTTLED else None
    if asked_ms is not None:
        return round(min(asked_ms * (1 + RETRY_AFTER_SPREAD * chance(attempt_id)), cap_ms))
    ceiling_ms = min(policy.first_delay * 1000 * 2.0 ** min(tries - 1, _MAX_DOUBLINGS), cap_ms)
    return round(ceiling_ms * chance(attempt_id))


def pause_ms(policy: RetryPolicy, *, pauses: int, attempt_id: str) -> int:
    """How long a misconfigured agent is left alone: doubling from the first delay up to five minutes, with half jitter.

    Half, not full: a probe that comes at once tells nothing, and there is only one of them at a time.
    """
    cap_ms = max(min(policy.max_delay * 1000, MAX_PAUSE_MS), MIN_PAUSE_MS)
    first_ms = max(policy.first_delay * 1000, MIN_PAUSE_MS)
    ceiling_ms = min(first_ms * 2.0 ** min(max(pauses - 1, 0), _MAX_DOUBLINGS), cap_ms)
    return round(ceiling_ms * (1 + chance(attempt_id)) / 2)


def retry_after_ms(text: str, *, now_ms: int) -> int | None:
    """The wait that a `Retry-After` asks for (RFC 9110, 10.2.3: seconds or a date); None where it says nothing usable."""
    text = text.strip()
    if text.isascii() and text.isdigit():
        return int(text) * 1000
    try:
        asked = parsedate_to_datetime(text)
    except (ValueError, TypeError, IndexError, OverflowError):
        return None
    if asked.tzinfo is None:  # `-0000`: UTC, of an unknown zone
        asked = asked.replace(tzinfo=UTC)
    return max(0, round(asked.timestamp() * 1000) - now_ms)


def chance(seed: str) -> float:
    """A number in [0, 1) that looks random and is the same for the same seed."""
    return int.from_bytes(sha256(seed.encode()).digest()[:7], "big") / (1 << 56)
