"""What the dispatcher and the ledger say to each other about work."""

from __future__ import annotations

from dataclasses import dataclass

from schemas.context import Sent
from schemas.event import Event
from schemas.invocation import Invocation, State


@dataclass(frozen=True, slots=True)
class Lease:
    """A shard that this process owns.  Every write about its invocations carries `epoch`; `until_ms` is database time."""

    shard: int
    epoch: int
    until_ms: int


@dataclass(frozen=True, slots=True)
class Held:
    """An agent that is not called: why, how many pauses there were before probes, when the next probe is, since when.

    An empty `cause`: it is called as ever.  `is_mended`: its setting was changed since this was written.
    """

    team: str
    agent: str
    cause: str
    shard: int
    pauses: int = 0
    probe_at_ms: int = 0
    since_ms: int = 0
    is_mended: bool = False


@dataclass(frozen=True, slots=True)
class Run:
    """What the ledger knows of an invocation's last supervised run, as the dispatcher reads it with a head.

    `checkpoint` is the JSON that the last of its runs kept, for the next attempt; empty where none did.  `signal` is what an
    operator asked of the run (`cancel`), or empty.  An offer of pull delivery is a run that is not `fetched` yet.
    """

    number: int
    lease_ms: int
    ends_ms: int
    fetched: bool = True
    signal: str = ""
    checkpoint: bytes = b""

    def is_over(self, now_ms: int) -> bool:
        """Whether nothing was heard of it for its whole lease, or its longest time has passed."""
        return min(self.lease_ms, self.ends_ms) <= now_ms


@dataclass(frozen=True, slots=True)
class RunTerms:
    """The terms under which a run begins: how long each heartbeat carries it, and when it must have ended.

    `offer` is what a pull agent is to fetch; None where the agent has its call already.
    """

    span_ms: int
    ends_ms: int
    offer: bytes | None = None


@dataclass(frozen=True, slots=True)
class Head:
    """The first unfinished invocation of a lane, with what is needed to attempt it.

    `attempts` counts every attempt ever made, `tries` those of the present budget (a redrive starts a new one).
    `data` is the JSON view where it is at hand in memory, else None with `has_data` False.  `budget_ms` is when the present
    budget began (a redrive's time), 0 where that was the invocation's creation.  `digest` are the events that it hands over,
    its own last, where it stands for several.
    """

    invocation: Invocation
    event: Event
    attempts: int
    tries: int
    state: State = State.QUEUED
    data: object = None
    has_data: bool = False
    epoch_hint: int = 0
    budget_ms: int = 0
    run: Run | None = None
    digest: tuple[Event, ...] = ()
    step: int = 0
    fell_for: str = ""

    @property
    def body_bytes(self) -> int:
        """Bytes of the bodies that it holds in memory."""
        return sum(len(event.body) for event in self.digest) if self.digest else len(self.event.body)


@dataclass(frozen=True, slots=True)
class Window:
    """When a digest is closed: by a quiet spell of `wait_ms` (0: not), `max_wait_ms` after its first event, or by its size."""

    wait_ms: int
    max_wait_ms: int
    max_events: int
    max_bytes: int = 8 * 1024 * 1024

    def closes_ms(self, first_ms: int, last_ms: int) -> int:
        """When it closes, by the times of its first and last event."""
        latest_ms = first_ms + self.max_wait_ms
        return min(last_ms + self.wait_ms, latest_ms) if self.wait_ms else latest_ms


@dataclass(frozen=True, slots=True)
class Opening:
    """The attempt row, written before the agent is called."""

    invocation_id: str
    number: int
    shard: int
    epoch: int
    owner: str
    started_ms: int
    deadline_ms: int


@dataclass(frozen=True, slots=True)
class Settlement:
    """How an attempt ended, and what becomes of the invocation and its lane.

    `outcome` is the attempt's closed-set word (`delivered`, `accepted`, `throttled`, `rejected`, `gone`, `misconfigured`,
    `failed`, `timeout`, `unreachable`, `unknown`).  `state` is the invocation's next one; with `waiting`, `due_ms` says when it
    is tried again and `reason` why.  `answer` is at most 4 KiB of the agent's body, for people;
    `body` is what the agent was sent, where that is to be kept, `exchange` the address and headers of a failed call.
    """

    invocation_id: str
    team: str
    lane: str
    number: int
    shard: int
    epoch: int
    outcome: str
    state: State
    reason: str
    ended_ms: int
    tries: int
    due_ms: int = 0
    status: int = 0
    error: str = ""
    answer: bytes = b""
    duration_ms: float = 0.0
    sent: bool = False
    bytes_sent: int = 0
    tokens: int = 0
    context_digest: str = ""
    raw_tokens: int = 0
    missing: int = 0
    cut: int = 0
    body: Sent | None = None
    exchange: bytes = b""
    disable_subscription: str = ""
    run: RunTerms | None = None


@dataclass(frozen=True, slots=True)
class Stall:
    """What the shard's owner makes of a run that is over without a report.

    `verdict` is what is kept of the run: `stalled`, `canceled` or `unfetched`.  The ledger looks again whether it is over.
    """

    invocation_id: str
    number: int
    shard: int
    epoch: int
    verdict: str
    state: State
    reason: str
    at_ms: int
    tries: int
    due_ms: int = 0


@dataclass(frozen=True, slots=True)
class OpenRuns:
    """Of one agent: the invocations with an open run, those of them that wait to be fetched, and how many pollers want."""

    runs: frozenset[str] = frozenset()
    unfetched: frozenset[str] = frozenset()
    wanted: int = 0


@dataclass(frozen=True, slots=True)
class Block:
    """A part of a team's quota that a process may use up until it ends, `ends_in_ms` after it was asked for."""

    granted: int
    ends_in_ms: int


@dataclass(frozen=True, slots=True)
class Outcome:
    """A line of the outbox: what is published on the outcomes topic when an invocation ends."""

    seq: int
    key: str
    body: bytes
