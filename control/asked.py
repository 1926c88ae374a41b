"""What callers of the API may ask and send: one model for each query and each body."""

from __future__ import annotations

import base64
import binascii
from enum import StrEnum
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from control.auth import Role
from schemas.config import Name
from schemas.errors import Invalid
from schemas.invocation import State
from schemas.times import ms_of, seconds_of

DEFAULT_LIMIT, MAX_LIMIT = 50, 500
NO_NUL = r"^[^\x00]*$"  # PostgreSQL's text holds none
HIGHEST = 1 << 62
_DIGITS = 18
_LONGEST_NOTE = 2000


class Asked(BaseModel):
    """Base of all: unknown parameters and fields are refused, what was sent is not echoed in errors."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)


def _is_moment(text: str) -> str:
    moment_ms(text, now_ms=0)
    return text


def moment_ms(text: str, *, now_ms: int) -> int:
    """The instant that `text` means: ISO 8601, or a span (`2h`) before `now_ms`.  Raises ValueError."""
    try:
        return now_ms - round(seconds_of(text) * 1000)
    except ValueError:
        pass
    try:
        return ms_of(text)
    except ValueError as exc:
        raise ValueError("write an instant as 2026-11-21T10:00:00Z, or a span before now as 2h") from exc


Moment = Annotated[
    str, AfterValidator(_is_moment), Field(max_length=64, description="ISO 8601, or a span before now, as in `2h`")
]
Text = Annotated[str, Field(min_length=1, max_length=512, pattern=NO_NUL)]
Pattern = Annotated[
    str, Field(min_length=1, max_length=512, pattern=NO_NUL, description="exact; ending in `*`: what begins so")
]


class Resolution(StrEnum):
    """What a person says of an invocation that waits for one."""

    DONE = "done"
    DECLINED = "declined"
    FAILED = "failed"
    AGAIN = "again"


class Page(Asked):
    """Which page of a list."""

    limit: int = Field(default=DEFAULT_LIMIT, ge=1, le=MAX_LIMIT)
    cursor: Annotated[str, Field(max_length=256)] | None = Field(default=None, description="`next_cursor` of the page before")

    def before(self, kind: str) -> int:
        """The number of the row that the page begins after, of rows counted down.  Raises `Invalid`."""
        return HIGHEST if self.cursor is None else self._number(kind, self.cursor)

    def skipped(self, kind: str) -> int:
        """How many rows stand before the page, of a list that only grows.  Raises `Invalid`."""
        return 0 if self.cursor is None else self._number(kind, self.cursor)

    def _number(self, kind: str, cursor: str) -> int:
        place = read_cursor(kind, cursor)
        if not place.isascii() or not place.isdigit() or len(place) > _DIGITS:
            raise Invalid("this is no cursor of this list", place="/cursor")
        return int(place)


def write_cursor(kind: str, place: int | str) -> str:
    """The cursor of a list's page that ends with the row of that number or name."""
    return base64.urlsafe_b64encode(f"{kind}:{place}".encode()).decode().rstrip("=")


def read_cursor(kind: str, cursor: str) -> str:
    """The row that `write_cursor` wrote.  Raises `Invalid`."""
    try:
        of, colon, place = base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)).decode().partition(":")
    except (binascii.Error, ValueError):
        of = colon = place = ""
    if not colon or of != kind:
        raise Invalid("this is no cursor of this list", place="/cursor")
    return place


class Span(Asked):
    """From when and until when."""

    since: Moment | None = None
    until: Moment | None = None

    def since_ms(self, now_ms: int) -> int | None:
        """`since` as an instant."""
        return None if self.since is None else moment_ms(self.since, now_ms=now_ms)

    def until_ms(self, now_ms: int) -> int | None:
        """`until` as an instant."""
        return None if self.until is None else moment_ms(self.until, now_ms=now_ms)


class EventQuery(Page, Span):
    """Which events."""

    source: Name | None = None
    type: Pattern | None = None
    subject: Pattern | None = None
    outcome: Text | None = Field(
        default=None, description="a state of its invocations, an outcome of them, `open`, or `unmatched`"
    )


class ExplainQuery(Asked):
    """For which subscription; all, where left out."""

    subscription: Name | None = None


class InvocationQuery(Page, Span):
    """Which invocations."""

    state: State | None = None
    agent: Name | None = None
    subscription: Name | None = None
    event: Text | None = None


class ApplyQuery(Asked):
    """How to apply."""

    dry_run: bool = False
    prune: bool = Field(default=False, description="remove what the file once made and no longer names")
    cancel: bool = Field(default=False, description="cancel what is queued for what is removed, instead of delivering it")


class PutQuery(Asked):
    """How to write one object."""

    dry_run: bool = False
    force: bool = Field(default=False, description="write it although a file manages it")


class DeleteQuery(Asked):
    """How to delete one object."""

    dry_run: bool = False
    force: bool = Field(default=False, description="delete it although a file manages it")
    cancel: bool = Field(default=False, description="cancel what is queued for it, instead of delivering it")


