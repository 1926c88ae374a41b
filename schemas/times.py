"""Instants as whole milliseconds since 1970 in UTC, and how people read them; no clock is asked here."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from functools import lru_cache
from re import compile as regex

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_DURATION = regex(r"^\s*(\d+(?:\.\d+)?)\s*(ms|s|m|h|d|w)?\s*$")
_UNIT_S = {"ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800, None: 1}


def iso(at_ms: int) -> str:
    """RFC 3339 in UTC, with milliseconds only where there are any: `2026-11-21T10:00:01.120Z`."""
    second, rest = divmod(at_ms, 1000)
    return f"{_second(second)}.{rest:03d}Z" if rest else f"{_second(second)}Z"


@lru_cache(maxsize=4096)
def _second(at_s: int) -> str:
    """Events of one second are many, and writing it is the dearest part of an envelope."""
    return datetime.fromtimestamp(at_s, UTC).strftime("%Y-%m-%dT%H:%M:%S")


def ms_of(text: str) -> int:
    """The instant that an ISO 8601 `text` names; one without an offset is read as UTC.  Raises ValueError."""
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return (moment - _EPOCH) // timedelta(milliseconds=1)


def seconds_of(text: str | float) -> float:
    """A span in seconds: a number is seconds, text has a unit (`250ms`, `30s`, `5m`, `24h`, `7d`).  Raises ValueError."""
    if isinstance(text, int | float) and not isinstance(text, bool):
        return float(text)
    found = _DURATION.match(str(text))
    if not found:
        raise ValueError(f"{text!r} is no span of time: write a number and ms, s, m, h, d or w, as in 30s")
    return float(found[1]) * _UNIT_S[found[2]]
