"""What the API answers, as models: OpenAPI is made from them, and tests hold every answer against them."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field


class Answer(BaseModel):
    """Base of all: what is not named here is not answered."""

    model_config = ConfigDict(extra="forbid")


class Listed(Answer):
    """Base of lists."""

    next_cursor: str | None = Field(description="give it as `cursor` to get the next page; null: this was the last")


class FieldChange(Answer):
    """One field that changes."""

    field: str
    before: Any
    after: Any


class ObjectChange(Answer):
    """What becomes of one object."""

    kind: str
    name: str
    action: str
    fields: list[str]
    diff: list[FieldChange]
    notes: list[str]


class Advice(Answer):
    """What is probably not meant in a subscription; `code` is stable."""

    subscription: str
    code: str
    text: str
    path: str = ""
    other: str = ""


class Plan(Answer):
    """What was changed, or with `dry_run` would be.  `secrets` were made, by agent, and are shown here only."""

    dry_run: bool
    changes: list[ObjectChange]
    counts: dict[str, int]
    secrets: dict[str, str]
    warnings: list[Advice] = []


class Kept(Answer):
    """That something was kept."""

    state: str
    kept: bool


class _Object(BaseModel):
    model_config = ConfigDict(extra="allow")  # and every field of its spec that was not added here yet

    name: str
    uid: str
    managed_by: str
    created_at: str
    updated_at: str


class Source(_Object):
    """An inbound address."""

    url: str
    provider: str
    public_keys: list[str]
    username: str | None
    options: dict[str, Any]
    max_body_bytes: int | None
    rate_per_s: float | None
    on_log_down: str | None
    last_event_at: str | None


class ListedSource(Source):
    """A source in the list."""

    refusals_24h: int


class Sources(Listed):
    """Sources."""

    items: list[ListedSource]


class Refusal(Answer):
    """A request that was not taken."""

    at: str
    code: str
    step: str
    reason: str
    method: str
    headers: dict[str, str]
    body_digest: str
    body_bytes: int
    remote: str


class ShownSource(Source):
    """A source with its last refusals."""

    refusals: list[Refusal]


class Agent(_Object):
    """A destination; `headers` show names alone."""

    protocol: str
    url: str
    max_concurrency: int
    timeout_s: float
    allow_private: bool
    headers: dict[str, str]
    state: str
    hold_reason: str
    hold_until: str | None


class Agents(Listed):
    """Agents."""

    items: list[Agent]


class ShownAgent(Agent):
    """An agent, and how much waits for it."""

    lanes: int
    queued: int


class Subscription(_Object):
    """Which events wake which agent."""

    agent: str
    pattern: dict[str, Any]
    order: str
    context: dict[str, Any]
    retry: dict[str, Any]
    state: str
    wanted_state: str
    disabled_reason: str
    generation: int


class Subscriptions(Listed):
    """Subscriptions."""

    items: list[Subscription]


class ShownSubscription(Subscription):
    """A subscription, and how much waits for it."""

    queued: int


class PingStep(BaseModel):
    """One step of a ping."""

    model_config = ConfigDict(extra="allow")

    step: str
    ok: bool


class Ping(BaseModel):
    """What became of a ping."""

    model_config = ConfigDict(extra="allow")

    ok: bool
    steps: list[PingStep]


class Rotated(Answer):
    """A new signing secret, shown here only."""

    agent: str
    secret: str
    old_until: str


class Enabled(Answer):
    """A subscription that was enabled."""

    name: str
    state: str


class EventDocument(BaseModel):
    """A CloudEvents 1.0 document with our extensions."""

    model_config = ConfigDict(extra="allow")

    specversion: str
    id: str
    source: str
    type: str
    time: str
    team: str
    provider: str
    receivedtime: str
    data: Any


class ListedEvent(BaseModel):
    """An event's envelope, and the states of its invocations."""

    model_config = ConfigDict(extra="allow")

    id: str
    source: str
    type: str
    time: str
    receivedtime: str
    admitted_at: str
    invocations: int
    states: dict[str, int]


class Events(Listed):
    """Events."""

    items: list[ListedEvent]


class Bytes(BaseModel):
    """The vendor's bytes."""


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


class RejectedRecord(Answer):
    """A record of the log that was set aside."""

    at: str
    reason: str
    topic: str
    partition: int
    position: int
    key: str
    headers: dict[str, str]
    bytes: int
    appended_at: str | None


class RejectedRecords(Listed):
    """Records that were set aside."""

    items: list[RejectedRecord]


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


class EventStream(BaseModel):
    """Server-sent events."""


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


class Key(Answer):
    """An API key, without what only its owner knows."""

    id: str
    name: str
    role: str
    agent: str
    prefix: str
    created_at: str
    expires_at: str | None
    revoked_at: str | None


class Keys(Listed):
    """API keys."""

    items: list[Key]


class NewKey(Key):
    """A new API key: `key` is shown here only."""

    key: str


class Revoked(Answer):
    """A key that ended, or several of one name."""

    id: str
    revoked: int
    revoked_at: str


class AuditLine(Answer):
    """What somebody did."""

    seq: int
    at: str
    actor: str
    act: str
    object: str
    detail: str
    prev_hash: str
    hash: str


class AuditLines(Listed):
    """The audit."""

    items: list[AuditLine]


class AuditVerdict(Answer):
    """Whether the audit's chain is whole."""

    whole: bool
    lines: int
    head: str
    broken_at: int | None


class ProblemFlaw(Answer):
    """One thing that is wrong; `place` is a JSON pointer into what was sent."""

    place: str
    message: str


class Problem(BaseModel):
    """An error (RFC 9457)."""

    model_config = ConfigDict(extra="allow")

    type: str
    title: str
    status: int
    detail: str
    code: str
    errors: list[ProblemFlaw] | None = None
