"""What flow control needs of an event, worked out when it is planned: pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

from router.rule import compile_key
from schemas.config import BatchSpec, SubscriptionSpec
from schemas.event import Event
from schemas.ids import part_of
from schemas.invocation import Flow

KeyOf = Callable[[Mapping[str, Any]], str | None]


@dataclass(frozen=True, slots=True)
class FlowRule:
    """A subscription's flow control, compiled.

    `wait_ms` is how long the first event of a digest waits at least; `full_at` how many close it.  `is_one_lane`: a batch
    without a key, which gathers all events of the subscription.
    """

    uid: str
    limit_of: KeyOf | None = None
    limit_scope: str = ""
    group_of: KeyOf | None = None
    is_one_lane: bool = False
    wait_ms: int = 0
    full_at: int = 0
    looks_late: bool = False
    version_of: KeyOf | None = None
    drops: bool = False
    shards: tuple[int, ...] = ()  # of an agent that is spread over several

    def shard(self, flow: Flow, lane: str) -> int:
        """Which of its agent's shards has this lane: equal limits meet in one, so that they are counted exactly."""
        return self.shards[part_of(flow.limit_key or lane, len(self.shards))]

    def flow(self, event: Event, document: Mapping[str, Any], *, is_replay: bool) -> Flow:
        """What the ledger and the dispatcher need to know of this event.  What is replayed is never late: it was asked for."""
        looks_late = self.looks_late and not is_replay
        return Flow(
            limit_key=self._limit_key(document),
            full_at=self.full_at,
            seen_key=_digest(self.uid, event.partitionkey) if looks_late else "",
            version=self._version(event, document) if looks_late else "",
            time_ms=event.time_ms if looks_late else 0,
            drops=self.drops,
            is_part=bool(self.shards),
        )

    def group(self, event: Event, document: Mapping[str, Any]) -> str:
        """Which of the subscription's lanes gathers this event; an event without the key keeps to its ordering key."""
        if self.is_one_lane:
            return ""
        key = None if self.group_of is None else self.group_of(document)
        return event.partitionkey if key is None else "~" + _digest(self.uid, key)

    def _limit_key(self, document: Mapping[str, Any]) -> str:
        key = None if self.limit_of is None else self.limit_of(document)
        return "" if key is None else _digest(self.limit_scope, key)

    def _version(self, event: Event, document: Mapping[str, Any]) -> str:
        if self.version_of is None:
            return event.version
        return (self.version_of(document) or "").strip('"')


def compile_flow(uid: str, spec: SubscriptionSpec, *, shards: tuple[int, ...] = ()) -> FlowRule | None:
    """A subscription's flow control; None where planning need not know of any.  Raises `Invalid`."""
    limits, digest, stale = spec.concurrency, spec.digest, spec.stale
    if digest is None and stale is None and (limits is None or limits.key is None) and not shards:
        return None
    wait_s = 0.0 if digest is None else digest.max_wait if isinstance(digest, BatchSpec) else digest.wait
    is_shared = limits is not None and limits.scope == "agent"
    return FlowRule(
        uid,
        limit_of=_key(limits.key, "concurrency.key") if limits else None,
        limit_scope=f"agent {spec.agent}" if is_shared else uid,
        group_of=_key(digest.key, "debounce.key") if digest else None,
        is_one_lane=isinstance(digest, BatchSpec) and digest.key is None,
        wait_ms=round(wait_s * 1000),
        full_at=digest.max_events if digest else 0,
        looks_late=stale is not None,
        version_of=_key(stale.version, "stale.version") if stale else None,
        drops=stale is not None and stale.then == "drop",
        shards=shards,
    )


def _key(expression: str | None, field: str) -> KeyOf | None:
    return None if expression is None else compile_key(expression, field=field)


def _digest(*parts: str) -> str:
    """Half a digest: it names a key where equal keys must meet, and nothing can be read from it."""
    return sha256("\0".join(parts).encode("utf-8", "surrogatepass")).hexdigest()[:32]
