"""Errors as callers of the API see them: one table from class to status, and the problem+json around it (RFC 9457)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from schemas import errors
from schemas.errors import Invalid, NightbellError

MEDIA_TYPE = "application/problem+json"

STATUS: dict[type[NightbellError], int] = {
    errors.Refused: 400,
    errors.MalformedRequest: 400,
    errors.BadSignature: 401,
    errors.Unauthenticated: 401,
    errors.NotAllowed: 403,
    errors.NotFound: 404,
    errors.WrongMethod: 405,
    errors.TooSlow: 408,
    errors.Conflict: 409,
    errors.TooLarge: 413,
    errors.UnsupportedMedia: 415,
    errors.Invalid: 422,
    errors.Throttled: 429,
    errors.Busy: 503,
    errors.AgentFailed: 502,
    errors.AgentTimedOut: 504,
    errors.Misconfigured: 500,
    errors.AddressRefused: 422,
}


@dataclass(frozen=True, slots=True)
class Flaw:
    """One thing that is wrong with a document.  `place` is the path to it, its parts joined by `/`."""

    place: str
    message: str

    def as_json(self) -> dict[str, str]:
        """As the problem lists it."""
        return {"place": self.place, "message": self.message}


class Flawed(Invalid):
    """The document has flaws; nothing was applied."""

    def __init__(self, flaws: Sequence[Flaw]) -> None:
        """Keep `flaws`, all that were found."""
        first = flaws[0]
        more = f" (and {len(flaws) - 1} more)" if len(flaws) > 1 else ""
        super().__init__(f"{first.place}: {first.message}{more}")
        self.flaws = tuple(flaws)


@dataclass(frozen=True, slots=True)
class Problem:
    """What the caller gets: `extra` are members of the document beside RFC 9457's own."""

    status: int
    code: str
    title: str
    detail: str
    retry_after_s: int | None = None
    extra: dict[str, Any] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        """The document."""
        return {
            **self.extra,
            "type": f"urn:nightbell:problem:{self.code}",
            "title": self.title,
            "status": self.status,
            "detail": self.detail,
            "code": self.code,
        }


def status_of(error: type[NightbellError]) -> int:
    """The status of an error's class: its own line of the table, else that of the nearest class above it."""
    return next(STATUS[kind] for kind in error.__mro__ if kind in STATUS) if issubclass(error, tuple(STATUS)) else 500


def problem_of(error: NightbellError) -> Problem:
    """The problem that tells of `error`."""
    kind = type(error)
    extra: dict[str, Any] = {name: value for name, value in error.fields.items() if name != "place"}
    if isinstance(error, Flawed):
        extra["errors"] = [flaw.as_json() for flaw in error.flaws]
    elif "place" in error.fields:
        extra["errors"] = [Flaw(str(error.fields["place"]), error.detail).as_json()]
    retry_after = error.retry_after_s if isinstance(error, errors.Busy) else None
    return Problem(status_of(kind), error.code, _title(kind), error.detail, retry_after, extra)


def _title(kind: type[NightbellError]) -> str:
    return (kind.__doc__ or "").strip().partition("\n")[0].partition(": ")[0].rstrip(".")
