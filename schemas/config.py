"""What operators declare: sources, agents and subscriptions, as `nightbell.yaml` and the API write them.

A spec is what was written (secrets apart); `…Config` is a spec with its name, uid and generation, as the stages receive it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PlainSerializer, SecretStr, model_validator

from schemas.invocation import Order
from schemas.times import seconds_of

DEFAULT_TEAM = "default"
PULL = "pull"  # the protocol of agents that fetch their work
NAME_PATTERN = r"^[a-z0-9][a-z0-9_-]{0,62}$"
_NAME = re.compile(NAME_PATTERN)

Name = Annotated[str, Field(pattern=NAME_PATTERN)]
Span = Annotated[
    float, BeforeValidator(seconds_of), PlainSerializer(float), Field(json_schema_extra={"type": ["number", "string"]})
]


def is_name(text: str) -> bool:
    """Whether `text` may name a source, an agent, a subscription or a team."""
    return _NAME.match(text) is not None


class Spec(BaseModel):
    """Base of everything that operators write: frozen, unknown fields refused, inputs never echoed in errors."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)


class SourceSpec(Spec):
    """An inbound address: one provider and its secrets.  Which fields a source needs, its provider's file says."""

    provider: Name
    secrets: tuple[SecretStr, ...] = ()
    public_keys: tuple[str, ...] = ()
    username: str | None = None
    password: SecretStr | None = None
    options: dict[str, str | int | float | bool | list[str]] = Field(default_factory=dict)
    max_body_bytes: int | None = Field(default=None, ge=1, le=26 * 1024 * 1024)
    rate_per_s: float | None = Field(default=None, gt=0, description="requests a second before 429; absent: no limit")
    on_log_down: str | None = Field(default=None, pattern="^(spool|refuse)$")


class SupervisionSpec(Spec):
    """How runs are watched that the agent accepted with a 202, or fetched (`protocol: pull`)."""

    accepted: Literal["supervise", "done"] = Field(
        default="supervise", description="what a 202 means: the run is watched until the agent reports, or it is done"
    )
    lease: Span = Field(default=300.0, ge=1, le=86_400, description="a run that nothing is heard of for so long has stalled")
    max_run: Span = Field(default=3600.0, ge=1, le=2_592_000, description="the longest run, heartbeats or not")
    on_stall: Literal["retry", "escalate"] = Field(
        default="retry", description="try it again on the schedule, or park it for a person"
    )
    on_needs_human: Literal["park", "end"] = Field(
        default="park", description="whether `needs_human` keeps the invocation, and its lane, waiting for a person"
    )


class AgentSpec(Spec):
    """A destination and how to speak to it.  `protocol: pull` has no `url`: the agent fetches its work."""

    protocol: str = "webhook"
    url: str = ""
    secret: SecretStr | None = None
    max_concurrency: int = Field(default=8, ge=1, le=10_000)
    rate_per_s: float | None = Field(
        default=None, gt=0, le=100_000, description="attempts a second on average; absent: no limit"
    )
    burst: int = Field(default=1, ge=1, le=100_000, description="attempts at once that a rate allows after a quiet spell")
    timeout_s: Span = Field(default=30.0, gt=0, le=3600)
    shards: int = Field(
        default=1, ge=1, le=64, description="over how many processes its keys may be spread; each has its share of the limits"
    )
    allow_private: bool = False
    headers: dict[str, str] = Field(default_factory=dict)
    supervision: SupervisionSpec = SupervisionSpec()

    @property
    def is_pull(self) -> bool:
        """Whether the agent fetches its work, and is never called."""
        return self.protocol == PULL

    @model_validator(mode="after")
    def _has_enough_for_each(self) -> AgentSpec:
        if self.max_concurrency < self.shards:
            raise ValueError("`max_concurrency` is divided among the `shards`: it is at least as many")
        if self.rate_per_s is not None and self.burst < self.shards and self.burst > 1:
            raise ValueError("`burst` is divided among the `shards`: it is 1, or at least as many")
        return self