class CancelQuery(Asked):
    """How to cancel."""

    dry_run: bool = False
    force: bool = Field(default=False, description="end a run here and now, instead of asking it to stop at its next heartbeat")


class ResolveBody(Asked):
    """What becomes of an invocation that waits for a person."""

    outcome: Resolution
    note: str = Field(default="", max_length=_LONGEST_NOTE, pattern=NO_NUL)


class LeaseBody(Asked):
    """Work that is asked for."""

    max: int = Field(default=1, ge=1, le=100, description="how many invocations at most")
    wait_s: float = Field(default=30.0, ge=0, le=60, description="how long to wait where there is nothing")
    worker: str = Field(default="", max_length=128, pattern=NO_NUL, description="what the caller calls itself, for people")


class StreamQuery(Asked):
    """A stream of work."""

    max: int = Field(default=1, ge=1, le=100, description="how many unfinished invocations at a time")
    worker: str = Field(default="", max_length=128, pattern=NO_NUL, description="what the caller calls itself, for people")


class DryRunQuery(Asked):
    """Whether to try only."""

    dry_run: bool = False


class DeadReason(StrEnum):
    """Why something was buried, by classes."""

    CONTEXT = "context"
    REJECTED = "rejected"
    MAX_ATTEMPTS = "max_attempts"
    MAX_AGE = "max_age"
    GONE = "gone"
    REPORTED = "reported"
    OTHER = "other"


class DeadQuery(Page, Span):
    """Which dead letters; the times are those of their burial."""

    reason: DeadReason | None = None
    agent: Name | None = None
    subscription: Name | None = None
    event: Text | None = None


class PurgesBody(Span):
    """Which dead letters are purged; the times are those of their burial."""

    reason: DeadReason | None = None
    agent: Name | None = None
    subscription: Name | None = None
    event: Text | None = None
    dry_run: bool = False


class RedrivesBody(Span):
    """Which ended invocations are tried again."""

    state: State = State.BURIED
    reason: DeadReason | None = Field(default=None, description="of what was buried: why, by its class")
    agent: Name | None = None
    subscription: Name | None = None
    event: Text | None = None
    dry_run: bool = False


class ReplaysBody(Span):
    """Which kept events are planned anew."""

    event: Text | None = None
    source: Name | None = None
    type: Pattern | None = None
    subject: Pattern | None = None
    outcome: Text | None = None
    subscription: Name | None = Field(default=None, description="plan for this subscription only")
    dry_run: bool = False


class KeyBody(Asked):
    """A new API key."""

    name: Name
    role: Role
    agent: Name | None = Field(default=None, description="with the role agent: whose calls the key opens")
    expires_at: Annotated[str, Field(max_length=64)] | None = Field(default=None, description="ISO 8601")


class MatchBody(Asked):
    """A rule to try on an event: the fields of a subscription that say which events wake it, or the name of a kept one."""

    pattern: dict[str, Any] | None = None
    filters: list[dict[str, Any]] | None = None
    cesql: str | None = None
    when: str | None = None
    extensions: list[str] | None = None
    subscription: Name | None = None
    event: str | dict[str, Any] = Field(description="a kept event's id, or a whole document")


class CurateBody(Asked):
    """A context to try on a kept event."""

    event: Text
    subscription: Name | None = None
    view: str | None = None
    max_tokens: int | None = Field(default=None, ge=1)


class Verdict(StrEnum):
    """What an agent says of its run."""

    DONE = "done"
    DECLINED = "declined"
    NEEDS_HUMAN = "needs_human"
    FAILED = "failed"
    UNSURE = "unsure"
    STOPPED = "stopped"  # as a heartbeat's answer asked


class Usage(Asked):
    """What a run cost."""

    input_tokens: int | None = Field(default=None, ge=0)
    context_tokens: int | None = Field(
        default=None, ge=0, description="of `context` and what stands beside it alone, as the model's provider counts them"
    )
    output_tokens: int | None = Field(default=None, ge=0)
    cost: float | None = Field(default=None, ge=0)
    currency: str | None = Field(default=None, pattern="^[A-Z]{3}$")
    model: str | None = Field(default=None, max_length=128)


class CompleteBody(Asked):
    """How a run ended."""

    outcome: Verdict = Verdict.DONE
    note: str = Field(default="", max_length=_LONGEST_NOTE)
    result: Any = None
    usage: Usage | None = None


class FailBody(Asked):
    """That a run failed."""

    error: str = Field(default="", max_length=_LONGEST_NOTE)
    retryable: bool = True


class HeartbeatBody(Asked):
    """That a run goes on."""


class CheckpointBody(Asked):
    """What the next attempt should get back: at most 16 KiB of JSON."""

    checkpoint: Any


class StatusBody(Asked):
    """Where a run stands, for people."""

    tried: str = Field(default="", max_length=_LONGEST_NOTE)
    blocked: str = Field(default="", max_length=_LONGEST_NOTE)
    next: str = Field(default="", max_length=_LONGEST_NOTE)
