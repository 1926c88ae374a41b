"""What the API gives about dead letters."""

from __future__ import annotations

from pydantic import Field

from control.answers import Answer, Listed
from control.answers_work import Fallback


class DeadLetter(Answer):
    """A buried invocation: `kind` is its reason's class, `status` and `error` are its last attempt's."""

    id: str
    event_id: str
    type: str
    subject: str
    subscription: str
    agent: str
    kind: str
    reason: str
    attempts: int
    status: int
    error: str
    ordering_key: str
    created_at: str
    buried_at: str | None


class DeadLetters(Listed):
    """Dead letters, newest first."""

    items: list[DeadLetter]


class DeadCount(Answer):
    """How many dead letters there are of one class of reason and one agent, and when the oldest was buried."""

    kind: str
    agent: str
    count: int
    oldest_at: str | None


class DeadCounts(Listed):
    """Dead letters by reason and agent, the most first."""

    items: list[DeadCount]
    total: int


class Header(Answer):
    """One header field; a value that is or may be a secret is `(hidden)`."""

    name: str
    value: str


class Exchange(Answer):
    """One attempt on the wire.  Headers are kept of failed ones; `body` is what was sent, its token as `(token)`."""

    attempt: int
    started_at: str
    outcome: str
    error: str
    method: str
    url: str
    headers: list[Header]
    body: str
    is_kept: bool = Field(description="whether the body that was sent is kept")
    bytes_sent: int
    status: int
    answer_headers: list[Header]
    answer: str = Field(description="the first 4 KiB of what came back")


class ShownDeadLetter(DeadLetter):
    """A dead letter with everything that was sent and received, and the links of its fallback chain."""

    exchanges: list[Exchange]
    fallbacks: list[Fallback]


class Purged(Answer):
    """A dead letter that was, or would be, purged."""

    id: str
    dry_run: bool