class QuotaSpec(Spec):
    """How many attempts all agents of a team may make together in each span of time."""

    attempts: int = Field(ge=1, le=1_000_000_000)
    per: Span = Field(gt=0, le=31 * 86_400)


class RetryPolicy(Spec):
    """How often, how long and how fast an invocation is tried again.  Spans are seconds."""

    max_attempts: int = Field(default=12, ge=1, le=1000)
    max_age: Span = Field(default=86_400.0, gt=0)
    first_delay: Span = Field(default=5.0, ge=0)
    max_delay: Span = Field(default=3600.0, ge=0)


class HistorySpec(Spec):
    """The last events of the same thing, one line each."""

    events: int = Field(default=5, ge=1, le=100)
    max_age: Span = Field(default=30 * 86_400.0, gt=0)


class LookupSpec(Spec):
    """One HTTP lookup that completes the context.  `{…}` in the URL's path or query takes one value of the event, encoded."""

    url: str
    view: str | None = None
    headers: dict[str, str] = Field(default_factory=dict, description="may name secrets of the vault: ${secret.NAME}")
    timeout: Span = Field(default=3.0, gt=0, le=30)
    cache: Span = Field(default=60.0, ge=0, le=86_400)
    max_bytes: int = Field(default=65_536, ge=1, le=1024 * 1024)
    max_tokens: int = Field(default=500, ge=1)
    allow_private: bool = False


class ContextSpec(Spec):
    """What the agent gets to know.

    `required` names members of the context (`title`, `customer.id`), facts (`facts.tier`) or lookups (`enrich.crm`) that are
    never cut; where one is absent or cannot fit, `on_missing` decides.  `on_overflow` decides where something else was cut.
    """

    view: str | None = None
    max_tokens: int | None = Field(default=None, ge=1)
    required: tuple[str, ...] = ()
    history: HistorySpec | None = None
    facts: tuple[str, ...] = Field(default=(), description="names of facts about the thing; * is all of them")
    enrich: dict[str, LookupSpec] = Field(default_factory=dict)
    format: Literal["json", "text", "cloudevent"] = "json"
    template: str | None = Field(default=None, max_length=8192, description="a Jinja2 template for `format: text`, sandboxed")
    model: str | None = Field(default=None, description="the model that reads it: tokens are counted for its family")
    on_missing: Literal["flag", "park", "refuse"] = "flag"
    on_overflow: Literal["cut", "park", "refuse"] = "cut"

    @property
    def is_plain(self) -> bool:
        """Whether a view and a budget are all that is asked for."""
        asks_more = self.required or self.history or self.facts or self.enrich or self.model
        return self.format == "json" and self.on_overflow == "cut" and not asks_more


class SubscriptionState(StrEnum):
    """Whether a subscription wakes its agent."""

    LIVE = "live"
    PAUSED = "paused"
    DISABLED = "disabled"  # by a 410 of the agent; an apply does not undo it


class DedupSpec(Spec):
    """Events whose `key` (JMESPath over the event's document) is equal within `window` wake the agent once."""

    key: str = Field(min_length=1, max_length=1000)
    window: Span = Field(gt=0, le=35 * 86_400)


class StaleSpec(Spec):
    """What becomes of a late event: one that is older than what its key has seen, by the vendor's own version or time.

    It is always marked.  `deliver` does no more, `flag` tells the agent too, `drop` delivers nothing.
    """

    then: Literal["deliver", "flag", "drop"] = "flag"
    version: str | None = Field(
        default=None,
        max_length=1000,
        description="JMESPath: a number or an instant that grows; absent: the event's own version, else its time",
    )


