"""Invocations and their attempts as operators look at them; what changes them is in the ledger."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from sqlalchemy import ColumnElement, and_, bindparam, func, select

from store.deadletters import KIND
from store.engine import Engine, fetch
from store.prepared import Prepared, among
from store.tables import attempts, invocations

_COLUMNS = (
    "seq", "id", "team", "event_id", "subscription_uid", "subscription", "generation", "agent", "shard", "lane", "ordering_key",
    "ordering", "state", "reason", "outcome", "attempts", "tries", "created_ms", "due_ms", "ended_ms", "replay_id",
)  # fmt: skip
_WANTED = [invocations.c[name] for name in _COLUMNS]
_ATTEMPT_COLUMNS = (
    "invocation_seq", "number", "started_ms", "ended_ms", "deadline_ms", "owner", "outcome", "status", "error", "answer",
    "duration_ms", "sent", "tokens", "bytes_sent", "context_digest",
)  # fmt: skip
_TEAM = invocations.c.team == bindparam("team_")
_ONE = Prepared(select(*_WANTED).where(_TEAM, invocations.c.id == bindparam("id_")), "team_", "id_")
_OF_EVENT = Prepared(
    select(*_WANTED).where(_TEAM, invocations.c.event_id == bindparam("event_")).order_by(invocations.c.seq), "team_", "event_"
)
_ATTEMPTS = Prepared(
    select(*(attempts.c[name] for name in _ATTEMPT_COLUMNS))
    .where(among(attempts.c.invocation_seq, "seqs"))
    .order_by(attempts.c.invocation_seq, attempts.c.number),
    "seqs",
)
_COUNTS = Prepared(
    select(invocations.c.state, func.count()).where(_TEAM).group_by(invocations.c.state),
    "team_",
)


@dataclass(frozen=True, slots=True)
class InvocationRow:
    """A kept invocation.  `ended_ms` is 0 while it is open."""

    seq: int
    id: str
    team: str
    event_id: str
    subscription_uid: str
    subscription: str
    generation: int
    agent: str
    shard: int
    lane: str
    ordering_key: str
    ordering: str
    state: str
    reason: str
    outcome: str
    attempts: int
    tries: int
    created_ms: int
    due_ms: int
    ended_ms: int
    replay_id: str


@dataclass(frozen=True, slots=True)
class AttemptRow:
    """A kept attempt.  `ended_ms` is 0 while it is open."""

    invocation_seq: int
    number: int
    started_ms: int
    ended_ms: int
    deadline_ms: int
    owner: str
    outcome: str
    status: int
    error: str
    answer: bytes | None
    duration_ms: float
    sent: int
    tokens: int
    bytes_sent: int
    context_digest: str


@dataclass(frozen=True, slots=True)
class InvocationFilter:
    """Which invocations are wanted; what is None or empty is not asked.  Times are those of their planning."""

    state: str = ""
    agent: str = ""
    subscription: str = ""
    event: str = ""
    kind: str = ""  # of a dead letter's reason
    since_ms: int | None = None
    until_ms: int | None = None

    def asked(self) -> dict[str, Any]:
        """The names of the conditions that are asked, with their parameters' values."""
        found = {name: value for name in ("state", "agent", "subscription", "event", "kind") if (value := getattr(self, name))}
        times = {"since": self.since_ms, "until": self.until_ms}
        return found | {name: value for name, value in times.items() if value is not None}


_CONDITIONS: dict[str, ColumnElement[bool]] = {
    "state": invocations.c.state == bindparam("state_"),
    "agent": invocations.c.agent == bindparam("agent_"),
    "subscription": invocations.c.subscription == bindparam("subscription_"),
    "event": invocations.c.event_id == bindparam("event_"),
    "kind": bindparam("kind_") == KIND,
    "since": invocations.c.created_ms >= bindparam("since_"),
    "until": invocations.c.created_ms < bindparam("until_"),
}


@lru_cache(maxsize=64)
def _page_of(asked: tuple[str, ...]) -> Prepared:
    where = and_(_TEAM, invocations.c.seq < bindparam("before"), *(_CONDITIONS[name] for name in asked))
    statement = select(*_WANTED).where(where).order_by(invocations.c.seq.desc()).limit(bindparam("limit_"))
    return Prepared(statement, "team_", "before", "limit_", *(f"{name}_" for name in asked))


@lru_cache(maxsize=64)
def _next_of(asked: tuple[str, ...]) -> Prepared:
    where = and_(_TEAM, invocations.c.seq > bindparam("after"), *(_CONDITIONS[name] for name in asked))
    statement = select(*_WANTED).where(where).order_by(invocations.c.seq).limit(bindparam("limit_"))
    return Prepared(statement, "team_", "after", "limit_", *(f"{name}_" for name in asked))


@lru_cache(maxsize=64)
def _total_of(asked: tuple[str, ...]) -> Prepared:
    where = and_(_TEAM, *(_CONDITIONS[name] for name in asked))
    return Prepared(select(func.count()).select_from(invocations).where(where), "team_", *(f"{name}_" for name in asked))


async def invocation_page(
    engine: Engine, team: str, wanted: InvocationFilter, *, before: int, limit: int
) -> list[InvocationRow]:
    """A page of a team's invocations before the one at `before`, newest first."""
    asked = wanted.asked()
    rows = await fetch(engine, _page_of(tuple(asked)), team, before, limit, *asked.values())
    return [InvocationRow(*row) for row in rows]


async def invocations_after(
    engine: Engine, team: str, wanted: InvocationFilter, *, after: int, limit: int
) -> list[InvocationRow]:
    """The next invocations behind `after`, oldest first: for redrives, which keep their order."""
    asked = wanted.asked()
    rows = await fetch(engine, _next_of(tuple(asked)), team, after, limit, *asked.values())
    return [InvocationRow(*row) for row in rows]


async def invocation_total(engine: Engine, team: str, wanted: InvocationFilter) -> int:
    """How many invocations of a team there are of that kind."""
    asked = wanted.asked()
    return int((await fetch(engine, _total_of(tuple(asked)), team, *asked.values()))[0][0])


async def invocation_row(engine: Engine, team: str, invocation_id: str) -> InvocationRow | None:
    """One invocation of a team; None where there is none."""
    rows = await fetch(engine, _ONE, team, invocation_id)
    return InvocationRow(*rows[0]) if rows else None


async def invocations_of(engine: Engine, team: str, event_id: str) -> list[InvocationRow]:
    """The invocations of one event, in the order of their planning."""
    return [InvocationRow(*row) for row in await fetch(engine, _OF_EVENT, team, event_id)]


async def attempts_of(engine: Engine, seqs: list[int]) -> dict[int, list[AttemptRow]]:
    """The attempts of these invocations (by their `seq`), each in order."""
    found: dict[int, list[AttemptRow]] = {}
    for row in await fetch(engine, _ATTEMPTS, seqs):
        attempt = AttemptRow(*row)
        found.setdefault(attempt.invocation_seq, []).append(attempt)
    return found


async def state_counts(engine: Engine, team: str) -> dict[str, int]:
    """How many invocations of a team are in each state."""
    return {state: count for state, count in await fetch(engine, _COUNTS, team)}  # noqa: C416 - rows are sequences, not pairs
