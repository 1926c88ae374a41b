"""The invocation: one event for one subscription, an intent with a life and a deterministic id."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from schemas.event import Event


class State(StrEnum):
    """Where an invocation stands; the first five are open, the rest are ends."""

    QUEUED = "queued"
    RUNNING = "running"
    ACCEPTED = "accepted"
    WAITING = "waiting"
    DONE = "done"
    DECLINED = "declined"
    BURIED = "buried"
    SUPERSEDED = "superseded"
    EXPIRED = "expired"
    CANCELED = "canceled"
    DIGESTED = "digested"  # handed over with another, which the reason names


OPEN_STATES = frozenset({State.QUEUED, State.RUNNING, State.ACCEPTED, State.WAITING})
END_STATES = frozenset(State) - OPEN_STATES


class Wait(StrEnum):
    """Why an invocation waits."""

    RETRY = "retry"
    HOLD = "hold"
    RATE = "rate"
    DEBOUNCE = "debounce"
    DELAY = "delay"
    PAUSED = "paused"
    APPROVAL = "approval"
    BLOCKED = "blocked"  # it would be buried, and its key waits for an operator
    CONCURRENCY = "concurrency"  # as many of its subscription or key run as may
    FALLBACK = "fallback"  # a link of its chain begins later
    HUMAN = "human"  # its run asked for a person or stalled and is escalated, or a person was told, and may answer


class Order(StrEnum):
    """How the events of one ordering key follow one another."""

    STRICT = "strict"
    LATEST = "latest"
    NONE = "none"


@dataclass(frozen=True, slots=True)
class Flow:
    """What flow control needs to know of one invocation; only those of subscriptions that ask for it have one.

    `limit_key` is what its concurrency is counted by.  A lane that holds `full_at` invocations goes at once.  Where late events
    are looked for, `seen_key` names what its key has seen, `version` and `time_ms` say how new this one is; `stale` is then why
    it is late, as JSON (empty: it is not), and `drops` whether a late one is dropped.  Where its agent is spread over
    shards it `is_part`: a lane that is there already keeps the shard that it has.
    """

    limit_key: str = ""
    full_at: int = 0
    seen_key: str = ""
    version: str = ""
    time_ms: int = 0
    drops: bool = False
    stale: str = ""
    is_part: bool = False


@dataclass(frozen=True, slots=True)
class Invocation:
    """An intent as the router plans it: everything that the ledger needs to queue it.

    `lane` names the queue: subscription uid and ordering key (with order `none`: the invocation's own id).  Where the
    subscription dedups, those of equal `dedup_digest` whose events were received within `dedup_window_ms` are one.
    """

    id: str
    team: str
    event_id: str
    subscription_uid: str
    subscription: str
    generation: int
    agent: str
    shard: int
    ordering_key: str
    lane: str
    order: Order
    created_ms: int
    due_ms: int
    replay_id: str = ""
    dedup_digest: str = ""
    dedup_window_ms: int = 0
    flow: Flow | None = None


@dataclass(frozen=True, slots=True)
class Planned:
    """One record's plan: the event as read, and the invocations that it gives (none, where nothing matched)."""

    event: Event
    position: int
    invocations: tuple[Invocation, ...]
    data: object = None  # the JSON view, handed on in memory so that nobody parses twice
    appended_ms: int = 0  # when the log took the record, by the log's own clock


@dataclass(frozen=True, slots=True)
class Admitted:
    """An invocation that is now in the ledger.

    `ahead` is how many unfinished ones of its lane came before it; `is_open`: the row of its first attempt is written with it.
    """

    invocation: Invocation
    event: Event
    data: object
    ahead: int
    is_open: bool = False