class ConcurrencySpec(Spec):
    """How many attempts of a subscription may run at once, beside its agent's `max_concurrency`: in all, and per key."""

    max: int | None = Field(default=None, ge=1, le=10_000)
    key: str | None = Field(default=None, min_length=1, max_length=1000, description="JMESPath over the event's document")
    per_key: int = Field(default=1, ge=1, le=10_000)
    scope: Literal["subscription", "agent"] = Field(
        default="subscription", description="agent: equal keys of all its subscriptions of that scope are counted together"
    )

    @model_validator(mode="after")
    def _says_something(self) -> ConcurrencySpec:
        if self.max is None and self.key is None:
            raise ValueError("write `max`, or `key` with `per_key`")
        if self.key is None and self.model_fields_set & {"per_key", "scope"}:
            raise ValueError("`per_key` and `scope` need a `key`")
        return self


class DebounceSpec(Spec):
    """Wait until a key has been quiet for `wait`, at most `max_wait`; then hand over all of its events as one digest."""

    wait: Span = Field(gt=0, le=7 * 86_400)
    max_wait: Span = Field(gt=0, le=7 * 86_400)
    max_events: int = Field(default=100, ge=1, le=1000, description="a digest that has as many goes at once")
    key: str | None = Field(default=None, min_length=1, max_length=1000, description="JMESPath; absent: the ordering key")

    @model_validator(mode="after")
    def _is_a_window(self) -> DebounceSpec:
        if self.max_wait < self.wait:
            raise ValueError("`max_wait` is shorter than `wait`")
        return self


class BatchSpec(Spec):
    """Hand over events as one digest: when there are `max_events`, or the first has waited for `max_wait`."""

    max_events: int = Field(ge=1, le=1000)
    max_wait: Span = Field(gt=0, le=7 * 86_400)
    key: str | None = Field(
        default=None, min_length=1, max_length=1000, description="JMESPath; absent: all of the subscription together"
    )


class FallbackStep(Spec):
    """One step of a fallback chain, exactly one of: `wait`, `agent`, `notify`, `bury`."""

    wait: Span | None = Field(default=None, gt=0, le=2_592_000, description="so long, then one more try")
    agent: Name | None = Field(default=None, description="another agent gets it, with a budget of its own")
    notify: Name | None = Field(default=None, description="an agent (protocol webhook) that tells a person, signed as ever")
    bury: bool = Field(default=False, description="end here; what every chain does at its end")
    attempts: int | None = Field(default=None, ge=1, le=1000, description="of the other agent; absent: as `retry` says")
    max_age: Span | None = Field(default=None, gt=0, description="of the other agent's budget; absent: as `retry` says")
    answer_within: Span = Field(
        default=0.0, ge=0, le=2_592_000, description="how long a redrive or a cancel by the person told is waited for"
    )

    @model_validator(mode="after")
    def _one_move(self) -> FallbackStep:
        moves = [name for name in ("wait", "agent", "notify", "bury") if getattr(self, name)]
        if len(moves) != 1:
            raise ValueError("a step is exactly one of `wait`, `agent`, `notify` and `bury`")
        if moves != ["agent"] and (self.attempts is not None or self.max_age is not None):
            raise ValueError("`attempts` and `max_age` belong to a step `agent`")
        if moves != ["notify"] and self.answer_within:
            raise ValueError("`answer_within` belongs to a step `notify`")
        return self


def _buried_in_words(steps: Any) -> Any:
    """`bury`, as it is written, among the steps."""
    if not isinstance(steps, list | tuple):
        return steps
    return [{"bury": True} if step == "bury" else step for step in steps]


def _or_bury(schema: dict[str, Any]) -> None:
    schema["items"] = {"anyOf": [schema["items"], {"const": "bury"}]}


Fallback = Annotated[
    tuple[FallbackStep, ...], BeforeValidator(_buried_in_words), Field(max_length=20, json_schema_extra=_or_bury)
]


