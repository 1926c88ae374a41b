"""What operators declare: sources, agents and subscriptions, as `nightbell.yaml` and the API write them.

A spec is what was written (secrets apart); `…Config` is a spec with its name, uid and generation, as the stages receive it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PlainSerializer, SecretStr

from schemas.invocation import Order
from schemas.times import seconds_of

DEFAULT_TEAM = "default"
NAME_PATTERN = r"^[a-z0-9][a-z0-9_-]{0,62}$"
_NAME = re.compile(NAME_PATTERN)

Name = Annotated[str, Field(pattern=NAME_PATTERN)]
Span = Annotated[float, BeforeValidator(seconds_of), PlainSerializer(float), Field(json_schema_extra={"type": ["number", "string"]})]


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


class AgentSpec(Spec):
    """A destination and how to speak to it."""

    protocol: str = "webhook"
    url: str
    secret: SecretStr | None = None
    max_concurrency: int = Field(default=8, ge=1, le=10_000)
    timeout_s: Span = Field(default=30.0, gt=0, le=3600)
    allow_private: bool = False
    headers: dict[str, str] = Field(default_factory=dict)


class RetryPolicy(Spec):
    """How often, how long and how fast an invocation is tried again.  Spans are seconds."""

    max_attempts: int = Field(default=12, ge=1, le=1000)
    max_age: Span = Field(default=86_400.0, gt=0)
    first_delay: Span = Field(default=5.0, ge=0)
    max_delay: Span = Field(default=3600.0, ge=0)


class ContextSpec(Spec):
    """What the agent gets to know."""

    view: str | None = None
    max_tokens: int | None = Field(default=None, ge=1)


class SubscriptionState(StrEnum):
    """Whether a subscription wakes its agent."""

    LIVE = "live"
    PAUSED = "paused"
    DISABLED = "disabled"  # by a 410 of the agent; an apply does not undo it


class SubscriptionSpec(Spec):
    """Which events wake which agent, and how."""

    agent: Name
    pattern: dict[str, Any]
    order: Order = Order.STRICT
    context: ContextSpec = ContextSpec()
    retry: RetryPolicy = RetryPolicy()
    state: SubscriptionState = SubscriptionState.LIVE


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


@dataclass(frozen=True, slots=True)
class SubscriptionConfig:
    """A subscription as the router and the dispatcher use it.  A deleted one is `draining` until its queue is empty."""

    team: str
    name: str
    uid: str
    generation: int
    spec: SubscriptionSpec
    draining: bool = False
