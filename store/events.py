"""Kept events as operators look at them: lists, one event, its body, records that were set aside."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import zstandard
from sqlalchemy import ColumnElement, Text, and_, bindparam, exists, func, or_, select

from schemas.errors import DamagedRecord
from store.bodies import unpacked
from store.engine import Engine, fetch
from store.prepared import Prepared, among
from store.tables import bodies, events, invocations, rejected

LOOK_BACK = 100_000  # events that are looked through for a source's last one: no index of the hot path's is spent on it
UNMATCHED, OPEN = "unmatched", "open"  # outcomes beside the states of invocations
_COLUMNS = (
    "seq", "id", "team", "source", "provider", "family", "type", "kind", "subject", "partitionkey", "time_ms", "received_ms",
    "appended_ms", "admitted_ms", "topic", "partition", "position", "envelope", "pointer", "body_digest", "flags", "replay_id",
    "invocations",
)  # fmt: skip
_WANTED = [events.c[name] for name in _COLUMNS]
_ONE = Prepared(select(*_WANTED).where(events.c.team == bindparam("team_"), events.c.id == bindparam("id_")), "team_", "id_")
_MANY = Prepared(
    select(*_WANTED).where(events.c.team == bindparam("team_"), among(events.c.id, "ids")).order_by(events.c.seq),
    "team_",
    "ids",
)
_BODY = Prepared(select(bodies.c.coding, bodies.c.body).where(bodies.c.digest == bindparam("digest_")), "digest_")
_STATES = Prepared(
    select(invocations.c.event_id, invocations.c.state, func.count())
    .where(among(invocations.c.event_id, "ids"))
    .group_by(invocations.c.event_id, invocations.c.state),
    "ids",
)
_REJECTED_COLUMNS = (
    "seq",
    "log_id",
    "topic",
    "partition",
    "position",
    "key",
    "headers",
    "value",
    "appended_ms",
    "reason",
    "at_ms",
)
_REJECTED = Prepared(
    select(*(rejected.c[name] for name in _REJECTED_COLUMNS))
    .where(rejected.c.seq < bindparam("before"))
    .order_by(rejected.c.seq.desc())
    .limit(bindparam("limit_")),
    "before",
    "limit_",
)
_REJECTED_COUNT = Prepared(select(func.count(), func.min(rejected.c.at_ms)))
_any = events.alias("any_event")
_LAST_OF_SOURCE = Prepared(
    select(events.c.received_ms)
    .where(
        events.c.seq > select(func.max(_any.c.seq)).scalar_subquery() - LOOK_BACK,
        events.c.team == bindparam("team_"),
        events.c.source == bindparam("source_"),
    )
    .order_by(events.c.seq.desc())
    .limit(1),
    "team_",
    "source_",
)

_TYPES = Prepared(
    select(events.c.type)
    .where(events.c.seq > select(func.max(_any.c.seq)).scalar_subquery() - LOOK_BACK, events.c.team == bindparam("team_"))
    .distinct(),
    "team_",
)


@dataclass(frozen=True, slots=True)
class EventRow:
    """A kept event; `envelope` is JSON."""

    seq: int
    id: str
    team: str
    source: str
    provider: str
    family: str
    type: str
    kind: str
    subject: str
    partitionkey: str
    time_ms: int
    received_ms: int
    appended_ms: int
    admitted_ms: int
    topic: str
    partition: int
    position: int
    envelope: str
    pointer: str
    body_digest: bytes
    flags: str
    replay_id: str
    invocations: int


@dataclass(frozen=True, slots=True)
class RejectedRow:
    """A record of the log that could not be routed."""

    seq: int
    log_id: str
    topic: str
    partition: int
    position: int
    key: str
    headers: str
    value: bytes
    appended_ms: int
    reason: str
    at_ms: int


@dataclass(frozen=True, slots=True)
class EventFilter:
    """Which events are wanted; what is None or empty is not asked.

    `type` and `subject` that end in `*` mean what begins so.  `outcome` is a state of an invocation, an attempt's word kept as
    its outcome, `open` (something is unfinished) or `unmatched`.
    """

    since_ms: int | None = None
    until_ms: int | None = None
    source: str = ""
    type: str = ""
    subject: str = ""
    outcome: str = ""
    event: str = ""
    admitted_until_ms: int | None = None

    def asked(self) -> dict[str, Any]:
        """The names of the conditions that are asked, with their parameters' values."""
        times = {"since": self.since_ms, "until": self.until_ms, "admitted": self.admitted_until_ms}
        found: dict[str, Any] = {name: value for name, value in times.items() if value is not None}
        found |= {name: value for name in ("source", "event") if (value := getattr(self, name))}
        for name in ("type", "subject"):
            value = getattr(self, name)
            if value.endswith("*"):
                found[f"{name}_begins"] = value[:-1]
            elif value:
                found[name] = value
        if self.outcome in {UNMATCHED, OPEN}:
            found[self.outcome] = 1
        elif self.outcome:
            found["outcome"] = self.outcome
        return found


def _invocation_of_event(*conditions: ColumnElement[bool]) -> ColumnElement[bool]:
    return exists().where(invocations.c.event_id == events.c.id, *conditions)


def _begins(column: ColumnElement[str], name: str) -> ColumnElement[bool]:
    # Not LIKE, which ignores case on SQLite; not a range, which depends on the collation of PostgreSQL.
    return func.substr(column, 1, func.length(bindparam(name, type_=Text()))) == bindparam(name, type_=Text())


