"""What callers ask of lanes, and what they are answered."""

from __future__ import annotations

from enum import StrEnum

from pydantic import Field

from control.answers import Answer, Listed
from control.asked import Asked, Page, Text
from schemas.config import Name


class LaneQuery(Page):
    """Which lanes."""

    agent: Name | None = None
    subscription: Name | None = None
    blocked: bool = Field(default=False, description="only those that wait for an operator")


class Unblocked(StrEnum):
    """How a blocked key goes on."""

    REDRIVE = "redrive"
    SKIP = "skip"


class UnblockBody(Asked):
    """Which blocked keys go on, and how; with neither agent, subscription nor key: all of the team."""

    how: Unblocked
    agent: Name | None = None
    subscription: Name | None = None
    key: Text | None = Field(default=None, description="an ordering key")
    dry_run: bool = False


class Lane(Answer):
    """One key of one subscription that has unfinished invocations; `since` is when its head was planned."""

    lane: str
    subscription: str
    agent: str
    ordering_key: str
    queued: int
    blocked: bool
    waits_for: str
    due_at: str | None
    shard: int
    head: str
    head_state: str
    head_attempts: int
    since: str


class Lanes(Listed):
    """Lanes."""

    items: list[Lane]


class UnblockedLanes(Answer):
    """How many keys go on (with `dry_run`: would)."""

    count: int
    how: str
    dry_run: bool


class Quota(Answer):
    """A team's quota, how much of the present span is given out, and when the next begins; all null: there is none."""

    attempts: int | None
    per: float | None
    taken: int | None
    span_ends_in_s: float | None