class SubscriptionSpec(Spec):
    """Which events wake which agent, and how.

    Exactly one of `pattern` (EventBridge), `filters` (CloudEvents Subscriptions) and `cesql` says which; `when` is a CEL guard
    on what matched; `extensions` opts in to what a pattern may use beyond EventBridge.
    """

    agent: Name
    pattern: dict[str, Any] = Field(default_factory=dict)
    filters: tuple[dict[str, Any], ...] = ()
    cesql: str | None = None
    when: str | None = None
    extensions: tuple[str, ...] = ()
    dedup: DedupSpec | None = None
    order: Order = Order.STRICT
    on_burial: Literal["continue", "block"] = Field(
        default="continue", description="after a burial its key goes on, or is blocked until an operator redrives or skips it"
    )
    stale: StaleSpec | None = None
    context: ContextSpec = ContextSpec()
    retry: RetryPolicy = RetryPolicy()
    delay: Span = Field(default=0.0, ge=0, le=2_592_000, description="how long an event waits before it wakes the agent")
    expires_after: Span | None = Field(
        default=None, gt=0, description="how long after its receipt an event is still worth an attempt; absent: always"
    )
    concurrency: ConcurrencySpec | None = None
    rate_per_s: float | None = Field(
        default=None,
        gt=0,
        le=100_000,
        description="attempts a second on average, beside the agent's rate; absent: no limit",
    )
    burst: int = Field(default=1, ge=1, le=100_000, description="attempts at once that a rate allows after a quiet spell")
    debounce: DebounceSpec | None = None
    batch: BatchSpec | None = None
    fallback: Fallback = Field(default=(), description="what is tried, step by step, before an event is buried")
    fallback_lane: Literal["wait", "go_on"] = Field(
        default="wait", description="whether the events behind one that is on its fallback chain wait for it"
    )
    state: SubscriptionState = SubscriptionState.LIVE

    @property
    def agents(self) -> tuple[str, ...]:
        """Every agent that its events may come to, its own first, each once."""
        others = [name for step in self.fallback for name in (step.agent, step.notify) if name is not None]
        return tuple(dict.fromkeys((self.agent, *others)))

    @property
    def hears_outcomes(self) -> bool:
        """Whether its rule names our own events; what takes everything must not be woken by what it leads to."""
        return "nightbell" in f"{self.pattern}{self.filters}{self.cesql}"

    @property
    def digest(self) -> DebounceSpec | BatchSpec | None:
        """What gathers several events into one invocation."""
        return self.debounce or self.batch

    @model_validator(mode="after")
    def _one_flow(self) -> SubscriptionSpec:
        if self.debounce and self.batch:
            raise ValueError("debounce and batch stand side by side: one of them gathers events")
        if self.digest and self.order is not Order.STRICT:
            raise ValueError("a digest keeps every event, in order: debounce and batch need `order: strict`")
        if self.on_burial == "block" and self.order is Order.NONE:
            raise ValueError("with `order: none` no event waits for another: `on_burial: block` needs strict or latest")
        return self

    @model_validator(mode="after")
    def _one_language(self) -> SubscriptionSpec:
        given = [name for name in ("pattern", "filters", "cesql") if getattr(self, name)]
        if len(given) > 1:
            raise ValueError(
                f"{' and '.join(given)} stand side by side: exactly one of pattern, filters and cesql says which events"
            )
        if not given and "pattern" not in self.model_fields_set:
            raise ValueError("one of pattern, filters and cesql must say which events")
        return self


@dataclass(frozen=True, slots=True)
class SourceConfig:
    """A source as ingest uses it; its secrets are in the clear, so it is never logged."""

    team: str
    name: str
    uid: str
    spec: SourceSpec


@dataclass(frozen=True, slots=True)
class AgentConfig:
    """An agent as the dispatcher uses it: today's address, secrets (newest first) and limits."""

    team: str
    name: str
    uid: str
    shard: int
    spec: AgentSpec
    secrets: tuple[str, ...]
    quota: QuotaSpec | None = None  # its team's


@dataclass(frozen=True, slots=True)
class SubscriptionConfig:
    """A subscription as the router and the dispatcher use it.  A deleted one is `draining` until its queue is empty."""

    team: str
    name: str
    uid: str
    generation: int
    spec: SubscriptionSpec
    draining: bool = False
    agent_shards: int = 1  # over how many its agent's keys are spread
