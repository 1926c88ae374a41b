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


class EventStream(BaseModel):
    """Server-sent events."""


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