_CONDITIONS: dict[str, ColumnElement[bool]] = {
    "since": events.c.received_ms >= bindparam("since_"),
    "until": events.c.received_ms < bindparam("until_"),
    "source": events.c.source == bindparam("source_"),
    "admitted": events.c.admitted_ms <= bindparam("admitted_"),
    "event": events.c.id == bindparam("event_"),
    "type": events.c.type == bindparam("type_"),
    "type_begins": _begins(events.c.type, "type_begins_"),
    "subject": events.c.subject == bindparam("subject_"),
    "subject_begins": _begins(events.c.subject, "subject_begins_"),
    OPEN: _invocation_of_event(invocations.c.ended_ms < bindparam(f"{OPEN}_")),
    UNMATCHED: events.c.invocations < bindparam(f"{UNMATCHED}_"),
    "outcome": _invocation_of_event(
        or_(invocations.c.state == bindparam("outcome_"), invocations.c.outcome == bindparam("outcome_"))
    ),
}


@lru_cache(maxsize=256)
def _page_of(asked: tuple[str, ...]) -> Prepared:
    where = and_(
        events.c.team == bindparam("team_"), events.c.seq < bindparam("before"), *(_CONDITIONS[name] for name in asked)
    )
    statement = select(*_WANTED).where(where).order_by(events.c.seq.desc()).limit(bindparam("limit_"))
    return Prepared(statement, "team_", "before", "limit_", *(f"{name}_" for name in asked))


@lru_cache(maxsize=256)
def _total_of(asked: tuple[str, ...]) -> Prepared:
    where = and_(events.c.team == bindparam("team_"), *(_CONDITIONS[name] for name in asked))
    return Prepared(select(func.count()).select_from(events).where(where), "team_", *(f"{name}_" for name in asked))


@lru_cache(maxsize=256)
def _next_of(asked: tuple[str, ...]) -> Prepared:
    where = and_(
        events.c.team == bindparam("team_"),
        events.c.seq > bindparam("after"),
        *(_CONDITIONS[name] for name in asked),
    )
    statement = select(*_WANTED).where(where).order_by(events.c.seq).limit(bindparam("limit_"))
    return Prepared(statement, "team_", "after", "limit_", *(f"{name}_" for name in asked))


async def event_page(engine: Engine, team: str, wanted: EventFilter, *, before: int, limit: int) -> list[EventRow]:
    """A page of a team's events that were admitted before the one at `before`, newest first."""
    asked = wanted.asked()
    rows = await fetch(engine, _page_of(tuple(asked)), team, before, limit, *asked.values())
    return [EventRow(*row) for row in rows]


async def events_after(engine: Engine, team: str, wanted: EventFilter, *, after: int, limit: int) -> list[EventRow]:
    """The next events behind `after`, oldest first: for replays, which keep their order."""
    asked = wanted.asked()
    rows = await fetch(engine, _next_of(tuple(asked)), team, after, limit, *asked.values())
    return [EventRow(*row) for row in rows]


async def event_total(engine: Engine, team: str, wanted: EventFilter) -> int:
    """How many events of a team there are of that kind."""
    asked = wanted.asked()
    return int((await fetch(engine, _total_of(tuple(asked)), team, *asked.values()))[0][0])


async def events_of(engine: Engine, team: str, ids: Sequence[str]) -> list[EventRow]:
    """Those events of a team that are kept, in the order of their admission."""
    return [EventRow(*row) for row in await fetch(engine, _MANY, team, ids)]


async def event_row(engine: Engine, team: str, event_id: str) -> EventRow | None:
    """One event of a team; None where there is none."""
    rows = await fetch(engine, _ONE, team, event_id)
    return EventRow(*rows[0]) if rows else None


async def states_of(engine: Engine, event_ids: list[str]) -> Mapping[str, dict[str, int]]:
    """How many invocations of each event are in each state."""
    found: dict[str, dict[str, int]] = {}
    for event_id, state, count in await fetch(engine, _STATES, event_ids):
        found.setdefault(event_id, {})[state] = count
    return found


async def body_of(engine: Engine, digest: bytes) -> bytes | None:
    """The request's bytes; None where their retention is over.  Raises `DamagedRecord`."""
    rows = await fetch(engine, _BODY, digest)
    if not rows:
        return None
    try:
        return unpacked(*rows[0])
    except zstandard.ZstdError as exc:
        raise DamagedRecord("a stored body does not decompress") from exc


async def rejected_count(engine: Engine) -> tuple[int, int]:
    """How many records were set aside and are kept, and when the first of them was (0: there are none)."""
    count, first_ms = (await fetch(engine, _REJECTED_COUNT))[0]
    return int(count), int(first_ms or 0)


async def rejected_page(engine: Engine, *, before: int, limit: int) -> list[RejectedRow]:
    """A page of the records that were set aside, newest first.  They belong to no team: they could not be read."""
    return [RejectedRow(*row) for row in await fetch(engine, _REJECTED, before, limit)]


async def last_received_ms(engine: Engine, team: str, source: str) -> int:
    """When a source's last kept event was received; 0 where none is among the last `LOOK_BACK` of all."""
    rows = await fetch(engine, _LAST_OF_SOURCE, team, source)
    return int(rows[0][0]) if rows else 0


async def types_kept(engine: Engine, team: str) -> set[str]:
    """The types of a team's kept events among the last `LOOK_BACK` of all."""
    return {row[0] for row in await fetch(engine, _TYPES, team)}
