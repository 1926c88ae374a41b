"""What the API answers about invocations, their attempts and runs, and why they are as they are."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from control.answers import Answer, Listed


class Attempt(Answer):
    """One try; without an outcome it is under way."""

    number: int
    started_at: str
    ended_at: str | None
    deadline_at: str | None
    outcome: str
    status: int
    error: str
    answer: str
    duration_ms: float | None
    sent: bool
    bytes_sent: int
    tokens: int
    context_digest: str
    owner: str


class SentBody(Answer):
    """What an attempt sent and got back.  `body` has `(token)` in its token's place; empty where it is not kept."""

    attempt: int
    outcome: str
    status: int
    digest: str
    bytes_sent: int
    is_kept: bool
    body: str
    context: str
    answer: str


class SentBodies(Listed):
    """What the attempts of one invocation sent, in order."""

    items: list[SentBody]


class Run(Answer):
    """The last supervised run of an invocation; without `ended_at` it is open."""

    attempt: int
    began_at: str | None
    is_fetched: bool
    lease_until: str | None
    deadline_at: str | None
    heartbeats: int
    heartbeat_at: str | None
    signal: str
    worker: str
    checkpoint: Any
    checkpoint_at: str | None
    tried: str
    blocked: str
    next: str
    status_at: str | None
    ended_at: str | None
    verdict: str
    note: str
    report: dict[str, Any] | None


class _Invocation(Answer):
    id: str
    event_id: str
    subscription: str
    agent: str
    state: str
    reason: str
    outcome: str
    ordering_key: str
    order: str
    generation: int
    replay_id: str
    created_at: str
    due_at: str | None
    ended_at: str | None


class Invocation(_Invocation):
    """One event for one subscription; `attempts` counts them."""

    attempts: int


class Invocations(Listed):
    """Invocations."""

    items: list[Invocation]


class Fallback(Answer):
    """A link of its subscription's fallback chain that an invocation went to; `attempts` is how many had been made before."""

    at: str
    step: int
    kind: str
    agent: str
    attempts: int
    due_at: str | None
    reason: str


class ShownInvocation(_Invocation):
    """An invocation with its attempts, its last run under supervision where it had one, and the links of its fallback chain."""

    attempts: list[Attempt]
    run: Run | None
    fallbacks: list[Fallback]


class Step(Answer):
    """Something that happened."""

    at: str
    after_ms: int
    step: str
    detail: str
    invocation: str


class Explained(BaseModel):
    """Why a subscription matches an event, or does not."""

    model_config = ConfigDict(extra="allow")

    subscription: str
    matched: bool


class Trace(Answer):
    """The story of one event."""

    event: dict[str, Any]
    steps: list[Step]
    invocations: list[ShownInvocation]
    misses: list[Explained]


class Verdicts(Listed):
    """Why subscriptions match an event, or do not."""

    items: list[Explained]


class Matched(BaseModel):
    """Whether a pattern matched."""

    model_config = ConfigDict(extra="allow")

    matched: bool


class SentContext(Answer):
    """The context that an attempt sent, by its digest; its bytes are under `invocations/ID/sent`."""

    invocation: str
    attempt: int
    digest: str
    tokens: int


class Curated(Answer):
    """A context, and what it costs."""

    context: Any
    tokens: int
    raw_tokens: int
    digest: str
    left_out: list[str]
    beside: dict[str, Any] = Field(default_factory=dict, description="with a subscription: what stands beside the context")
    missing: list[str] = Field(default_factory=list)
    verdict: str = Field(default="deliver", description="`deliver`, `park` or `refuse`")
    reason: str = ""
    sent: list[SentContext] = Field(default_factory=list, description="with a subscription: what its agent was sent")


class Counts(Answer):
    """How many events are kept, and how many invocations are in each state."""

    events: int
    invocations: dict[str, int]


class Moved(Answer):
    """An invocation that an operator moved."""

    id: str
    state: str
    dry_run: bool


class Progress(Answer):
    """How far a redrive or replay by query is: `running`, `done` or `failed`; `dry_run` where nothing was begun."""

    id: str
    kind: str
    state: str
    reason: str
    query: dict[str, Any]
    total: int
    done: int
    dry_run: bool
    created_at: str | None
    updated_at: str | None


class Heartbeat(Answer):
    """Where a run stands.

    `stop`: it is of no use any more.  `signal`: `cancel`, or `supersede` where `newer_event` of its key waits behind it.
    """

    state: str
    reason: str
    stop: bool
    signal: str
    newer_event: str | None
    lease_until: str | None
    deadline_at: str | None


class KeptOfRun(Heartbeat):
    """That something was kept of a run, and where that stands."""

    kept: bool


class Leased(Answer):
    """An invocation to work on: `delivery` is the document that a webhook agent is sent, with its token."""

    invocation: str
    lease_until: str
    delivery: dict[str, Any]


class Leases(Answer):
    """Work that was fetched; none, where there was none."""

    items: list[Leased]


class Resolved(Answer):
    """An invocation that a person decided on."""

    id: str
    state: str


class Standing(Answer):
    """Where an invocation stands after a report."""

    state: str
    reason: str
    outcome: str


class Failed(Standing):
    """Where an invocation stands after a failure, and whether it is tried again."""

    retried: bool
    due_at: str | None
