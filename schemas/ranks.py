"""Which of two events of one thing is the older, by what their vendor says: its version, else its time."""

from __future__ import annotations

from decimal import Decimal, InvalidOperation
from functools import lru_cache
from typing import NamedTuple

from schemas.times import ms_of

_LONGEST = 64


class Rank(NamedTuple):
    """How new an event is: its version as the vendor writes it ("" where there is none), and when it happened."""

    version: str
    time_ms: int


def older_by(mine: Rank, seen: Rank) -> str:
    """By what `mine` is older than `seen`: `version`, `time`, or "" where it is not.

    Versions decide where both are numbers or both are instants; else, and where one has none, the times do.  What is equally
    new is not late: many vendors write whole seconds.
    """
    one, other = _measured(mine.version), _measured(seen.version)
    if one is not None and other is not None and one[0] == other[0]:
        return "version" if one[1] < other[1] else ""
    return "time" if mine.time_ms < seen.time_ms else ""


@lru_cache(maxsize=1024)
def _measured(version: str) -> tuple[str, Decimal] | None:
    """A version as a number, of one of two kinds that do not compare with each other; None where it is neither."""
    if not version or len(version) > _LONGEST:
        return None
    try:
        number = Decimal(version)
    except InvalidOperation:
        pass
    else:
        return ("number", number) if number.is_finite() else None
    try:
        return "instant", Decimal(ms_of(version))
    except (ValueError, OverflowError):
        return None
